//! Words of members that this host does not go by, though their owners say them now. Pure.

use std::time::{Duration, UNIX_EPOCH};

use sealane_proto::resource::{Edition, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName};

use super::SKEW;

/// The last second of the year 9999.
const LATEST: u64 = 253_402_300_799;

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
    /// Tells people about it, in all networks for which it holds.
    pub(super) fn sentence(&self, networks: &[&NetworkName], owner: &NodeName) -> String {
        let (plural, names) = (if networks.len() > 1 { "s" } else { "" }, joined(networks));
        match self {
            Self::Ahead(facts) => format!(
                "node {owner} says of its workloads in network{plural} {names} what this host does not believe: its agent has counted its \
                 starts up to {}, more than a day ahead of this host's clock; set the clocks of both right (NTP): if this host's was \
                 wrong, that is all, and if that of {owner} was, it is believed again once control has heard it, or from {} on",
                clock(facts.incarnation),
                clock(facts.incarnation.saturating_sub(SKEW)),
            ),
            Self::Outdone { said, known } => format!(
                "node {owner} says of its workloads in network{plural} {names} what is older ({said}) than what it has said before ({known}), \
                 by which this host goes on: start the agent of {owner} again, a day later once more if that does not help; two hosts with one \
                 identity (a copied disk) look the same"
            ),
        }
    }
}

fn joined(networks: &[&NetworkName]) -> String {
    networks.iter().map(|network| network.as_str()).collect::<Vec<_>>().join(", ")
}

/// The time that an incarnation stands for, as people write it.
fn clock(incarnation: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(incarnation)) {
        Some(time) if incarnation <= LATEST => humantime::format_rfc3339_seconds(time).to_string(),
        Some(_) | None => format!("second {incarnation}"),
    }
}
