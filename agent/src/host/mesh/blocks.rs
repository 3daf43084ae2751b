//! This host's blocks of addresses: when it needs more, and what it gives back. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ipnet::Ipv4Net;
use sealane_proto::resource::{Block, NetworkSnapshot};
use sealane_proto::types::{NetworkName, NodeName, OverlayIp};

use super::{CarriedNetwork, Mesh};
use crate::host::give_back::surplus;
use crate::host::lease_ahead::ENOUGH;
use crate::ipam::without;

impl Mesh {
    /// Takes a network's state from its record, with the ranges of this host's blocks that it gives back.
    pub(crate) fn recall_network(&mut self, (snapshot, offered): (NetworkSnapshot, BTreeSet<Ipv4Net>)) {
        let network = snapshot.network.name.clone();
        self.accept(snapshot);
        self.offer(&network, &offered);
    }

    /// Ranges of this host's blocks that it gives back, from now on or since before it started.
    pub(crate) fn offer(&mut self, network: &NetworkName, ranges: &BTreeSet<Ipv4Net>) {
        if let Some(carried) = self.networks.get_mut(network)
            && !ranges.is_empty()
        {
            carried.ipam.offer(ranges);
            carried.remembered = remembered(&carried.snapshot, &self.node.name, carried.ipam.offered());
            carried.placed = carried.remembered.clone();
            self.places.touch();
            self.version += 1;
        }
    }

    /// The ranges of a network that this host gives back.
    #[must_use]
    pub(crate) fn offered(&self, network: &NetworkName) -> BTreeSet<Ipv4Net> {
        self.networks.get(network).map(|carried| carried.ipam.offered().clone()).unwrap_or_default()
    }

    /// The ranges that this host assigns addresses from.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub(crate) fn assigns(&self, network: &NetworkName) -> Vec<Ipv4Net> {
        self.networks
            .get(network)
            .map(|carried| carried.ipam.blocks().iter().copied().collect())
            .unwrap_or_default()
    }

    /// The ranges that this host does not need at this moment.
    #[must_use]
    pub(in crate::host) fn surplus(&self) -> BTreeMap<NetworkName, Vec<Ipv4Net>> {
        let mut used: BTreeMap<&NetworkName, BTreeSet<OverlayIp>> = BTreeMap::new();
        let hosted = self.hosted.iter().map(|(id, hosted)| (&id.network, hosted.workload.address));
        let kept = self.reserved.values().map(|kept| (&kept.network, kept.address));
        for (network, address) in hosted.chain(kept) {
            used.entry(network).or_default().insert(address);
        }
        let of = |(name, carried): (&NetworkName, &CarriedNetwork)| {
            let used = used.get(name).cloned().unwrap_or_default();
            let (subnet, blocks) = (carried.snapshot.network.subnet, carried.ipam.blocks());
            (name.clone(), surplus(subnet, blocks, &used, carried.snapshot.is_short()))
        };
        self.networks.iter().map(of).collect()
    }

    /// The addresses of the network that are in use here, or kept for somebody.
    fn used_here(&self, network: &NetworkName) -> BTreeSet<OverlayIp> {
        let kept = self.reserved.values().filter(|kept| kept.network == *network).map(|kept| kept.address);
        self.hosted_in(network).map(|hosted| hosted.workload.address).chain(kept).collect()
    }

    /// The number of blocks that this host has of a network, if it uses half of their addresses and has few left.
    pub(crate) fn wants_more(&self, network: &NetworkName, now: Instant) -> Option<usize> {
        let carried = self.networks.get(network)?;
        let used = self.used_here(network);
        let wants = carried.ipam.free(&used, now) < used.len().min(ENOUGH);
        wants.then(|| carried.snapshot.own_blocks(&self.node.name).count())
    }
}

/// The network without these ranges of a host's blocks.
pub(super) fn remembered(
    snapshot: &Arc<NetworkSnapshot>,
    node: &NodeName,
    offered: &BTreeSet<Ipv4Net>,
) -> Arc<NetworkSnapshot> {
    if offered.is_empty() {
        return snapshot.clone();
    }
    let mut content = snapshot.content.clone();
    content.blocks = Vec::with_capacity(snapshot.blocks.len());
    for block in &snapshot.blocks {
        let ranges = match block.node.as_ref() == Some(node) {
            true => without(block.range, offered),
            false => vec![block.range],
        };
        content.blocks.extend(ranges.into_iter().map(|range| Block { node: block.node.clone(), range }));
    }
    Arc::new(NetworkSnapshot { generation: snapshot.generation, content, voucher: snapshot.voucher })
}
