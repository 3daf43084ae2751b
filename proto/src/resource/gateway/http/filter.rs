//! Filters of HTTP routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::document::FieldError;
use crate::resource::gateway::backend::RequestMirror;
use crate::resource::gateway::cors::Cors;
use crate::resource::gateway::dropped::Dropped;
use crate::resource::gateway::header::HeaderModifier;
use crate::resource::gateway::place::Place;
use crate::resource::gateway::rewrite::{PathModifier, RequestRedirect, UrlRewrite};

/// The number of filters of a rule, or of a backend.
pub(in crate::resource::gateway) const FILTERS: usize = 16;

/// The word that documents have for a filter's type, and the name of its field.
pub(in crate::resource::gateway) type TypeWords = (&'static str, &'static str);

/// The kind of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpFilterType {
    /// Changes headers of requests.
    RequestHeaderModifier,
    /// Changes headers of responses.
    ResponseHeaderModifier,
    /// Copies requests to another backend.
    RequestMirror,
    /// Answers with a redirection.
    RequestRedirect,
    /// Changes host or path of requests.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// Answers cross-origin requests.
    #[serde(rename = "CORS")]
    Cors,
    /// Asks another server; there is no such filter here.
    ExternalAuth,
    /// Leaves it to an extension; there is none here.
    ExtensionRef,
}

/// A filter, as a document has it: a type, and the field of that type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpFilter {
    /// Kind of the filter.
    #[serde(rename = "type")]
    pub kind: HttpFilterType,
    /// Changes of requests' headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes of responses' headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Copies of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirror>,
    /// A redirection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
    /// Changes of host and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
    /// Cross-origin requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub external_auth: Option<Dropped>,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub extension_ref: Option<Dropped>,
}

/// The effect of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAction<'a> {
    /// Changes headers of requests.
    RequestHeaders(&'a HeaderModifier),
    /// Changes headers of responses.
    ResponseHeaders(&'a HeaderModifier),
    /// Copies requests to another backend.
    Mirror(&'a RequestMirror),
    /// Answers with a redirection.
    Redirect(&'a RequestRedirect),
    /// Changes host or path of requests.
    Rewrite(&'a UrlRewrite),
    /// Answers cross-origin requests.
    Cors(&'a Cors),
}

impl HttpFilterType {
    /// The word that documents have for it, and the name of its field.
    const fn words(self) -> TypeWords {
        match self {
            Self::RequestHeaderModifier => ("RequestHeaderModifier", "requestHeaderModifier"),
            Self::ResponseHeaderModifier => ("ResponseHeaderModifier", "responseHeaderModifier"),
            Self::RequestMirror => ("RequestMirror", "requestMirror"),
            Self::RequestRedirect => ("RequestRedirect", "requestRedirect"),
            Self::UrlRewrite => ("URLRewrite", "urlRewrite"),
            Self::Cors => ("CORS", "cors"),
            Self::ExternalAuth => ("ExternalAuth", "externalAuth"),
            Self::ExtensionRef => ("ExtensionRef", "extensionRef"),
        }
    }
}

impl HttpFilter {
    /// The effect; `None` where the document says none, which its check refuses.
    #[must_use]
    pub fn action(&self) -> Option<HttpAction<'_>> {
        match self.kind {
            HttpFilterType::RequestHeaderModifier => {
                self.request_header_modifier.as_ref().map(HttpAction::RequestHeaders)
            }
            HttpFilterType::ResponseHeaderModifier => {
                self.response_header_modifier.as_ref().map(HttpAction::ResponseHeaders)
            }
            HttpFilterType::RequestMirror => self.request_mirror.as_ref().map(HttpAction::Mirror),
            HttpFilterType::RequestRedirect => self.request_redirect.as_ref().map(HttpAction::Redirect),
            HttpFilterType::UrlRewrite => self.url_rewrite.as_ref().map(HttpAction::Rewrite),
            HttpFilterType::Cors => self.cors.as_ref().map(HttpAction::Cors),
            HttpFilterType::ExternalAuth | HttpFilterType::ExtensionRef => None,
        }
    }

    /// Returns true if it replaces the prefix that the rule's match has found.
    pub(super) fn replaces_prefix(&self) -> bool {
        let path = match self.action() {
            Some(HttpAction::Redirect(redirect)) => redirect.path.as_ref(),
            Some(HttpAction::Rewrite(rewrite)) => rewrite.path.as_ref(),
            Some(
                HttpAction::RequestHeaders(_)
                | HttpAction::ResponseHeaders(_)
                | HttpAction::Mirror(_)
                | HttpAction::Cors(_),
            )
            | None => None,
        };
        path.is_some_and(PathModifier::is_of_prefix)
    }

    fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let (kind, field) = self.kind.words();
        if matches!(self.kind, HttpFilterType::ExternalAuth | HttpFilterType::ExtensionRef) {
            return Err(unsupported(kind, place));
        }
        let given = [
            (HttpFilterType::RequestHeaderModifier, self.request_header_modifier.is_some()),
            (HttpFilterType::ResponseHeaderModifier, self.response_header_modifier.is_some()),
            (HttpFilterType::RequestMirror, self.request_mirror.is_some()),
            (HttpFilterType::RequestRedirect, self.request_redirect.is_some()),
            (HttpFilterType::UrlRewrite, self.url_rewrite.is_some()),
            (HttpFilterType::Cors, self.cors.is_some()),
            (HttpFilterType::ExternalAuth, self.external_auth.is_some()),
            (HttpFilterType::ExtensionRef, self.extension_ref.is_some()),
        ];
        check_fields((self.kind, HttpFilterType::words), &given, place)?;
        let place = place.field(field);
        match self.action() {
            None => Err(missing(kind, &place)),
            Some(HttpAction::RequestHeaders(modifier) | HttpAction::ResponseHeaders(modifier)) => {
                modifier.check(&place)
            }
            Some(HttpAction::Mirror(mirror)) => mirror.check(&place),
            Some(HttpAction::Redirect(redirect)) => check_path(redirect.path.as_ref(), &place),
            Some(HttpAction::Rewrite(rewrite)) => check_path(rewrite.path.as_ref(), &place),
            Some(HttpAction::Cors(cors)) => cors.check(&place),
        }
    }
}

/// Refuses a type of filters that has no effect here.
pub(in crate::resource::gateway) fn unsupported(kind: &str, place: &Place<'_>) -> FieldError {
    place.field("type").wrong(format!("filters of type {kind} are not supported; leave it out"))
}

/// Refuses a filter without the field of its type.
pub(in crate::resource::gateway) fn missing(kind: &str, place: &Place<'_>) -> FieldError {
    place.wrong(format!("it is missing, and type {kind} needs it"))
}

/// Checks that a filter of type `own` has no field of another type; `words` are a type's own word and the name of its field, `given` says
/// which fields there are.
pub(in crate::resource::gateway) fn check_fields<T: Copy + PartialEq>(
    (own, words): (T, fn(T) -> TypeWords),
    given: &[(T, bool)],
    place: &Place<'_>,
) -> Result<(), FieldError> {
    let Some(&(other, _)) = given.iter().find(|&&(other, given)| given && other != own) else {
        return Ok(());
    };
    let ((kind, _), (other, other_field)) = (words(own), words(other));
    Err(place.field(other_field).wrong(format!(
        "it is for filters of type {other}, and this one's type is {kind}; leave it out, or make a filter of its own of it"
    )))
}

fn check_path(path: Option<&PathModifier>, place: &Place<'_>) -> Result<(), FieldError> {
    path.map_or(Ok(()), |path| path.check(&place.field("path")))
}

/// Checks the filters of a rule or of a backend.
pub(super) fn check_filters(filters: &[HttpFilter], place: &Place<'_>) -> Result<(), FieldError> {
    place.at_most(FILTERS, filters.len())?;
    for (at, filter) in filters.iter().enumerate() {
        filter.check(&place.item(at))?;
    }
    let once = |filter: &HttpFilter| {
        Some(filter.kind.words().0).filter(|_| filter.kind != HttpFilterType::RequestMirror)
    };
    place.distinct(filters, Some("type"), once)?;
    let of = |kind| filters.iter().position(|filter| filter.kind == kind);
    match (of(HttpFilterType::RequestRedirect), of(HttpFilterType::UrlRewrite)) {
        (Some(redirect), Some(rewrite)) => Err(place.item(rewrite).wrong(format!(
            "{} redirects the requests, so that none is left to rewrite; leave one of them out",
            place.item(redirect)
        ))),
        (Some(_) | None, None) | (None, Some(_)) => Ok(()),
    }
}
