//! What a host carried when its state was of another lifetime than the store's.

use std::collections::{BTreeMap, BTreeSet};

use sealane_proto::resource::{Block, NetworkSnapshot, Node, Service, Workload};
use sealane_proto::types::{NetworkName, NodeName};

use super::Recovery;
use crate::core::{Change, Command, Decision, NetworkState, NodeRecord, State, Timestamp, ipam, report};

/// A host tells what it works by, network by network, before it reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// The host.
    pub node: NodeName,
    /// The networks that it carries, as control last said.
    pub networks: Vec<NetworkSnapshot>,
}

/// Why a host is not listened to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecallRefusal {
    /// The host is no part of the mesh.
    #[error("node {0} is not known to this control plane; let it join again with a new token")]
    UnknownNode(NodeName),
}

impl Command for Recall {
    /// The networks of which something was taken over.
    type Outcome = BTreeSet<NetworkName>;
    type Refusal = RecallRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Self::Outcome>, RecallRefusal> {
        if !state.nodes.contains_key(&self.node) {
            return Err(RecallRefusal::UnknownNode(self.node));
        }
        let mut decision = Decision { changes: vec![], outcome: BTreeSet::new() };
        let Some(recovery) = state.recovery.as_ref().filter(|recovery| !recovery.is_over(now)) else {
            return Ok(decision);
        };
        let is_news = |told: &NetworkSnapshot| recovery.is_news(&told.network.name, told.generation);
        let news: Vec<NetworkSnapshot> = self.networks.into_iter().filter(is_news).collect();
        if news.is_empty() {
            return Ok(decision);
        }
        let mut future = Future { state: state.clone(), changes: vec![] };
        let mut recovery = recovery.clone();
        for told in news {
            let (name, before) = (told.network.name.clone(), future.changes.len());
            if future.ensure_network(&told, &recovery) {
                future.take_over(&told, &recovery, now);
                recovery.networks.insert(name.clone(), told.generation);
            }
            if future.changes.len() > before {
                decision.outcome.insert(name);
            }
        }
        future.put(Change::PutRecovery(recovery));
        decision.changes = future.changes;
        Ok(decision)
    }
}

/// The state as it will be.
struct Future {
    state: State,
    changes: Vec<Change>,
}

impl Future {
    fn put(&mut self, change: Change) {
        self.state.apply(&change);
        self.changes.push(change);
    }

    fn network(&self, told: &NetworkSnapshot) -> Option<&NetworkState> {
        self.state.networks.get(&told.network.name)
    }

    /// Whether the network is the one that is told of, made again where that contradicts nothing.
    fn ensure_network(&mut self, told: &NetworkSnapshot, recovery: &Recovery) -> bool {
        let network = &told.network;
        if let Some(known) = self.network(told) {
            return known.network.subnet == network.subnet && known.network.vni == network.vni;
        }
        let taken = |other: &NetworkState| other.network.vni == network.vni;
        // One that was here has been removed since.
        if recovery.networks.contains_key(&network.name) || self.state.networks.values().any(taken) {
            return false;
        }
        self.put(Change::PutNetwork { network: network.clone(), changed: 0 });
        true
    }

    fn take_over(&mut self, told: &NetworkSnapshot, recovery: &Recovery, now: Timestamp) {
        for node in &told.nodes {
            self.take_node(node, recovery, now);
        }
        for block in &told.blocks {
            self.take_block(told, block);
        }
        for service in &told.services {
            self.take_service(told, service);
        }
        self.take_workloads(told, &recovery.heard);
    }

    /// A host by hearsay: it is a carrier, and must prove itself when it comes.
    fn take_node(&mut self, node: &Node, recovery: &Recovery, now: Timestamp) {
        let mut others = self.state.nodes.values();
        let taken = others.any(|other| other.node.underlay == node.underlay);
        let removed = recovery.removed.contains_key(&node.name);
        if !taken && !removed && !self.state.nodes.contains_key(&node.name) {
            let record =
                NodeRecord { node: node.clone(), key: NodeRecord::HEARSAY, joined: now, drained: false };
            self.put(Change::PutNode(record));
        }
    }

    fn take_block(&mut self, told: &NetworkSnapshot, block: &Block) {
        let Some(network) = self.network(told) else { return };
        let subnet = told.network.subnet;
        let fits = block.range.prefix_len() == ipam::block_prefix(subnet)
            && block.range == block.range.trunc()
            && subnet.to_net().contains(&block.range);
        let known = block.node.as_ref().is_none_or(|node| self.state.nodes.contains_key(node));
        let mut inside = network.addresses.range(ipam::addresses(block.range));
        let foreign = inside.any(|(_, name)| {
            network.workloads.get(name).map(|workload| &workload.node) != block.node.as_ref()
        });
        if fits && known && !foreign && !network.blocks.contains_key(&block.range) {
            let (network, block) = (told.network.name.clone(), block.clone());
            self.put(Change::PutBlock { network, block });
        }
    }

    fn take_service(&mut self, told: &NetworkSnapshot, service: &Service) {
        let Some(network) = self.network(told) else { return };
        let subnet = told.network.subnet;
        let own = subnet.contains(service.vip)
            && ipam::is_assignable(subnet, service.vip)
            && network.blocks.get(&ipam::block_of(subnet, service.vip)) == Some(&None);
        let taken = network.services.values().any(|other| other.vip == service.vip);
        if own && !taken && !network.services.contains_key(&service.name) {
            let (network, service) = (told.network.name.clone(), service.clone());
            self.put(Change::PutService { network, service });
        }
    }

    /// Hosts that have not reported yet are taken to run what they last did.
    fn take_workloads(&mut self, told: &NetworkSnapshot, heard: &BTreeSet<NodeName>) {
        let mut by_node: BTreeMap<NodeName, Vec<Workload>> =
            told.nodes.iter().map(|node| (node.name.clone(), vec![])).collect();
        for workload in &told.workloads {
            by_node.entry(workload.node.clone()).or_default().push(workload.clone());
        }
        for (node, workloads) in by_node.into_iter().filter(|(node, _)| !heard.contains(node)) {
            let Some(network) = self.network(told) else { return };
            // What does not fit is refused when its host reports it, in words that its owner sees.
            let (changes, _) = report::place(network, &node, workloads);
            changes.into_iter().for_each(|change| self.put(change));
        }
    }
}

#[cfg(test)]
mod tests;
