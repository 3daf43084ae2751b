//! Public state: the newest committed one, and the part of it that each agent works by.
//!
//! The writer publishes here after each commit. Readers load the [`Directory`] without a lock. Each connected
//! agent has a [`DesiredState`], which always says what that agent should have now; a slow agent misses intermediate
//! states and never the newest one.

mod directory;
mod lineage;
mod published;
mod resizes;
mod shortage;
mod takeover;
mod tracker;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use sealane_proto::client::ClockPair;
use sealane_proto::types::{Generation, Mtu, NetworkName, NodeName, UnderlayAddr, UnderlayAddrs};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::{Outdone, Timestamp, ToldPlace};

pub(crate) use directory::Directory;
pub(crate) use lineage::Held;
use lineage::Told;
pub(crate) use published::PublishedNetwork;
use resizes::Resizes;
use shortage::Shortages;
use takeover::Claims;
pub(crate) use takeover::{Claimant, Takeover};
use tracker::Tracker;

/// State that one agent should have now.
#[derive(Clone, Debug, Default)]
pub(crate) struct DesiredState {
    /// The networks that its node carries.
    pub(crate) networks: BTreeMap<NetworkName, Arc<PublishedNetwork>>,
    /// Every report up to this sequence is settled.
    pub(crate) settled: u64,
    /// A newer stream of the same node has taken its place.
    pub(crate) replaced: bool,
    /// The node is no part of the mesh any more.
    pub(crate) removed: bool,
    /// Another host has come with the node's underlay address: it has to say anew where it is.
    pub(crate) displaced: bool,
    /// A new lifetime of the state has begun: the agent has to say anew what it has.
    pub(crate) outlived: bool,
}

/// Knowledge of a node's agent, in memory only.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentPresence {
    /// Version that it runs.
    pub(crate) version: String,
    /// Port of its metrics, if it said so.
    pub(crate) metrics_port: Option<u16>,
    /// Time at which it was last heard, or its stream ended.
    pub(crate) last: Timestamp,
    /// True if it has a stream.
    pub(crate) connected: bool,
    /// Times that its clock and ours showed last.
    pub(crate) clocks: Option<ClockPair>,
    /// Streams that have had its place.
    pub(crate) claims: Claims,
    /// A revision with which it came that this control plane had not reached, and its own: its store is an earlier copy.
    pub(crate) ahead: Option<(u64, u64)>,
}

/// Facts about an agent that comes.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Version that it runs.
    pub(crate) version: String,
    /// The start that it is of, and the address that it connects from.
    pub(crate) claimant: Claimant,
    /// Time of its coming.
    pub(crate) now: Timestamp,
}

/// Time that a host may be without a stream until it counts as lost: an agent that is restarted needs a moment.
const LOST: Duration = Duration::from_secs(5);

/// The time without a stream after which what a host told of its ways counts no more.
const AWAY: Duration = Duration::from_secs(600);

/// Hosts without a stream, with when each was last heard: `None` since before this control plane started.
pub(crate) type LostHosts = BTreeMap<NodeName, Option<Timestamp>>;

/// Shared by the writer, the streams and the API.
#[derive(Debug)]
pub(crate) struct Registry {
    directory: ArcSwap<Directory>,
    agents: Mutex<Agents>,
    connected: IntGauge,
    /// Networks that have refused addresses.
    pub(crate) shortages: Shortages,
    /// Told whenever somebody may have come closer to the newest state.
    progress: watch::Sender<()>,
}

/// Connected agents. Locked for short, never across an await.
#[derive(Debug, Default)]
struct Agents {
    /// Time at which this control plane began to wait for its hosts.
    began: Timestamp,
    tracker: Tracker,
    connected: BTreeMap<NodeName, Agent>,
    seen: BTreeMap<NodeName, AgentPresence>,
    /// States that were told here.
    told: Told,
    /// The host that has shown that the store was an earlier copy, and when.
    outdone: Option<(Outdone, Timestamp)>,
    /// The paces at which hosts have told other lengths of packets.
    resizes: BTreeMap<NodeName, Resizes>,
    /// Hosts that have said that they are elsewhere than where they were, until they have a stream again.
    elsewhere: BTreeMap<NodeName, ToldPlace>,
    /// The hosts that were lost at that second, but for those that have come back since.
    lost: (Timestamp, Arc<LostHosts>),
    /// Agents that have been behind for so long that it is a problem.
    lagging: BTreeSet<(NodeName, NetworkName)>,
    streams: u64,
}

#[derive(Debug)]
struct Agent {
    stream: u64,
    claimant: Claimant,
    desired: watch::Sender<DesiredState>,
}

/// Stream of one agent, in the registry until it is dropped.
#[derive(Debug)]
pub(crate) struct AgentStream {
    registry: Arc<Registry>,
    node: NodeName,
    stream: u64,
    /// State that the agent should have.
    pub(crate) desired: watch::Receiver<DesiredState>,
}

impl Registry {
    /// A registry that shows this state to nobody yet.
    pub(crate) fn new(directory: Directory, connected: IntGauge, now: Timestamp) -> Arc<Self> {
        let mut agents = Agents { began: now, told: Told::new(&directory), ..Agents::default() };
        let networks: BTreeSet<NetworkName> = directory.networks.keys().cloned().collect();
        agents.take(&Directory::default(), &directory, &networks);
        Arc::new(Self {
            directory: ArcSwap::from_pointee(directory),
            agents: Mutex::new(agents),
            connected,
            shortages: Shortages::default(),
            progress: watch::Sender::new(()),
        })
    }

    /// The newest committed state.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    /// Shows a newer state to readers, then to every agent that it concerns.
    pub(crate) fn publish(&self, directory: Directory) {
        let mut agents = self.agents();
        let previous = self.directory.load_full();
        let changed = directory.changed_since(&previous);
        self.directory.store(Arc::new(directory));
        let directory = self.directory.load();
        if !Arc::ptr_eq(&previous.nodes, &directory.nodes) {
            agents.dismiss(&directory);
        }
        if previous.generation.epoch != directory.generation.epoch {
            agents.connected.values().for_each(|agent| agent.desired.send_modify(|it| it.outlived = true));
        }
        agents.told.note(&directory, &changed);
        agents.take(&previous, &directory, &changed);
        self.progress.send_replace(());
    }

    /// Opens the stream of an agent that works by `applied` generations. Another stream of the same node ends.
    pub(crate) fn open(
        self: &Arc<Self>,
        node: NodeName,
        Arrival { version, claimant, now }: Arrival,
        applied: &BTreeMap<NetworkName, Generation>,
    ) -> AgentStream {
        let mut agents = self.agents();
        let directory = self.directory.load();
        agents.streams += 1;
        let stream = agents.streams;
        // Removed since its certificate was looked at: it hears that at once.
        let record = directory.nodes.get(&node);
        let (removed, displaced) = (record.is_none(), record.is_some_and(|it| it.displaced.is_some()));
        let desired = DesiredState {
            networks: directory.carried_by(&node),
            removed,
            displaced,
            ..DesiredState::default()
        };
        let (sender, desired) = watch::channel(desired);
        let known = agents.seen.get(&node).cloned().unwrap_or_default();
        let mut claims = known.claims;
        if let Some(old) = agents.connected.insert(node.clone(), Agent { stream, claimant, desired: sender })
        {
            old.desired.send_modify(|desired| desired.replaced = true);
            claims.take(old.claimant, claimant, now);
        }
        let ahead = known.ahead.or(lineage::ahead(directory.generation, applied));
        let seen =
            AgentPresence { version, last: now, connected: true, clocks: None, claims, ahead, ..known };
        agents.seen.insert(node.clone(), seen);
        agents.tracker.disconnect(&node);
        agents.tracker.connect(node.clone(), applied);
        Arc::make_mut(&mut agents.lost.1).remove(&node);
        agents.elsewhere.remove(&node);
        agents.settle();
        self.connected.set(i64::try_from(agents.connected.len()).unwrap_or(i64::MAX));
        drop(agents);
        AgentStream { registry: self.clone(), node, stream, desired }
    }

    /// Returns the knowledge of each node's agent.
    pub(crate) fn seen(&self) -> BTreeMap<NodeName, AgentPresence> {
        self.agents().seen.clone()
    }

    /// The hosts that have had no stream for so long that nobody should count on what they run. Every stream asks with
    /// each of its heartbeats: it is worked out once a second, and who comes back is taken out at once.
    pub(crate) fn lost(&self, now: Timestamp) -> Arc<LostHosts> {
        let mut agents = self.agents();
        if agents.lost.0 != now {
            agents.set_clock(now);
            let directory = self.directory();
            let lost = directory.nodes.keys().filter_map(|name| match agents.seen.get(name) {
                Some(seen) if seen.connected || now.since(seen.last) < LOST => None,
                Some(seen) => Some((name.clone(), Some(seen.last))),
                None => (now.since(agents.began) >= LOST).then(|| (name.clone(), None)),
            });
            agents.lost = (now, Arc::new(lost.collect()));
        }
        agents.lost.1.clone()
    }

    /// The host that has one of these underlay addresses, if it is lost or says itself that it is elsewhere: it yields that to who comes
    /// with it. One that has just joined connects in a moment. One that is connected from another address yields it to who comes
    /// from that very address (`source`): otherwise a host could keep what was another's while that was away.
    pub(crate) fn gone_from(
        &self,
        underlay: UnderlayAddrs,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Option<NodeName> {
        let directory = self.directory();
        let holder = directory.nodes.values().find(|record| record.holds(underlay))?;
        let (name, place) = (&holder.node.name, holder.node.underlay);
        let lost = now.since(holder.joined) >= LOST && self.lost(now).contains_key(name);
        let agents = self.agents();
        let comes_from_it = source.map(UnderlayAddr::from);
        let comes_from_it = comes_from_it.is_some_and(|at| underlay.contains(at) && place.contains(at));
        let usurped = comes_from_it
            && agents
                .connected
                .get(name)
                .is_some_and(|agent| !place.contains(agent.claimant.peer.ip().into()));
        (lost || usurped || agents.elsewhere.contains_key(name)).then(|| name.clone())
    }

    /// Notes that a host says that it is not at its underlay address any more, but at `told`, whether or not it can be there: so two
    /// hosts that swap their addresses do not wait for each other.
    pub(crate) fn note_elsewhere(&self, node: &NodeName, told: ToldPlace) {
        if self.directory().nodes.contains_key(node) {
            self.agents().elsewhere.insert(node.clone(), told);
        }
    }

    /// Returns where a host has said that it is since it was connected last.
    pub(crate) fn elsewhere(&self, node: &NodeName) -> Option<ToldPlace> {
        self.agents().elsewhere.get(node).copied()
    }

    /// Says whether a host tells another length of packets than before, and longer ones not too often: what it told too early it
    /// tells again. Shorter ones do not wait for longer ones that came before.
    pub(crate) fn takes_mtu(&self, node: &NodeName, told: Mtu, now: Instant) -> bool {
        let known = self.directory().nodes.get(node).and_then(|record| record.node.mtu);
        self.agents().resizes.entry(node.clone()).or_default().may((known, told), now)
    }

    /// The hosts that have been away for so long that what they told of their ways counts no more.
    pub(crate) fn away(&self, now: Timestamp) -> BTreeSet<NodeName> {
        let (lost, directory) = (self.lost(now), self.directory());
        let began = self.agents().began;
        let long = lost.iter().filter(|(_, last)| now.since(last.unwrap_or(began)) >= AWAY);
        let told =
            |name: &&NodeName| directory.nodes.get(*name).is_some_and(|record| record.node.mtu.is_some());
        long.map(|(name, _)| name).filter(told).cloned().collect()
    }

    /// The networks whose newest state each connected agent has not acknowledged.
    pub(crate) fn behind(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        self.agents().tracker.behind()
    }

    /// Notes who has been behind for so long that it is a problem.
    pub(crate) fn set_lagging(&self, lagging: BTreeSet<(NodeName, NetworkName)>) {
        self.agents().lagging = lagging;
    }

    /// Of those that are behind, the ones that have been for a while.
    pub(crate) fn lagging(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        let agents = self.agents();
        let mut behind = agents.tracker.behind();
        for (node, networks) in &mut behind {
            networks.retain(|network| agents.lagging.contains(&(node.clone(), network.clone())));
        }
        behind.retain(|_, networks| !networks.is_empty());
        behind
    }

    /// The networks whose newest state each host that is not connected has not acknowledged, as far as is known.
    pub(crate) fn unconfirmed(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        self.agents().tracker.unconfirmed()
    }

    /// The networks that connected agents have not come closer to for so long that nobody waits for them.
    pub(crate) fn given_up(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        self.agents().tracker.given_up()
    }

    /// Returns the level of each connected agent that is behind.
    pub(crate) fn late_levels(&self) -> BTreeMap<(NodeName, NetworkName), u64> {
        self.agents().tracker.late_levels()
    }

    /// Waits for an agent no longer, as far as a network is concerned.
    pub(crate) fn give_up(&self, node: &NodeName, network: &NetworkName) {
        let mut agents = self.agents();
        agents.tracker.give_up(node, network);
        agents.settle();
        self.progress.send_replace(());
    }

    fn agents(&self) -> MutexGuard<'_, Agents> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AgentStream {
    /// Notes that the agent was heard.
    pub(crate) fn heard(&self, now: Timestamp) {
        if let Some(mut agents) = self.current()
            && let Some(seen) = agents.seen.get_mut(&self.node)
        {
            seen.last = now;
        }
    }

    /// Notes where the host serves its metrics.
    pub(crate) fn serves_metrics(&self, port: Option<u16>) {
        if let Some(mut agents) = self.current()
            && let Some(seen) = agents.seen.get_mut(&self.node)
        {
            seen.metrics_port = port.or(seen.metrics_port);
        }
    }

    /// Notes what the agent's clock and ours said at about the same moment.
    pub(crate) fn clocks(&self, pair: ClockPair) {
        if let Some(mut agents) = self.current()
            && let Some(seen) = agents.seen.get_mut(&self.node)
        {
            seen.clocks = Some(pair);
        }
    }

    /// Notes that every data plane of the node works by this generation.
    pub(crate) fn acknowledged(&self, network: &NetworkName, generation: Generation) {
        if let Some(mut agents) = self.current() {
            agents.tracker.acknowledge(&self.node, network, generation);
            agents.settle();
            self.registry.progress.send_replace(());
        }
    }

    /// Notes a report that is durable and published: its settling is shown in the desired state.
    pub(crate) fn reported(&self, sequence: u64, changed: &BTreeSet<NetworkName>) {
        if let Some(mut agents) = self.current() {
            agents.tracker.report(&self.node, sequence, changed);
            agents.settle();
        }
    }

    /// The agents, unless another stream has taken this one's place.
    fn current(&self) -> Option<MutexGuard<'_, Agents>> {
        let agents = self.registry.agents();
        let own = agents.connected.get(&self.node).is_some_and(|agent| agent.stream == self.stream);
        own.then_some(agents)
    }
}

impl Drop for AgentStream {
    fn drop(&mut self) {
        let Some(mut agents) = self.current() else { return };
        agents.connected.remove(&self.node);
        agents.tracker.disconnect(&self.node);
        self.registry.progress.send_replace(());
        if let Some(seen) = agents.seen.get_mut(&self.node) {
            seen.connected = false;
        }
        agents.settle();
        self.registry.connected.set(i64::try_from(agents.connected.len()).unwrap_or(i64::MAX));
    }
}

impl Agents {
    /// Brings what would lie ahead to the present: the clock was ahead, and has been set back.
    fn set_clock(&mut self, now: Timestamp) {
        self.began = self.began.min(now);
        self.seen.values_mut().for_each(|seen| seen.last = seen.last.min(now));
    }

    /// Tells the agents of hosts that are no part of the mesh any more, or whose address another host has.
    fn dismiss(&mut self, directory: &Directory) {
        for (node, agent) in &self.connected {
            match directory.nodes.get(node) {
                None => agent.desired.send_modify(|desired| desired.removed = true),
                Some(record) if record.displaced.is_some() => {
                    agent.desired.send_modify(|desired| desired.displaced = true);
                }
                Some(_) => {}
            }
        }
        self.seen.retain(|node, _| directory.nodes.contains_key(node));
        self.tracker.retain(|node| directory.nodes.contains_key(node));
        self.resizes.retain(|node, _| directory.nodes.contains_key(node));
        self.elsewhere.retain(|node, _| directory.nodes.contains_key(node));
    }

    /// Takes over the networks that changed; asks the hosts that carry them alone, or did.
    fn take(&mut self, previous: &Directory, directory: &Directory, changed: &BTreeSet<NetworkName>) {
        for name in changed {
            let (old, new) = (previous.networks.get(name), directory.networks.get(name));
            match new {
                Some(network) => self.tracker.publish(name, network.generation, network.carriers()),
                None => self.tracker.remove(name),
            }
            let left = |node: &&NodeName| new.is_none_or(|network| !network.carriers().contains(*node));
            for node in old.iter().flat_map(|network| &**network.carriers()).filter(left) {
                if let Some(agent) = self.connected.get(node) {
                    agent.desired.send_if_modified(|desired| desired.networks.remove(name).is_some());
                }
            }
            let Some(network) = new else { continue };
            for node in &**network.carriers() {
                if let Some(agent) = self.connected.get(node) {
                    agent.desired.send_modify(|desired| {
                        desired.networks.insert(name.clone(), Arc::clone(network));
                    });
                }
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        for (node, settled) in self.tracker.poll_settled() {
            if let Some(agent) = self.connected.get(&node) {
                agent.desired.send_modify(|desired| desired.settled = settled);
            }
        }
    }
}

#[cfg(test)]
mod tests;
