//! Words of members that this host does not go by, though their owners say them now. Pure.

use sealane_proto::resource::{Edition, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName};

/// Reason for which a word does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The word is of a start of its agent that is yet to come; it is weighed again when control tells of its owner.
    Ahead(OwnerFacts),
    /// The owner has said a newer one before.
    Outdone {
        /// Age of the word.
        said: Edition,
        /// Age of the newer one.
        known: Edition,
    },
}

impl Doubt {
    /// Tells people about it.
    pub(super) fn sentence(&self, network: &NetworkName, owner: &NodeName) -> String {
        match self {
            Self::Ahead(facts) => format!(
                "node {owner} says of its workloads in network {network} what this host does not believe: its agent's start ({}) is more \
                 than a day ahead of this host's clock; set the clocks of both right (NTP) and start the agent of {owner} again, or wait until control \
                 has heard it",
                facts.edition()
            ),
            Self::Outdone { said, known } => format!(
                "node {owner} says of its workloads in network {network} what is older ({said}) than what it has said before ({known}), \
                 by which this host goes on: start the agent of {owner} again, a day later once more if that does not help; two hosts with one \
                 identity (a copied disk) look the same"
            ),
        }
    }
}
