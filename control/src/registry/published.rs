//! One network as it was committed last, and the way to there from what hosts have.
//!
//! What did not change is shared with the generation before, so a commit costs what it changes, however large the network is.
//! What is sent is encoded once, for all hosts that have the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use ipnet::Ipv4Net;
use prost::Message as _;
use rpds::RedBlackTreeMapSync;
use sealane_base::mutex::lock;
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{
    AddressSpace, Block, Difference, Digest, Edition, Network, NetworkContent, NetworkDelta, NetworkSnapshot,
    Node, Route, RouteId, Rows, Service, Totals, Voucher, Workload, find,
};
use sealane_proto::types::{Generation, NodeName, ServiceName, WorkloadName};
use sealane_proto::wire::v1;

use crate::ca::Notary;
use crate::core::{NetworkHosts, NetworkState, State, Touched};

/// Number of generations from which there is a way to the newest one.
const LONGEST_LOG: usize = 256;
/// Changes on a way that is never too long, however small the network is.
const SHORT: usize = 16;

/// Committed state of one network. Immutable.
#[derive(Debug)]
pub(crate) struct PublishedNetwork {
    /// The generation at which it came to be so.
    pub(crate) generation: Generation,
    /// The word for it that hosts are given.
    pub(super) voucher: Voucher,
    network: Arc<Network>,
    hosts: Arc<NetworkHosts>,
    services: RedBlackTreeMapSync<ServiceName, Service>,
    workloads: RedBlackTreeMapSync<WorkloadName, Workload>,
    /// The newest word of each host that is in it.
    words: RedBlackTreeMapSync<NodeName, Edition>,
    /// The routes as hosts are told of them.
    routes: RedBlackTreeMapSync<RouteId, Route>,
    /// Deltas that led here, each from the generation to which the one before led.
    log: VecDeque<Arc<NetworkDelta>>,
    state: OnceLock<Bytes>,
    /// Ways that hosts were told, by the revision that they lead from; `None` for one that is longer than the state.
    ways: Mutex<BTreeMap<u64, Option<Bytes>>>,
}

impl PublishedNetwork {
    /// The network of a state, without a past.
    pub(super) fn first(state: &State, known: &NetworkState, epoch: u64, notary: &Notary) -> Self {
        let hosts = state.hosts_of(known);
        let word = |node: &NodeName| Some((node.clone(), known.word(node)?));
        let workloads = known.workloads.values().map(|workload| state.offered(workload));
        let generation = Generation { epoch, revision: known.changed };
        let mut first = Self {
            generation,
            voucher: notary.vouch(&known.network.name, generation, Digest::default()),
            network: Arc::new(known.network.clone()),
            services: known.services.iter().map(|(name, service)| (name.clone(), service.clone())).collect(),
            workloads: workloads.map(|workload| (workload.name.clone(), workload)).collect(),
            words: hosts.carriers.iter().filter_map(word).collect(),
            hosts: Arc::new(hosts),
            routes: known.routes.iter().map(|(id, route)| (id.clone(), route.told())).collect(),
            log: VecDeque::new(),
            state: OnceLock::new(),
            ways: Mutex::default(),
        };
        first.voucher = notary.vouch(&known.network.name, generation, Digest::of(&first.content()));
        first
    }

    /// The network after changes that touched this much of it; `None` if hosts are told the same as before.
    pub(super) fn next(
        &self,
        state: &State,
        known: &NetworkState,
        (generation, touched): (Generation, &Touched),
        notary: &Notary,
    ) -> Option<Self> {
        let epoch = generation.epoch;
        if touched.all || epoch != self.generation.epoch {
            let anew = Self::first(state, known, epoch, notary);
            let same = anew.hosts.carriers == self.hosts.carriers && anew.content() == self.content();
            return (!same || epoch != self.generation.epoch).then_some(anew);
        }
        let mut next = Self {
            generation,
            voucher: self.voucher,
            network: self.network.clone(),
            hosts: self.hosts.clone(),
            services: self.services.clone(),
            workloads: self.workloads.clone(),
            words: self.words.clone(),
            routes: self.routes.clone(),
            log: self.log.clone(),
            state: OnceLock::new(),
            ways: Mutex::default(),
        };
        let name = self.network.name.clone();
        let mut delta =
            NetworkDelta::new(name.clone(), self.generation.revision, generation, Totals::default());
        if touched.hosts {
            next.follow_hosts(state, known, &mut delta);
        }
        next.follow(state, known, touched, &mut delta);
        if delta.len() == 0 && Arc::ptr_eq(&next.hosts.carriers, &self.hosts.carriers) {
            return None;
        }
        next.voucher = notary.vouch(&name, generation, delta.turned(self.voucher.digest, self));
        (delta.totals, delta.voucher) = (next.totals(), Some(next.voucher));
        next.note(delta);
        Some(next)
    }

    /// Takes over what follows from hosts and blocks.
    fn follow_hosts(&mut self, state: &State, known: &NetworkState, delta: &mut NetworkDelta) {
        if *self.network != known.network {
            self.network = Arc::new(known.network.clone());
            delta.network = Some(known.network.clone());
        }
        let (old, mut new) = (self.hosts.clone(), state.hosts_of(known));
        delta.nodes = Difference::between(&old.nodes, &new.nodes, |node| &node.name);
        delta.blocks = Difference::between(&old.blocks, &new.blocks, |block| &block.range);
        delta.revoked = Difference::between(&old.revoked, &new.revoked, |serial| serial);
        delta.drained = Difference::between(&old.drained, &new.drained, |node| node);
        delta.mute = Difference::between(&old.mute, &new.mute, |node| node);
        delta.placed = Difference::of_maps(&old.placed, &new.placed);
        let carriers: BTreeSet<&NodeName> = old.carriers.union(&new.carriers).collect();
        follow(&mut self.words, carriers, |node| known.word(node), &mut delta.reported);
        if old.carriers == new.carriers {
            new.carriers = old.carriers.clone();
        }
        if *old != new {
            self.hosts = Arc::new(new);
        }
    }

    /// Takes over what is touched of services, workloads and hosts' words.
    fn follow(&mut self, state: &State, known: &NetworkState, touched: &Touched, delta: &mut NetworkDelta) {
        let service = |name: &ServiceName| known.services.get(name).cloned();
        follow(&mut self.services, &touched.services, service, &mut delta.services);
        let workload =
            |name: &WorkloadName| known.workloads.get(name).map(|workload| state.offered(workload));
        follow(&mut self.workloads, &touched.workloads, workload, &mut delta.workloads);
        follow(&mut self.words, &touched.words, |node| known.word(node), &mut delta.reported);
        let route = |id: &RouteId| known.routes.get(id).map(Route::told);
        follow(&mut self.routes, &touched.routes, route, &mut delta.routes);
    }

    /// Keeps the way to here, and as many before it as are together shorter than the state.
    fn note(&mut self, delta: NetworkDelta) {
        self.log.push_back(Arc::new(delta));
        let mut together: usize = self.log.iter().map(|delta| delta.len()).sum();
        let longest = self.longest_way();
        while self.log.len() > LONGEST_LOG || together > longest {
            let Some(oldest) = self.log.pop_front() else { return };
            together -= oldest.len();
        }
    }

    /// Number of changes at which a way is as long as the state.
    fn longest_way(&self) -> usize {
        let Totals { nodes, blocks, services, workloads } = self.totals();
        ((nodes + blocks + services + workloads) / 2).max(SHORT)
    }

    fn totals(&self) -> Totals {
        Totals {
            nodes: self.hosts.nodes.len(),
            blocks: self.hosts.blocks.len(),
            services: self.services.size(),
            workloads: self.workloads.size(),
        }
    }

    /// The network itself.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// The hosts that carry it, as they are told of each other, sorted by name.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.hosts.nodes
    }

    /// All hosts that carry it, also those of which nobody knows where they are.
    pub(crate) fn carriers(&self) -> &Arc<BTreeSet<NodeName>> {
        &self.hosts.carriers
    }

    /// The network's space of addresses.
    pub(crate) fn space(&self) -> AddressSpace {
        AddressSpace::count(&self.network, &self.hosts.blocks, self.workloads.size())
    }

    /// The services, sorted by name.
    pub(crate) fn services(&self) -> impl ExactSizeIterator<Item = &Service> {
        self.services.values()
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The workloads, sorted by name.
    pub(crate) fn workloads(&self) -> impl ExactSizeIterator<Item = &Workload> {
        self.workloads.values()
    }

    /// Copies all that it says.
    pub(crate) fn content(&self) -> NetworkContent {
        let NetworkHosts { nodes, blocks, revoked, drained, placed, mute, carriers: _ } = &*self.hosts;
        NetworkContent {
            network: (*self.network).clone(),
            nodes: nodes.clone(),
            blocks: blocks.clone(),
            services: self.services.values().cloned().collect(),
            workloads: self.workloads.values().cloned().collect(),
            revoked: revoked.clone(),
            drained: drained.clone(),
            reported: Some(self.words.iter().map(|(node, word)| (node.clone(), *word)).collect()),
            mute: Some(mute.clone()),
            placed: Some(placed.clone()),
            routes: self.routes.values().cloned().collect(),
        }
    }

    /// Copies all of it.
    pub(crate) fn snapshot(&self) -> NetworkSnapshot {
        NetworkSnapshot { generation: self.generation, content: self.content(), voucher: Some(self.voucher) }
    }

    /// The state as [`v1::NetworkState`] on the wire, the same bytes for every host.
    pub(crate) fn state(&self) -> Bytes {
        let encode = || v1::NetworkState::from(&self.snapshot()).encode_to_vec().into();
        self.state.get_or_init(encode).clone()
    }

    /// The way from a generation as [`v1::NetworkDelta`] on the wire, the same bytes for every host that has that one; `None` if
    /// none is known that is shorter than the state.
    pub(crate) fn way_from(&self, known: Generation) -> Option<Bytes> {
        if known.epoch != self.generation.epoch {
            return None;
        }
        let mut ways = lock(&self.ways);
        ways.entry(known.revision).or_insert_with(|| self.encode_way(known.revision)).clone()
    }

    fn encode_way(&self, from: u64) -> Option<Bytes> {
        let first = self.log.binary_search_by_key(&from, |delta| delta.from).ok()?;
        let mut rest = self.log.range(first..);
        let mut way = NetworkDelta::clone(rest.next()?);
        rest.for_each(|later| way.extend(later));
        Some(v1::NetworkDelta::from(&way).encode_to_vec().into())
    }
}

impl Rows for PublishedNetwork {
    fn network(&self) -> &Network {
        &self.network
    }

    fn node(&self, name: &NodeName) -> Option<&Node> {
        find(&self.hosts.nodes, name, |node| &node.name)
    }

    fn block(&self, range: &Ipv4Net) -> Option<&Block> {
        find(&self.hosts.blocks, range, |block| &block.range)
    }

    fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    fn workload(&self, name: &WorkloadName) -> Option<&Workload> {
        self.workloads.get(name)
    }

    fn revoked(&self, serial: &SerialPrefix) -> Option<&SerialPrefix> {
        find(&self.hosts.revoked, serial, |serial| serial)
    }

    fn drained(&self, name: &NodeName) -> Option<&NodeName> {
        find(&self.hosts.drained, name, |node| node)
    }

    fn reported(&self, name: &NodeName) -> Option<&Edition> {
        self.words.get(name)
    }

    fn mute(&self, name: &NodeName) -> Option<&NodeName> {
        find(&self.hosts.mute, name, |node| node)
    }

    fn placed(&self, name: &NodeName) -> Option<&Edition> {
        self.hosts.placed.get(name)
    }

    fn route(&self, id: &RouteId) -> Option<&Route> {
        self.routes.get(id)
    }
}

/// Lets a map of what is told follow what is known of these names, and notes what that changes.
fn follow<'a, N: Ord + Clone + 'a, T: Clone + PartialEq>(
    told: &mut RedBlackTreeMapSync<N, T>,
    names: impl IntoIterator<Item = &'a N>,
    known: impl Fn(&N) -> Option<T>,
    changes: &mut Difference<N, T>,
) {
    for name in names {
        let now = known(name);
        if told.get(name) == now.as_ref() {
            continue;
        }
        match now.clone() {
            Some(item) => told.insert_mut(name.clone(), item),
            None => drop(told.remove_mut(name)),
        }
        changes.set(name.clone(), now);
    }
}

#[cfg(test)]
mod tests;
