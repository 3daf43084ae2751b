//! Hot cores without sockets, for micro-benchmarks: each function does its work once.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use sealane_proto::resource::NetworkContent;
use sealane_proto::types::Weight;

use crate::balance::{Balancer, Outcome};
use crate::detect;
use crate::http::{Parsed, request};
use crate::request::RequestView;
use crate::route::{Destination, Routes};

pub use crate::tunnel::frame::benching::Framing;

/// Parses the head of a request; returns its length, or 0 if it is none.
#[must_use]
pub fn request_head(bytes: &[u8]) -> usize {
    match request::parse(bytes) {
        Ok(Parsed::Complete(_, length)) => length,
        Ok(Parsed::Partial) | Err(_) => 0,
    }
}

/// Reads what a route looks at in a head that was parsed; returns the length of it.
#[must_use]
pub fn request_view(head: &[u8]) -> usize {
    let view = RequestView::Http1(head);
    let field = view.field("traceparent").map_or(0, <[u8]>::len);
    view.method().len() + view.path().len() + view.authority().map_or(0, str::len) + field
}

/// Returns true if the first bytes of a client say what it speaks.
#[must_use]
pub fn is_detected(bytes: &[u8]) -> bool {
    detect::client(bytes).is_some()
}

/// Routes of a network.
#[derive(Debug)]
pub struct Routing(Routes);

impl Routing {
    /// Arranges them.
    #[must_use]
    pub fn new(network: &NetworkContent) -> Self {
        Self(Routes::new(network))
    }

    /// Returns true if a call to this address leads to a service or a workload.
    #[must_use]
    pub fn leads_somewhere(&self, called: SocketAddr) -> bool {
        matches!(self.0.destination(called), Destination::Service(_) | Destination::Workload(_))
    }
}

/// Balancer over endpoints that all answer within a millisecond.
#[derive(Debug)]
pub struct Balancing(Balancer<SocketAddr>);

impl Balancing {
    /// A balancer over so many endpoints of the same weight.
    #[must_use]
    pub fn over(endpoints: u8) -> Self {
        let endpoint = |number| SocketAddr::new(Ipv4Addr::new(10, 42, 0, number).into(), 8080);
        Self(Balancer::new((1..=endpoints).map(|number| (endpoint(number), Weight::default()))))
    }

    /// Picks an endpoint for a piece of work, which it answers.
    pub fn pick(&mut self, now: Instant, random: u64) {
        let Some(pick) = self.0.pick(now, random, &[]) else { return };
        let outcome = Outcome::Answered(Duration::from_micros(random % 1000));
        self.0.settle(pick, Some(outcome), now);
        self.0.report(pick, outcome, now);
        self.0.release(pick);
    }
}
