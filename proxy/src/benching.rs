//! Hot cores without sockets, for micro-benchmarks: each function does its work once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sealane_proto::resource::{NetworkChange, NetworkContent};
use sealane_proto::types::Weight;

use crate::balance::{Balancer, Outcome};
use crate::detect;
use crate::http::{Parsed, request};
use crate::request::RequestView;
use crate::route::{Destination, Routes};
use crate::rules::{Matching, PathMatch, Route, RouteRule, Rules};

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
#[derive(Clone, Debug)]
pub struct Routing(Routes);

impl Routing {
    /// Arranges them.
    #[must_use]
    pub fn new(network: &NetworkContent) -> Self {
        Self(Routes::new(network))
    }

    /// The routes after a change, which share what has not changed.
    #[must_use]
    pub fn after(&self, change: &NetworkChange) -> Self {
        let mut after = self.clone();
        after.0.change(change);
        after
    }

    /// Returns true if a call to this address leads to a service or a workload.
    #[must_use]
    pub fn leads_somewhere(&self, called: SocketAddr) -> bool {
        matches!(self.0.destination(called), Destination::Service(_) | Destination::Workload(_))
    }
}

/// Rules of a route, each for a prefix and an exact path of its own, and for one method behind that.
#[derive(Debug)]
pub struct Ruling(Rules);

impl Ruling {
    /// So many rules.
    #[must_use]
    pub fn of(count: usize) -> Self {
        let matching = |path, method: Option<&str>| Matching {
            path,
            method: method.map(str::to_owned),
            ..Matching::default()
        };
        let rule = |n: usize| RouteRule {
            matches: vec![
                matching(PathMatch::Prefix(format!("/v1/part-{n}/items")), None),
                matching(PathMatch::Exact(format!("/v1/part-{n}")), Some("GET")),
            ],
            ..RouteRule::default()
        };
        let rules = (0..count).map(rule).collect();
        let route = Route { name: "shop/api".to_owned(), created: SystemTime::UNIX_EPOCH, rules };
        Self(Rules::new([Arc::new(route)].into()))
    }

    /// Returns true if there is a rule for the request with this head.
    #[must_use]
    pub fn has_rule(&self, head: &[u8]) -> bool {
        self.0.find(RequestView::Http1(head)).is_some()
    }
}

/// Balancer over endpoints that all answer within a millisecond.
#[derive(Debug)]
pub struct Balancing(Balancer<SocketAddr>);

impl Balancing {
    /// A balancer over so many endpoints of the same weight.
    #[must_use]
    pub fn over(endpoints: u16) -> Self {
        Self(Balancer::new(weighted(endpoints, false)))
    }

    /// Gives it so many endpoints, in the order of before or in the other one.
    pub fn update(&mut self, endpoints: u16, turned: bool) {
        self.0.update(weighted(endpoints, turned));
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

fn weighted(endpoints: u16, turned: bool) -> impl Iterator<Item = (SocketAddr, Weight)> {
    (1..=endpoints).map(move |number| {
        let [high, low] = (if turned { endpoints + 1 - number } else { number }).to_be_bytes();
        (SocketAddr::new(Ipv4Addr::new(10, 42, high, low).into(), 8080), Weight::default())
    })
}
