//! Places of hosts beneath: this host's own, as it tells it, and those of others, as it goes by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sealane_fabric::overlay::is_of_one_host;
use sealane_proto::client::CarriedNetworks;
use sealane_proto::resource::{Edition, HostPlaces, NetworkSnapshot, Node, Whereabouts};
use sealane_proto::types::{NetworkName, NodeName, UnderlayAddr, UnderlayAddrs};

use super::{CarriedNetwork, Mesh, Peer};
use crate::host::owners::latest_after;
use crate::host::places::{PlaceWords, ToldPlaces, told};

/// Number of hosts of which others are told where they are.
const TOLD: usize = 300;
/// Number of hosts that are named.
const NAMED: usize = 8;
/// Interval at which it is looked whether a host may be where it says, while it may not.
const AGAIN: Duration = Duration::from_secs(1);

/// Knowledge of where hosts are.
#[derive(Debug)]
pub(super) struct KnownPlaces {
    /// Place of this host.
    own: Whereabouts,
    words: PlaceWords,
    /// Control's words.
    told: ToldPlaces,
    /// The places by which this host goes.
    settled: BTreeMap<NodeName, UnderlayAddrs>,
    /// The others, to which nothing is sent.
    nowhere: BTreeSet<NodeName>,
    /// True if something was said since the last look.
    touched: bool,
    /// Time of the last look.
    looked: Option<Instant>,
    /// Counts the looks, after each of which something may be other than before.
    version: u64,
}

impl KnownPlaces {
    /// Knowledge of an agent that starts: where this host is.
    pub(super) fn of(node: &Node, incarnation: u64) -> Self {
        let own = Whereabouts { underlay: node.underlay, edition: Edition { incarnation, revision: 1 } };
        Self {
            own,
            words: PlaceWords::default(),
            told: ToldPlaces::new(),
            settled: BTreeMap::new(),
            nowhere: BTreeSet::new(),
            touched: true,
            looked: None,
            version: 0,
        }
    }

    /// Returns true if a host has said that it is where somebody else may be.
    fn is_waited_for(&self) -> bool {
        self.words.news(&self.told).any(|(host, place)| self.settled.get(host) != Some(&place.underlay))
    }

    /// Notes that something was said.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }
}

impl Mesh {
    /// Makes the next look at the places one that looks at all of them.
    pub(in crate::host) fn touch_places(&mut self) {
        self.places.touch();
    }

    /// Grows whenever something about places may be other than before.
    #[must_use]
    pub(crate) fn places_version(&self) -> u64 {
        self.places.version
    }

    /// Word of this host about where it is.
    #[must_use]
    pub(crate) fn place(&self) -> Whereabouts {
        self.places.own
    }

    /// Moves this host there; the word about it is a new one if that is another place than before.
    pub(crate) fn set_underlay(&mut self, underlay: UnderlayAddrs) {
        if self.places.own.underlay != underlay {
            self.places.own.underlay = underlay;
            self.renew_place();
        }
    }

    /// Makes this host's word about its place a new one.
    pub(super) fn renew_place(&mut self) {
        let revision = self.places.own.edition.revision + 1;
        self.places.own.edition = Edition { incarnation: self.incarnation, revision };
        self.places.touch();
    }

    /// Takes in words from before the start: this host's own if it is there still, and those of others.
    pub(crate) fn recall_places(&mut self, recalled: HostPlaces) {
        for (host, place) in recalled {
            if host != self.node.name {
                self.places.words.recall(host, place);
            } else if place.underlay == self.places.own.underlay {
                self.places.own = place;
            }
        }
        self.places.touch();
    }

    /// Hears a host's proven word about where it is, at `now`. One of a start that is yet to come is not believed, as in its words
    /// about workloads.
    pub(crate) fn hear_place(&mut self, owner: NodeName, place: Whereabouts, now: SystemTime) {
        let Some(told) = self.places.told.get(&owner) else { return };
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let is_ahead = place.edition.incarnation > latest_after(told.edition, now);
        if !is_ahead && owner != self.node.name && self.may_be(place.underlay) {
            self.places.touched |= self.places.words.hear(owner, place);
        }
    }

    /// Hears where another host has found others.
    pub(crate) fn hear_rumours(&mut self, mut found: HostPlaces) {
        found.retain(|host, place| {
            let known = self.places.told.contains_key(host) && *host != self.node.name;
            known && self.may_be(place.underlay)
        });
        self.places.touched |= self.places.words.hear_rumours(found);
    }

    /// There is a channel to the host, or none any more.
    pub(crate) fn note_channel(&mut self, host: &NodeName, stands: bool) {
        if !stands {
            self.places.words.fall_silent(host);
            self.places.touch();
        } else if self.places.words.find(host) {
            self.places.touch();
        }
    }

    /// Says whether another host can be at these addresses: others can send there, and it is none of a workload or of this host.
    fn may_be(&self, underlay: UnderlayAddrs) -> bool {
        let inside = |address: UnderlayAddr| {
            let mut networks = self.networks.values().map(|carried| &carried.snapshot.network);
            networks.any(|network| network.nets().any(|net| net.contains(&address.to_ip())))
        };
        underlay.iter().all(|address| is_of_one_host(address.to_ip()) && !inside(address))
            && !underlay.overlaps(self.places.own.underlay)
    }

    /// Brings the places by which this host goes to what was said; returns the networks in which that makes a difference.
    pub(crate) fn settle_places(&mut self, now: Instant) -> BTreeSet<NetworkName> {
        let rests = self.places.looked.is_some_and(|looked| now.saturating_duration_since(looked) < AGAIN);
        if !self.places.touched && (rests || !self.places.is_waited_for()) {
            return BTreeSet::new();
        }
        let known = &mut self.places;
        (known.touched, known.looked) = (false, Some(now));
        known.version += 1;
        known.told = told(self.networks.values().map(|carried| carried.snapshot.as_ref()));
        known.words.retain(&known.told, now);
        known.settled =
            known.words.settle(&known.told, (&self.node.name, known.own.underlay), &self.unreachable, now);
        let nowhere = |host: &&NodeName| **host != self.node.name && !known.settled.contains_key(*host);
        known.nowhere = known.told.keys().filter(nowhere).cloned().collect();
        let mut changed = BTreeSet::new();
        for (name, carried) in &mut self.networks {
            let nodes = carried.nodes_at(&known.settled, (&self.node.name, known.own.underlay));
            if carried.placed.nodes == nodes {
                continue;
            }
            changed.insert(name.clone());
            carried.placed = if carried.remembered.nodes == nodes {
                carried.remembered.clone()
            } else {
                let mut placed = NetworkSnapshot::clone(&carried.remembered);
                placed.nodes = nodes;
                Arc::new(placed)
            };
        }
        changed
    }

    /// The hosts to which nothing is sent, as nobody knows where they are or another one may be there.
    pub(in crate::host) fn nowhere(&self) -> &BTreeSet<NodeName> {
        &self.places.nowhere
    }

    /// Those of them that answered no echoes before.
    pub(in crate::host) fn away(&self) -> &BTreeSet<NodeName> {
        self.places.words.away()
    }

    /// The hosts whose address another one has while they are away, a sentence each.
    pub(in crate::host) fn displaced(&self) -> impl Iterator<Item = String> {
        let known = &self.places;
        let sentence = |host: &NodeName| {
            let at = known.told.get(host)?.underlay?;
            let there = known.settled.iter().find(|(_, place)| place.overlaps(at)).map(|(other, _)| other);
            let own = at.overlaps(known.own.underlay).then_some(&self.node.name);
            let other = there.or(own)?;
            Some(format!(
                "node {host} cannot be reached from this host, and node {other} is at its address {at} now: its instances get no calls \
                 from here where others are ready; it is found when its agent calls from where it is, or control knows that"
            ))
        };
        self.away().iter().filter_map(sentence).take(NAMED)
    }

    /// Control's last word on every network, with its hosts where this host goes by.
    #[must_use]
    pub(crate) fn placed(&self) -> CarriedNetworks {
        self.networks.iter().map(|(name, carried)| (name.clone(), carried.placed.clone())).collect()
    }

    /// The words by which this host goes and that say more than control does, with its own: what others are told, and what outlives
    /// this agent.
    #[must_use]
    pub(crate) fn newer_places(&self) -> HostPlaces {
        let known = &self.places;
        let there =
            |(host, place): &(&NodeName, Whereabouts)| known.settled.get(*host) == Some(&place.underlay);
        let newer = known.words.news(&known.told).filter(there).take(TOLD);
        let own = (self.node.name.clone(), known.own);
        newer.map(|(host, place)| (host.clone(), place)).chain([own]).collect()
    }

    /// The newest of this host's words about its place that control has heard of it.
    pub(super) fn reported_place(&self) -> Option<Edition> {
        let placed = self.networks.values().filter_map(|carried| carried.snapshot.placed.as_ref());
        placed.filter_map(|placed| placed.get(&self.node.name)).max().copied()
    }

    /// The hosts that share a network with this one.
    #[must_use]
    pub(crate) fn peers(&self) -> BTreeMap<NodeName, Peer> {
        let mut peers: BTreeMap<NodeName, Peer> = BTreeMap::new();
        for (network, carried) in &self.networks {
            // One that is nowhere is called where control says that it is.
            let nodes = carried.placed.nodes.iter().chain(&carried.snapshot.nodes);
            for node in nodes.filter(|node| node.name != self.node.name) {
                let peer = || Peer {
                    underlay: node.underlay,
                    networks: BTreeSet::new(),
                    elsewhere: self.elsewhere(&node.name, node.underlay),
                };
                peers.entry(node.name.clone()).or_insert_with(peer).networks.insert(network.clone());
            }
        }
        peers
    }

    /// Further addresses at which a host may be: control's, its own, those at which others have found it, and of one with which this
    /// host seems to have swapped, where this host was.
    fn elsewhere(&self, host: &NodeName, at: UnderlayAddrs) -> BTreeSet<UnderlayAddr> {
        let (known, own) = (&self.places, self.places.own.underlay);
        let told = known.told.get(host);
        let said = told.and_then(|told| known.words.said(host, told)).map(|place| place.underlay);
        let told = told.and_then(|told| told.underlay);
        let swapped = known.told.get(&self.node.name).and_then(|told| told.underlay);
        let swapped = swapped.filter(|_| at.overlaps(own));
        let all = [told, said, known.words.rumour(host), swapped].into_iter().flatten();
        all.flat_map(UnderlayAddrs::iter)
            .filter(|address| !at.contains(*address) && !own.contains(*address))
            .collect()
    }
}

impl CarriedNetwork {
    /// Returns true if a state says of hosts and their places what this one does.
    pub(super) fn has_places_of(&self, snapshot: &NetworkSnapshot) -> bool {
        let known = &self.snapshot;
        (&known.nodes, &known.blocks, &known.placed) == (&snapshot.nodes, &snapshot.blocks, &snapshot.placed)
            && known.generation.epoch == snapshot.generation.epoch
    }

    /// The hosts that carry the network, at these places, and this one, which is `own` at `here`.
    fn nodes_at(
        &self,
        settled: &BTreeMap<NodeName, UnderlayAddrs>,
        (own, here): (&NodeName, UnderlayAddrs),
    ) -> Vec<Node> {
        let known: BTreeMap<&NodeName, &Node> =
            self.snapshot.nodes.iter().map(|node| (&node.name, node)).collect();
        let carriers = self.snapshot.blocks.iter().filter_map(|block| block.node.as_ref());
        let names: BTreeSet<&NodeName> = carriers.chain(known.keys().copied()).collect();
        let node = |name: &NodeName| {
            let known = known.get(name).copied();
            let underlay = match name == own {
                true => here,
                false => *settled.get(name)?,
            };
            Some(Node { name: name.clone(), underlay, mtu: known.and_then(|known| known.mtu) })
        };
        names.into_iter().filter_map(node).collect()
    }
}

#[cfg(test)]
mod tests;
