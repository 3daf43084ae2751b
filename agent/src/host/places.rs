//! Words of other hosts about where they are, and their merge with what control says. Pure.
//!
//! Per host the newer word counts: control's, which says which of the host's words it has in it, or the host's own, once it is proven.
//! An address is one host's. One that control has told of keeps it against whoever else says it is there, until it says itself that
//! it is elsewhere, or has fallen silent on its channel and answers no echoes either; among hosts that say so themselves, who was
//! there first. Whoever comes too early is nowhere until then: nothing is sent to where it was, or to where somebody else may be.
//! Who is nowhere is not asked by echoes, and is as it was last found until there is a channel to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_proto::resource::{Edition, HostPlaces, NetworkSnapshot, Whereabouts};
use sealane_proto::types::{NodeName, UnderlayAddr, UnderlayAddrs};

/// Time without a channel after which a host that answers no echoes yields its address: as long as control waits for its stream.
const LOST: Duration = Duration::from_secs(5);

/// The words of other hosts about where they are.
#[derive(Debug, Default)]
pub(super) struct PlaceWords {
    words: BTreeMap<NodeName, Word>,
    /// Places at which others have found hosts.
    rumours: HostPlaces,
    /// Hosts to which there is no channel, and since when that is known: none that is heard.
    silent: BTreeMap<NodeName, Instant>,
    heard: BTreeSet<NodeName>,
    /// Hosts that are nowhere, and answered no echoes as they were somewhere.
    away: BTreeSet<NodeName>,
    count: u64,
}

/// Position of the words from before the start.
const RECALLED: u64 = 0;

/// A proven word.
#[derive(Clone, Copy, Debug)]
struct Word {
    place: Whereabouts,
    /// Position among all words that were heard, or [`RECALLED`].
    sequence: u64,
}

/// Control's word about a host that carries a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ToldPlace {
    /// Addresses of the host; `None` while another host has come with them.
    pub(super) underlay: Option<UnderlayAddrs>,
    /// The newest of the host's words that control had heard; `None` from a control plane that does not say.
    pub(super) edition: Option<Edition>,
    revision: u64,
}

/// Control's words about all hosts.
pub(super) type ToldPlaces = BTreeMap<NodeName, ToldPlace>;

/// Joins what control says of hosts in these networks: of each, the newest.
pub(super) fn told<'a>(networks: impl Iterator<Item = &'a NetworkSnapshot>) -> ToldPlaces {
    let mut all = ToldPlaces::new();
    for snapshot in networks {
        let edition = |name: &NodeName| {
            let placed = snapshot.placed.as_ref()?;
            Some(placed.get(name).copied().unwrap_or_default())
        };
        let mut add = |name: &NodeName, underlay: Option<UnderlayAddrs>| {
            let now = ToldPlace { underlay, edition: edition(name), revision: snapshot.generation.revision };
            let known = all.entry(name.clone()).or_insert(now);
            if (known.edition, known.revision) < (now.edition, now.revision) {
                *known = now;
            }
        };
        snapshot.nodes.iter().for_each(|node| add(&node.name, Some(node.underlay)));
        let carriers: BTreeSet<&NodeName> =
            snapshot.blocks.iter().filter_map(|block| block.node.as_ref()).collect();
        let placed: BTreeSet<&NodeName> = snapshot.nodes.iter().map(|node| &node.name).collect();
        carriers.difference(&placed).for_each(|name| add(name, None));
    }
    all
}

/// A host at an address, and who says so.
#[derive(Clone, Copy, Debug)]
struct Claim<'a> {
    host: &'a NodeName,
    underlay: UnderlayAddrs,
    /// Position of the host's own word; `None` where control says so.
    by_owner: Option<u64>,
}

impl PlaceWords {
    /// Hears a proven word of a member; returns true if it is newer than what was known.
    pub(super) fn hear(&mut self, owner: NodeName, place: Whereabouts) -> bool {
        self.find(&owner);
        if self.words.get(&owner).is_some_and(|known| known.place.edition >= place.edition) {
            return false;
        }
        self.count += 1;
        self.words.insert(owner, Word { place, sequence: self.count });
        true
    }

    /// Hears where others have found these hosts; returns true if that is news.
    pub(super) fn hear_rumours(&mut self, places: HostPlaces) -> bool {
        let mut news = false;
        for (host, place) in places {
            let proven = self.words.get(&host).is_some_and(|known| known.place.edition >= place.edition);
            let known = self.rumours.get(&host).is_some_and(|known| known.edition >= place.edition);
            if !proven && !known {
                self.rumours.insert(host, place);
                news = true;
            }
        }
        news
    }

    /// There is a channel to the host; returns true if there was none.
    pub(super) fn find(&mut self, host: &NodeName) -> bool {
        self.silent.remove(host);
        self.away.remove(host);
        self.heard.insert(host.clone())
    }

    /// There is no channel to the host any more.
    pub(super) fn fall_silent(&mut self, host: &NodeName) {
        self.heard.remove(host);
    }

    /// Takes in a word from before the start, by which this host went.
    pub(super) fn recall(&mut self, owner: NodeName, place: Whereabouts) {
        self.words.insert(owner, Word { place, sequence: RECALLED });
    }

    /// Forgets everybody of whom control does not tell, and notes who is silent from now on.
    pub(super) fn retain(&mut self, told: &ToldPlaces, now: Instant) {
        self.words.retain(|host, _| told.contains_key(host));
        self.silent.retain(|host, _| told.contains_key(host));
        self.heard.retain(|host| told.contains_key(host));
        self.away.retain(|host| told.contains_key(host));
        self.rumours.retain(|host, rumour| {
            let known = self.words.get(host).map(|word| word.place.edition);
            let told = told.get(host);
            told.is_some_and(|told| known.max(told.edition) < Some(rumour.edition))
        });
        for host in told.keys().filter(|host| !self.heard.contains(*host)) {
            self.silent.entry(host.clone()).or_insert(now);
        }
    }

    /// The host's own word, if it says more than control does. A control plane that tells no editions is behind a host that is heard, and
    /// ahead of one that is not.
    fn newer(&self, host: &NodeName, told: &ToldPlace) -> Option<&Word> {
        let word = self.words.get(host)?;
        let is_newer = match told.edition {
            Some(edition) => edition < word.place.edition,
            None => self.heard.contains(host),
        };
        (is_newer && told.underlay != Some(word.place.underlay)).then_some(word)
    }

    /// The host's own word, if it says more than control does, whether or not the host may be there.
    pub(super) fn said(&self, host: &NodeName, told: &ToldPlace) -> Option<Whereabouts> {
        self.newer(host, told).map(|word| word.place)
    }

    /// The hosts' own words that say more than control does, whether or not they may be there.
    pub(super) fn news<'a>(
        &'a self,
        told: &'a ToldPlaces,
    ) -> impl Iterator<Item = (&'a NodeName, Whereabouts)> {
        told.iter().filter_map(|(host, told)| Some((host, self.said(host, told)?)))
    }

    /// The address at which others have found a host.
    pub(super) fn rumour(&self, host: &NodeName) -> Option<UnderlayAddrs> {
        self.rumours.get(host).map(|rumour| rumour.underlay)
    }

    /// The hosts that are nowhere and answered no echoes before.
    pub(super) fn away(&self) -> &BTreeSet<NodeName> {
        &self.away
    }

    /// The places by which this host, which is `own` at `here`, goes, of those others that are anywhere. Of those, `unreachable` answer
    /// no echoes.
    pub(super) fn settle(
        &mut self,
        told: &ToldPlaces,
        (own, here): (&NodeName, UnderlayAddrs),
        unreachable: &BTreeSet<NodeName>,
        now: Instant,
    ) -> BTreeMap<NodeName, UnderlayAddrs> {
        let settled = self.settled(told, (own, here), unreachable, now);
        let nowhere = told.keys().filter(|host| *host != own && !settled.contains_key(*host));
        let away = nowhere.filter(|host| {
            unreachable.contains(*host) || self.away.contains(*host) || self.had_yielded(host, told, &settled)
        });
        self.away = away.cloned().collect();
        settled
    }

    /// Returns true if the host had yielded its place before the start to who is there now.
    fn had_yielded(
        &self,
        host: &NodeName,
        told: &ToldPlaces,
        settled: &BTreeMap<NodeName, UnderlayAddrs>,
    ) -> bool {
        let Some(at) = told.get(host).and_then(|told| told.underlay) else { return false };
        let mut there = settled.iter().filter(|(_, place)| place.overlaps(at));
        let recalled = |other| self.words.get(other).is_some_and(|word| word.sequence == RECALLED);
        !self.heard.contains(host) && there.any(|(other, _)| recalled(other))
    }

    fn settled(
        &self,
        told: &ToldPlaces,
        (own, here): (&NodeName, UnderlayAddrs),
        unreachable: &BTreeSet<NodeName>,
        now: Instant,
    ) -> BTreeMap<NodeName, UnderlayAddrs> {
        let lost = |host: &NodeName| {
            let since = self.silent.get(host);
            let silent = since.is_some_and(|since| now.saturating_duration_since(*since) >= LOST);
            silent && (unreachable.contains(host) || self.away.contains(host))
        };
        let mut settled: BTreeMap<NodeName, UnderlayAddrs> = BTreeMap::new();
        let mut taken: BTreeMap<UnderlayAddr, &NodeName> = BTreeMap::new();
        for Claim { host, underlay, by_owner } in self.claims(told, (own, here)) {
            let holders: BTreeSet<&NodeName> =
                underlay.iter().filter_map(|address| taken.get(&address).copied()).collect();
            if let Some(sequence) = by_owner {
                // Before the start, they had yielded.
                let recalled = |holder: &NodeName| sequence == RECALLED && !self.heard.contains(holder);
                if !holders.iter().all(|holder| (lost(holder) || recalled(holder)) && !lost(host)) {
                    continue;
                }
                taken.retain(|_, holder| !holders.contains(holder));
                settled.retain(|holder, _| !holders.contains(holder));
            }
            taken.extend(underlay.iter().map(|address| (address, host)));
            settled.insert(host.clone(), underlay);
        }
        settled
    }

    /// Who is where, in the order in which they are heard: control's words first.
    fn claims<'a>(&self, told: &'a ToldPlaces, (own, here): (&NodeName, UnderlayAddrs)) -> Vec<Claim<'a>> {
        let claim = |(host, told)| {
            Some(match self.newer(host, told) {
                Some(word) => Claim { host, underlay: word.place.underlay, by_owner: Some(word.sequence) },
                None => Claim { host, underlay: told.underlay?, by_owner: None },
            })
        };
        let others = told.iter().filter(|(host, told)| {
            let at = self.newer(host, told).map(|word| word.place.underlay).or(told.underlay);
            *host != own && at.is_some_and(|at| !at.overlaps(here))
        });
        let mut claims: Vec<Claim<'_>> = others.filter_map(claim).collect();
        claims.sort_by_key(|claim| claim.by_owner);
        claims
    }
}

#[cfg(test)]
mod tests;
