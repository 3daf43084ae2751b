//! Progress of connected agents through the generations of networks, and the reports that it settles. Pure.
//!
//! A report is settled when every connected agent that carries a network which the report changed has
//! acknowledged a generation that includes the change; a report that changed nothing, when all networks that
//! its node carries are acknowledged as they are. Reports of one stream settle in order. An agent that
//! disconnects is not waited for any longer: its data path goes on by what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealane_proto::types::{Generation, NetworkName, NodeName};

/// The bookkeeping.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    networks: BTreeMap<NetworkName, Track>,
    agents: BTreeMap<NodeName, Agent>,
    /// The generations that hosts worked by when they went away.
    away: BTreeMap<NodeName, BTreeMap<NetworkName, Generation>>,
    settled: BTreeMap<NodeName, u64>,
    /// Tells a node's streams apart.
    connections: u64,
}

#[derive(Debug, Default)]
struct Agent {
    connection: u64,
    acknowledged: BTreeMap<NetworkName, Generation>,
    /// Unsettled reports with the networks that each still waits for.
    reports: BTreeMap<u64, BTreeSet<NetworkName>>,
}

#[derive(Debug, Default)]
struct Track {
    generation: Generation,
    carriers: Arc<BTreeSet<NodeName>>,
    /// The revision that each connected carrier works by; 0 is none of this epoch.
    levels: BTreeMap<NodeName, u64>,
    /// Number of connected carriers by the revision that they work by: the first key is a state that all of them have.
    counts: BTreeMap<u64, usize>,
    /// Connected carriers that work by nothing newer for so long that nobody waits for them.
    given_up: BTreeSet<NodeName>,
    /// Reports that wait until all have a revision.
    waiting: BTreeMap<u64, Vec<Ticket>>,
}

#[derive(Clone, Debug)]
struct Ticket {
    node: NodeName,
    connection: u64,
    sequence: u64,
}

impl Track {
    fn set_level(&mut self, node: &NodeName, level: u64) {
        self.clear_level(node);
        self.levels.insert(node.clone(), level);
        *self.counts.entry(level).or_default() += 1;
    }

    fn clear_level(&mut self, node: &NodeName) {
        let Some(old) = self.levels.remove(node) else { return };
        if let Some(count) = self.counts.get_mut(&old) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
    }

    /// Returns the revision that all connected carriers have; the greatest when there are none.
    fn floor(&self) -> u64 {
        self.counts.keys().next().copied().unwrap_or(u64::MAX)
    }

    /// The tickets whose wait is over.
    fn due(&mut self) -> Vec<Ticket> {
        let floor = self.floor();
        let later = match floor.checked_add(1) {
            Some(next) => self.waiting.split_off(&next),
            None => BTreeMap::new(),
        };
        std::mem::replace(&mut self.waiting, later).into_values().flatten().collect()
    }
}

impl Tracker {
    /// A network's content is now this, carried by these nodes.
    pub(super) fn publish(
        &mut self,
        network: &NetworkName,
        generation: Generation,
        carriers: &Arc<BTreeSet<NodeName>>,
    ) {
        let track = self.networks.entry(network.clone()).or_default();
        let new_epoch = track.generation.epoch != generation.epoch;
        track.generation = generation;
        if Arc::ptr_eq(&track.carriers, carriers) && !new_epoch {
            return;
        }
        let gone: Vec<NodeName> =
            track.levels.keys().filter(|node| !carriers.contains(*node)).cloned().collect();
        gone.iter().for_each(|node| track.clear_level(node));
        track.given_up.retain(|node| carriers.contains(node));
        for node in &**carriers {
            let Some(agent) = self.agents.get(node) else { continue };
            let waited_for = !track.given_up.contains(node);
            if waited_for && (new_epoch || !track.levels.contains_key(node)) {
                track.set_level(node, level(agent, network, generation));
            }
        }
        track.carriers = carriers.clone();
        self.advance(network);
    }

    /// A network is no more: nothing waits for it.
    pub(super) fn remove(&mut self, network: &NetworkName) {
        if let Some(track) = self.networks.remove(network) {
            let tickets = track.waiting.into_values().flatten().collect();
            self.redeem(network, tickets);
        }
    }

    /// An agent is connected and works by these generations.
    pub(super) fn connect(&mut self, node: NodeName, applied: &BTreeMap<NetworkName, Generation>) {
        self.connections += 1;
        let agent = Agent { connection: self.connections, acknowledged: applied.clone(), ..Agent::default() };
        for (name, track) in self.networks.iter_mut().filter(|(_, track)| track.carriers.contains(&node)) {
            track.set_level(&node, level(&agent, name, track.generation));
        }
        self.away.remove(&node);
        self.agents.insert(node, agent);
    }

    /// Keeps in mind only what these hosts worked by when they went away.
    pub(super) fn retain(&mut self, is_known: impl Fn(&NodeName) -> bool) {
        self.away.retain(|node, _| is_known(node));
    }

    /// An agent's stream has ended: nobody waits for it, and nothing of it waits.
    pub(super) fn disconnect(&mut self, node: &NodeName) {
        self.settled.remove(node);
        let Some(agent) = self.agents.remove(node) else { return };
        self.away.insert(node.clone(), agent.acknowledged);
        let carried = self.networks.iter_mut().filter(|(_, track)| track.carriers.contains(node));
        let carried: Vec<NetworkName> = carried
            .map(|(name, track)| {
                track.clear_level(node);
                track.given_up.remove(node);
                name.clone()
            })
            .collect();
        carried.iter().for_each(|name| self.advance(name));
    }

    /// An agent works by a generation of a network.
    pub(super) fn acknowledge(&mut self, node: &NodeName, network: &NetworkName, generation: Generation) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        let Some(track) = self.networks.get_mut(network) else { return };
        agent.acknowledged.insert(network.clone(), generation);
        if track.carriers.contains(node) {
            let level = level(agent, network, track.generation);
            track.given_up.remove(node);
            track.set_level(node, level);
            self.advance(network);
        }
    }

    /// Waits for a connected agent no longer, until it acknowledges something again.
    pub(super) fn give_up(&mut self, node: &NodeName, network: &NetworkName) {
        let Some(track) = self.networks.get_mut(network) else { return };
        if track.levels.contains_key(node) {
            track.clear_level(node);
            track.given_up.insert(node.clone());
            self.advance(network);
        }
    }

    /// Returns the level of each connected agent that is behind.
    pub(super) fn late_levels(&self) -> BTreeMap<(NodeName, NetworkName), u64> {
        let late = self.networks.iter().flat_map(|(name, track)| {
            let late = track.levels.iter().filter(|&(_, &level)| level < track.generation.revision);
            late.map(|(node, &level)| ((node.clone(), name.clone()), level))
        });
        late.collect()
    }

    /// The connected agents that nobody waits for, with the networks.
    pub(super) fn given_up(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        let mut all: BTreeMap<NodeName, Vec<NetworkName>> = BTreeMap::new();
        for (name, track) in &self.networks {
            track.given_up.iter().for_each(|node| all.entry(node.clone()).or_default().push(name.clone()));
        }
        all
    }

    /// An agent's report is part of what was published last.
    pub(super) fn report(&mut self, node: &NodeName, sequence: u64, changed: &BTreeSet<NetworkName>) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        let mut waits = BTreeSet::new();
        let mut wait = |name: &NetworkName, track: &mut Track| {
            let revision = track.generation.revision;
            if track.floor() < revision {
                let ticket = Ticket { node: node.clone(), connection: agent.connection, sequence };
                track.waiting.entry(revision).or_default().push(ticket);
                waits.insert(name.clone());
            }
        };
        if changed.is_empty() {
            let carried = self.networks.iter_mut().filter(|(_, track)| track.carriers.contains(node));
            carried.for_each(|(name, track)| wait(name, track));
        }
        for name in changed {
            if let Some(track) = self.networks.get_mut(name) {
                wait(name, track);
            }
        }
        agent.reports.insert(sequence, waits);
        self.settle(node);
    }

    /// Up to which sequence reports have been settled, per node, since the last call.
    pub(super) fn poll_settled(&mut self) -> BTreeMap<NodeName, u64> {
        std::mem::take(&mut self.settled)
    }

    /// The networks whose newest generation a connected agent has not acknowledged; none for most.
    pub(super) fn behind(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        let mut behind: BTreeMap<NodeName, Vec<NetworkName>> = BTreeMap::new();
        for (name, track) in &self.networks {
            let late = track.levels.iter().filter(|&(_, &level)| level < track.generation.revision);
            late.for_each(|(node, _)| behind.entry(node.clone()).or_default().push(name.clone()));
        }
        behind
    }

    /// The networks whose newest generation a carrier that is not connected has not acknowledged, as far as is known.
    pub(super) fn unconfirmed(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        let mut unconfirmed: BTreeMap<NodeName, Vec<NetworkName>> = BTreeMap::new();
        for (name, track) in &self.networks {
            for node in track.carriers.iter().filter(|node| !self.agents.contains_key(*node)) {
                let known = self.away.get(node).and_then(|networks| networks.get(name));
                if known != Some(&track.generation) {
                    unconfirmed.entry(node.clone()).or_default().push(name.clone());
                }
            }
        }
        unconfirmed
    }

    /// The revision of a network that every host which carries it works by; `None` while one is not connected.
    pub(super) fn known_to_all(&self, network: &NetworkName) -> Option<u64> {
        let track = self.networks.get(network)?;
        let counts = |carrier| track.levels.contains_key(carrier) || track.given_up.contains(carrier);
        let all = track.carriers.iter().all(counts);
        all.then(|| track.floor())
    }

    /// The newest revisions of these networks; what is not there has none.
    pub(super) fn revisions(&self, networks: &BTreeSet<NetworkName>) -> BTreeMap<NetworkName, u64> {
        let tracks = networks.iter().filter_map(|name| Some((name.clone(), self.networks.get(name)?)));
        tracks.map(|(name, track)| (name, track.generation.revision)).collect()
    }

    /// The connected agents that do not work by one of these revisions yet.
    pub(super) fn late(&self, revisions: &BTreeMap<NetworkName, u64>) -> BTreeSet<NodeName> {
        let tracks =
            revisions.iter().filter_map(|(name, &revision)| Some((self.networks.get(name)?, revision)));
        tracks
            .flat_map(|(track, revision)| {
                track.levels.iter().filter(move |&(_, &level)| level < revision).map(|(node, _)| node.clone())
            })
            .collect()
    }

    fn advance(&mut self, network: &NetworkName) {
        if let Some(track) = self.networks.get_mut(network) {
            let tickets = track.due();
            self.redeem(network, tickets);
        }
    }

    fn redeem(&mut self, network: &NetworkName, tickets: Vec<Ticket>) {
        for Ticket { node, connection, sequence } in tickets {
            let Some(agent) = self.agents.get_mut(&node) else { continue };
            if agent.connection != connection {
                continue;
            }
            if let Some(waits) = agent.reports.get_mut(&sequence) {
                waits.remove(network);
            }
            self.settle(&node);
        }
    }

    /// Settles a node's oldest reports that wait for nothing.
    fn settle(&mut self, node: &NodeName) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        while let Some(first) = agent.reports.first_entry()
            && first.get().is_empty()
        {
            self.settled.insert(node.clone(), *first.key());
            first.remove();
        }
    }
}

/// The revision that an agent has, as far as this epoch knows it.
fn level(agent: &Agent, network: &NetworkName, current: Generation) -> u64 {
    let acknowledged = agent.acknowledged.get(network).copied().unwrap_or_default();
    if acknowledged.epoch == current.epoch { acknowledged.revision } else { 0 }
}

#[cfg(test)]
mod tests;
