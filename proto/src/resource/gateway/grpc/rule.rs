//! A rule of a gRPC route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::filter::{GrpcFilter, check_filters};
use crate::resource::document::FieldError;
use crate::resource::gateway::backend::{BACKENDS, BackendRef};
use crate::resource::gateway::http::MATCHES;
use crate::resource::gateway::matching::{self, HeaderMatch, MatchType};
use crate::resource::gateway::place::Place;
use crate::resource::gateway::session::SessionPersistence;
use crate::resource::gateway::text::SectionName;

/// The longest name of a service or method, bytes.
const LONGEST: usize = 1024;

/// A backend of a rule.
pub type GrpcBackendRef = BackendRef<GrpcFilter>;

/// A rule: calls that match are changed by the filters and go to the backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRule {
    /// Name of the rule, unique in the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SectionName>,
    /// Conditions, any of which is enough; every call matches when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub matches: Vec<GrpcMatch>,
    /// Filters, in the order in which they act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<GrpcFilter>,
    /// Backends that share the calls by weight; calls end as unavailable when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<GrpcBackendRef>,
    /// Sessions of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// A condition on a call: all that it says must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// The service and method; any when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodMatch>,
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
}

/// A condition on the service and method of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMethodMatch {
    /// The way in which they are compared.
    #[serde(default, rename = "type")]
    pub kind: MatchType,
    /// The service with its package, or a regular expression; any when not given or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub service: Option<String>,
    /// The method, or a regular expression; any when not given or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub method: Option<String>,
}

impl GrpcMethodMatch {
    fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let Self { kind, service, method } = self;
        let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if !said(service) && !said(method) {
            return Err(place.wrong("it needs a service or a method; leave it out for any"));
        }
        // A service may begin with a dot, and has some between its parts.
        let dotted = |text: &str| text.strip_prefix('.').unwrap_or(text).split('.').all(is_identifier);
        for (field, text, good) in
            [("service", service, &dotted as &dyn Fn(&str) -> bool), ("method", method, &is_identifier)]
        {
            let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
            let place = place.field(field);
            matching::check_length(text, LONGEST, &place)?;
            match kind {
                MatchType::RegularExpression => matching::check_pattern(text, &place)?,
                MatchType::Exact if good(text) => {}
                MatchType::Exact => {
                    return Err(place.wrong(format!(
                        "{text:?} is no name of a {field}: it must have letters, digits and `_`, and begin with no digit"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl GrpcRule {
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let list = place.field("matches");
        list.at_most(MATCHES, self.matches.len())?;
        for (at, condition) in self.matches.iter().enumerate() {
            let place = list.item(at);
            let method = condition.method.as_ref();
            method.map_or(Ok(()), |method| method.check(&place.field("method")))?;
            matching::check_headers(&condition.headers, &place)?;
        }
        check_filters(&self.filters, &place.field("filters"))?;
        let list = place.field("backendRefs");
        list.at_most(BACKENDS, self.backend_refs.len())?;
        for (at, backend) in self.backend_refs.iter().enumerate() {
            backend.check(&list.item(at))?;
            check_filters(&backend.filters, &list.item(at).field("filters"))?;
        }
        match &self.session_persistence {
            Some(session) => session.refuse(&place.field("sessionPersistence")),
            None => Ok(()),
        }
    }
}
