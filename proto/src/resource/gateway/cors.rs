//! Settings of cross-origin requests (CORS, the Fetch standard).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::matching::HttpMethod;
use super::place::Place;
use super::text::{HeaderName, TextError};
use crate::resource::document::FieldError;

/// The number of origins, and of headers.
const MANY: usize = 64;
/// The number of methods.
const METHODS: usize = 9;

/// Settings of a filter that answers preflight requests and says in responses which origins may read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cors {
    /// Origins that may read responses: `SCHEME://HOST[:PORT]`, where `*` in the host stands for any beginning; `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow_origins: Vec<CorsOrigin>,
    /// True if requests may carry credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods that may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub allow_methods: Vec<AllowedMethod>,
    /// Headers that requests may have; `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow_headers: Vec<HeaderName>,
    /// Headers of responses that scripts may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub expose_headers: Vec<HeaderName>,
    /// Seconds for which an answer to a preflight request holds.
    #[serde(default = "usual_age")]
    #[schemars(range(min = 1))]
    pub max_age: u32,
}

fn usual_age() -> u32 {
    5
}

/// A method that cross-origin requests may use, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the methods are RFC 9110's and RFC 5789's")]
pub enum AllowedMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// All methods.
    #[serde(rename = "*")]
    Any,
}

/// An origin, a pattern of origins, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CorsOrigin(Arc<str>);

impl CorsOrigin {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if it stands for every origin.
    #[must_use]
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }
}

/// Returns true for `http(s)://HOST[:PORT]`, where the host may begin with a `*` or be one.
fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let port = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let behind = if host == "*" { "a" } else { host.strip_prefix("*.").unwrap_or(host) };
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    port && text.len() <= 253 && behind.split('.').all(label)
}

impl FromStr for CorsOrigin {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        if text == "*" || is_origin(text) {
            return Ok(Self(text.into()));
        }
        Err(TextError::new(
            "origin",
            text,
            "`*`, or http:// or https:// with a host, whose beginning may be `*.`, and perhaps a port",
        ))
    }
}

impl TryFrom<String> for CorsOrigin {
    type Error = TextError;
    fn try_from(text: String) -> Result<Self, TextError> {
        text.parse()
    }
}

impl From<CorsOrigin> for String {
    fn from(origin: CorsOrigin) -> Self {
        origin.as_str().to_owned()
    }
}

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl JsonSchema for CorsOrigin {
    fn schema_name() -> Cow<'static, str> {
        "CorsOrigin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": 253,
            "pattern": "^(\\*|https?://(\\*|(\\*\\.)?[a-zA-Z0-9-]+(\\.[a-zA-Z0-9-]+)*)(:[0-9]{1,5})?)$",
        })
    }
}

impl AllowedMethod {
    /// The method; `None` for all of them.
    #[must_use]
    pub const fn method(self) -> Option<HttpMethod> {
        Some(match self {
            Self::Get => HttpMethod::Get,
            Self::Head => HttpMethod::Head,
            Self::Post => HttpMethod::Post,
            Self::Put => HttpMethod::Put,
            Self::Delete => HttpMethod::Delete,
            Self::Connect => HttpMethod::Connect,
            Self::Options => HttpMethod::Options,
            Self::Trace => HttpMethod::Trace,
            Self::Patch => HttpMethod::Patch,
            Self::Any => return None,
        })
    }

    /// The word that a document has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.method() {
            Some(method) => method.as_str(),
            None => "*",
        }
    }
}

impl Cors {
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        words(&place.field("allowOrigins"), MANY, &self.allow_origins, CorsOrigin::as_str, true)?;
        words(&place.field("allowMethods"), METHODS, &self.allow_methods, |method| method.as_str(), true)?;
        words(&place.field("allowHeaders"), MANY, &self.allow_headers, HeaderName::as_str, true)?;
        words(&place.field("exposeHeaders"), MANY, &self.expose_headers, HeaderName::as_str, false)?;
        if self.max_age == 0 {
            return Err(place.field("maxAge").wrong("it must be 1 at least"));
        }
        Ok(())
    }
}

fn words<'a, T>(
    place: &Place<'_>,
    most: usize,
    list: &'a [T],
    word: fn(&'a T) -> &'a str,
    alone: bool,
) -> Result<(), FieldError> {
    place.at_most(most, list.len())?;
    place.distinct(list, None, |member| Some(word(member)))?;
    match list.iter().position(|member| word(member) == "*") {
        Some(at) if alone && list.len() > 1 => {
            Err(place.item(at).wrong("`*` stands for all; leave the others out, or this one"))
        }
        Some(_) | None => Ok(()),
    }
}
