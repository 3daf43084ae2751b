//! Room in a network: how many of its blocks a host may have, and which are kept for hosts that have none.
//!
//! A workload may have an address in a block that nobody holds. Nobody else gets that then: it counts as its host's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::types::{NodeName, OverlayIp, Subnet};

use super::{NetworkState, State, hosts, ipam};

/// The number of blocks that a host may hold beyond those that it uses: workloads are reported a moment after they have
/// their addresses.
pub(super) const AHEAD: usize = 4;

/// The addresses of a host's workloads, counted.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Number of workloads in blocks that the host holds.
    pub(super) inside: usize,
    /// Number of workloads in each block that nobody holds.
    pub(super) outside: BTreeMap<Ipv4Net, usize>,
}

/// Counts addresses of a host by whose blocks they are in.
pub(super) fn spread(
    network: &NetworkState,
    node: &NodeName,
    addresses: impl Iterator<Item = OverlayIp>,
) -> Spread {
    let mut spread = Spread::default();
    for address in addresses {
        let block = ipam::block_of(network.network.subnet, address);
        match network.blocks.get(&block) {
            Some(held) => spread.inside += usize::from(held.node.as_ref() == Some(node)),
            None => *spread.outside.entry(block).or_default() += 1,
        }
    }
    spread
}

/// Says whether a host that has so many blocks hardly uses them.
pub(super) fn is_ahead(subnet: Subnet, held: usize, used: usize) -> bool {
    held >= AHEAD + (2 * used).div_ceil(ipam::block_size(subnet))
}

/// Says whether the last `free` blocks of a network are for hosts that have none.
pub(super) fn is_kept(state: &State, network: &NetworkState, free: usize) -> bool {
    if free == 0 || !are_last(network.network.subnet, free) {
        return false;
    }
    let without = state.nodes.values().filter(|record| !network.carried_by(&record.node.name));
    let without = without.filter(|record| hosts::check_network(record, network).is_ok());
    // No more are looked for than it takes.
    without.take(free).count() == free
}

/// Says whether so many free blocks are the last ones of a subnet: a quarter of all, or less.
pub(super) fn are_last(subnet: Subnet, free: usize) -> bool {
    free <= ipam::block_count(subnet) as usize / 4
}

/// Counts the blocks that are left when a host has `own` beside those that it holds.
pub(super) fn free(network: &NetworkState, node: &NodeName, own: impl Iterator<Item = Ipv4Net>) -> usize {
    left(network, &taken(network, node, own))
}

fn left(network: &NetworkState, taken: &BTreeSet<Ipv4Net>) -> usize {
    (ipam::block_count(network.network.subnet) as usize).saturating_sub(taken.len())
}

/// Finds the blocks that somebody holds, where another host's workloads are, or that are the host's `own`.
fn taken(network: &NetworkState, node: &NodeName, own: impl Iterator<Item = Ipv4Net>) -> BTreeSet<Ipv4Net> {
    let foreign = network.workloads.values().filter(|workload| workload.node != *node);
    let foreign = foreign.map(|workload| ipam::block_of(network.network.subnet, workload.address));
    foreign.chain(network.blocks.keys().copied()).chain(own).collect()
}

/// Finds the blocks that nobody holds in which a host may have workloads at these addresses: as many as it could lease,
/// the fullest first. Where it has a workload at one of them already, it keeps that.
pub(super) fn of(
    state: &State,
    network: &NetworkState,
    node: &NodeName,
    named: &BTreeSet<OverlayIp>,
) -> BTreeSet<Ipv4Net> {
    let subnet = network.network.subnet;
    let assignable = named.iter().copied().filter(|&address| ipam::is_assignable(subnet, address));
    let Spread { inside, outside } = spread(network, node, assignable);
    let is_own = |block| {
        let mut there = named.range(ipam::addresses(block)).filter_map(|&address| network.at(address));
        there.any(|workload| workload.node == *node)
    };
    let (own, mut new): (Vec<_>, Vec<_>) = outside.into_iter().partition(|&(block, _)| is_own(block));
    let mut used = inside + own.iter().map(|(_, count)| count).sum::<usize>();
    let mut room: BTreeSet<Ipv4Net> = own.into_iter().map(|(block, _)| block).collect();
    if new.is_empty() {
        return room;
    }
    new.sort_by_key(|&(block, count)| (Reverse(count), block));
    let held = network.blocks.index().of(node).count();
    let mut taken = taken(network, node, room.iter().copied());
    for (block, count) in new {
        if is_ahead(subnet, held + room.len(), used + count) {
            break;
        }
        if !taken.contains(&block) && is_kept(state, network, left(network, &taken)) {
            continue;
        }
        used += count;
        room.insert(block);
        taken.insert(block);
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_subnets_blocks_are_its_last_ones() {
        let subnet = "10.42.0.0/16".parse().unwrap();
        assert!(are_last(subnet, 64) && !are_last(subnet, 65));
    }

    #[test]
    fn a_host_is_ahead_when_it_holds_four_blocks_more_than_its_workloads_pay_for() {
        let subnet = "10.42.0.0/16".parse().unwrap();
        // Half of a block of 256 pays for it.
        for (held, used, ahead) in
            [(3, 0, false), (4, 0, true), (4, 1, false), (5, 128, true), (5, 129, false)]
        {
            assert_eq!(is_ahead(subnet, held, used), ahead, "{held} {used}");
        }
    }
}
