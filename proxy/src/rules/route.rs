//! Routes as their documents have them, without what a sidecar need not know.

use std::time::{Duration, SystemTime};

use sealane_proto::types::{Port, ServiceName};

use super::{Cors, FieldEdits, Redirect, Rewrite};

/// A route of HTTP or of gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Network and name, as `shop/orders`.
    pub(crate) name: String,
    /// Time of its creation: the oldest has precedence.
    pub(crate) created: SystemTime,
    /// The rules, in their order.
    pub(crate) rules: Vec<RouteRule>,
}

/// A rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteRule {
    /// Name within its route.
    pub(crate) name: Option<String>,
    /// Requests that it is for: those that match one of these, or all where there is none.
    pub(crate) matches: Vec<Matching>,
    /// Changes of all its requests.
    pub(crate) filters: Filters,
    /// Backends that share the requests.
    pub(crate) targets: Vec<Target>,
    /// Limits of time.
    pub(crate) limits: Limits,
    /// Terms of further attempts, where they are not the usual ones.
    pub(crate) retry: Option<Retry>,
}

/// Conditions of which a request must meet all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matching {
    /// Condition on the path.
    pub(crate) path: PathMatch,
    /// The method.
    pub(crate) method: Option<String>,
    /// Fields of the head, by their names; of several of one name the first counts.
    pub(crate) fields: Vec<(String, ValueMatch)>,
    /// Parameters of the query, by their names; of several of one name the first counts.
    pub(crate) params: Vec<(String, ValueMatch)>,
}

/// Condition on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathMatch {
    /// The value is this one.
    Exact(String),
    /// The elements of this one begin it.
    Prefix(String),
    /// This regular expression matches all of it.
    Expression(String),
    /// The last of two elements is this one: a method of any service of gRPC.
    Method(String),
}

/// Condition on a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueMatch {
    /// The value is this one.
    Exact(String),
    /// This regular expression matches all of it.
    Expression(String),
}

/// Changes of requests and their answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    /// Changes of a request's fields.
    pub(crate) request: FieldEdits,
    /// Changes of an answer's fields.
    pub(crate) response: FieldEdits,
    /// Answer that leads elsewhere, in place of the service's.
    pub(crate) redirect: Option<Redirect>,
    /// Another path or host.
    pub(crate) rewrite: Option<Rewrite>,
    /// Backends that get copies.
    pub(crate) mirrors: Vec<Mirror>,
    /// Words for browsers about calls from other sites.
    pub(crate) cors: Option<Cors>,
}

/// A backend with its share of a rule's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The service's port; `None` where the reference does not resolve.
    pub(crate) service: Option<ServiceAt>,
    /// The share, beside those of the others.
    pub(crate) weight: u32,
    /// Changes of its requests alone.
    pub(crate) filters: Filters,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceAt {
    /// The service.
    pub(crate) name: ServiceName,
    /// The port.
    pub(crate) port: Port,
}

/// A backend that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The service's port; `None` where the reference does not resolve, and nothing is copied.
    pub(crate) service: Option<ServiceAt>,
    /// So many of so many requests.
    pub(crate) share: (u32, u32),
}

/// Limits of time; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// From the request's head to the end of its answer.
    pub(crate) request: Option<Duration>,
    /// The same of one attempt.
    pub(crate) attempt: Option<Duration>,
}

/// Terms of further attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Statuses of answers that are asked for again.
    pub(crate) codes: Vec<u16>,
    /// Number of further attempts.
    pub(crate) attempts: Option<u32>,
    /// Time before the first of them, which doubles with each.
    pub(crate) backoff: Option<Duration>,
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}
