//! Names: DNS labels (RFC 1123, section 2.1), so that every one of them can be asked for in DNS.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Reasons for which a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than 63 bytes (RFC 1035, section 2.3.4).
    #[error("{kind} {name:?} must have 1 to 63 characters, it has {}", name.len())]
    Length {
        /// Kind of object that the name is for.
        kind: &'static str,
        /// The text.
        name: String,
    },
    /// A character that a DNS label does not have.
    #[error("{kind} {name:?} may hold lower-case letters, digits and inner hyphens only, not {character:?}")]
    Character {
        /// Kind of object that the name is for.
        kind: &'static str,
        /// The text.
        name: String,
        /// The first wrong character.
        character: char,
    },
    /// Nothing, more than 253 bytes, or a label that is empty or has a hyphen at an end.
    #[error(
        "{kind} {name:?} must be labels that dots join, 1 to 253 characters in all, each of which begins and ends with a letter \
         or digit"
    )]
    Subdomain {
        /// Kind of object that the name is for.
        kind: &'static str,
        /// The text.
        name: String,
    },
}

fn check_label(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > 63 {
        return Err(NameError::Length { kind, name: text.to_owned() });
    }
    let last = text.chars().count() - 1;
    let wrong = text.chars().enumerate().find(|&(at, c)| {
        !(c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && at != 0 && at != last))
    });
    match wrong {
        Some((_, character)) => Err(NameError::Character { kind, name: text.to_owned(), character }),
        None => Ok(()),
    }
}

/// A name is shared by whoever has a copy of it: states of networks are copied with thousands of them.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check_label($kind, text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

label!(
    /// The name of an overlay network; the second label of its workloads' DNS names.
    NetworkName, "network name"
);
label!(
    /// The name of a service within its network.
    ServiceName, "service name"
);
label!(
    /// The name of a workload within its network, the same on no two hosts.
    WorkloadName, "workload name"
);
label!(
    /// The name of a host in the mesh.
    NodeName, "node name"
);

/// The name of an object of the Gateway API in its network: a DNS subdomain (RFC 1123), labels that dots join, up to 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        const KIND: &str = "object name";
        if text.is_empty() || text.len() > 253 {
            return Err(NameError::Subdomain { kind: KIND, name: text.to_owned() });
        }
        if let Some(character) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')) {
            return Err(NameError::Character { kind: KIND, name: text.to_owned(), character });
        }
        let good = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
        if !text.split('.').all(good) {
            return Err(NameError::Subdomain { kind: KIND, name: text.to_owned() });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for ObjectName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A SPIFFE trust domain (SPIFFE-ID, section 2.1): lower-case letters, digits, `.`, `-` and `_`, up to 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        const KIND: &str = "trust domain";
        if text.is_empty() || text.len() > 255 {
            return Err(NameError::Length { kind: KIND, name: text.to_owned() });
        }
        match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
            Some(character) => Err(NameError::Character { kind: KIND, name: text.to_owned(), character }),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.into()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_what_dns_can_ask_for() {
        for good in ["a", "api", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        for bad in ["", "Api", "a.b", "-a", "a-", "a_b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_objects_are_labels_that_dots_join() {
        for good in ["a", "api.v1", "web-1.a-b.c", "0", &format!("{}.a", "x".repeat(251))] {
            assert_eq!(good.parse::<ObjectName>().unwrap().as_str(), good);
        }
        for bad in ["", "Api", ".a", "a.", "a..b", "-a", "a-", "a-.b", "a_b", "ä", &"x".repeat(254)] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn errors_name_the_object_and_the_character() {
        let error = "My_Net".parse::<NetworkName>().unwrap_err().to_string();
        assert!(error.contains("network name \"My_Net\"") && error.contains("'M'"), "{error}");
    }
}
