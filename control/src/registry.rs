//! What everybody may see: the newest committed state, and who of the agents works by which part of it.
//!
//! The writer publishes here after each commit. Readers load the [`Directory`] without a lock. Each connected
//! agent has a [`View`], which always says what that agent should have now; a slow agent misses intermediate
//! states and never the newest one.

mod directory;
mod tracker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use sealane_proto::client::ClockPair;
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::{Generation, NetworkName, NodeName};
use tokio::sync::watch;

use crate::core::Timestamp;

pub(crate) use directory::Directory;
use tracker::Tracker;

/// What one agent should have now.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The networks that its node carries.
    pub(crate) networks: BTreeMap<NetworkName, Arc<NetworkSnapshot>>,
    /// Every report up to this sequence is settled.
    pub(crate) settled: u64,
    /// A newer stream of the same node has taken its place.
    pub(crate) replaced: bool,
    /// The node is no part of the mesh any more.
    pub(crate) removed: bool,
}

/// What is known of a node's agent, in memory only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What it runs.
    pub(crate) version: String,
    /// Where it serves its metrics, if it said so.
    pub(crate) metrics_port: Option<u16>,
    /// When it was last heard, or its stream ended.
    pub(crate) last: Timestamp,
    /// Whether it has a stream.
    pub(crate) connected: bool,
    /// What its clock and ours said last.
    pub(crate) clocks: Option<ClockPair>,
}

/// Shared by the writer, the streams and the API.
#[derive(Debug)]
pub(crate) struct Registry {
    directory: ArcSwap<Directory>,
    hub: Mutex<Hub>,
    connected: IntGauge,
    /// Told whenever somebody may have come closer to the newest state.
    progress: watch::Sender<()>,
}

/// Who is connected. Locked for short, never across an await.
#[derive(Debug, Default)]
struct Hub {
    tracker: Tracker,
    agents: BTreeMap<NodeName, Agent>,
    seen: BTreeMap<NodeName, Seen>,
    streams: u64,
}

#[derive(Debug)]
struct Agent {
    stream: u64,
    view: watch::Sender<View>,
}

/// An agent's place in the registry, given back on drop.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Arc<Registry>,
    node: NodeName,
    stream: u64,
    /// What the agent should have.
    pub(crate) view: watch::Receiver<View>,
}

impl Registry {
    /// A registry that shows this state to nobody yet.
    pub(crate) fn new(directory: Directory, connected: IntGauge) -> Arc<Self> {
        let mut hub = Hub::default();
        let networks: BTreeSet<NetworkName> = directory.networks.keys().cloned().collect();
        hub.take(&directory, &networks);
        Arc::new(Self {
            directory: ArcSwap::from_pointee(directory),
            hub: Mutex::new(hub),
            connected,
            progress: watch::Sender::new(()),
        })
    }

    /// The newest committed state.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    /// Shows a newer state to readers, then to every agent that it concerns.
    pub(crate) fn publish(&self, directory: Directory) {
        let mut hub = self.hub();
        let previous = self.directory.load_full();
        let changed = directory.changed_since(&previous);
        self.directory.store(Arc::new(directory));
        let directory = self.directory.load();
        hub.dismiss(&directory);
        hub.take(&directory, &changed);
        self.progress.send_replace(());
    }

    /// Seats an agent that works by `applied` generations. Another stream of the same node loses its seat.
    pub(crate) fn seat(
        self: &Arc<Self>,
        node: NodeName,
        version: String,
        applied: &BTreeMap<NetworkName, Generation>,
        now: Timestamp,
    ) -> Seat {
        let mut hub = self.hub();
        let directory = self.directory.load();
        hub.streams += 1;
        let stream = hub.streams;
        // Removed since its certificate was looked at: it hears that at once.
        let removed = !directory.nodes.contains_key(&node);
        let view = View { networks: directory.carried_by(&node), removed, ..View::default() };
        let (sender, view) = watch::channel(view);
        if let Some(old) = hub.agents.insert(node.clone(), Agent { stream, view: sender }) {
            old.view.send_modify(|view| view.replaced = true);
        }
        let metrics_port = hub.seen.get(&node).and_then(|seen| seen.metrics_port);
        hub.seen
            .insert(node.clone(), Seen { version, metrics_port, last: now, connected: true, clocks: None });
        hub.tracker.disconnect(&node);
        hub.tracker.connect(node.clone(), applied);
        hub.settle();
        self.connected.set(i64::try_from(hub.agents.len()).unwrap_or(i64::MAX));
        drop(hub);
        Seat { registry: self.clone(), node, stream, view }
    }

    /// What is known of each node's agent.
    pub(crate) fn seen(&self) -> BTreeMap<NodeName, Seen> {
        self.hub().seen.clone()
    }

    /// The networks whose newest state each connected agent has not acknowledged.
    pub(crate) fn behind(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        self.hub().tracker.behind()
    }

    /// Per network in which addresses rest: the revision that every host which carries it works by.
    pub(crate) fn known_to_all(&self) -> BTreeMap<NetworkName, u64> {
        let (directory, hub) = (self.directory(), self.hub());
        let known = |name: &NetworkName| Some((name.clone(), hub.tracker.known_to_all(name)?));
        directory.resting.iter().filter_map(known).collect()
    }

    /// Returns when every connected agent works by what these networks are at the time of the call.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn applied(&self, networks: &BTreeSet<NetworkName>) {
        let mut progress = self.progress.subscribe();
        let now = self.hub().tracker.revisions(networks);
        while !self.hub().tracker.late(&now).is_empty() {
            // The sender is this registry's: it does not go away.
            let _ = progress.changed().await;
        }
    }

    /// Who does not work by these networks' newest state: connected agents, and hosts that are not connected.
    pub(crate) fn late(&self, networks: &BTreeSet<NetworkName>) -> (BTreeSet<NodeName>, BTreeSet<NodeName>) {
        let hub = self.hub();
        let directory = self.directory.load();
        let carriers = networks.iter().filter_map(|name| directory.networks.get(name));
        let carriers = carriers.flat_map(|snapshot| snapshot.nodes.iter().map(|node| &node.name));
        let away = carriers.filter(|name| !hub.agents.contains_key(*name)).cloned().collect();
        (hub.tracker.late(&hub.tracker.revisions(networks)), away)
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Notes that the agent was heard.
    pub(crate) fn heard(&self, now: Timestamp) {
        if let Some(mut hub) = self.seated()
            && let Some(seen) = hub.seen.get_mut(&self.node)
        {
            seen.last = now;
        }
    }

    /// Notes where the host serves its metrics.
    pub(crate) fn serves_metrics(&self, port: Option<u16>) {
        if let Some(mut hub) = self.seated()
            && let Some(seen) = hub.seen.get_mut(&self.node)
        {
            seen.metrics_port = port.or(seen.metrics_port);
        }
    }

    /// Notes what the agent's clock and ours said at about the same moment.
    pub(crate) fn clocks(&self, pair: ClockPair) {
        if let Some(mut hub) = self.seated()
            && let Some(seen) = hub.seen.get_mut(&self.node)
        {
            seen.clocks = Some(pair);
        }
    }

    /// Notes that every data plane of the node works by this generation.
    pub(crate) fn acknowledged(&self, network: &NetworkName, generation: Generation) {
        if let Some(mut hub) = self.seated() {
            hub.tracker.acknowledge(&self.node, network, generation);
            hub.settle();
            self.registry.progress.send_replace(());
        }
    }

    /// Notes a report that is durable and published: its settling is shown in the view.
    pub(crate) fn reported(&self, sequence: u64, changed: &BTreeSet<NetworkName>) {
        if let Some(mut hub) = self.seated() {
            hub.tracker.report(&self.node, sequence, changed);
            hub.settle();
        }
    }

    /// The hub, unless another stream has taken this one's seat.
    fn seated(&self) -> Option<MutexGuard<'_, Hub>> {
        let hub = self.registry.hub();
        let own = hub.agents.get(&self.node).is_some_and(|agent| agent.stream == self.stream);
        own.then_some(hub)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(mut hub) = self.seated() else { return };
        hub.agents.remove(&self.node);
        hub.tracker.disconnect(&self.node);
        self.registry.progress.send_replace(());
        if let Some(seen) = hub.seen.get_mut(&self.node) {
            seen.connected = false;
        }
        hub.settle();
        self.registry.connected.set(i64::try_from(hub.agents.len()).unwrap_or(i64::MAX));
    }
}

impl Hub {
    /// Tells the agents of hosts that are no part of the mesh any more.
    fn dismiss(&mut self, directory: &Directory) {
        for (_, agent) in self.agents.iter().filter(|(node, _)| !directory.nodes.contains_key(*node)) {
            agent.view.send_modify(|view| view.removed = true);
        }
        self.seen.retain(|node, _| directory.nodes.contains_key(node));
    }

    /// Takes over the networks that changed.
    fn take(&mut self, directory: &Directory, changed: &BTreeSet<NetworkName>) {
        for name in changed {
            let snapshot = directory.networks.get(name);
            match snapshot {
                Some(snapshot) => {
                    let carriers = snapshot.nodes.iter().map(|node| node.name.clone()).collect();
                    self.tracker.publish(name, snapshot.generation, carriers);
                }
                None => self.tracker.remove(name),
            }
            for (node, agent) in &self.agents {
                let carried = snapshot.filter(|snapshot| Directory::carries(snapshot, node));
                agent.view.send_if_modified(|view| match carried {
                    Some(snapshot) => {
                        view.networks.insert(name.clone(), snapshot.clone());
                        true
                    }
                    None => view.networks.remove(name).is_some(),
                });
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        for (node, settled) in self.tracker.poll_settled() {
            if let Some(agent) = self.agents.get(&node) {
                agent.view.send_modify(|view| view.settled = settled);
            }
        }
    }
}
