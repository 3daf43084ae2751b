//! The names by which somebody outside holds an attachment.

use std::fmt;
use std::str::FromStr;

use sealane_fabric::seat::number;

/// The longest one, in bytes.
const LONGEST: usize = 200;

/// The name by which a runtime holds an attachment: it lives until that is dismissed, whatever becomes of processes and
/// paths. A name holds one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hold(Box<str>);

/// Reason for which a text is not such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no holder: it has 1 to 200 visible ASCII characters")]
pub(crate) struct HoldError(String);

impl Hold {
    /// The beginning of the names by which Docker's door holds.
    pub(crate) const DOCKER: &str = "docker/";

    /// The name as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether Docker's door holds by this name. Docker answers names at 127.0.0.11 by rules that ours come before.
    #[must_use]
    pub(crate) fn is_of_docker(&self) -> bool {
        self.0.starts_with(Self::DOCKER)
    }

    /// A number that it has for itself among as many as there are on a host.
    #[must_use]
    pub(crate) fn hash(&self) -> u64 {
        number(&self.0)
    }
}

impl FromStr for Hold {
    type Err = HoldError;
    fn from_str(text: &str) -> Result<Self, HoldError> {
        let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|c| c.is_ascii_graphic());
        if fits { Ok(Self(text.into())) } else { Err(HoldError(text.chars().take(64).collect())) }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_one_visible_word() {
        assert_eq!("cni/4f1c/eth0".parse::<Hold>().unwrap().to_string(), "cni/4f1c/eth0");
        for wrong in ["", "a b", "a\n", &"x".repeat(201)] {
            assert!(wrong.parse::<Hold>().is_err(), "{wrong}");
        }
    }
}
