//! Hosts that carry networks: the leasing of address blocks.

use ipnet::Ipv4Net;
use sealane_proto::document::nearest;
use sealane_proto::resource::{Block, Network, way_out};
use sealane_proto::types::{NetworkName, NodeName, Subnet};

use super::hosts::{self, NotForHost};
use super::ipam::{self, Taken};
use super::{
    Change, Command, Decision, NetworkState, NodeRecord, State, Timestamp, UnfitUnderlay, room, underlay,
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

/// A host uses half of its addresses of a network, and asks for more before it needs them: while there are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAhead(pub CarryNetwork);

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
        "node {node} holds {held} addresses of network {network}, of which its workloads use {used}; it gets more when they \
         use most of them"
    )]
    Unused {
        /// The host.
        node: NodeName,
        /// The network.
        network: NetworkName,
        /// Number of addresses that it holds.
        held: usize,
        /// Number of addresses that its workloads have, as it last reported.
        used: usize,
    },
    /// Nobody gets addresses before it needs them.
    #[error("half of the addresses of network {0} are taken, and node {1} has free ones")]
    Short(NetworkName, NodeName),
    /// The addresses that are left are for others.
    #[error(
        "the last {} of network {network} {} kept for hosts and services that have none yet, and node {node} holds {held}; {}",
        free_addresses(*.free), if *.free == 1 { "is" } else { "are" }, way_out(.network, *.subnet)
    )]
    Kept {
        /// The network.
        network: NetworkName,
        /// Subnet of the network.
        subnet: Subnet,
        /// Number of free addresses.
        free: usize,
        /// The host.
        node: NodeName,
        /// Number of addresses that it holds.
        held: usize,
    },
    /// All addresses are leased.
    #[error(
        "network {network} ({subnet}) has no address left: its hosts hold {hosts} and its services {services}{}, {used} \
         are used; end workloads, or {}",
        at_rest(*.resting), way_out(.network, *.subnet)
    )]
    Exhausted {
        /// The network.
        network: NetworkName,
        /// Subnet of the network.
        subnet: Subnet,
        /// Number of addresses in blocks of hosts.
        hosts: usize,
        /// Number of addresses in blocks of services.
        services: usize,
        /// Number of addresses in no block that rest after their holder has left.
        resting: usize,
        /// Number of addresses that workloads and services use.
        used: usize,
    },
}

impl CarryRefusal {
    /// The reason in a word, if the network has not the addresses that a host needs.
    pub(crate) fn shortage(&self) -> Option<&'static str> {
        match self {
            Self::Kept { .. } => Some("kept"),
            Self::Exhausted { .. } => Some("exhausted"),
            Self::UnknownNode(_)
            | Self::NotFound { .. }
            | Self::Host(_)
            | Self::Underlay(_)
            | Self::Unused { .. }
            | Self::Short(..) => None,
        }
    }
}

fn free_addresses(free: usize) -> String {
    if free == 1 { "free address".to_owned() } else { format!("{free} free addresses") }
}

fn at_rest(resting: usize) -> String {
    match resting {
        0 => String::new(),
        _ => format!(", {resting} rest until every host knows that whoever had them is gone"),
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
            let range = lease(state, network, &self.node)?;
            let block = Block { node: Some(self.node), range };
            changes.push(Change::put_in(&self.network, block.clone()));
            blocks.push(block);
            blocks.sort_by_key(|block| block.range);
        }
        Ok(Decision { changes, outcome: CarryOutcome { network: network.network.clone(), blocks, first } })
    }
}

impl Command for LeaseAhead {
    type Outcome = CarryOutcome;
    type Refusal = CarryRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<CarryOutcome>, CarryRefusal> {
        let Self(carry) = self;
        let network = for_host(state, &carry.node, &carry.network)?;
        if !room::is_roomy(network.network.subnet, free_blocks(network, &carry.node).free()) {
            return Err(CarryRefusal::Short(carry.network, carry.node));
        }
        carry.decide(state, now)
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

fn blocks_of(network: &NetworkState, node: &NodeName) -> Vec<Block> {
    network.blocks.index().of(node).map(|range| Block { node: Some(node.clone()), range }).collect()
}

/// The next block for a host.
fn lease(state: &State, network: &NetworkState, node: &NodeName) -> Result<Ipv4Net, CarryRefusal> {
    let most = most(state, network, node)?;
    // In a restored store, hosts that are not back yet may hold blocks that the backup does not know.
    let end = if state.recovery.is_some() { ipam::End::Middle } else { ipam::End::Bottom };
    free_blocks(network, node).find(most, end).ok_or_else(|| exhausted(network))
}

/// The addresses that cannot be leased to a host: none around which another host has a workload at an address of its own choice.
fn free_blocks(network: &NetworkState, node: &NodeName) -> Taken {
    room::taken(network, node, network.resting.keys().copied())
}

/// The number of addresses that a host may have beside those that it has. What the host says of itself does not count: its
/// workloads do.
fn most(state: &State, network: &NetworkState, node: &NodeName) -> Result<usize, CarryRefusal> {
    let (subnet, cell) = (network.network.subnet, ipam::cell_size(network.network.subnet));
    if !network.carried_by(node) {
        return Ok(cell);
    }
    let addresses = network.workloads_of(node).map(|workload| workload.address);
    let spread = room::spread(network, node, addresses);
    let (held, used) = (room::held(network, node) + spread.outside.len() * cell, spread.used());
    let (node, name) = (node.clone(), network.network.name.clone());
    let unused = room::allowance(subnet, used).saturating_sub(held);
    if unused < cell {
        return Err(CarryRefusal::Unused { node, network: name, held, used });
    }
    let free = room::taken(network, &node, spread.outside.keys().copied()).free();
    let spare = free.saturating_sub(room::kept(state, network));
    if spare < cell && free >= cell {
        return Err(CarryRefusal::Kept { network: name, subnet, free, node, held });
    }
    Ok(ipam::next_size(subnet, held).min(unused).min(spare.max(cell)))
}

fn exhausted(network: &NetworkState) -> CarryRefusal {
    let (mut hosts, mut services) = (0, 0);
    for block in network.blocks.values() {
        *if block.node.is_some() { &mut hosts } else { &mut services } += ipam::size(block.range);
    }
    let in_block = |range: &&Ipv4Net| network.holder(range.network().into()).is_some();
    let resting = network.resting.keys().filter(|range| !in_block(range));
    CarryRefusal::Exhausted {
        network: network.network.name.clone(),
        subnet: network.network.subnet,
        hosts,
        services,
        resting: resting.map(|&range| ipam::size(range)).sum(),
        used: network.workloads.len() + network.services.len(),
    }
}

#[cfg(test)]
mod tests;
