//! The hosts that something is for.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::NodeName;

/// The hosts that something is for: those that are named or, when none is, all hosts of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hosts(BTreeSet<NodeName>);

impl Hosts {
    /// Returns true if this host is among them.
    #[must_use]
    pub fn admit(&self, host: &NodeName) -> bool {
        self.0.is_empty() || self.0.contains(host)
    }

    /// Returns true if no host is left out.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Lists the hosts that are named and not known; `None` without any.
    #[must_use]
    pub fn missing(&self, is_known: impl Fn(&NodeName) -> bool) -> Option<String> {
        let missing: Vec<&str> = self.0.iter().filter(|name| !is_known(name)).map(NodeName::as_str).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// Iterates over the hosts that are named.
    pub fn iter(&self) -> impl Iterator<Item = &NodeName> {
        self.0.iter()
    }
}

impl FromIterator<NodeName> for Hosts {
    fn from_iter<I: IntoIterator<Item = NodeName>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.pad("all hosts");
        }
        let names: Vec<&str> = self.0.iter().map(NodeName::as_str).collect();
        f.pad(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_names_nobody_means_all() {
        let host = |name: &str| name.parse::<NodeName>().unwrap();
        assert!(Hosts::default().admit(&host("a")) && Hosts::default().to_string() == "all hosts");
        let two: Hosts = [host("b"), host("a"), host("b")].into_iter().collect();
        assert!(two.admit(&host("a")) && !two.admit(&host("c")) && two.to_string() == "a, b");
        assert_eq!(two.missing(|name| *name == host("b")).as_deref(), Some("a"));
        assert_eq!((two.missing(|_| true), Hosts::default().missing(|_| false)), (None, None));
    }
}
