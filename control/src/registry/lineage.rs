//! Signs that the store is an earlier copy: it was put back, and does not know what hosts were told since.

use std::collections::BTreeMap;

use sealane_proto::resource::Voucher;
use sealane_proto::types::{Generation, NetworkName, NodeName};

use super::{DesiredState, Registry};
use crate::core::{Outdone, Timestamp};

/// The newest states that a host was told, with the vouchers for them.
pub(crate) type Held = BTreeMap<NetworkName, (Generation, Voucher)>;

impl Registry {
    /// Finds a state that a control plane of this mesh has told the host and that this store does not know.
    ///
    /// Of what is told here nobody can know before it comes: the first time, a host has what stood in the store at the start, or
    /// something older. Later, no network's state is newer than what is published of it.
    pub(crate) fn outdone(&self, node: &NodeName, held: &Held) -> Option<Outdone> {
        let (directory, began) = (self.directory(), self.began);
        let own = directory.generation;
        let first = !self.agents().met.contains(node);
        let is_news = |network: &NetworkName, of: Generation| {
            let published = directory.networks.get(network).map(|known| known.generation.revision);
            let since = first && own.epoch == began.epoch && of.revision > began.revision;
            of.epoch != own.epoch || since || published.is_some_and(|published| of.revision > published)
        };
        let mut news = held.iter().filter(|(network, (of, voucher))| {
            is_news(network, *of) && directory.notary.vouches(network, *of, *voucher)
        });
        // The store itself knows which lifetimes it follows.
        let from = if own.epoch == began.epoch { began } else { own };
        news.next().map(|(_, (heard, _))| Outdone { node: node.clone(), heard: *heard, from })
    }

    /// Notes that a new lifetime has begun for that reason.
    pub(crate) fn note_outdone(&self, outdone: Outdone, now: Timestamp) {
        self.agents().outdone = Some((outdone, now));
    }

    /// The host that has shown that the store was an earlier copy, and when.
    pub(crate) fn last_outdone(&self) -> Option<(Outdone, Timestamp)> {
        self.agents().outdone.clone()
    }
}

/// Returns the newest revision of these that is newer than a store's own, with that.
pub(super) fn ahead(own: Generation, applied: &BTreeMap<NetworkName, Generation>) -> Option<(u64, u64)> {
    let of_epoch = applied.values().filter(|known| known.epoch == own.epoch);
    let newest = of_epoch.map(|known| known.revision).max().filter(|newest| *newest > own.revision);
    newest.map(|newest| (newest, own.revision))
}

impl DesiredState {
    /// The networks that the host has at the generation of what is published, with another content: this store tells otherwise what
    /// an earlier control plane has told.
    pub(crate) fn contradicts<'a>(&'a self, held: &'a Held) -> impl Iterator<Item = &'a NetworkName> {
        held.iter().filter_map(|(network, (generation, voucher))| {
            let published = self.networks.get(network)?;
            let other = published.generation == *generation && published.voucher.digest != voucher.digest;
            other.then_some(network)
        })
    }
}
