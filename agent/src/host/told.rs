//! Progress of other hosts with this host's words, as they acknowledge them: a change has arrived once every host to which there is a
//! channel works by it. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sealane_proto::resource::{Edition, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName};

use super::core::HostCore;

/// Number of editions of a network that are remembered: who has an older one has not heard of anything newer.
const REMEMBERED: usize = 64;

/// Editions that a host has acknowledged, by network.
pub(crate) type Acknowledged = BTreeMap<NetworkName, Acknowledgement>;

/// Editions of one network that a host has acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    /// The edition that it has heard.
    pub(crate) heard: Edition,
    /// The edition by which its kernel, names, rules and sidecars work.
    pub(crate) works_by: Edition,
}

/// Progress of other hosts with this host's words about one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeardWords {
    /// The newest version of this host's workloads that every host within reach with a channel works by.
    pub(crate) version: u64,
    /// Hosts within reach with a channel that have not heard the newest word yet.
    pub(crate) late: BTreeSet<NodeName>,
    /// Hosts within reach with a channel that have heard it, and do not work by it yet.
    pub(crate) behind: BTreeSet<NodeName>,
    /// Hosts within reach that have no channel, and hear of nothing while control is away.
    pub(crate) deaf: BTreeSet<NodeName>,
    /// Deaf hosts whose agents are of a version with channels: they may not be there.
    pub(crate) silent: BTreeSet<NodeName>,
}

/// Words of this host, and what others have of them.
#[derive(Debug, Default)]
pub(super) struct ToldWords {
    /// Editions of a network, each with the last version of which it tells.
    editions: BTreeMap<NetworkName, VecDeque<(Edition, u64)>>,
    peers: BTreeMap<NodeName, Acknowledged>,
}

impl ToldWords {
    /// Takes in what this host says at a version of its workloads.
    pub(super) fn note(&mut self, version: u64, facts: &BTreeMap<NetworkName, Arc<OwnerFacts>>) {
        self.editions.retain(|network, _| facts.contains_key(network));
        for (network, facts) in facts {
            let editions = self.editions.entry(network.clone()).or_default();
            match editions.back_mut() {
                Some((edition, through)) if *edition == facts.edition() => *through = version,
                _ => editions.push_back((facts.edition(), version)),
            }
            if editions.len() > REMEMBERED {
                editions.pop_front();
            }
        }
    }

    /// A host to which there is a channel has acknowledged this.
    pub(super) fn acknowledge(&mut self, peer: NodeName, acknowledged: Acknowledged) {
        self.peers.insert(peer, acknowledged);
    }

    /// There is no channel to the host any more.
    pub(super) fn part(&mut self, peer: &NodeName) {
        self.peers.remove(peer);
    }

    /// The newest version of which this edition tells.
    fn version_of(&self, network: &NetworkName, edition: Edition) -> u64 {
        let editions = self.editions.get(network).into_iter().flatten();
        let known = editions.rev().find(|(known, _)| *known <= edition);
        known.map_or(0, |(_, through)| *through)
    }
}

impl HostCore {
    /// A host to which there is a channel has acknowledged this of this host's words.
    pub(crate) fn handle_acknowledged(&mut self, peer: NodeName, acknowledged: Acknowledged) {
        self.told.acknowledge(peer, acknowledged);
    }

    /// Progress of other hosts with this host's words, by network.
    pub(crate) fn told(&self) -> BTreeMap<NetworkName, HeardWords> {
        let unreachable = self.mesh.unreachable();
        let of = |(network, facts): (&NetworkName, &Arc<OwnerFacts>)| {
            let mut told = HeardWords { version: self.mesh.version(), ..HeardWords::default() };
            let snapshot = self.mesh.snapshot(network);
            let without = snapshot.and_then(|known| known.mute.as_ref());
            let carriers = snapshot.into_iter().flat_map(|known| &known.nodes);
            for name in carriers.map(|node| &node.name).filter(|name| **name != self.mesh.node().name) {
                if unreachable.contains(name) {
                    continue;
                }
                match self.told.peers.get(name) {
                    Some(acknowledged) => {
                        let Acknowledgement { heard, works_by } =
                            acknowledged.get(network).copied().unwrap_or_default();
                        if works_by != facts.edition() {
                            told.version = told.version.min(self.told.version_of(network, works_by));
                            let has_heard = heard == facts.edition();
                            let slow = if has_heard { &mut told.behind } else { &mut told.late };
                            slow.insert(name.clone());
                        }
                    }
                    None => {
                        told.deaf.insert(name.clone());
                        if without.is_some_and(|without| !without.contains(name)) {
                            told.silent.insert(name.clone());
                        }
                    }
                }
            }
            (network.clone(), told)
        };
        self.mesh.facts().iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edition(revision: u64) -> Edition {
        Edition { incarnation: 7, revision }
    }

    fn facts(network: &NetworkName, revision: u64) -> BTreeMap<NetworkName, Arc<OwnerFacts>> {
        let facts = OwnerFacts { network: network.clone(), incarnation: 7, revision, workloads: Vec::new() };
        [(network.clone(), Arc::new(facts))].into()
    }

    #[test]
    fn who_has_an_edition_has_heard_of_all_that_it_tells() {
        let shop: NetworkName = "shop".parse().unwrap();
        let mut told = ToldWords::default();
        for (version, revision) in [(3, 1), (4, 1), (7, 2), (9, 3)] {
            told.note(version, &facts(&shop, revision));
        }
        for (revision, version) in [(0, 0), (1, 4), (2, 7), (3, 9), (8, 9)] {
            assert_eq!(told.version_of(&shop, edition(revision)), version, "revision {revision}");
        }
        assert_eq!(told.version_of(&shop, Edition::default()), 0);
        for revision in 4..1_000 {
            told.note(revision + 10, &facts(&shop, revision));
        }
        assert_eq!(told.editions[&shop].len(), REMEMBERED);
        assert_eq!(told.version_of(&shop, edition(3)), 0, "that is too long ago");
        told.note(2_000, &BTreeMap::new());
        assert!(told.editions.is_empty());
    }
}
