//! `kind: HTTPRoute`.

mod filter;
mod rule;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dropped::Dropped;
use super::metadata::{ObjectMetadata, RouteVersion};
use super::parent::{self, ParentRef};
use super::place::Place;
use super::text::Hostname;
use crate::resource::document::{DocumentType, FieldError};
pub(super) use filter::{FILTERS, check_fields, missing, unsupported};
pub use filter::{HttpAction, HttpFilter, HttpFilterType};
pub use rule::{HttpBackendRef, HttpMatch, HttpRule};

/// The number of host names that a route may have.
pub(super) const HOSTNAMES: usize = 16;
/// The number of rules that a route may have.
pub(super) const RULES: usize = 16;
/// The number of matches that a rule may have.
pub(super) const MATCHES: usize = 64;
/// The number of matches that all rules of a route may have together.
pub(super) const ALL_MATCHES: usize = 128;

/// Rules for the HTTP requests that callers of a service make, or that come in by a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "HTTPRoute")]
pub struct HttpRouteDocument {
    /// The version of the document's shape.
    pub api_version: RouteVersion,
    /// Kind of the document's object.
    pub kind: HttpRouteKind,
    /// Identity of the route.
    pub metadata: ObjectMetadata,
    /// Desired state of the route.
    pub spec: HttpRouteSpec,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub status: Dropped,
}

/// The kind of an HTTP route's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpRouteKind {
    /// The only one.
    #[default]
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
}

/// Desired state of an HTTP route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    /// Objects that it attaches to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub parent_refs: Vec<ParentRef>,
    /// Hosts whose requests it is for, at gateways; all when none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hostnames: Vec<Hostname>,
    /// Rules; the one whose match is the closest counts, and of several such ones the first.
    #[serde(default = "any_request")]
    #[schemars(length(min = 1, max = 16))]
    pub rules: Vec<HttpRule>,
}

fn any_request() -> Vec<HttpRule> {
    vec![HttpRule::default()]
}

impl DocumentType for HttpRouteDocument {
    const KIND: &'static str = "HTTPRoute";
    const WORDS: [&'static str; 3] = ["httproute", "httproutes", "httproute"];
    const API_VERSIONS: &'static [&'static str] = &RouteVersion::NAMES;

    fn check(&self) -> Result<(), FieldError> {
        self.metadata.check()?;
        let HttpRouteSpec { parent_refs, hostnames, rules } = &self.spec;
        parent::check(parent_refs, &Place::SPEC)?;
        Place::SPEC.field("hostnames").at_most(HOSTNAMES, hostnames.len())?;
        let place = Place::SPEC.field("rules");
        if rules.is_empty() {
            return Err(place
                .wrong("at least one rule is needed; leave `rules` out for one that matches every request"));
        }
        place.at_most(RULES, rules.len())?;
        place.distinct(rules, Some("name"), |rule| rule.name.as_ref())?;
        check_all_matches(rules.iter().map(|rule| rule.matches.len()).sum(), &place)?;
        rules.iter().enumerate().try_for_each(|(at, rule)| rule.check(&place.item(at)))
    }
}

/// Checks the number of matches that all rules of a route have.
pub(super) fn check_all_matches(matches: usize, rules: &Place<'_>) -> Result<(), FieldError> {
    if matches <= ALL_MATCHES {
        return Ok(());
    }
    Err(rules.wrong(format!(
        "they have {matches} matches together; at most {ALL_MATCHES} are allowed: make several routes"
    )))
}
