//! Room outside of all leases: a workload may have an address in a block that nobody holds, which nobody else gets then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::types::{NodeName, OverlayIp};

use crate::core::{NetworkState, State, carry, ipam};

/// The blocks that nobody holds in which a host may have workloads at these addresses: as many as it could lease, the
/// fullest first. Where it has a workload at one of them already, it keeps that.
pub(super) fn of(
    state: &State,
    network: &NetworkState,
    node: &NodeName,
    named: &BTreeSet<OverlayIp>,
) -> BTreeSet<Ipv4Net> {
    let subnet = network.network.subnet;
    let (mut used, mut outside) = (0, BTreeMap::<Ipv4Net, usize>::new());
    let mut room = BTreeSet::new();
    for &address in named.iter().filter(|&&address| ipam::is_assignable(subnet, address)) {
        let block = ipam::block_of(subnet, address);
        match network.blocks.get(&block) {
            Some(holder) => used += usize::from(holder.as_ref() == Some(node)),
            None => {
                *outside.entry(block).or_default() += 1;
                if network.at(address).is_some_and(|workload| workload.node == *node) {
                    room.insert(block);
                }
            }
        }
    }
    if outside.is_empty() {
        return room;
    }
    used += outside.iter().filter(|(block, _)| room.contains(*block)).map(|(_, count)| count).sum::<usize>();
    outside.retain(|block, _| !room.contains(block));
    let own = network.blocks.values().filter(|holder| holder.as_ref() == Some(node)).count();
    let mut outside: Vec<(Ipv4Net, usize)> = outside.into_iter().collect();
    outside.sort_by_key(|&(block, count)| (Reverse(count), block));
    let foreign = taken(network, node);
    for (block, count) in outside {
        if carry::is_ahead(own + room.len(), used + count, carry::block_size(subnet)) {
            break;
        }
        let free = ipam::block_count(subnet) as usize;
        let free = free.saturating_sub(foreign.union(&room).count());
        if !foreign.contains(&block) && carry::is_kept(state, network, free) {
            continue;
        }
        used += count;
        room.insert(block);
    }
    room
}

/// How many blocks are left when a host has `own` beside those that it holds.
pub(super) fn free(network: &NetworkState, node: &NodeName, own: impl Iterator<Item = Ipv4Net>) -> usize {
    let taken: BTreeSet<Ipv4Net> = taken(network, node).into_iter().chain(own).collect();
    (ipam::block_count(network.network.subnet) as usize).saturating_sub(taken.len())
}

/// The blocks that somebody holds, or where another host's workloads are.
fn taken(network: &NetworkState, node: &NodeName) -> BTreeSet<Ipv4Net> {
    let foreign = network.workloads.values().filter(|workload| workload.node != *node);
    let foreign = foreign.map(|workload| ipam::block_of(network.network.subnet, workload.address));
    foreign.chain(network.blocks.keys().copied()).collect()
}
