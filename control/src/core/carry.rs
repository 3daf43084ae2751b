//! Hosts that carry networks: the leasing of address blocks.

use ipnet::Ipv4Net;
use sealane_proto::document::nearest;
use sealane_proto::resource::{Block, Network};
use sealane_proto::types::{NetworkName, NodeName, Subnet};

use super::hosts::{self, NotForHost};
use super::room::{self, Spread};
use super::{
    Change, Command, Decision, NetworkState, NodeRecord, State, Timestamp, UnfitUnderlay, ipam, underlay,
};

/// A host carries a network from now on and needs (more) addresses.
///
/// Safe to repeat: a block is leased only when the host knows all that are its own already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarryNetwork {
    /// The asking host.
    pub node: NodeName,
    /// The network.
    pub network: NetworkName,
    /// Number of blocks that the host knows to be its own.
    pub blocks_held: usize,
}

/// A host asks whether it may carry a network. Nothing comes of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayCarry {
    /// The asking host.
    pub node: NodeName,
    /// The network.
    pub network: NetworkName,
}

/// Result of carrying: the host's block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarryOutcome {
    /// The network.
    pub network: Network,
    /// All blocks of the host, sorted.
    pub blocks: Vec<Block>,
    /// True if the host did not carry the network before.
    pub first: bool,
}

/// Reasons for which a host gets no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarryRefusal {
    /// The host is no part of the mesh.
    #[error(
        "node {0} is not known to this control plane; run `sealane clean` on it, then let it join with a new token"
    )]
    UnknownNode(NodeName),
    /// There is none.
    #[error(
        "there is no network {network}{}; create it with `sealane network create {network} --subnet CIDR` on the control \
         host", near(.meant.as_ref())
    )]
    NotFound {
        /// The network.
        network: NetworkName,
        /// Network of a similar name that the host may carry.
        meant: Option<NetworkName>,
    },
    /// The network is not for the host.
    #[error(transparent)]
    Host(#[from] NotForHost),
    /// The network's hosts do not reach the host.
    #[error(transparent)]
    Underlay(#[from] UnfitUnderlay),
    /// The host hardly uses what it has.
    #[error(
        "node {node} holds {held} blocks of network {network}, of whose {addresses} addresses its workloads use \
         {used}; it gets more when they use half"
    )]
    Unused {
        /// The host.
        node: NodeName,
        /// The network.
        network: NetworkName,
        /// Number of blocks that it holds.
        held: usize,
        /// Number of addresses in them.
        addresses: usize,
        /// Number of addresses that its workloads have, as it last reported.
        used: usize,
    },
    /// The blocks that are left are for others.
    #[error(
        "the last {} of network {network} {} kept for hosts that have none yet, and node {node} holds {held}; \
         create a larger network", free_blocks(*.free), if *.free == 1 { "is" } else { "are" }
    )]
    Kept {
        /// The network.
        network: NetworkName,
        /// Number of free blocks.
        free: usize,
        /// The host.
        node: NodeName,
        /// Number of blocks that it holds.
        held: usize,
    },
    /// All blocks are leased.
    #[error(
        "network {network} ({subnet}) has no free block of addresses: {leased} of {total} blocks are held by its \
         hosts and services{}, {used} addresses are used; end workloads or create a larger network",
        at_rest(*.resting)
    )]
    Exhausted {
        /// The network.
        network: NetworkName,
        /// Subnet of the network.
        subnet: Subnet,
        /// Number of leased blocks.
        leased: usize,
        /// Number of blocks that rest after their host was removed.
        resting: usize,
        /// Number of all blocks.
        total: u32,
        /// Number of addresses that workloads and services use.
        used: usize,
    },
}

fn free_blocks(free: usize) -> String {
    if free == 1 { "free block".to_owned() } else { format!("{free} free blocks") }
}

fn at_rest(resting: usize) -> String {
    match resting {
        0 => String::new(),
        _ => format!(", {resting} rest until every host knows that the node which held them is gone"),
    }
}

impl Command for CarryNetwork {
    type Outcome = CarryOutcome;
    type Refusal = CarryRefusal;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<CarryOutcome>, CarryRefusal> {
        let network = for_host(state, &self.node, &self.network)?;
        let mut blocks = blocks_of(network, &self.node);
        let (mut changes, first) = (vec![], blocks.is_empty());
        if blocks.len() <= self.blocks_held {
            check_use(state, network, &self.node, &blocks)?;
            let range = lease(state, network, &self.node).ok_or_else(|| exhausted(network))?;
            let block = Block { node: Some(self.node), range };
            changes.push(Change::put_in(&self.network, block.clone()));
            blocks.push(block);
            blocks.sort_by_key(|block| block.range);
        }
        Ok(Decision { changes, outcome: CarryOutcome { network: network.network.clone(), blocks, first } })
    }
}

impl Command for MayCarry {
    type Outcome = Network;
    type Refusal = CarryRefusal;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<Network>, CarryRefusal> {
        let network = for_host(state, &self.node, &self.network)?;
        Ok(Decision { changes: vec![], outcome: network.network.clone() })
    }
}

/// The network, if it is for the host.
fn for_host<'a>(
    state: &'a State,
    node: &NodeName,
    network: &NetworkName,
) -> Result<&'a NetworkState, CarryRefusal> {
    let record = state.nodes.get(node).ok_or_else(|| CarryRefusal::UnknownNode(node.clone()))?;
    let network = state.networks.get(network).ok_or_else(|| CarryRefusal::NotFound {
        network: network.clone(),
        meant: meant(state, record, network),
    })?;
    hosts::check_network(record, network)?;
    if !network.carried_by(node) {
        underlay::check_family(state, network, node, record.node.underlay)?;
    }
    Ok(network)
}

/// The network with the most similar name, among those that the host may carry.
fn meant(state: &State, record: &NodeRecord, given: &NetworkName) -> Option<NetworkName> {
    let open = state.networks.values().filter(|network| hosts::check_network(record, network).is_ok());
    nearest(given.as_str(), open.map(|network| network.network.name.as_str()))?.parse().ok()
}

fn near(meant: Option<&NetworkName>) -> String {
    meant.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// Checks that a host that has these blocks may have one more. What the host says of itself does not count: its workloads
/// do.
fn check_use(
    state: &State,
    network: &NetworkState,
    node: &NodeName,
    blocks: &[Block],
) -> Result<(), CarryRefusal> {
    if blocks.is_empty() {
        return Ok(());
    }
    let (subnet, name) = (network.network.subnet, || network.network.name.clone());
    let addresses = network.workloads_of(node).map(|workload| workload.address);
    let Spread { inside, outside } = room::spread(network, node, addresses);
    let (held, used) = (blocks.len() + outside.len(), inside + outside.values().sum::<usize>());
    if room::is_ahead(subnet, held, used) {
        let addresses = held * ipam::block_size(subnet);
        return Err(CarryRefusal::Unused { node: node.clone(), network: name(), held, addresses, used });
    }
    let free = room::free(network, node, outside.keys().copied());
    if room::is_kept(state, network, free) {
        return Err(CarryRefusal::Kept { network: name(), free, node: node.clone(), held });
    }
    Ok(())
}

fn blocks_of(network: &NetworkState, node: &NodeName) -> Vec<Block> {
    network.blocks.index().of(node).map(|range| Block { node: Some(node.clone()), range }).collect()
}

/// The next block for a host: not one in which another host has a workload at an address of its own choice.
fn lease(state: &State, network: &NetworkState, node: &NodeName) -> Option<Ipv4Net> {
    // In a restored store, hosts that are not back yet may hold blocks that the backup does not know.
    let end = if state.recovery.is_some() { ipam::End::Middle } else { ipam::End::Bottom };
    let foreign = |block| network.within(block).any(|workload| workload.node != *node);
    let taken =
        |block: Ipv4Net| network.blocks.contains_key(&block) || network.rests_in(block) || foreign(block);
    ipam::free_block(network.network.subnet, end, taken)
}

fn exhausted(network: &NetworkState) -> CarryRefusal {
    CarryRefusal::Exhausted {
        network: network.network.name.clone(),
        subnet: network.network.subnet,
        leased: network.blocks.len(),
        resting: network.resting.keys().filter(|range| range.prefix_len() < 32).count(),
        total: ipam::block_count(network.network.subnet),
        used: network.workloads.len() + network.services.len(),
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::{Egress, Node, Workload};
    use sealane_proto::types::{MacAddr, OverlayIp};

    use super::*;
    use crate::core::room::AHEAD;
    use crate::core::{CreateNetwork, NodeRecord, model};

    const NOW: Timestamp = Timestamp::from_unix(0);

    fn state(subnet: &str) -> State {
        let mut state = State::default();
        for (name, last) in [("host-1", 1), ("host-2", 2)] {
            let underlay = format!("192.0.2.{last}").parse().unwrap();
            let node = Node { name: name.parse().unwrap(), underlay, mtu: None };
            state.apply(&Change::put(NodeRecord::new(node, [last; 32], NOW)));
        }
        let name = "shop".parse().unwrap();
        let create = CreateNetwork {
            name,
            hosts: Default::default(),
            subnet: subnet.parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        };
        create.decide(&state, NOW).unwrap().changes.iter().for_each(|change| state.apply(change));
        state
    }

    fn carry(state: &mut State, node: &str, blocks_held: usize) -> Result<Vec<String>, CarryRefusal> {
        let (node, network) = (node.parse().unwrap(), "shop".parse().unwrap());
        let carried = model::run(state, CarryNetwork { node, network, blocks_held }, NOW)?;
        Ok(carried.blocks.iter().map(|block| block.range.to_string()).collect())
    }

    #[test]
    fn a_block_is_leased_only_beyond_those_the_host_knows() {
        let mut state = state("10.42.0.0/16");
        assert_eq!(carry(&mut state, "host-1", 0).unwrap(), ["10.42.0.0/24"]);
        assert_eq!(carry(&mut state, "host-1", 0).unwrap(), ["10.42.0.0/24"]);
        assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.1.0/24"]);
        assert_eq!(carry(&mut state, "host-1", 1).unwrap(), ["10.42.0.0/24", "10.42.2.0/24"]);
    }

    #[test]
    fn exhaustion_names_the_network_and_its_use() {
        let mut state = state("10.42.0.0/26");
        carry(&mut state, "host-1", 0).unwrap();
        let services: Vec<_> = (1..4).map(|index| format!("10.42.0.{}/28", index * 16)).collect();
        for range in services {
            let block = Block { node: None, range: range.parse().unwrap() };
            state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
        }
        let error = carry(&mut state, "host-2", 0).unwrap_err().to_string();
        assert!(error.contains("network shop (10.42.0.0/26)"), "{error}");
        assert!(error.contains("4 of 4 blocks") && error.contains("0 addresses are used"), "{error}");
    }

    #[test]
    fn whatever_a_host_says_that_it_holds_it_gets_few_blocks_ahead_of_what_it_uses() {
        let mut state = state("10.42.0.0/20");
        let greedy = |state: &mut State| {
            let granted = (0..100).take_while(|_| carry(state, "host-1", usize::MAX).is_ok());
            let _ = granted.count();
            state.networks[&"shop".parse().unwrap()].blocks.len()
        };
        assert_eq!(greedy(&mut state), AHEAD);
        let error = carry(&mut state, "host-1", usize::MAX).unwrap_err().to_string();
        assert!(
            error.contains("node host-1 holds 4 blocks of network shop, of whose 256 addresses"),
            "{error}"
        );
        assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.1.0/26"]);
        // Half of two blocks are used: they are paid for.
        for last in 2..66_u8 {
            let address = OverlayIp::from(std::net::Ipv4Addr::new(10, 42, 0, last));
            state.apply(&Change::put_in(&"shop".parse().unwrap(), workload(address)));
        }
        assert_eq!(greedy(&mut state), AHEAD + 2 + 1);
    }

    #[test]
    fn the_last_blocks_are_kept_for_hosts_that_have_none() {
        let mut state = state("10.42.0.0/26");
        for held in 0..3 {
            carry(&mut state, "host-1", held).unwrap();
        }
        let error = carry(&mut state, "host-1", 3).unwrap_err().to_string();
        assert!(error.contains("the last free block of network shop is kept"), "{error}");
        assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.0.48/28"]);
    }

    fn workload(address: OverlayIp) -> Workload {
        let last = address.to_ipv4().octets()[3];
        Workload {
            name: format!("w-{last}").parse().unwrap(),
            network: "shop".parse().unwrap(),
            node: "host-1".parse().unwrap(),
            address,
            mac: MacAddr::new([2, 0, 0, 0, 0, last]),
            service: None,
            ports: vec![],
            sidecar: true,
            ready: true,
            weight: Default::default(),
            aliases: Default::default(),
        }
    }

    #[test]
    fn unknown_networks_and_hosts_are_named() {
        let mut state = state("10.42.0.0/16");
        assert!(carry(&mut state, "host-9", 0).unwrap_err().to_string().contains("node host-9"));
        state.networks.clear();
        assert!(carry(&mut state, "host-1", 0).unwrap_err().to_string().contains("no network shop"));
    }
}
