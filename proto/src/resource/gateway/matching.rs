//! Conditions on paths, headers, parameters and methods.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::place::Place;
use super::text::HeaderName;
use crate::resource::document::FieldError;

/// The number of headers, and of parameters, that a match may name.
const NAMED: usize = 16;
/// The longest path and the longest value of a parameter, bytes.
const LONGEST: usize = 1024;
/// The longest value of a header, bytes.
const LONGEST_HEADER: usize = 4096;

/// The way in which a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// Byte by byte.
    Exact,
    /// Element by element, from the beginning.
    #[default]
    PathPrefix,
    /// By a regular expression that the whole path must match.
    RegularExpression,
}

/// The way in which a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    /// Byte by byte.
    #[default]
    Exact,
    /// By a regular expression that the whole value must match.
    RegularExpression,
}

/// A condition on the path of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// The way in which the path is compared.
    #[serde(default, rename = "type")]
    pub kind: PathMatchType,
    /// The path, or the regular expression.
    #[serde(default = "root")]
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// A condition on a header of a request. Of those with one name, the first counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatch {
    /// The way in which the value is compared.
    #[serde(default, rename = "type")]
    pub kind: MatchType,
    /// Name of the header; case does not count.
    pub name: HeaderName,
    /// The value, or the regular expression.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// A condition on a parameter of a request's query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryMatch {
    /// The way in which the value is compared.
    #[serde(default, rename = "type")]
    pub kind: MatchType,
    /// Name of the parameter.
    pub name: HeaderName,
    /// The value, or the regular expression.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the methods are RFC 9110's and RFC 5789's")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// The method as requests have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

fn root() -> String {
    "/".to_owned()
}

impl Default for PathMatch {
    fn default() -> Self {
        Self { kind: PathMatchType::PathPrefix, value: root() }
    }
}

impl PathMatch {
    /// The elements of a prefix, without a slash at its end; nothing for every path.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.value.trim_end_matches('/')
    }

    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let place = place.field("value");
        check_length(&self.value, LONGEST, &place)?;
        match self.kind {
            PathMatchType::RegularExpression => check_pattern(&self.value, &place),
            PathMatchType::Exact | PathMatchType::PathPrefix => check_path(&self.value, &place),
        }
    }
}

/// Checks that requests can have such a path once it is normalised.
fn check_path(path: &str, place: &Place<'_>) -> Result<(), FieldError> {
    if !path.starts_with('/') {
        return Err(place.wrong(format!("{path:?} must begin with a slash")));
    }
    for never in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if path.contains(never) {
            return Err(
                place.wrong(format!("{path:?} must not contain {never:?}: no request has such a path"))
            );
        }
    }
    if path.ends_with("/..") || path.ends_with("/.") {
        return Err(place.wrong(format!("{path:?} must not end in a dot or two behind a slash")));
    }
    check_characters(path, place)
}

/// Checks that a text has only characters that paths have (RFC 3986, section 3.3).
pub(super) fn check_characters(path: &str, place: &Place<'_>) -> Result<(), FieldError> {
    let bytes = path.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let good = |(at, byte): (usize, &u8)| {
        byte.is_ascii_alphanumeric()
            || b"-/._~!$&'()*+,;=:@".contains(byte)
            || (*byte == b'%' && hex(at + 1) && hex(at + 2))
    };
    if bytes.iter().enumerate().all(good) {
        return Ok(());
    }
    Err(place.wrong(format!(
        "{path:?} has a character that paths do not have; write it as % and two hexadecimal digits"
    )))
}

pub(super) fn check_pattern(pattern: &str, place: &Place<'_>) -> Result<(), FieldError> {
    Pattern(pattern).compile().map(|_| ()).map_err(|error| place.wrong(error.to_string()))
}

pub(super) fn check_length(text: &str, longest: usize, place: &Place<'_>) -> Result<(), FieldError> {
    if text.len() <= longest {
        return Ok(());
    }
    Err(place.wrong(format!("it has {} bytes; at most {longest} are allowed", text.len())))
}

/// Checks the conditions on headers of one match.
pub(super) fn check_headers(headers: &[HeaderMatch], place: &Place<'_>) -> Result<(), FieldError> {
    let place = place.field("headers");
    place.at_most(NAMED, headers.len())?;
    place.distinct(headers, Some("name"), |header| Some(&header.name))?;
    for (at, header) in headers.iter().enumerate() {
        check_value(header.kind, &header.value, LONGEST_HEADER, &place.item(at).field("value"))?;
    }
    Ok(())
}

/// Checks the conditions on parameters of one match.
pub(super) fn check_parameters(parameters: &[QueryMatch], place: &Place<'_>) -> Result<(), FieldError> {
    let place = place.field("queryParams");
    place.at_most(NAMED, parameters.len())?;
    place.distinct(parameters, Some("name"), |parameter| Some(&parameter.name))?;
    for (at, parameter) in parameters.iter().enumerate() {
        check_value(parameter.kind, &parameter.value, LONGEST, &place.item(at).field("value"))?;
    }
    Ok(())
}

fn check_value(kind: MatchType, value: &str, longest: usize, place: &Place<'_>) -> Result<(), FieldError> {
    if value.is_empty() {
        return Err(place.wrong("it must not be empty"));
    }
    check_length(value, longest, place)?;
    match kind {
        MatchType::Exact => Ok(()),
        MatchType::RegularExpression => check_pattern(value, place),
    }
}
