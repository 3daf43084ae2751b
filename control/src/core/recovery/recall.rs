//! Recall of a host's state when it was of another lifetime than the store's.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use sealane_proto::resource::{Block, Network, NetworkSnapshot, Node, Route, Service, Workload};
use sealane_proto::types::{NetworkName, NodeName, Vni, overlap};

use super::Recovery;
use crate::core::ipam::{self, Taken};
use crate::core::network::check_new;
use crate::core::{
    Change, Command, Decision, Edit, NetworkRecord, NetworkState, NodeRecord, State, Timestamp, grow, hosts,
    report, route, underlay,
};

/// Number of networks that hosts may bring back in all.
const NETWORKS: usize = 1_000;
/// Number of hosts that they may bring back that have not come themselves.
const HEARSAY: usize = 10_000;

/// A host tells what it works by, network by network, before it reports.
///
/// Facts that contradict nothing are taken over, from every host, whatever another one has told before. A host is believed
/// about itself; about others it is believed what they have more than is known, and only until they come themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// The host.
    pub node: NodeName,
    /// The networks that it carries, as control last said.
    pub networks: Vec<NetworkSnapshot>,
}

/// Something that a host has brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// The network that it belongs to.
    pub network: NetworkName,
    /// Description of the object.
    pub what: String,
}

/// Reasons for which a host is not listened to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecallRefusal {
    /// The host is no part of the mesh.
    #[error(
        "node {0} is not known to this control plane; run `sealane clean` on it, then let it join with a new token"
    )]
    UnknownNode(NodeName),
}

impl Command for Recall {
    type Outcome = Vec<TakenOver>;
    type Refusal = RecallRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Self::Outcome>, RecallRefusal> {
        if !state.nodes.contains_key(&self.node) {
            return Err(RecallRefusal::UnknownNode(self.node));
        }
        let nothing = Decision { changes: vec![], outcome: vec![] };
        let Some(recovery) = state.recovery.as_ref().filter(|recovery| !recovery.is_over(now)) else {
            return Ok(nothing);
        };
        let mut future =
            Future { state: state.clone(), changes: vec![], taken: vec![], teller: self.node, now };
        let mut recovery = recovery.clone();
        for told in self.networks {
            if recovery.is_news(told.generation) && future.ensure_network(&told, &recovery) {
                recovery.networks.entry(told.network.name.clone()).or_insert(told.generation);
                future.take_over(&told, &recovery);
            }
        }
        if future.changes.is_empty() {
            return Ok(nothing);
        }
        future.changes.push(Change::put(recovery));
        Ok(Decision { changes: future.changes, outcome: future.taken })
    }
}

/// The state as it will be.
struct Future {
    state: State,
    changes: Vec<Change>,
    taken: Vec<TakenOver>,
    teller: NodeName,
    now: Timestamp,
}

impl Future {
    fn put(&mut self, network: &NetworkName, what: String, change: Change) {
        self.state.apply(&change);
        self.changes.push(change);
        self.taken.push(TakenOver { network: network.clone(), what });
    }

    fn network(&self, told: &NetworkSnapshot) -> Option<&NetworkState> {
        self.state.networks.get(&told.network.name)
    }

    /// Ensures the network that is told of, made again where that contradicts nothing and could be created; returns
    /// true if it is there.
    fn ensure_network(&mut self, told: &NetworkSnapshot, recovery: &Recovery) -> bool {
        let network = &told.network;
        if let Some(known) = self.network(told) {
            let (has, told) = (known.network.subnet, network.subnet);
            if known.network.vni != network.vni {
                return false;
            }
            if has.gateway() == told.gateway() && has.to_net().contains(&told.to_net()) {
                return true;
            }
            if grow::check(&self.state, known, told).is_err() {
                return false;
            }
            // It has grown since the backup.
            let grown = Network { subnet: told, ..known.network.clone() };
            let change = Change::put(NetworkRecord { network: grown, changed: known.changed });
            self.put(&network.name, format!("subnet {told} in place of {has}"), change);
            return true;
        }
        let taken = |other: &NetworkState| other.network.vni == network.vni;
        // One that was here has been removed since.
        let removed = recovery.networks.contains_key(&network.name);
        let misfit = removed
            || self.state.networks.len() >= NETWORKS
            || network.vni < Vni::FIRST
            || self.state.networks.values().any(taken)
            || check_new(&self.state, &network.name, (network.subnet, network.subnet6), network.mtu).is_err();
        if !misfit {
            let what = format!("network with subnet {} and VNI {}", network.subnet, network.vni);
            let change = Change::put(NetworkRecord { network: network.clone(), changed: 0 });
            self.put(&network.name, what, change);
        }
        !misfit
    }

    fn take_over(&mut self, told: &NetworkSnapshot, recovery: &Recovery) {
        for node in &told.nodes {
            self.take_node(told, node, recovery);
        }
        for block in &told.blocks {
            self.take_block(told, block, recovery);
        }
        for service in &told.services {
            self.take_service(told, service);
        }
        for route in &told.routes {
            self.take_route(told, route);
        }
        self.take_workloads(told, recovery);
        self.release(told);
    }

    /// Addresses that the host has given back since the backup are not its own: another one may have them by now.
    fn release(&mut self, told: &NetworkSnapshot) {
        let Some(network) = self.network(told) else { return };
        let own = told.blocks.iter().filter(|block| block.node.as_ref() == Some(&self.teller));
        let own: Vec<Ipv4Net> = own.map(|block| block.range).collect();
        let known: Vec<Ipv4Net> = network.blocks.index().of(&self.teller).collect();
        let name = told.network.name.clone();
        for range in known.into_iter().filter(|known| !own.iter().any(|own| own.contains(known))) {
            let left: Vec<Ipv4Net> = own.iter().copied().filter(|own| range.contains(own)).collect();
            let uses = self.network(told).is_some_and(|network| network.within(range).next().is_some());
            if left.is_empty() && uses {
                continue;
            }
            let what = format!("the end of block {range} of node {}", self.teller);
            self.put(&name, what, Change::remove_in::<Block>(&name, range));
            for range in left {
                let block = Block { node: Some(self.teller.clone()), range };
                let what = format!("block {range} of node {}", self.teller);
                self.put(&name, what, Change::put_in(&name, block));
            }
        }
    }

    /// A host by hearsay: it is a carrier, and must prove itself when it comes.
    fn take_node(&mut self, told: &NetworkSnapshot, node: &Node, recovery: &Recovery) {
        let mut others = self.state.nodes.values();
        let taken = others.any(|other| other.holds(node.underlay));
        let unfit = node.underlay.first().to_ip().is_loopback()
            || underlay::check(&self.state, &node.name, node.underlay).is_err();
        let misfit = taken
            || recovery.removed.contains_key(&node.name)
            || self.state.removed.values().any(|removed| removed.name == node.name)
            || self.state.nodes.contains_key(&node.name)
            || self.state.nodes.len() >= HEARSAY
            || unfit;
        if !misfit {
            let record = NodeRecord::new(node.clone(), NodeRecord::HEARSAY, self.now);
            let what = format!("node {} at {}, until it comes itself", node.name, node.underlay);
            self.put(&told.network.name, what, Change::put(record));
        }
    }

    /// Returns true if the host may carry the network, and its word about it counts.
    fn is_believed(&self, told: &NetworkSnapshot, node: &NodeName, recovery: &Recovery) -> bool {
        let (Some(network), Some(record)) = (self.network(told), self.state.nodes.get(node)) else {
            return false;
        };
        hosts::check_network(record, network).is_ok()
            && (*node == self.teller || !recovery.heard.contains(node))
    }

    /// Says whether the other hosts of a network can send to a host that may not carry it yet.
    fn is_reached(&self, network: &NetworkState, node: &NodeName) -> bool {
        let there = self.state.nodes.get(node).map(|record| record.node.underlay);
        let reached = |there| underlay::check_family(&self.state, network, node, there).is_ok();
        network.carried_by(node) || there.is_some_and(reached)
    }

    fn take_block(&mut self, told: &NetworkSnapshot, block: &Block, recovery: &Recovery) {
        let Some(network) = self.network(told) else { return };
        let (subnet, range) = (network.network.subnet, block.range);
        let fits = range == range.trunc() && subnet.to_net().contains(&range);
        let foreign = network.within(range).any(|workload| Some(&workload.node) != block.node.as_ref());
        let wanted = match &block.node {
            Some(node) => self.is_believed(told, node, recovery) && self.is_reached(network, node),
            // Control's own are for services' addresses.
            None => told.services.iter().any(|service| range.contains(&service.vip.to_ipv4())),
        };
        // Nobody tells the last addresses away from others, but for a first block that is no larger than any first lease was.
        let taken = Taken::new(subnet, network.blocks.keys().copied());
        let (size, total) = (ipam::size(range), ipam::size(subnet.to_net()));
        let first = block.node.as_ref().is_some_and(|node| !network.carried_by(node));
        let small = size <= 16 || size * size <= total;
        let room = taken.free().saturating_sub(size) >= total / 4 || (first && small);
        let rests = block.node.is_some() && network.rests_in(range);
        let overlaps = network.blocks.keys().any(|known| overlap(*known, range));
        if fits && wanted && room && !foreign && !rests && !overlaps {
            let holder = block.node.as_ref().map_or("services".to_owned(), |node| format!("node {node}"));
            let name = told.network.name.clone();
            let change = Change::put_in(&name, block.clone());
            self.put(&name, format!("block {range} of {holder}"), change);
        }
    }

    fn take_service(&mut self, told: &NetworkSnapshot, service: &Service) {
        let Some(network) = self.network(told) else { return };
        let subnet = network.network.subnet;
        let own = subnet.contains(service.vip)
            && ipam::is_assignable(subnet, service.vip)
            && network.holder(service.vip).is_some_and(|block| block.node.is_none());
        // One whose address rests has been removed since.
        let taken = network.services.values().any(|other| other.vip == service.vip)
            || network.resting_at(service.vip).is_some();
        if own && !taken && !network.services.contains_key(&service.name) {
            let name = told.network.name.clone();
            let what = format!("service {} at {}", service.name, service.vip);
            self.put(&name, what, Change::put_in(&name, service.clone()));
        }
    }

    /// A route that is not there: hosts are told of them without labels and annotations, so that those are gone.
    fn take_route(&mut self, told: &NetworkSnapshot, route: &Route) {
        let Some(network) = self.network(told) else { return };
        let name = told.network.name.clone();
        let own = route.document.as_ref().filter(|document| *document.network() == name);
        let Some(document) = own.filter(|_| !network.routes.contains_key(&route.id)) else { return };
        let Ok(decision) = route::decide(document.clone(), &self.state, self.now) else { return };
        if !decision.changes.is_empty() {
            self.put(&name, format!("route {}", route.id), Change::put_in(&name, route.clone()));
        }
    }

    /// Hosts that have not reported yet are taken to run what is known of them and what they last did.
    fn take_workloads(&mut self, told: &NetworkSnapshot, recovery: &Recovery) {
        let mut by_node: BTreeMap<NodeName, Vec<Workload>> =
            told.nodes.iter().map(|node| (node.name.clone(), vec![])).collect();
        for workload in &told.workloads {
            by_node.entry(workload.node.clone()).or_default().push(workload.clone());
        }
        for (node, mut workloads) in by_node {
            if recovery.heard.contains(&node) || !self.is_believed(told, &node, recovery) {
                continue;
            }
            let Some(network) = self.network(told) else { return };
            if node != self.teller {
                let named = |known: &&Workload| workloads.iter().any(|told| told.name == known.name);
                let more: Vec<Workload> =
                    network.workloads_of(&node).filter(|known| !named(known)).cloned().collect();
                workloads.extend(more);
            }
            let edition = told.reported.as_ref().and_then(|reported| reported.get(&node));
            // Nobody may take what is known from here for newer than what the host has said since.
            let edition = edition.filter(|edition| network.believes(&node, **edition, self.now));
            let spoken = edition.and_then(|edition| network.told(&node, Some(*edition)));
            // What does not fit is refused when its host reports it, in words that its owner sees.
            let (changes, _) = report::place((&self.state, network), &node, workloads, self.now);
            for change in changes {
                let what = said(&change);
                self.put(&told.network.name, what, change);
            }
            self.changes.extend(spoken.inspect(|change| self.state.apply(change)));
        }
    }
}

/// Describes a change of a report.
fn said(change: &Change) -> String {
    if let Change::Workload(Edit::Put(_, workload)) = change {
        format!("workload {} of node {} at {}", workload.name, workload.node, workload.address)
    } else if let Change::Workload(Edit::Remove(_, name)) = change {
        format!("the end of workload {name}")
    } else if let Change::Service(Edit::Put(_, service)) = change {
        format!("service {} at {}", service.name, service.vip)
    } else if let Change::Block(Edit::Put(_, block)) = change {
        format!("block {} of services", block.range)
    } else {
        format!("{change:?}")
    }
}

#[cfg(test)]
mod tests;
