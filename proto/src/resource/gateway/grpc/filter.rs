//! Filters of gRPC routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::document::FieldError;
use crate::resource::gateway::backend::RequestMirror;
use crate::resource::gateway::dropped::Dropped;
use crate::resource::gateway::header::HeaderModifier;
use crate::resource::gateway::http::{FILTERS, check_fields, missing, unsupported};
use crate::resource::gateway::place::Place;

/// The kind of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrpcFilterType {
    /// Changes headers of calls.
    RequestHeaderModifier,
    /// Changes headers of responses.
    ResponseHeaderModifier,
    /// Copies calls to another backend.
    RequestMirror,
    /// Leaves it to an extension; there is none here.
    ExtensionRef,
}

/// A filter, as a document has it: a type, and the field of that type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcFilter {
    /// Kind of the filter.
    #[serde(rename = "type")]
    pub kind: GrpcFilterType,
    /// Changes of calls' headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes of responses' headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Copies of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirror>,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub extension_ref: Option<Dropped>,
}

/// The effect of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcAction<'a> {
    /// Changes headers of calls.
    RequestHeaders(&'a HeaderModifier),
    /// Changes headers of responses.
    ResponseHeaders(&'a HeaderModifier),
    /// Copies calls to another backend.
    Mirror(&'a RequestMirror),
}

impl GrpcFilterType {
    /// The word that documents have for it, and the name of its field.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::RequestHeaderModifier => ("RequestHeaderModifier", "requestHeaderModifier"),
            Self::ResponseHeaderModifier => ("ResponseHeaderModifier", "responseHeaderModifier"),
            Self::RequestMirror => ("RequestMirror", "requestMirror"),
            Self::ExtensionRef => ("ExtensionRef", "extensionRef"),
        }
    }
}

impl GrpcFilter {
    /// The effect; `None` where the document says none, which its check refuses.
    #[must_use]
    pub fn action(&self) -> Option<GrpcAction<'_>> {
        match self.kind {
            GrpcFilterType::RequestHeaderModifier => {
                self.request_header_modifier.as_ref().map(GrpcAction::RequestHeaders)
            }
            GrpcFilterType::ResponseHeaderModifier => {
                self.response_header_modifier.as_ref().map(GrpcAction::ResponseHeaders)
            }
            GrpcFilterType::RequestMirror => self.request_mirror.as_ref().map(GrpcAction::Mirror),
            GrpcFilterType::ExtensionRef => None,
        }
    }

    fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let (kind, field) = self.kind.words();
        if self.kind == GrpcFilterType::ExtensionRef {
            return Err(unsupported(kind, place));
        }
        let given = [
            (GrpcFilterType::RequestHeaderModifier, self.request_header_modifier.is_some()),
            (GrpcFilterType::ResponseHeaderModifier, self.response_header_modifier.is_some()),
            (GrpcFilterType::RequestMirror, self.request_mirror.is_some()),
            (GrpcFilterType::ExtensionRef, self.extension_ref.is_some()),
        ];
        check_fields((self.kind, GrpcFilterType::words), &given, place)?;
        let place = place.field(field);
        match self.action() {
            None => Err(missing(kind, &place)),
            Some(GrpcAction::RequestHeaders(modifier) | GrpcAction::ResponseHeaders(modifier)) => {
                modifier.check(&place)
            }
            Some(GrpcAction::Mirror(mirror)) => mirror.check(&place),
        }
    }
}

/// Checks the filters of a rule or of a backend.
pub(super) fn check_filters(filters: &[GrpcFilter], place: &Place<'_>) -> Result<(), FieldError> {
    place.at_most(FILTERS, filters.len())?;
    for (at, filter) in filters.iter().enumerate() {
        filter.check(&place.item(at))?;
    }
    let once = |filter: &GrpcFilter| {
        Some(filter.kind.words().0).filter(|_| filter.kind != GrpcFilterType::RequestMirror)
    };
    place.distinct(filters, Some("type"), once)
}
