//! Facts that a host tells of its own workloads, and how new they are.

use std::fmt;

use super::Workload;
use crate::types::{NetworkName, NodeName};
use crate::wire::{Fields, WireError, all, each, v1};

/// Age of a host's word about its own workloads in one network: the greater of two is the newer word.
///
/// An incarnation is one run of the host's agent, and no number is used twice, not even by an agent whose disk is an older one;
/// revisions count the changes within it. That orders the words of one host whatever way they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition {
    /// Run of the agent, from 1.
    pub incarnation: u64,
    /// Change within that run, from 1; 0 is control's own, by which it closes what it has heard before.
    pub revision: u64,
}

/// The largest number of an incarnation or a revision: none that is counted or read from a clock comes near it.
const MOST: u64 = 1 << 62;
/// Distance to the incarnation by which what was heard before is closed: agents start less often meanwhile.
const CLOSED: u64 = 1 << 32;

impl Edition {
    /// The edition that is newer than every word that its host can have said before: the host speaks no more, or not of this.
    #[must_use]
    pub const fn closed(self) -> Self {
        match self.revision {
            0 => self,
            _ => Self { incarnation: self.incarnation.saturating_add(CLOSED), revision: 0 },
        }
    }

    /// The closed edition at which another host begins that has the name from now on: newer than what a host said in between of which
    /// nobody heard here.
    #[must_use]
    pub const fn reopened(self) -> Self {
        match self.revision {
            0 => Self { incarnation: self.incarnation.saturating_add(1), revision: 0 },
            _ => self,
        }
    }

    /// Returns true if a host can have said this, whatever its clock: newer ones can follow it.
    #[must_use]
    pub const fn is_possible(self) -> bool {
        self.incarnation <= MOST && self.revision <= MOST
    }

    /// Reads one that a host says of itself.
    pub(crate) fn said(message: &'static str, incarnation: u64, revision: u64) -> Result<Self, WireError> {
        let edition = Self { incarnation, revision };
        match edition.is_possible() {
            true => Ok(edition),
            false => Err(Fields(message).invalid("incarnation", &NotPossible(edition))),
        }
    }
}

/// An edition that nobody can have said.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a number that no count or clock of a host comes to")]
struct NotPossible(Edition);

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.revision)
    }
}

/// Everything that a host says of its own workloads in one network: the newest replaces every older one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerFacts {
    /// The network.
    pub network: NetworkName,
    /// As of [`Edition`].
    pub incarnation: u64,
    /// As of [`Edition`].
    pub revision: u64,
    /// All workloads of the host in the network, sorted by name, but for those that control has refused.
    pub workloads: Vec<Workload>,
}

impl OwnerFacts {
    /// Age of this word.
    #[must_use]
    pub const fn edition(&self) -> Edition {
        Edition { incarnation: self.incarnation, revision: self.revision }
    }
}

impl TryFrom<v1::OwnerFacts> for OwnerFacts {
    type Error = WireError;
    fn try_from(message: v1::OwnerFacts) -> Result<Self, WireError> {
        Ok(Self {
            network: Fields("OwnerFacts").parse("network", &message.network)?,
            incarnation: message.incarnation,
            revision: message.revision,
            workloads: all(message.workloads)?,
        })
    }
}

impl From<&OwnerFacts> for v1::OwnerFacts {
    fn from(facts: &OwnerFacts) -> Self {
        Self {
            network: facts.network.to_string(),
            incarnation: facts.incarnation,
            revision: facts.revision,
            workloads: each(&facts.workloads),
        }
    }
}

impl TryFrom<v1::OwnerEdition> for (NodeName, Edition) {
    type Error = WireError;
    fn try_from(message: v1::OwnerEdition) -> Result<Self, WireError> {
        let v1::OwnerEdition { node, incarnation, revision } = message;
        Ok((Fields("OwnerEdition").parse("node", &node)?, Edition { incarnation, revision }))
    }
}

impl From<(&NodeName, &Edition)> for v1::OwnerEdition {
    fn from((node, edition): (&NodeName, &Edition)) -> Self {
        let Edition { incarnation, revision } = *edition;
        Self { node: node.to_string(), incarnation, revision }
    }
}

impl TryFrom<v1::NetworkEdition> for (NetworkName, Edition) {
    type Error = WireError;
    fn try_from(message: v1::NetworkEdition) -> Result<Self, WireError> {
        let v1::NetworkEdition { network, incarnation, revision } = message;
        let edition = Edition::said("NetworkEdition", incarnation, revision)?;
        Ok((Fields("NetworkEdition").parse("network", &network)?, edition))
    }
}

impl From<(&NetworkName, &Edition)> for v1::NetworkEdition {
    fn from((network, edition): (&NetworkName, &Edition)) -> Self {
        let Edition { incarnation, revision } = *edition;
        Self { network: network.to_string(), incarnation, revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_edition_is_newer_than_all_before_and_is_closed_once() {
        let last = Edition { incarnation: 7, revision: 31 };
        let closed = last.closed();
        assert!(closed > last && closed > Edition { incarnation: 9, revision: 1 });
        assert_eq!(closed.closed(), closed);
        assert!(Edition { incarnation: closed.incarnation, revision: 1 } > closed);
        let said = Edition { incarnation: closed.incarnation + 1, revision: 9 };
        assert!(closed.reopened() < said && closed.reopened().reopened() > Edition { revision: 0, ..said });
        assert_eq!(said.reopened(), said, "it speaks on");
    }
}
