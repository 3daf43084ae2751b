//! Room in a network: how many of its addresses a host may hold, and which are kept for hosts that have none.
//!
//! A workload may have an address that no block has. Nobody else gets the cell around it then: that counts as its host's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::types::{NodeName, OverlayIp, Subnet};

use super::ipam::{self, Taken};
use super::{NetworkState, State, hosts};

/// Addresses of a host's workloads, counted.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Number of workloads in blocks that the host holds.
    pub(super) inside: usize,
    /// Number of workloads in each cell around an address that no block has.
    pub(super) outside: BTreeMap<Ipv4Net, usize>,
}

impl Spread {
    /// Number of workloads.
    pub(super) fn used(&self) -> usize {
        self.inside + self.outside.values().sum::<usize>()
    }
}

/// Counts addresses of a host by whose blocks they are in.
pub(super) fn spread(
    network: &NetworkState,
    node: &NodeName,
    addresses: impl Iterator<Item = OverlayIp>,
) -> Spread {
    let mut spread = Spread::default();
    for address in addresses {
        match network.holder(address) {
            Some(held) => spread.inside += usize::from(held.node.as_ref() == Some(node)),
            None => *spread.outside.entry(ipam::cell_of(network.network.subnet, address)).or_default() += 1,
        }
    }
    spread
}

/// The number of assignable addresses in the blocks of a host.
pub(super) fn held(network: &NetworkState, node: &NodeName) -> usize {
    let subnet = network.network.subnet;
    network.blocks.index().of(node).map(|block| ipam::assignable(subnet, block)).sum()
}

/// The number of addresses that a host may hold, cells around single ones among them, when its workloads have `used`: half as
/// many again. Small hosts may hold more, as workloads are reported a moment after they have their addresses, and an address
/// rests on its host for a minute before that gives it again.
pub(super) fn allowance(subnet: Subnet, used: usize) -> usize {
    let size = ipam::size(subnet.to_net());
    let ahead = (size / 64).max((size / 8).min(64)).min(4_096);
    used + ahead.max(used / 2)
}

/// Says whether so many free addresses are the last ones of a subnet: a quarter of all, or less.
pub(super) fn are_last(subnet: Subnet, free: usize) -> bool {
    free <= ipam::size(subnet.to_net()) / 4
}

/// Says whether so many free addresses are more than half of a subnet's: then a host may have some that it does not need yet.
/// It gives them back when they are the last ones, so that nothing goes to and fro.
pub(super) fn is_roomy(subnet: Subnet, free: usize) -> bool {
    free > ipam::size(subnet.to_net()) / 2
}

/// The number of addresses that are kept: a cell for each host that has none and for services as long as they have none, but
/// no more than a quarter of all.
pub(super) fn kept(state: &State, network: &NetworkState) -> usize {
    let subnet = network.network.subnet;
    let (cell, most) = (ipam::cell_size(subnet), ipam::size(subnet.to_net()) / 4);
    let without = state.nodes.values().filter(|record| !network.carried_by(&record.node.name));
    let without = without.filter(|record| hosts::check_network(record, network).is_ok());
    // No more are looked for than it takes.
    let hosts = without.take(most / cell).count();
    let services = usize::from(network.blocks.index().own().next().is_none());
    (cell * (hosts + services)).min(most)
}

/// Finds the addresses that are left to nobody but this host: what somebody holds, the cells around other hosts' workloads, and
/// the host's `own` cells.
pub(super) fn taken(network: &NetworkState, node: &NodeName, own: impl Iterator<Item = Ipv4Net>) -> Taken {
    let held = network.blocks.keys().copied();
    Taken::new(network.network.subnet, network.cells_of_others(node).chain(held).chain(own))
}

/// Finds the cells outside of every block in which a host may have workloads at these addresses: as many as it could lease, the
/// fullest first. Where it has a workload at one of them already, it keeps that.
pub(super) fn of(
    state: &State,
    network: &NetworkState,
    node: &NodeName,
    named: &BTreeSet<OverlayIp>,
) -> BTreeSet<Ipv4Net> {
    let subnet = network.network.subnet;
    let assignable = named.iter().copied().filter(|&address| ipam::is_assignable(subnet, address));
    let Spread { inside, outside } = spread(network, node, assignable);
    let is_own = |cell| {
        let mut there = named.range(ipam::addresses(cell)).filter_map(|&address| network.at(address));
        there.any(|workload| workload.node == *node)
    };
    let (own, mut new): (Vec<_>, Vec<_>) = outside.into_iter().partition(|&(cell, _)| is_own(cell));
    let mut used = inside + own.iter().map(|(_, count)| count).sum::<usize>();
    let mut room: BTreeSet<Ipv4Net> = own.into_iter().map(|(cell, _)| cell).collect();
    if new.is_empty() {
        return room;
    }
    new.sort_by_key(|&(cell, count)| (Reverse(count), cell));
    let cell_size = ipam::cell_size(subnet);
    let mut held = held(network, node) + room.len() * cell_size;
    let taken = taken(network, node, room.iter().copied());
    let mut spare = taken.free().saturating_sub(kept(state, network));
    for (cell, count) in new {
        if held + cell_size > allowance(subnet, used + count) {
            break;
        }
        if !taken.overlaps(cell) {
            match spare.checked_sub(cell_size) {
                Some(left) => spare = left,
                None => continue,
            }
        }
        used += count;
        held += cell_size;
        room.insert(cell);
    }
    room
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::{Block, Egress, Node, Workload};

    use super::*;
    use crate::core::{CarryNetwork, Change, CreateNetwork, NodeRecord, Timestamp, model};

    #[test]
    fn a_quarter_of_a_subnets_addresses_are_its_last_ones() {
        let subnet = "10.42.0.0/22".parse().unwrap();
        assert!(are_last(subnet, 256) && !are_last(subnet, 257));
        assert!(is_roomy(subnet, 513) && !is_roomy(subnet, 512), "more than half");
    }

    /// Two hosts of a network with 1,024 addresses in cells of 16; host-1 holds the first one, host-2 the next.
    fn state() -> State {
        let mut state = State::default();
        let create = CreateNetwork {
            name: "shop".parse().unwrap(),
            hosts: Default::default(),
            subnet: "10.42.0.0/22".parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        };
        model::run(&mut state, create, Timestamp::default()).unwrap();
        for number in 1..=2 {
            join(&mut state, number);
            let (node, network) = (format!("host-{number}").parse().unwrap(), "shop".parse().unwrap());
            model::run(&mut state, CarryNetwork { node, network, blocks_held: 0 }, Timestamp::default())
                .unwrap();
        }
        state
    }

    fn join(state: &mut State, number: u8) {
        let underlay = format!("192.0.2.{number}").parse().unwrap();
        let node = Node { name: format!("host-{number}").parse().unwrap(), underlay, mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [number; 32], Timestamp::default())));
    }

    fn hold(state: &mut State, node: Option<&str>, range: &str) {
        let block = Block { node: node.map(|node| node.parse().unwrap()), range: range.parse().unwrap() };
        state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    }

    fn work(state: &mut State, node: &str, address: &str) {
        let workload = Workload {
            name: format!("at-{}", address.replace('.', "-")).parse().unwrap(),
            node: node.parse().unwrap(),
            ..model::workload(address.parse().unwrap())
        };
        state.apply(&Change::put_in(&"shop".parse().unwrap(), workload));
    }

    /// The cells in which host-1 may have workloads at these addresses.
    fn room(state: &State, named: impl IntoIterator<Item = String>) -> Vec<String> {
        let named = named.into_iter().map(|address| address.parse().unwrap()).collect();
        let network = state.networks.values().next().unwrap();
        let room = of(state, network, &"host-1".parse().unwrap(), &named);
        room.iter().map(ToString::to_string).collect()
    }

    /// Addresses in four cells that nobody holds.
    fn single() -> impl Iterator<Item = String> {
        [1, 17, 33, 49].map(|last| format!("10.42.1.{last}")).into_iter()
    }

    #[test]
    fn a_cell_is_kept_for_each_host_that_has_none_and_for_services_up_to_a_quarter() {
        let mut state = state();
        let kept = |state: &State| kept(state, state.networks.values().next().unwrap());
        assert_eq!(kept(&state), 16);
        (3..6).for_each(|number| join(&mut state, number));
        assert_eq!(kept(&state), 4 * 16);
        hold(&mut state, None, "10.42.3.224/27");
        assert_eq!(kept(&state), 3 * 16);
        (6..=200).for_each(|number| join(&mut state, number));
        assert_eq!(kept(&state), 256);
    }

    #[test]
    fn the_fullest_cells_come_first_until_a_host_holds_what_it_may() {
        let state = state();
        assert_eq!(room(&state, single()), ["10.42.1.0/28", "10.42.1.16/28", "10.42.1.32/28"]);
        // Four cells beside its own block make 78 addresses: 64 more than it uses.
        let full = (1..=11).map(|last| format!("10.42.2.{last}"));
        let expected = ["10.42.1.0/28", "10.42.1.16/28", "10.42.1.32/28", "10.42.2.0/28"];
        assert_eq!(room(&state, single().chain(full)), expected);
    }

    #[test]
    fn cells_in_which_a_host_has_workloads_come_before_new_ones() {
        let mut state = state();
        work(&mut state, "host-1", "10.42.3.200");
        let named = || single().chain(["10.42.3.200".to_owned()]);
        assert_eq!(room(&state, named()), ["10.42.1.0/28", "10.42.1.16/28", "10.42.3.192/28"]);
        assert_eq!(room(&state, ["10.42.3.200".to_owned()]), ["10.42.3.192/28"]);
    }

    #[test]
    fn new_cells_are_of_what_is_not_kept_for_others_and_shared_ones_take_nothing_more() {
        let mut state = state();
        work(&mut state, "host-2", "10.42.3.200");
        for range in [
            "10.42.0.32/27",
            "10.42.0.64/26",
            "10.42.0.128/25",
            "10.42.1.32/27",
            "10.42.1.64/26",
            "10.42.1.128/25",
            "10.42.2.0/24",
            "10.42.3.0/25",
            "10.42.3.128/26",
            "10.42.3.208/28",
            "10.42.3.224/27",
        ] {
            hold(&mut state, Some("host-2"), range);
        }
        // Two cells are free, of which one is for services.
        let named = ["10.42.1.1", "10.42.1.17", "10.42.3.201"].map(ToOwned::to_owned);
        assert_eq!(room(&state, named), ["10.42.1.0/28", "10.42.3.192/28"]);
    }

    #[test]
    fn a_host_may_hold_what_it_uses_and_half_again_and_a_small_one_some_more() {
        for (subnet, used, most) in [
            ("10.42.0.0/16", 0, 1_024),
            ("10.42.0.0/16", 2_047, 3_071),
            ("10.42.0.0/16", 2_050, 3_075),
            ("10.42.0.0/24", 0, 32),
            ("10.42.0.0/24", 10, 42),
            ("10.42.0.0/24", 100, 150),
            ("10.42.0.0/28", 1, 3),
            ("10.42.0.0/28", 8, 12),
            ("10.0.0.0/8", 0, 4_096),
        ] {
            assert_eq!(allowance(subnet.parse().unwrap(), used), most, "{subnet} {used}");
        }
    }
}
