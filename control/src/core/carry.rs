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
mod tests;
