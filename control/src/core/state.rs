//! Everything that the mesh should be, in memory, with the indexes that decisions need.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{Block, Network, NetworkSnapshot, Node, Service, Workload};
use sealane_proto::types::{
    Generation, MacAddr, NetworkName, NodeName, OverlayIp, ServiceName, UnderlayAddr, WorkloadName,
};

use super::{Change, Idle, Recovery, RemovedNode, Rest, Timestamp, Touched};

/// The desired state of the whole mesh. Changes only by [`State::apply`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The networks and what lives in them.
    pub networks: BTreeMap<NetworkName, NetworkState>,
    /// The hosts that have joined.
    pub nodes: BTreeMap<NodeName, NodeRecord>,
    /// The join tokens by their public id.
    pub tokens: BTreeMap<String, TokenRecord>,
    /// Memory of its restoration, if it was restored.
    pub recovery: Option<Recovery>,
    /// The hosts that were removed, by how the serial numbers of their certificates begin.
    pub removed: BTreeMap<SerialPrefix, RemovedNode>,
}

/// A host that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Name and place.
    pub node: Node,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) that it joined with: the same host may join again.
    pub key: [u8; 32],
    /// Time at which it first joined.
    pub joined: Timestamp,
    /// True if its services' instances get no new calls.
    pub drained: bool,
    /// The token that it last joined by, as far as that is known.
    pub token: Option<String>,
    /// The networks that it may carry by that token; none: all that are for it.
    pub networks: BTreeSet<NetworkName>,
    /// The host that came with its underlay address while it was away. Nobody is told where it is until it comes itself.
    pub displaced: Option<NodeName>,
}

/// A join token, of which control keeps the secret's hash alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Public name.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Time at which it was made.
    pub created: Timestamp,
    /// From when on it admits nobody.
    pub expires: Timestamp,
    /// Number of hosts that it admits; `None`: any number.
    pub uses: Option<u32>,
    /// Number of hosts that it has admitted.
    pub used: u32,
    /// The one name that a host may join with by it; `None`: any.
    pub node: Option<NodeName>,
    /// The networks that hosts which join by it may carry; none: any.
    pub networks: BTreeSet<NetworkName>,
    /// Time at which somebody took it back.
    pub revoked: Option<Timestamp>,
}

/// State of a network with everything that lives in it.
///
/// Invariants: blocks are disjoint and of one size; addresses, MACs and VIPs are unique; every VIP lies in a
/// block of control's own and no workload does; every workload's node holds a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkState {
    /// The network itself.
    pub network: Network,
    /// The revision at which its content last changed.
    pub changed: u64,
    /// Blocks and their holders; `None` is control itself, for service addresses.
    pub blocks: BTreeMap<Ipv4Net, Option<NodeName>>,
    /// Ranges that nobody has any more and nobody gets yet; disjoint from the blocks that hosts hold.
    pub resting: BTreeMap<Ipv4Net, Rest>,
    /// The services without instances that no document declares, as far as that was noted.
    pub idle: BTreeMap<ServiceName, Idle>,
    /// Services of the network.
    pub services: BTreeMap<ServiceName, Service>,
    /// Workloads on all hosts.
    pub workloads: BTreeMap<WorkloadName, Workload>,
    /// Owners of addresses.
    pub(super) addresses: BTreeMap<OverlayIp, WorkloadName>,
    /// Owners of Ethernet addresses.
    pub(super) macs: BTreeMap<MacAddr, WorkloadName>,
    /// The instances of each service.
    pub(super) instances: BTreeMap<ServiceName, BTreeSet<WorkloadName>>,
    /// The workloads of each host.
    pub(super) by_node: BTreeMap<NodeName, BTreeSet<WorkloadName>>,
}

impl NodeRecord {
    /// The key of a host that others have told of after a restoration, until it comes itself.
    pub const HEARSAY: [u8; 32] = [0; 32];

    /// A host of which no more is known.
    #[must_use]
    pub fn new(node: Node, key: [u8; 32], joined: Timestamp) -> Self {
        let (drained, token, networks, displaced) = (false, None, BTreeSet::new(), None);
        Self { node, key, joined, drained, token, networks, displaced }
    }

    /// Says whether this is the host that has an underlay address.
    #[must_use]
    pub fn is_at(&self, underlay: UnderlayAddr) -> bool {
        self.displaced.is_none() && self.node.underlay == underlay
    }

    /// Returns true if the host itself has been here.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.key != Self::HEARSAY
    }
}

impl State {
    /// Makes one change. A change of a network that is not there does nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::PutNetwork { network, changed } => {
                let state = self.networks.entry(network.name.clone());
                let state = state.or_insert_with(|| NetworkState::new(network.clone()));
                state.network = network.clone();
                state.changed = *changed;
            }
            Change::RemoveNetwork(name) => drop(self.networks.remove(name)),
            Change::PutNode(record) => {
                self.nodes.insert(record.node.name.clone(), record.clone());
            }
            Change::RemoveNode(name) => drop(self.nodes.remove(name)),
            Change::PutToken(record) => drop(self.tokens.insert(record.id.clone(), record.clone())),
            Change::RemoveToken(id) => drop(self.tokens.remove(id)),
            Change::PutRecovery(recovery) => self.recovery = Some(recovery.clone()),
            Change::RemoveRecovery => self.recovery = None,
            Change::PutRemoved(removed) => drop(self.removed.insert(removed.serials(), removed.clone())),
            Change::ForgetRemoved(serials) => drop(self.removed.remove(serials)),
            Change::PutIdle { network, .. }
            | Change::RemoveIdle { network, .. }
            | Change::PutRest { network, .. }
            | Change::RemoveRest { network, .. }
            | Change::PutBlock { network, .. }
            | Change::RemoveBlock { network, .. }
            | Change::PutService { network, .. }
            | Change::RemoveService { network, .. }
            | Change::RemoveWorkload { network, .. }
            | Change::PutWorkload(Workload { network, .. }) => {
                if let Some(state) = self.networks.get_mut(network) {
                    state.apply(change);
                }
            }
        }
    }

    /// The change that undoes `change`, which has not been applied yet.
    #[must_use]
    pub fn inverse(&self, change: &Change) -> Change {
        match change {
            Change::PutNetwork { network: Network { name, .. }, .. } | Change::RemoveNetwork(name) => {
                match self.networks.get(name) {
                    Some(NetworkState { network, changed, .. }) => {
                        Change::PutNetwork { network: network.clone(), changed: *changed }
                    }
                    None => Change::RemoveNetwork(name.clone()),
                }
            }
            Change::PutNode(NodeRecord { node: Node { name, .. }, .. }) | Change::RemoveNode(name) => {
                let old = self.nodes.get(name).cloned();
                old.map_or_else(|| Change::RemoveNode(name.clone()), Change::PutNode)
            }
            Change::PutToken(TokenRecord { id, .. }) | Change::RemoveToken(id) => {
                let old = self.tokens.get(id).cloned();
                old.map_or_else(|| Change::RemoveToken(id.clone()), Change::PutToken)
            }
            Change::PutRecovery(_) | Change::RemoveRecovery => {
                self.recovery.clone().map_or(Change::RemoveRecovery, Change::PutRecovery)
            }
            Change::PutRemoved(removed) => self.removed_before(removed.serials()),
            Change::ForgetRemoved(serials) => self.removed_before(*serials),
            Change::PutIdle { network, .. }
            | Change::RemoveIdle { network, .. }
            | Change::PutRest { network, .. }
            | Change::RemoveRest { network, .. }
            | Change::PutBlock { network, .. }
            | Change::RemoveBlock { network, .. }
            | Change::PutService { network, .. }
            | Change::RemoveService { network, .. }
            | Change::RemoveWorkload { network, .. }
            | Change::PutWorkload(Workload { network, .. }) => match self.networks.get(network) {
                Some(state) => state.inverse(change),
                // What changed nothing is undone by itself.
                None => change.clone(),
            },
        }
    }

    fn removed_before(&self, serials: SerialPrefix) -> Change {
        let old = self.removed.get(&serials).cloned();
        old.map_or(Change::ForgetRemoved(serials), Change::PutRemoved)
    }

    /// Notes what `change`, which has not been applied yet, touches.
    pub fn touch(&self, change: &Change, touched: &mut Touched) {
        match change {
            Change::PutToken(_) | Change::RemoveToken(_) => touched.tokens = true,
            // Nobody derives anything of it.
            Change::PutRecovery(_) | Change::RemoveRecovery => {}
            Change::PutNode(NodeRecord { node: Node { name, .. }, .. }) | Change::RemoveNode(name) => {
                touched.nodes = true;
                let carried = self.networks.iter().filter(|(_, state)| state.carried_by(name));
                touched.networks.extend(carried.map(|(network, _)| network.clone()));
            }
            // Revoked everywhere: a certificate of a network that is no more names one that is made again.
            Change::PutRemoved(_) | Change::ForgetRemoved(_) => {
                touched.nodes = true;
                touched.networks.extend(self.networks.keys().cloned());
            }
            Change::PutIdle { network, .. }
            | Change::RemoveIdle { network, .. }
            | Change::PutRest { network, .. }
            | Change::RemoveRest { network, .. }
            | Change::RemoveNetwork(network)
            | Change::PutNetwork { network: Network { name: network, .. }, .. }
            | Change::PutBlock { network, .. }
            | Change::RemoveBlock { network, .. }
            | Change::PutService { network, .. }
            | Change::RemoveService { network, .. }
            | Change::RemoveWorkload { network, .. }
            | Change::PutWorkload(Workload { network, .. }) => {
                touched.networks.insert(network.clone());
            }
        }
    }

    /// The networks in which a host holds blocks.
    pub fn carried_by<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a NetworkName> {
        self.networks.iter().filter(|(_, state)| state.carried_by(node)).map(|(name, _)| name)
    }

    /// The hosts that hold blocks of a network, and of which nobody knows where they are.
    #[must_use]
    pub fn displaced_carriers(&self, network: &NetworkName) -> BTreeSet<NodeName> {
        let displaced = self.nodes.iter().filter(|(_, record)| record.displaced.is_some());
        let Some(state) = self.networks.get(network) else { return BTreeSet::new() };
        displaced.filter(|(name, _)| state.carried_by(name)).map(|(name, _)| name.clone()).collect()
    }

    /// Notes that these networks' content changed at `revision`.
    pub fn stamp(&mut self, networks: &BTreeSet<NetworkName>, revision: u64) {
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
        let carriers: BTreeSet<&NodeName> = state.blocks.values().flatten().collect();
        let known = |name| self.nodes.get(name).filter(|record| record.displaced.is_none());
        let node = |name| known(name).map(|record| record.node.clone());
        let block =
            |(range, node): (&Ipv4Net, &Option<NodeName>)| Block { node: node.clone(), range: *range };
        Some(NetworkSnapshot {
            generation: Generation { epoch, revision: state.changed },
            network: state.network.clone(),
            nodes: carriers.into_iter().filter_map(node).collect(),
            blocks: state.blocks.iter().map(block).collect(),
            services: state.services.values().cloned().collect(),
            workloads: state.workloads.values().map(|workload| self.offered(workload)).collect(),
            revoked: self.removed.keys().copied().collect(),
            drained: state
                .blocks
                .values()
                .flatten()
                .filter(|node| self.is_drained(node))
                .cloned()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        })
    }
}

impl State {
    fn is_drained(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|record| record.drained)
    }

    /// A workload as others see it: an instance on a host that is drained, or of which nobody knows where it is, is not
    /// ready.
    fn offered(&self, workload: &Workload) -> Workload {
        let away = |record: &NodeRecord| record.drained || record.displaced.is_some();
        let away = workload.service.is_some() && self.nodes.get(&workload.node).is_some_and(away);
        let ready = workload.ready && !away;
        Workload { ready, ..workload.clone() }
    }
}

impl NetworkState {
    fn new(network: Network) -> Self {
        Self {
            network,
            changed: 0,
            blocks: BTreeMap::new(),
            resting: BTreeMap::new(),
            idle: BTreeMap::new(),
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
            addresses: BTreeMap::new(),
            macs: BTreeMap::new(),
            instances: BTreeMap::new(),
            by_node: BTreeMap::new(),
        }
    }

    /// Returns true if a host holds blocks here.
    #[must_use]
    pub fn carried_by(&self, node: &NodeName) -> bool {
        self.blocks.values().any(|holder| holder.as_ref() == Some(node))
    }

    /// A host's workloads.
    pub fn workloads_of(&self, node: &NodeName) -> impl Iterator<Item = &Workload> {
        let names = self.by_node.get(node).into_iter().flatten();
        names.filter_map(|name| self.workloads.get(name))
    }

    /// A service's instances.
    pub fn instances_of(&self, service: &ServiceName) -> impl Iterator<Item = &Workload> {
        let names = self.instances.get(service).into_iter().flatten();
        names.filter_map(|name| self.workloads.get(name))
    }

    /// The workload at an address.
    #[must_use]
    pub fn at(&self, address: OverlayIp) -> Option<&Workload> {
        self.workloads.get(self.addresses.get(&address)?)
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::PutBlock { block, .. } => drop(self.blocks.insert(block.range, block.node.clone())),
            Change::RemoveBlock { range, .. } => drop(self.blocks.remove(range)),
            Change::PutRest { range, rest, .. } => drop(self.resting.insert(*range, *rest)),
            Change::RemoveRest { range, .. } => drop(self.resting.remove(range)),
            Change::PutIdle { name, idle, .. } => drop(self.idle.insert(name.clone(), idle.clone())),
            Change::RemoveIdle { name, .. } => drop(self.idle.remove(name)),
            Change::PutService { service, .. } => {
                self.services.insert(service.name.clone(), service.clone());
            }
            Change::RemoveService { name, .. } => drop(self.services.remove(name)),
            Change::PutWorkload(workload) => {
                self.unindex(&workload.name);
                self.index(workload);
                self.workloads.insert(workload.name.clone(), workload.clone());
            }
            Change::RemoveWorkload { name, .. } => {
                self.unindex(name);
                self.workloads.remove(name);
            }
            // Handled by the state above.
            Change::PutNetwork { .. }
            | Change::RemoveNetwork(_)
            | Change::PutNode(_)
            | Change::RemoveNode(_)
            | Change::PutToken(_)
            | Change::RemoveToken(_)
            | Change::PutRecovery(_)
            | Change::RemoveRecovery
            | Change::PutRemoved(_)
            | Change::ForgetRemoved(_) => {}
        }
    }

    fn inverse(&self, change: &Change) -> Change {
        let network = self.network.name.clone();
        match change {
            Change::PutBlock { block: Block { range, .. }, .. } | Change::RemoveBlock { range, .. } => {
                let range = *range;
                match self.blocks.get(&range).cloned() {
                    Some(node) => Change::PutBlock { network, block: Block { node, range } },
                    None => Change::RemoveBlock { network, range },
                }
            }
            Change::PutRest { range, .. } | Change::RemoveRest { range, .. } => {
                let range = *range;
                match self.resting.get(&range).copied() {
                    Some(rest) => Change::PutRest { network, range, rest },
                    None => Change::RemoveRest { network, range },
                }
            }
            Change::PutIdle { name, .. } | Change::RemoveIdle { name, .. } => {
                match self.idle.get(name).cloned() {
                    Some(idle) => Change::PutIdle { network, name: name.clone(), idle },
                    None => Change::RemoveIdle { network, name: name.clone() },
                }
            }
            Change::PutService { service: Service { name, .. }, .. } | Change::RemoveService { name, .. } => {
                match self.services.get(name).cloned() {
                    Some(service) => Change::PutService { network, service },
                    None => Change::RemoveService { network, name: name.clone() },
                }
            }
            Change::PutWorkload(Workload { name, .. }) | Change::RemoveWorkload { name, .. } => {
                match self.workloads.get(name).cloned() {
                    Some(workload) => Change::PutWorkload(workload),
                    None => Change::RemoveWorkload { network, name: name.clone() },
                }
            }
            // Handled by the state above.
            Change::PutNetwork { .. }
            | Change::RemoveNetwork(_)
            | Change::PutNode(_)
            | Change::RemoveNode(_)
            | Change::PutToken(_)
            | Change::RemoveToken(_)
            | Change::PutRecovery(_)
            | Change::RemoveRecovery
            | Change::PutRemoved(_)
            | Change::ForgetRemoved(_) => change.clone(),
        }
    }

    fn index(&mut self, workload: &Workload) {
        let name = &workload.name;
        self.addresses.insert(workload.address, name.clone());
        self.macs.insert(workload.mac, name.clone());
        self.by_node.entry(workload.node.clone()).or_default().insert(name.clone());
        if let Some(service) = &workload.service {
            self.instances.entry(service.clone()).or_default().insert(name.clone());
        }
    }

    /// Forgets where a workload was. Within one report an address may already be its new holder's.
    fn unindex(&mut self, name: &WorkloadName) {
        let Some(old) = self.workloads.get(name) else { return };
        if self.addresses.get(&old.address) == Some(name) {
            self.addresses.remove(&old.address);
        }
        if self.macs.get(&old.mac) == Some(name) {
            self.macs.remove(&old.mac);
        }
        remove_from(&mut self.by_node, &old.node, name);
        if let Some(service) = &old.service {
            remove_from(&mut self.instances, service, name);
        }
    }
}

fn remove_from<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<WorkloadName>>, key: &K, name: &WorkloadName) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(name);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
