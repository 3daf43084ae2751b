//! Everything that the mesh should be, in memory, with the indexes that decisions need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::Ipv4Net;
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{
    Block, Edition, Network, NetworkContent, NetworkSnapshot, Node, Route, Service, Workload,
};
use sealane_proto::types::{Generation, NetworkName, NodeName, OverlayIp, ServiceName};

use super::record::{Edit, Kept, Mesh, Record, RowError};
use super::tables::tables;
use super::{
    Affected, Idle, NetworkRecord, NodeRecord, Recovery, RemovedNode, Rest, Table, TokenRecord, Told, ipam,
};

tables! {
    mesh {
        /// The hosts that have joined.
        nodes: Node(NodeRecord),
        /// The join tokens by their public id.
        tokens: Token(TokenRecord),
        /// The hosts that were removed, by how the serial numbers of their certificates begin.
        removed: Removed(RemovedNode),
    }
    network {
        /// The services without instances that no document declares, as far as that was noted.
        idle: Idle(Idle),
        /// Services of the network.
        services: Service(Service),
        /// Workloads on all hosts.
        workloads: Workload(Workload),
        /// Blocks of addresses, with their holders.
        blocks: Block(Block),
        /// Ranges that nobody has any more and nobody gets yet; disjoint from the blocks that hosts hold.
        resting: Rest(Rest),
        /// Ages of what hosts have told, of those that were removed as well for a while.
        told: Told(Told),
        /// Routes of the network.
        routes: Route(Route),
    }
}

/// The part of a network's state that follows from its hosts and blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkHosts {
    /// The hosts that carry it, but for those of which nobody knows where they are, sorted by name.
    pub nodes: Vec<Node>,
    /// The leased blocks, sorted by range.
    pub blocks: Vec<Block>,
    /// Certificates that nobody accepts any more, sorted.
    pub revoked: Vec<SerialPrefix>,
    /// The hosts whose services' instances get no new calls, sorted.
    pub drained: Vec<NodeName>,
    /// The newest words of hosts about their underlay addresses.
    pub placed: BTreeMap<NodeName, Edition>,
    /// The hosts that do not answer echoes, sorted.
    pub mute: Vec<NodeName>,
    /// All hosts that carry it.
    pub carriers: Arc<BTreeSet<NodeName>>,
}

impl State {
    /// Notes that these networks' content changed at `revision`.
    pub fn stamp<'a>(&mut self, networks: impl IntoIterator<Item = &'a NetworkName>, revision: u64) {
        for name in networks {
            if let Some(state) = self.networks.get_mut(name) {
                state.changed = revision;
            }
        }
    }

    /// Builds the snapshot of one network as the hosts that carry it see it.
    #[must_use]
    pub fn snapshot(&self, name: &NetworkName, epoch: u64) -> Option<NetworkSnapshot> {
        let state = self.networks.get(name)?;
        let NetworkHosts { nodes, blocks, revoked, drained, placed, mute, carriers } = self.hosts_of(state);
        let told = |name: &NodeName| Some((name.clone(), state.word(name)?));
        let content = NetworkContent {
            network: state.network.clone(),
            nodes,
            blocks,
            services: state.services.values().cloned().collect(),
            workloads: state.workloads.values().map(|workload| self.offered(workload)).collect(),
            revoked,
            drained,
            reported: Some(carriers.iter().filter_map(told).collect()),
            placed: Some(placed),
            mute: Some(mute),
            routes: state.routes.values().map(Route::told).collect(),
        };
        Some(NetworkSnapshot::new(Generation { epoch, revision: state.changed }, content))
    }

    /// Builds what the hosts that carry a network are told of each other.
    #[must_use]
    pub fn hosts_of(&self, state: &NetworkState) -> NetworkHosts {
        let known = |name| self.nodes.get(name).filter(|record| record.displaced.is_none());
        let node = |name| known(name).map(|record| record.seen_in(&state.network));
        let carriers = || state.blocks.index().hosts();
        NetworkHosts {
            nodes: carriers().filter_map(node).collect(),
            blocks: state.blocks.values().cloned().collect(),
            revoked: self.removed.keys().copied().collect(),
            drained: carriers().filter(|node| self.is_drained(node)).cloned().collect(),
            placed: carriers().filter_map(|name| self.placed(name)).collect(),
            mute: carriers().filter(|node| !self.echoes(node)).cloned().collect(),
            carriers: Arc::new(carriers().cloned().collect()),
        }
    }
}

impl State {
    /// Returns true if a host has said that it answers echoes.
    #[must_use]
    pub fn echoes(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|record| record.echoes)
    }

    /// A host with the age of its word about where it is, if it tells any.
    fn placed(&self, node: &NodeName) -> Option<(NodeName, Edition)> {
        let placed = self.nodes.get(node)?.placed;
        (placed != Edition::default()).then(|| (node.clone(), placed))
    }

    fn is_drained(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|record| record.drained)
    }

    /// A workload as others see it: an instance on a host that is drained, or of which nobody knows where it is, is not
    /// ready.
    #[must_use]
    pub fn offered(&self, workload: &Workload) -> Workload {
        let away = |record: &NodeRecord| record.drained || record.displaced.is_some();
        let away = workload.service.is_some() && self.nodes.get(&workload.node).is_some_and(away);
        let (ready, ready6) = (workload.ready && !away, workload.ready6 && !away);
        Workload { ready, ready6, ..workload.clone() }
    }
}

impl NetworkState {
    /// The age of a host's newest word, if it carries the network and has told one.
    #[must_use]
    pub fn word(&self, node: &NodeName) -> Option<Edition> {
        let told = self.told.get(node).filter(|_| self.carried_by(node))?;
        Some(told.edition)
    }

    /// Returns true if a host holds blocks here.
    #[must_use]
    pub fn carried_by(&self, node: &NodeName) -> bool {
        self.blocks.index().has(node)
    }

    /// The change by which the network's content is of this revision.
    #[must_use]
    pub fn stamped(&self, revision: u64) -> Change {
        Change::put(NetworkRecord { network: self.network.clone(), changed: revision })
    }

    /// A host's workloads.
    pub fn workloads_of(&self, node: &NodeName) -> impl Iterator<Item = &Workload> {
        let names = self.workloads.index().by_node.get(node).into_iter().flatten();
        names.filter_map(|name| self.workloads.get(name))
    }

    /// A service's instances.
    pub fn instances_of(&self, service: &ServiceName) -> impl Iterator<Item = &Workload> {
        let names = self.workloads.index().instances.get(service).into_iter().flatten();
        names.filter_map(|name| self.workloads.get(name))
    }

    /// The workload at an address.
    #[must_use]
    pub fn at(&self, address: OverlayIp) -> Option<&Workload> {
        self.workloads.get(self.workloads.index().addresses.get(&address)?)
    }

    /// The block that has an address.
    #[must_use]
    pub fn holder(&self, address: OverlayIp) -> Option<&Block> {
        let address = address.to_ipv4();
        // Blocks are disjoint: none that begins before the last one reaches as far.
        let (_, block) = self.blocks.range(..=Ipv4Net::from(address)).next_back()?;
        block.range.contains(&address).then_some(block)
    }

    /// The cells around the addresses of other hosts' workloads that no block has.
    pub(super) fn cells_of_others(&self, node: &NodeName) -> impl Iterator<Item = Ipv4Net> {
        let others = self.workloads.values().filter(move |workload| workload.node != *node);
        let outside = others.filter(|workload| self.holder(workload.address).is_none());
        outside.map(|workload| ipam::cell_of(self.network.subnet, workload.address))
    }

    /// The workloads at the addresses of a block.
    pub(super) fn within(&self, block: Ipv4Net) -> impl Iterator<Item = &Workload> {
        let names = self.workloads.index().addresses.range(ipam::addresses(block));
        names.filter_map(|(_, name)| self.workloads.get(name))
    }
}
