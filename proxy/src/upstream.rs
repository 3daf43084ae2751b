//! Knowledge of one worker about a target: its endpoints and how they did, its retry budget, its metrics.

mod open;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sealane_proto::types::{Port, Protocol, ServiceName, Weight};

use crate::balance::{Balancer, Outcome, Pick};
use crate::budget::RetryBudget;
use crate::route::{self, Endpoint, Reach, Target};
use crate::telemetry::{Direction, Parties, Telemetry, Traffic, UNKNOWN};

pub(crate) use open::{Errand, Far, OpenFailure, open};

/// A target of the workload's calls.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Name for people.
    pub(crate) label: String,
    /// Name in metrics.
    pub(crate) party: String,
    /// The called service, if it is one.
    pub(crate) service: Option<ServiceName>,
    /// Destination that the workload called.
    pub(crate) destination: SocketAddr,
    /// The application's port.
    pub(crate) port: Port,
    /// Handles of its metrics.
    pub(crate) traffic: Arc<Traffic>,
    protocol: Cell<Protocol>,
    balancer: RefCell<Balancer<Endpoint>>,
    budget: RefCell<RetryBudget>,
    telemetry: Arc<Telemetry>,
}

/// A piece of work at an endpoint; it counts as pending there until it is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    /// Endpoint that does it.
    pub(crate) endpoint: Endpoint,
    /// Pick of the balancer.
    pub(crate) pick: Pick,
    /// True once anything was reported.
    judged: Cell<bool>,
    upstream: Rc<Upstream>,
}

impl Upstream {
    /// The target behind a destination; `None` where nothing can be called.
    pub(crate) fn new(
        target: &Target,
        destination: SocketAddr,
        own_label: &str,
        telemetry: &Arc<Telemetry>,
    ) -> Option<Rc<Self>> {
        let port = Port::try_from(destination.port()).ok()?;
        let (label, service) = match target {
            Target::Service(route) => (route.service.to_string(), Some(route.service.clone())),
            Target::Workload(route) => (route.label().to_owned(), route.service.clone()),
            Target::Passthrough => (UNKNOWN.to_owned(), None),
            Target::Unmapped(_) => return None,
        };
        let party = match target {
            Target::Workload(_) => route::party(service.as_ref()).to_owned(),
            Target::Service(_) | Target::Passthrough | Target::Unmapped(_) => label.clone(),
        };
        let parties = Parties {
            direction: Direction::Outbound,
            source: own_label.to_owned(),
            destination: party.clone(),
        };
        Some(Rc::new(Self {
            label,
            party,
            service,
            destination,
            port,
            traffic: telemetry.traffic(parties),
            protocol: Cell::new(protocol(target, destination)),
            balancer: RefCell::new(Balancer::new(endpoints(target, destination))),
            budget: RefCell::new(RetryBudget::new(Instant::now())),
            telemetry: telemetry.clone(),
        }))
    }

    /// Takes over a newer configuration; false when it is about something else, and a new upstream is due.
    pub(crate) fn update(&self, target: &Target) -> bool {
        let (label, service) = match target {
            Target::Service(route) => (route.service.as_str(), Some(&route.service)),
            Target::Workload(route) => (route.label(), route.service.as_ref()),
            Target::Passthrough | Target::Unmapped(_) => return false,
        };
        if label != self.label || service != self.service.as_ref() {
            return false;
        }
        self.protocol.set(protocol(target, self.destination));
        self.balancer.borrow_mut().update(endpoints(target, self.destination));
        true
    }

    /// Explains to a client, in one line, that the called side's rules forbid its call.
    pub(crate) fn denial(&self) -> String {
        let Self { label, port, .. } = self;
        let (what, fix, whose) = match &self.service {
            None => ("it is no instance of a service", "--service and ", "its network"),
            Some(_) => ("it does not offer that one", "", "the service or its network"),
        };
        format!(
            "{label} does not let calls to port {port} pass: {what}, and with mtls: strict only offered ports are reachable; \
             start it with {fix}--port {port}, or set mtls: permissive on {whose}"
        )
    }

    /// Returns the protocol that is spoken there.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Begins a piece of work at one of the endpoints; `None` when there is none.
    pub(crate) fn pick(self: &Rc<Self>, tried: &[Pick]) -> Option<Work> {
        let mut balancer = self.balancer.borrow_mut();
        let pick = balancer.pick(Instant::now(), rand::random(), tried)?;
        let endpoint = balancer.key(pick)?.clone();
        Some(Work { endpoint, pick, judged: Cell::new(false), upstream: self.clone() })
    }

    /// A request (or connection) was made.
    pub(crate) fn deposit(&self) {
        self.budget.borrow_mut().deposit();
    }

    /// Counts a retry that needs nobody's leave: the endpoint wants the same request on another connection.
    pub(crate) fn move_on(&self, reason: &str) {
        self.telemetry.retries.with_label_values(&[reason]).inc();
    }

    /// Asks for a retry; a granted one is counted.
    pub(crate) fn retry(&self, reason: &str) -> bool {
        let granted = self.budget.borrow_mut().withdraw(Instant::now());
        if granted {
            self.telemetry.retries.with_label_values(&[reason]).inc();
        }
        granted
    }
}

impl Work {
    /// Reports the outcome of the work at its endpoint.
    pub(crate) fn report(&self, outcome: Outcome) {
        if matches!(outcome, Outcome::Answered(_) | Outcome::Overloaded(_)) {
            self.upstream.telemetry.troubles.handle_success(self.endpoint.address.ip());
        }
        let (mut balancer, now) = (self.upstream.balancer.borrow_mut(), Instant::now());
        if !self.judged.replace(true) {
            balancer.settle(self.pick, Some(outcome), now);
        }
        if balancer.report(self.pick, outcome, now) {
            self.upstream.telemetry.ejections.inc();
            tracing::debug!(target = %self.upstream.label, endpoint = %self.endpoint.address, "ejected");
        }
    }

    /// The endpoint failed.
    pub(crate) fn report_failure(&self, outcome: Outcome, reason: &str) {
        self.upstream.telemetry.endpoint_failures.with_label_values(&[reason]).inc();
        if matches!(outcome, Outcome::Broken | Outcome::Refused) {
            let troubles = &self.upstream.telemetry.troubles;
            troubles.handle_failure(self.endpoint.address.ip(), reason, Instant::now());
        }
        self.report(outcome);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.judged.get() {
            self.report(Outcome::Abandoned);
        }
        self.upstream.balancer.borrow_mut().release(self.pick);
    }
}

fn endpoints(target: &Target, destination: SocketAddr) -> Vec<(Endpoint, Weight)> {
    let lone = |reach| vec![(Endpoint { address: destination, reach }, Weight::default())];
    match target {
        Target::Service(route) => route.endpoints.clone(),
        Target::Workload(route) => lone(route.reach.clone()),
        Target::Passthrough => lone(Reach::Plain),
        Target::Unmapped(_) => Vec::new(),
    }
}

fn protocol(target: &Target, destination: SocketAddr) -> Protocol {
    match target {
        Target::Service(route) => route.protocol,
        Target::Workload(route) => route.protocol(destination.port()),
        Target::Passthrough | Target::Unmapped(_) => Protocol::Tcp,
    }
}
