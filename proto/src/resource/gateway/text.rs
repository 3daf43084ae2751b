//! Texts of the Gateway API that have a form: each is checked as it is read, in the words of what it should be.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A text that has not the form that its field needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {what}: it must be {form}")]
pub struct TextError {
    /// Kind of text.
    pub what: &'static str,
    /// The text, cut where it is long.
    pub given: String,
    /// The form that it should have.
    pub form: &'static str,
}

/// The longest part of a text that an error shows, characters.
const SHOWN: usize = 80;

impl TextError {
    pub(super) fn new(what: &'static str, given: &str, form: &'static str) -> Self {
        Self { what, given: given.chars().take(SHOWN).collect(), form }
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $form:literal, $good:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;
            fn from_str(text: &str) -> Result<Self, TextError> {
                let good: fn(&str) -> bool = $good;
                if good(text) { Ok(Self(text.into())) } else { Err(TextError::new($what, text, $form)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;
            fn try_from(text: String) -> Result<Self, TextError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(
    /// The name of a host that requests are for, or `*.` and the end of such names.
    Hostname, "host name", "labels of lower-case letters, digits and inner hyphens that dots join, with `*.` in front for all names \
     that end so; no address",
    |text| is_precise(text.strip_prefix("*.").unwrap_or(text)) && text.len() <= 253,
    { "type": "string", "minLength": 1, "maxLength": 253,
      "pattern": "^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" }
);
text!(
    /// The name of one host.
    PreciseHostname, "host name", "labels of lower-case letters, digits and inner hyphens that dots join; no address",
    |text| is_precise(text),
    { "type": "string", "minLength": 1, "maxLength": 253,
      "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" }
);
text!(
    /// The group of a kind of objects; empty for the core group, which Services are of.
    Group, "group", "empty, or labels of lower-case letters, digits and inner hyphens that dots join",
    |text| text.is_empty() || is_subdomain(text),
    { "type": "string", "maxLength": 253,
      "pattern": "^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" }
);
text!(
    /// The kind of an object that is referred to.
    Kind, "kind", "1 to 63 letters, digits and inner hyphens that begin with a letter",
    |text| text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
    { "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$" }
);
text!(
    /// The name of a part: of a listener of a Gateway, of a port of a Service, of a rule of a route.
    SectionName, "name of a section", "labels of lower-case letters, digits and inner hyphens that dots join",
    |text| is_subdomain(text),
    { "type": "string", "minLength": 1, "maxLength": 253,
      "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" }
);
text!(
    /// The name of a header, as it was written: case does not count where it is compared.
    HeaderName, "name of a header", "1 to 256 letters, digits and characters of !#$%&'*+-.^_`|~",
    |text| (1..=256).contains(&text.len()) && text.bytes().all(is_token),
    { "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$" }
);
text!(
    /// The value of a header (RFC 9110, section 5.5).
    HeaderValue, "value of a header", "1 to 4096 printable ASCII characters, with spaces and tabs inside only",
    |text| (1..=4096).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'!'..=b'~' | b' ' | b'\t'))
        && text.trim_matches([' ', '\t']).len() == text.len(),
    { "type": "string", "minLength": 1, "maxLength": 4096, "pattern": "^[!-~]([\\t !-~]*[!-~])?$" }
);

impl Group {
    /// The group of Services.
    #[must_use]
    pub fn core() -> Self {
        Self("".into())
    }

    /// The group of Gateways and routes.
    #[must_use]
    pub fn gateway() -> Self {
        Self("gateway.networking.k8s.io".into())
    }
}

impl Kind {
    /// `Service`.
    #[must_use]
    pub fn service() -> Self {
        Self("Service".into())
    }

    /// `Gateway`.
    #[must_use]
    pub fn gateway() -> Self {
        Self("Gateway".into())
    }
}

impl HeaderName {
    /// Returns true if both name the same header.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Hostname {
    /// The end of the names that it stands for, beginning with a dot, where it begins with `*.`.
    #[must_use]
    pub fn wildcard(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }
}

fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// No address is a host's name: the API allows none.
fn is_precise(text: &str) -> bool {
    is_subdomain(text) && text.parse::<Ipv4Addr>().is_err()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
