//! Words of other hosts by which this one works: the kernel, names, and the rules and sidecar of every workload follow them. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sealane_base::shared_map::SharedMap;
use sealane_proto::resource::Edition;
use sealane_proto::types::{NetworkName, NodeName};

/// Publications that wait for data planes one by one; the newer ones are waited for together.
const KEPT: usize = 64;

/// Editions of every other host's words by which this one works, by network.
pub(crate) type Works = SharedMap<NodeName, Arc<BTreeMap<NetworkName, Edition>>>;

/// Editions of other hosts' words about one network.
type Editions = BTreeMap<NodeName, Edition>;

/// Words of other hosts on their way to the data planes.
#[derive(Debug, Default)]
pub(super) struct WorkingWords {
    networks: BTreeMap<NetworkName, OnTheirWay>,
    works: Works,
    /// Counts the changes of that.
    version: u64,
}

/// Words about one network on their way.
#[derive(Debug, Default)]
struct OnTheirWay {
    /// Heard since the last pass over the kernel began.
    fresh: Editions,
    /// In the kernel, or on their way there.
    passing: Editions,
    /// Published with this sequence, which data planes have yet to come to.
    published: VecDeque<(u64, Editions)>,
}

impl WorkingWords {
    /// The owner has said this. Returns true if the host neither works by it nor is about to.
    pub(super) fn hear(&mut self, network: &NetworkName, owner: &NodeName, edition: Edition) -> bool {
        let works = self.works.get(owner).and_then(|works| works.get(network));
        let coming = self.networks.get(network).and_then(|words| words.newest(owner));
        if coming.or(works) == Some(&edition) {
            return false;
        }
        let words = self.networks.entry(network.clone()).or_default();
        words.fresh.insert(owner.clone(), edition);
        true
    }

    /// The owner is not heard any more: what it said may not be gone by from now on.
    pub(super) fn part(&mut self, owner: &NodeName) {
        self.version += u64::from(self.works.remove(owner).is_some());
        for words in self.networks.values_mut() {
            words.fresh.remove(owner);
            words.passing.remove(owner);
            for (_, editions) in &mut words.published {
                editions.remove(owner);
            }
        }
    }

    /// The host does not carry the network any more.
    pub(super) fn drop_network(&mut self, network: &NetworkName) {
        self.networks.remove(network);
        let concerned = self.works.iter().filter(|(_, works)| works.contains_key(network));
        let concerned: Vec<NodeName> = concerned.map(|(owner, _)| owner.clone()).collect();
        for owner in concerned {
            self.change(owner, |works| {
                works.remove(network);
            });
        }
    }

    /// A pass over the kernel begins, with all that was heard.
    pub(super) fn handle_pass(&mut self, network: &NetworkName) {
        if let Some(words) = self.networks.get_mut(network) {
            words.passing.append(&mut words.fresh);
        }
    }

    /// The pass has succeeded, and what it worked on is published with this sequence.
    pub(super) fn handle_published(&mut self, network: &NetworkName, sequence: u64) {
        let Some(words) = self.networks.get_mut(network) else { return };
        if words.passing.is_empty() {
            return;
        }
        let passed = std::mem::take(&mut words.passing);
        let is_full = words.published.len() >= KEPT;
        match words.published.back_mut() {
            Some((newest, editions)) if *newest == sequence || is_full => {
                *newest = sequence;
                editions.extend(passed);
            }
            Some(_) | None => words.published.push_back((sequence, passed)),
        }
    }

    /// Looks what the data planes have come to; `applied` gives the sequence that all those of a network work by, or a newer one.
    pub(super) fn handle_applied(&mut self, applied: impl Fn(&NetworkName) -> u64) {
        let mut worked = Vec::new();
        for (network, words) in self.networks.iter_mut().filter(|(_, words)| !words.published.is_empty()) {
            let applied = applied(network);
            while let Some((_, editions)) = words.published.pop_front_if(|(sequence, _)| *sequence <= applied)
            {
                worked.extend(editions.into_iter().map(|(owner, edition)| (owner, network.clone(), edition)));
            }
        }
        for (owner, network, edition) in worked {
            self.change(owner, |works| {
                works.insert(network, edition);
            });
        }
    }

    /// Editions by which the host works.
    pub(super) fn works(&self) -> &Works {
        &self.works
    }

    /// Counts the changes of what [`Self::works`] returns.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    fn change(&mut self, owner: NodeName, change: impl FnOnce(&mut BTreeMap<NetworkName, Edition>)) {
        let mut works = self.works.get(&owner).map(|works| BTreeMap::clone(works)).unwrap_or_default();
        change(&mut works);
        self.works.insert(owner, Arc::new(works));
        self.version += 1;
    }
}

impl OnTheirWay {
    /// The newest edition of the owner's that is on its way.
    fn newest(&self, owner: &NodeName) -> Option<&Edition> {
        let published = || self.published.iter().rev().find_map(|(_, editions)| editions.get(owner));
        self.fresh.get(owner).or_else(|| self.passing.get(owner)).or_else(published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edition(revision: u64) -> Edition {
        Edition { incarnation: 7, revision }
    }

    fn works(words: &WorkingWords, owner: &NodeName) -> Option<u64> {
        words.works().get(owner)?.get(&shop()).map(|edition| edition.revision)
    }

    fn shop() -> NetworkName {
        "shop".parse().unwrap()
    }

    fn host(number: u8) -> NodeName {
        format!("host-{number}").parse().unwrap()
    }

    #[test]
    fn a_host_works_by_what_was_heard_before_a_pass_and_its_data_planes_have_come_to() {
        let (mut words, shop, host) = (WorkingWords::default(), shop(), host(2));
        assert!(words.hear(&shop, &host, edition(1)));
        words.handle_pass(&shop);
        assert!(words.hear(&shop, &host, edition(2)) && !words.hear(&shop, &host, edition(2)));
        words.handle_published(&shop, 10);
        words.handle_applied(|_| 9);
        assert_eq!(works(&words, &host), None, "a sidecar is behind");
        words.handle_applied(|_| 10);
        assert_eq!(works(&words, &host), Some(1), "the second came after the pass had begun");
        words.handle_pass(&shop);
        words.handle_applied(|_| u64::MAX);
        assert_eq!(works(&words, &host), Some(1), "the pass is under way, or failed");
        words.handle_pass(&shop);
        words.handle_published(&shop, 10);
        words.handle_applied(|_| 10);
        assert_eq!(works(&words, &host), Some(2), "it changes nothing that is published");
        assert!(!words.hear(&shop, &host, edition(2)), "a new connection says it again");
    }

    #[test]
    fn who_falls_silent_is_worked_by_no_more_until_it_has_passed_again() {
        let (mut words, shop) = (WorkingWords::default(), shop());
        for owner in [host(2), host(3)] {
            words.hear(&shop, &owner, edition(1));
        }
        words.handle_pass(&shop);
        words.handle_published(&shop, 10);
        words.part(&host(2));
        words.handle_applied(|_| 10);
        assert_eq!((works(&words, &host(2)), works(&words, &host(3))), (None, Some(1)));
        assert!(words.hear(&shop, &host(2), edition(1)));
        words.drop_network(&shop);
        assert_eq!((works(&words, &host(2)), works(&words, &host(3))), (None, None));
    }

    #[test]
    fn publications_that_wait_for_a_stuck_sidecar_are_bounded() {
        let (mut words, shop, host) = (WorkingWords::default(), shop(), host(2));
        for sequence in 1..1_000 {
            words.hear(&shop, &host, edition(sequence));
            words.handle_pass(&shop);
            words.handle_published(&shop, sequence);
        }
        assert_eq!(words.networks[&shop].published.len(), KEPT);
        words.handle_applied(|_| 998);
        assert_eq!(works(&words, &host), Some(63));
        words.handle_applied(|_| 999);
        assert_eq!(works(&words, &host), Some(999));
    }
}
