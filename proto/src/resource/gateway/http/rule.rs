//! A rule of an HTTP route.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::MATCHES;
use super::filter::{HttpFilter, HttpFilterType, check_filters};
use crate::resource::document::FieldError;
use crate::resource::gateway::backend::{BACKENDS, BackendRef};
use crate::resource::gateway::matching::{
    self, HeaderMatch, HttpMethod, PathMatch, PathMatchType, QueryMatch,
};
use crate::resource::gateway::place::Place;
use crate::resource::gateway::session::SessionPersistence;
use crate::resource::gateway::text::SectionName;
use crate::resource::gateway::timeout::{HttpTimeouts, Retry};

/// A backend of a rule.
pub type HttpBackendRef = BackendRef<HttpFilter>;

/// A rule: requests that match are changed by the filters and go to the backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// Name of the rule, unique in the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SectionName>,
    /// Conditions, any of which is enough; every request matches when there is none.
    #[serde(default = "any_path", deserialize_with = "matches")]
    #[schemars(length(max = 64))]
    pub matches: Vec<HttpMatch>,
    /// Filters, in the order in which they act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<HttpFilter>,
    /// Backends that share the requests by weight; requests are answered with 500 when there is none, unless a filter answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<HttpBackendRef>,
    /// Times within which requests are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<HttpTimeouts>,
    /// Attempts after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Sessions of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// A condition on a request: all that it says must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// The path; any when not given.
    #[serde(default)]
    pub path: PathMatch,
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Parameters of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub query_params: Vec<QueryMatch>,
    /// The method; any when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
}

fn any_path() -> Vec<HttpMatch> {
    vec![HttpMatch::default()]
}

/// An empty list means the same as none.
fn matches<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HttpMatch>, D::Error> {
    let matches = Vec::deserialize(deserializer)?;
    Ok(if matches.is_empty() { any_path() } else { matches })
}

impl Default for HttpRule {
    fn default() -> Self {
        Self {
            name: None,
            matches: any_path(),
            filters: vec![],
            backend_refs: vec![],
            timeouts: None,
            retry: None,
            session_persistence: None,
        }
    }
}

impl HttpMatch {
    fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        self.path.check(&place.field("path"))?;
        matching::check_headers(&self.headers, place)?;
        matching::check_parameters(&self.query_params, place)
    }
}

impl HttpRule {
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let list = place.field("matches");
        list.at_most(MATCHES, self.matches.len())?;
        for (at, condition) in self.matches.iter().enumerate() {
            condition.check(&list.item(at))?;
        }
        self.check_filters(&self.filters, place)?;
        let list = place.field("backendRefs");
        list.at_most(BACKENDS, self.backend_refs.len())?;
        for (at, backend) in self.backend_refs.iter().enumerate() {
            backend.check(&list.item(at))?;
            self.check_filters(&backend.filters, &list.item(at))?;
        }
        let redirect = |filter: &HttpFilter| filter.kind == HttpFilterType::RequestRedirect;
        if let Some(at) = self.filters.iter().position(redirect)
            && !self.backend_refs.is_empty()
        {
            return Err(list.wrong(format!(
                "{} redirects every request, so that none comes here; leave one of them out",
                place.field("filters").item(at)
            )));
        }
        self.timeouts.as_ref().map_or(Ok(()), |timeouts| timeouts.check(&place.field("timeouts")))?;
        self.retry.as_ref().map_or(Ok(()), |retry| retry.check(&place.field("retry")))?;
        match &self.session_persistence {
            Some(session) => session.refuse(&place.field("sessionPersistence")),
            None => Ok(()),
        }
    }

    /// Checks the filters of the rule or of one of its backends, which `place` has.
    fn check_filters(&self, filters: &[HttpFilter], place: &Place<'_>) -> Result<(), FieldError> {
        let place = place.field("filters");
        check_filters(filters, &place)?;
        let prefix = matches!(self.matches.as_slice(), [only] if only.path.kind == PathMatchType::PathPrefix);
        match filters.iter().position(HttpFilter::replaces_prefix) {
            Some(at) if !prefix => Err(place.item(at).wrong(
                "ReplacePrefixMatch needs a rule with exactly one match, whose path is of type PathPrefix; make a rule of each match",
            )),
            Some(_) | None => Ok(()),
        }
    }
}
