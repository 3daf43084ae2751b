//! Callers that a port accepts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Callers that the sidecar of a called workload accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mtls {
    /// Anybody's of the network: by mutual TLS from callers with a sidecar, plain from others; at any port.
    Permissive,
    /// Callers by mutual TLS alone, and only at ports that are offered.
    Strict,
}

impl Mtls {
    /// Both, with the names that the command line and documents use.
    pub const NAMES: [(&'static str, Self); 2] = [("strict", Self::Strict), ("permissive", Self::Permissive)];

    /// The word that people write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }

    /// Returns true if plain calls are refused.
    #[must_use]
    pub const fn is_strict(self) -> bool {
        matches!(self, Self::Strict)
    }
}

/// A text that names no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mtls {0:?} is neither strict nor permissive")]
pub struct MtlsError(String);

impl FromStr for Mtls {
    type Err = MtlsError;
    fn from_str(text: &str) -> Result<Self, MtlsError> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|&(_, mode)| mode).ok_or_else(|| MtlsError(text.to_owned()))
    }
}

impl fmt::Display for Mtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written_and_others_are_named() {
        for (name, mode) in Mtls::NAMES {
            assert_eq!((name.parse(), mode.to_string()), (Ok(mode), name.to_owned()));
        }
        let error = "Strict".parse::<Mtls>().unwrap_err().to_string();
        assert_eq!(error, "mtls \"Strict\" is neither strict nor permissive");
    }

    #[test]
    fn strict_is_the_greater_of_the_two() {
        assert_eq!([Mtls::Permissive, Mtls::Strict].into_iter().max(), Some(Mtls::Strict));
    }
}
