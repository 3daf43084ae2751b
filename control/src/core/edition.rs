//! Ages of what hosts have told: which of a host's words about its workloads in a network is the newest that is known here.
//!
//! Hosts tell each other the same words, and compare these with what control says by their ages. What control knows never grows
//! older: a host whose disk is an older one sees here that its words would count for nothing, and begins another incarnation.

use std::collections::BTreeSet;

use sealane_proto::resource::Edition;
use sealane_proto::types::NodeName;

use super::{Change, NetworkState, State, Timestamp};

/// The newest word that a host has told of its workloads in one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The host.
    pub node: NodeName,
    /// Age of the word; that of a host that says no more is closed.
    pub edition: Edition,
}

/// Seconds by which an incarnation may be ahead of this clock and of the last one: more than hosts' clocks are wrong, and so few that
/// nobody counts to the end of numbers.
const AHEAD: u64 = 1 << 33;

/// Returns true if a host of which this is known can say a word of that age.
pub(super) fn is_near(edition: Edition, known: Option<Edition>, now: Timestamp) -> bool {
    let known = known.map_or(0, |known| known.incarnation);
    edition.is_possible() && edition.incarnation <= known.max(now.unix()).saturating_add(AHEAD)
}

impl NetworkState {
    /// The newest word of a host that it can have said.
    fn known(&self, node: &NodeName) -> Option<Edition> {
        self.told.get(node).map(|told| told.edition).filter(|known| known.is_possible())
    }

    /// Returns true if a host can say a word of this age: its next runs can say newer ones.
    pub(super) fn believes(&self, node: &NodeName, edition: Edition, now: Timestamp) -> bool {
        is_near(edition, self.known(node), now)
    }

    /// The change by which a host has told a word of this age; a report without one, as of a host that leaves or of an older
    /// agent, closes what it has told before.
    pub(super) fn told(&self, node: &NodeName, edition: Option<Edition>) -> Option<Change> {
        let known = self.known(node);
        let next = edition.map_or_else(|| known.map(Edition::closed), |edition| Some(edition).max(known))?;
        let put = || Change::put_in(&self.network.name, Told { node: node.clone(), edition: next });
        (known != Some(next)).then(put)
    }
}

/// The changes by which a host has a name that others may have had.
pub(super) fn reopened(state: &State, node: &NodeName) -> Vec<Change> {
    let of = |network: &NetworkState| {
        let known = network.known(node)?;
        let edition = known.reopened();
        let put = || Change::put_in(&network.network.name, Told { node: node.clone(), edition });
        (edition != known).then(put)
    };
    state.networks.values().filter_map(of).collect()
}

/// The closed edition at which a host begins that has the name from now on: one for all that it says, as its agent counts the same for
/// its workloads and for its place.
pub(super) fn begun(state: &State, node: &NodeName) -> Edition {
    let known = state.networks.values().filter_map(|network| network.known(node));
    known.map(Edition::reopened).max().unwrap_or_default()
}

/// The changes that forget what hosts have told that are no part of the mesh, but for these names.
pub(super) fn forgotten(state: &State, kept: &BTreeSet<&NodeName>) -> Vec<Change> {
    let gone = |node: &&NodeName| !state.nodes.contains_key(*node) && !kept.contains(node);
    let of = |network: &NetworkState| {
        let gone = network.told.keys().filter(gone);
        gone.map(|node| Change::remove_in::<Told>(&network.network.name, node.clone())).collect::<Vec<_>>()
    };
    state.networks.values().flat_map(of).collect()
}
