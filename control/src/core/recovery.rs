//! A store that was restored: what it was made from, and what hosts may still tell about the time since.
//!
//! Between a backup and the failure, networks, blocks, services, workloads and hosts came into being that the
//! backup does not know. Every host that carries a network has its newest state: it tells that before it
//! reports ([`Recall`]), and what the store does not know is taken over where it contradicts nothing. Hosts that
//! joined since prove it by their certificates ([`Readmit`]).

mod readmit;
mod recall;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealane_proto::types::{Generation, NetworkName, NodeName};

use super::{State, Timestamp};

pub use readmit::{Readmit, ReadmitRefusal, Readmitted};
pub use recall::{Recall, RecallRefusal, TakenOver};

/// Time for which hosts are believed what they carried: who comes later finds the store as it is.
const WINDOW: Duration = Duration::from_secs(24 * 3_600);

/// Memory of a store's restoration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The lifetimes that hosts may have state of: the backup's, and the replaced store's.
    pub epochs: BTreeSet<u64>,
    /// The backup's revision; what is older the backup knows.
    pub revision: u64,
    /// Time at which the backup was taken.
    pub taken: Timestamp,
    /// Time at which it was restored.
    pub restored: Timestamp,
    /// The networks that are or were here, each with the state that it was first known by.
    pub networks: BTreeMap<NetworkName, Generation>,
    /// The hosts that have reported since: of them, nobody else is believed anything.
    pub heard: BTreeSet<NodeName>,
    /// The hosts that were taken in again by their certificates, once each.
    pub readmitted: BTreeSet<NodeName>,
    /// The hosts that were removed since: neither they nor others bring them back.
    pub removed: BTreeMap<NodeName, Removal>,
}

/// The removal of a host whose key may not be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Since when it is no part of the mesh.
    pub at: Timestamp,
}

/// A host was told what a store does not know, which is an earlier copy therefore: a file or a disk was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdone {
    /// The host.
    pub node: NodeName,
    /// The generation of what it was told.
    pub heard: Generation,
    /// The generation from which the store has gone its own way, or an earlier one.
    pub from: Generation,
    /// Time since when it has.
    pub since: Timestamp,
    /// The networks that the store has known since, also those that are gone, each with what it was then.
    pub known: BTreeMap<NetworkName, Generation>,
}

impl Recovery {
    /// The recovery of a state that a backup of these lifetimes holds.
    #[must_use]
    pub fn new(from: Generation, taken: Timestamp, restored: Timestamp, state: &State) -> Self {
        let of = |changed| Generation { epoch: from.epoch, revision: changed };
        let networks = state.networks.iter().map(|(name, network)| (name.clone(), of(network.changed)));
        Self {
            epochs: BTreeSet::from([from.epoch]),
            revision: from.revision,
            taken,
            restored,
            networks: networks.collect(),
            ..Self::default()
        }
    }

    /// The recovery of a store that is an earlier copy, with what an earlier one in it says that still counts.
    ///
    /// When the copy was taken is not known: after the last host in it joined. What was removed since the store has gone its own way stays
    /// removed.
    #[must_use]
    pub fn of_copy(outdone: &Outdone, now: Timestamp, state: &State) -> Self {
        let Outdone { heard, from, since, known, .. } = outdone;
        let taken = state.nodes.values().map(|record| record.joined).max().unwrap_or_default();
        let mut recovery = Self::new(*from, taken, now, state);
        recovery.epochs.insert(heard.epoch);
        if let Some(before) = &state.recovery {
            recovery.epochs.extend(&before.epochs);
            recovery.readmitted.clone_from(&before.readmitted);
            recovery.removed.clone_from(&before.removed);
        }
        for (network, first) in known {
            recovery.networks.entry(network.clone()).or_insert(*first);
        }
        let removed = state.removed.values().filter(|removed| removed.removed >= *since);
        let removed = removed.map(|removed| (removed.name.clone(), Removal { at: removed.removed }));
        recovery.removed.extend(removed);
        recovery
    }

    /// Returns true if a store knows that hosts may have state of this lifetime.
    #[must_use]
    pub fn follows(&self, epoch: u64) -> bool {
        self.epochs.contains(&epoch)
    }

    /// Returns true if hosts are believed no longer.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.restored.after(WINDOW) <= now
    }

    /// Returns true if a host's state of a network may hold something that is not known here.
    fn is_news(&self, generation: Generation) -> bool {
        self.epochs.contains(&generation.epoch) && generation.revision > self.revision
    }
}
