//! Rules of the HTTP routes of a service, arranged for looking up. Pure.
//!
//! [`Rules`] come from [`Route`]s, which say what the documents HTTPRoute and GRPCRoute say. A request finds its rule by the
//! precedence that the Gateway API documents (`HTTPRouteRule.matches`): exact paths by a hash, prefixes by a tree of path elements, so
//! that hundreds of rules cost as few. Hosts do not select here: a service's routes are for all calls to it, whatever they name; who
//! listens for several hosts keeps rules for each.

mod condition;
mod cors;
mod document;
mod edit;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod path;
mod plan;
mod rewrite;
mod route;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::request::RequestView;
use table::Table;

pub(crate) use cors::Cors;
pub(crate) use document::{Between, grpc_rules, http_rules};
pub(crate) use edit::FieldEdits;
pub(crate) use plan::{Answer, Forward, Plan};
pub(crate) use rewrite::{Listener, NewPath, Redirect, Rewrite};
pub(crate) use route::{
    Filters, Limits, Matching, Mirror, PathMatch, Retry, Route, RouteRule, ServiceAt, Target, ValueMatch,
};

/// The rules of all routes of one service's port. They never change.
#[derive(Debug)]
pub(crate) struct Rules {
    routes: Arc<[Arc<Route>]>,
    table: Table,
}

/// A rule that a request has found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    /// The route that has the rule.
    pub(crate) route: &'a Route,
    /// The rule.
    pub(crate) rule: &'a RouteRule,
    /// Prefix by which the path matched, without a slash at its end; nothing where it did not match by one.
    pub(crate) prefix: &'a str,
}

impl Rules {
    /// Arranges the rules of these routes.
    pub(crate) fn new(routes: Arc<[Arc<Route>]>) -> Self {
        let table = Table::new(&routes);
        Self { routes, table }
    }

    /// Finds the rule of a request.
    #[cfg(any(test, feature = "benching", feature = "fuzzing"))]
    pub(crate) fn find(&self, request: RequestView<'_>) -> Option<Found<'_>> {
        self.find_as(request, request.method())
    }

    /// Finds the rule of a request as if it had this method.
    fn find_as(&self, request: RequestView<'_>, method: &str) -> Option<Found<'_>> {
        let candidate = self.table.find(request, method)?;
        let route = self.routes.get(candidate.route)?;
        Some(Found { route, rule: route.rules.get(candidate.rule)?, prefix: candidate.prefix() })
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.routes == other.routes
    }
}

impl Eq for Rules {}
