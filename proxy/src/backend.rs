//! Backends of the workload's calls: each has endpoints and how they did, a retry budget and metrics.

mod backends;
mod open;
mod pools;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sealane_proto::types::{Port, Protocol, ServiceName, Weight};

use crate::balance::{Balancer, Outcome, Pick};
use crate::budget::RetryBudget;
use crate::dispatch::{self, Failure, Next, Repeatability};
use crate::route::{self, Destination, Endpoint, Reach};
use crate::rules::Rules;
use crate::telemetry::{Direction, Parties, Telemetry, Traffic, UNKNOWN};

pub(crate) use backends::{Backends, Choice};
pub(crate) use open::{Connection, Purpose, open};
pub(crate) use pools::Pools;

/// Endpoints that serve the same calls, as one worker knows them.
#[derive(Debug)]
pub(crate) struct Backend {
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
    /// Meaning of the destination in the newest configuration.
    meaning: RefCell<Destination>,
    protocol: Cell<Protocol>,
    balancer: RefCell<Balancer<Endpoint>>,
    budget: RefCell<RetryBudget>,
    telemetry: Arc<Telemetry>,
    /// True if it was chosen since somebody asked.
    used: Cell<bool>,
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
    backend: Rc<Backend>,
}

impl Backend {
    /// The backend of a destination; `None` where nothing can be called.
    pub(crate) fn new(
        meaning: &Destination,
        destination: SocketAddr,
        own_label: &str,
        telemetry: &Arc<Telemetry>,
    ) -> Option<Rc<Self>> {
        let port = Port::try_from(destination.port()).ok()?;
        let (label, service) = match meaning {
            Destination::Service(route) => (route.service.to_string(), Some(route.service.clone())),
            Destination::Workload(route) => (route.label().to_owned(), route.service.clone()),
            Destination::Passthrough => (UNKNOWN.to_owned(), None),
            Destination::Unmapped(_) => return None,
        };
        let party = match meaning {
            Destination::Workload(_) => route::party(service.as_ref()).to_owned(),
            Destination::Service(_) | Destination::Passthrough | Destination::Unmapped(_) => label.clone(),
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
            meaning: RefCell::new(meaning.clone()),
            protocol: Cell::new(protocol(meaning, destination)),
            balancer: RefCell::new(Balancer::new(endpoints(meaning, destination))),
            budget: RefCell::new(RetryBudget::new(Instant::now())),
            telemetry: telemetry.clone(),
            used: Cell::new(true),
        }))
    }

    /// Takes over a newer configuration; false when it is about something else, and a new backend is due. Where nothing has changed of
    /// the destination, nothing is done.
    pub(crate) fn update(&self, meaning: &Destination) -> bool {
        if meaning.is_still(&self.meaning.borrow()) {
            return true;
        }
        let (label, service) = match meaning {
            Destination::Service(route) => (route.service.as_str(), Some(&route.service)),
            Destination::Workload(route) => (route.label(), route.service.as_ref()),
            Destination::Passthrough | Destination::Unmapped(_) => return false,
        };
        if label != self.label || service != self.service.as_ref() {
            return false;
        }
        self.protocol.set(protocol(meaning, self.destination));
        self.balancer.borrow_mut().update(endpoints(meaning, self.destination));
        self.meaning.replace(meaning.clone());
        true
    }

    /// Notes that it was chosen for a call.
    pub(crate) fn note_use(&self) {
        self.used.set(true);
    }

    /// Returns true if it was chosen since the last call of this.
    pub(crate) fn take_used(&self) -> bool {
        self.used.take()
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
        Some(Work { endpoint, pick, judged: Cell::new(false), backend: self.clone() })
    }

    /// The rules for its requests, where it is a service with routes of HTTP.
    pub(crate) fn rules(&self) -> Option<Arc<Rules>> {
        match &*self.meaning.borrow() {
            Destination::Service(route) => route.rules.clone(),
            Destination::Workload(_) | Destination::Passthrough | Destination::Unmapped(_) => None,
        }
    }

    /// Asks for one further attempt that a rule wants.
    pub(crate) fn withdraw(&self) -> bool {
        self.budget.borrow_mut().withdraw(Instant::now())
    }

    /// Returns true if there is one endpoint alone.
    pub(crate) fn is_alone(&self) -> bool {
        self.balancer.borrow().len() < 2
    }

    /// A request (or connection) was made.
    pub(crate) fn deposit(&self) {
        self.budget.borrow_mut().deposit();
    }

    /// Decides what follows the failure of the last of so many attempts; a further one is counted.
    pub(crate) fn next(&self, failure: &Failure, attempts: usize, request: Repeatability) -> Next {
        let mut budget = self.budget.borrow_mut();
        let next = dispatch::next(failure, attempts, request, &mut budget, Instant::now());
        if next == Next::Again {
            self.telemetry.retries.with_label_values(&[failure.reason()]).inc();
        }
        next
    }
}

impl Work {
    /// Reports the outcome of the work at its endpoint.
    pub(crate) fn report(&self, outcome: Outcome) {
        if matches!(outcome, Outcome::Answered(_) | Outcome::Overloaded(_)) {
            self.backend.telemetry.troubles.handle_success(self.endpoint.address.ip());
        }
        let (mut balancer, now) = (self.backend.balancer.borrow_mut(), Instant::now());
        if !self.judged.replace(true) {
            balancer.settle(self.pick, Some(outcome), now);
        }
        if balancer.report(self.pick, outcome, now) {
            self.backend.telemetry.ejections.inc();
            tracing::debug!(target = %self.backend.label, endpoint = %self.endpoint.address, "ejected");
        }
    }

    /// Reports a failed attempt.
    pub(crate) fn blame(&self, failure: &Failure) {
        match failure.verdict() {
            None => {}
            Some(Outcome::Abandoned) => self.report(Outcome::Abandoned),
            Some(outcome) => self.report_failure(outcome, failure.reason()),
        }
    }

    /// The endpoint failed.
    pub(crate) fn report_failure(&self, outcome: Outcome, reason: &str) {
        self.backend.telemetry.endpoint_failures.with_label_values(&[reason]).inc();
        if matches!(outcome, Outcome::Broken | Outcome::Refused) {
            let troubles = &self.backend.telemetry.troubles;
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
        self.backend.balancer.borrow_mut().release(self.pick);
    }
}

fn endpoints(meaning: &Destination, destination: SocketAddr) -> Vec<(Endpoint, Weight)> {
    let lone = |address, reach| vec![(Endpoint { address, reach }, Weight::default())];
    match meaning {
        Destination::Service(route) => route.endpoints.clone(),
        Destination::Workload(route) => {
            lone(SocketAddr::new(route.place, destination.port()), route.reach.clone())
        }
        Destination::Passthrough => lone(destination, Reach::Plain),
        Destination::Unmapped(_) => Vec::new(),
    }
}

/// The protocol that is spoken at a destination. Where routes are attached it is HTTP, whatever the first bytes look like: what a rule
/// refuses must not get past it in other clothes.
fn protocol(meaning: &Destination, destination: SocketAddr) -> Protocol {
    match meaning {
        Destination::Service(route) if route.rules.is_some() && route.protocol == Protocol::Auto => {
            Protocol::Http
        }
        Destination::Service(route) => route.protocol,
        Destination::Workload(route) => route.protocol(destination.port()),
        Destination::Passthrough | Destination::Unmapped(_) => Protocol::Tcp,
    }
}
