//! Redirections, and rewrites of where a request goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::matching::{check_characters, check_length};
use super::place::Place;
use super::text::PreciseHostname;
use crate::resource::document::FieldError;
use crate::types::Port;

/// The longest replacement of a path, bytes.
const LONGEST: usize = 1024;

/// The kind of a replacement of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathModifierType {
    /// The whole path is replaced.
    ReplaceFullPath,
    /// The prefix that the rule's match has found is replaced.
    ReplacePrefixMatch,
}

/// A replacement of the path of a request, as a document has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifier {
    /// Kind of the replacement.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// The new path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub replace_full_path: Option<String>,
    /// The new beginning of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub replace_prefix_match: Option<String>,
}

/// A replacement of the path of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathReplacement<'a> {
    /// The whole path becomes this.
    Full(&'a str),
    /// The prefix that the match has found becomes this.
    Prefix(&'a str),
}

/// The scheme of a redirection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedirectScheme {
    /// In plain.
    Http,
    /// Over TLS.
    Https,
}

/// The status of a redirection: 301, 302, 303, 307 or 308.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u16")]
pub struct RedirectStatus(u16);

/// Settings of a filter that answers with a redirection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRedirect {
    /// Scheme of the new place; the request's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<RedirectScheme>,
    /// Host of the new place; the request's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<PreciseHostname>,
    /// Path of the new place; the request's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// Port of the new place; when not given, the scheme's usual one or, without a scheme, the one that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::PortNumber>")]
    pub port: Option<Port>,
    /// Status of the answer.
    #[serde(default)]
    #[schemars(with = "crate::resource::document::schema::RedirectCode")]
    pub status_code: RedirectStatus,
}

/// Settings of a filter that changes where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UrlRewrite {
    /// Host that the backend is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<PreciseHostname>,
    /// Path that the backend is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

impl RedirectStatus {
    /// The status.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for RedirectStatus {
    fn default() -> Self {
        Self(302)
    }
}

impl TryFrom<u32> for RedirectStatus {
    type Error = String;
    fn try_from(status: u32) -> Result<Self, String> {
        match status {
            301 => Ok(Self(301)),
            302 => Ok(Self(302)),
            303 => Ok(Self(303)),
            307 => Ok(Self(307)),
            308 => Ok(Self(308)),
            other => {
                Err(format!("{other} is no status of a redirection: it must be 301, 302, 303, 307 or 308"))
            }
        }
    }
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> Self {
        status.get()
    }
}

impl PathModifier {
    /// The replacement; `None` where the document says none, which its check refuses.
    #[must_use]
    pub fn replacement(&self) -> Option<PathReplacement<'_>> {
        match self.kind {
            PathModifierType::ReplaceFullPath => self.replace_full_path.as_deref().map(PathReplacement::Full),
            PathModifierType::ReplacePrefixMatch => {
                self.replace_prefix_match.as_deref().map(PathReplacement::Prefix)
            }
        }
    }

    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let (full, prefix) = (&self.replace_full_path, &self.replace_prefix_match);
        let (needed, other) = match self.kind {
            PathModifierType::ReplaceFullPath => (("replaceFullPath", full), ("replacePrefixMatch", prefix)),
            PathModifierType::ReplacePrefixMatch => {
                (("replacePrefixMatch", prefix), ("replaceFullPath", full))
            }
        };
        let kind = format!("{:?}", self.kind);
        if other.1.is_some() {
            return Err(place
                .field(other.0)
                .wrong(format!("the type is {kind}, which has {}; leave this out", needed.0)));
        }
        let Some(text) = needed.1 else {
            return Err(place.field(needed.0).wrong(format!("it is missing, and type {kind} needs it")));
        };
        let place = place.field(needed.0);
        check_length(text, LONGEST, &place)?;
        check_characters(text, &place)
    }

    /// Returns true if it replaces a prefix, which the rule's match must have found.
    pub(super) fn is_of_prefix(&self) -> bool {
        self.kind == PathModifierType::ReplacePrefixMatch
    }
}
