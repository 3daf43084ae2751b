//! Decisions about which hosts can be reached: echoes due and answers in, verdicts out. Pure.
//!
//! Each interval every peer is sent an echo, and above [`SAMPLE`] peers as many of them, in turns of a random order. A peer that
//! owes an answer is suspect: echoes follow hastily, and [`MISSING`] in a row without an answer make it unreachable. Above the
//! sample, hosts tell each other whose turn it is ([`hints`]), so that all know of a change soon after the first one. A
//! verdict is a matter of echoes that were sent and watched, not of time: a host that gets no processor sends few, and all that
//! became due while it slept counts as one. Chance alone, at one packet in five lost each way, takes all of them once in some
//! hundred years.

mod checksums;
mod hints;
mod path;
mod peer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IteratorRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use sealane_proto::peer::Reach;
use sealane_proto::types::{NetworkName, NodeName};

pub(super) use checksums::{ChecksumCore, ChecksumProbe};
use hints::Hints;
pub(super) use path::Lengths;
pub(crate) use path::{Narrow, Passing};
use peer::Peer;

/// Number of peers that are sent an echo per interval.
pub(crate) const SAMPLE: usize = 64;
/// Number of peers that are asked hastily at once.
pub(super) const HASTY: usize = 2 * SAMPLE;
/// Number of long echoes per interval, and number of peers whose way is searched hastily at once.
const LONG: usize = 32;
const SEARCHES: usize = 16;
/// Number of hosts that are remembered as unreachable while they are not watched.
const LEFT: usize = 1_024;
/// Echoes in a row without an answer that make a peer unreachable.
const MISSING: u32 = 24;

/// A peer as this host sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PeerView {
    /// Reachability of the peer.
    pub(crate) reach: Reach,
    /// Time to the peer and back, smoothed as RFC 6298 does (section 2).
    pub(crate) round_trip: Option<Duration>,
    /// The share of the last echoes, up to 128, that got no answer; `None` before the first.
    pub(crate) loss: Option<f64>,
    /// The longest packets that pass, in bytes with the outer headers, as far as echoes have shown it.
    pub(crate) path_mtu: Option<u32>,
    /// Lengths that are lost on the way while short packets pass.
    pub(crate) narrow: Option<Narrow>,
    /// True if packets are lost that have checksums of a device of this host, false if they arrive; `None` while that is not known.
    pub(crate) checksum_fault: Option<bool>,
}

/// Echo that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    /// Host that it is sent to.
    pub(super) to: NodeName,
    /// Token that the answer repeats: nobody else can have it.
    pub(super) token: u64,
    /// Length of the packet with its outer headers in bytes; `None`: as short as may be.
    pub(super) length: Option<u32>,
}

/// A peer as control tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// The networks that both hosts carry.
    pub(super) networks: BTreeSet<NetworkName>,
    /// True if the host says that it answers echoes; older ones say nothing.
    pub(super) speaks: bool,
}

/// Intervals of echoes; they follow from the time within which a dead host is to be known.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Beginning of all intervals: whatever is to be done waits for the next one, so that much is done at once.
    began: Instant,
    timeout: Duration,
    usual: Duration,
    hasty: Duration,
}

impl Pace {
    fn new(timeout: Duration, began: Instant) -> Self {
        Self { began, timeout, usual: timeout / 5, hasty: timeout / 40 }
    }

    /// Wait for an answer of a host that is near.
    fn patience(&self) -> Duration {
        self.hasty * 3 / 4
    }

    /// The beginning of the first hasty interval at this time or later.
    fn next(&self, at: Instant) -> Instant {
        let (past, each) =
            (at.saturating_duration_since(self.began).as_nanos(), self.hasty.as_nanos().max(1));
        self.nth(past.div_ceil(each))
    }

    /// The beginning of the hasty interval at this time.
    fn this(&self, at: Instant) -> Instant {
        let (past, each) =
            (at.saturating_duration_since(self.began).as_nanos(), self.hasty.as_nanos().max(1));
        self.nth(past / each)
    }

    fn nth(&self, interval: u128) -> Instant {
        let nanos = interval * self.hasty.as_nanos().max(1);
        self.began + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The peers of one host.
#[derive(Debug)]
pub(super) struct LivenessCore {
    pace: Pace,
    random: StdRng,
    /// Knowledge of an earlier agent of this host about its peers.
    before: BTreeMap<NodeName, Reach>,
    /// Peers that were unreachable as they ceased to be peers: where they are may be known again.
    left: BTreeSet<NodeName>,
    watched: BTreeMap<NodeName, Watched>,
    peers: BTreeMap<NodeName, Peer>,
    /// Peers to which an echo is under way, or that are asked hastily.
    active: BTreeSet<NodeName>,
    /// The peers in the order of their turns.
    turns: VecDeque<NodeName>,
    hints: Hints,
    /// Time of the last answer of anybody.
    heard: Option<Instant>,
    /// Time of the next usual echoes.
    round: Instant,
    /// Time of the next hasty echoes.
    haste: Instant,
    due: VecDeque<NodeName>,
    due_long: VecDeque<(NodeName, u32)>,
    /// Peers whose way was being searched at the last look.
    searched: BTreeSet<NodeName>,
    /// Time at which the core wanted to be called.
    wanted: Option<Instant>,
    verdicts: u64,
    /// Peers that were lost, and that have come back, since somebody asked.
    changes: (u64, u64),
}

impl LivenessCore {
    /// A core without peers, by which a dead host is known within `timeout` and about three times the way to it and back. `before`
    /// is what an earlier agent of this host knew of its peers.
    pub(super) fn new(
        timeout: Duration,
        seed: [u8; 32],
        before: BTreeMap<NodeName, Reach>,
        now: Instant,
    ) -> Self {
        Self {
            pace: Pace::new(timeout, now),
            random: StdRng::from_seed(seed),
            before,
            left: BTreeSet::new(),
            watched: BTreeMap::new(),
            peers: BTreeMap::new(),
            active: BTreeSet::new(),
            turns: VecDeque::new(),
            hints: Hints::default(),
            heard: None,
            round: now,
            haste: now,
            due: VecDeque::new(),
            due_long: VecDeque::new(),
            searched: BTreeSet::new(),
            wanted: None,
            verdicts: 0,
            changes: (0, 0),
        }
    }

    /// Watches these hosts, and nobody else. New ones have the next turn.
    pub(super) fn handle_peers(&mut self, watched: &BTreeMap<NodeName, Watched>) {
        let before: Vec<Reach> = self.peers.values().map(Peer::reach).collect();
        let lost = |(name, peer): &(&NodeName, &Peer)| {
            !watched.contains_key(*name) && peer.reach() == Reach::Unreachable
        };
        let room = LEFT.saturating_sub(self.left.len());
        let left: Vec<NodeName> =
            self.peers.iter().filter(lost).map(|(name, _)| name.clone()).take(room).collect();
        self.left.extend(left);
        if watched.is_empty() {
            // Nobody knows how long that will be so.
            self.left.clear();
        }
        self.peers.retain(|name, _| watched.contains_key(name));
        self.active.retain(|name| watched.contains_key(name));
        self.turns.retain(|name| watched.contains_key(name));
        let mut new = Vec::new();
        for (name, watched) in watched {
            match self.peers.get_mut(name) {
                Some(peer) => peer.handle_watched(watched),
                None => {
                    // One that does not say that it answers may never do so.
                    let left = self.left.remove(name) && watched.speaks;
                    let before = if left { Some(Reach::Unreachable) } else { self.before.remove(name) };
                    self.peers.insert(name.clone(), Peer::new(watched, before));
                    new.push(name.clone());
                }
            }
        }
        new.shuffle(&mut self.random);
        new.into_iter().for_each(|name| self.turns.push_front(name));
        self.watched.clone_from(watched);
        self.verdicts += u64::from(!self.peers.values().map(Peer::reach).eq(before));
        self.due.clear();
    }

    /// A host has answered the echo with this token, at `at`. What nobody asked for is left out.
    pub(super) fn handle_answer(&mut self, from: &NodeName, token: u64, at: Instant) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        let before = (peer.reach(), peer.narrow());
        if peer.handle_answer(token, at) {
            self.heard = self.heard.max(Some(at));
        }
        if peer.is_hasty() {
            self.active.insert(from.clone());
        }
        self.changes.1 += u64::from(before.0 == Reach::Unreachable && peer.reach() == Reach::Reachable);
        self.verdicts += u64::from(before != (peer.reach(), peer.narrow()));
    }

    /// Another host says that these have changed: each is asked out of turn, as far as that is not too much.
    pub(super) fn handle_hint(&mut self, from: &NodeName, about: &BTreeSet<NodeName>) {
        if !self.peers.contains_key(from) {
            return;
        }
        for name in about {
            let idle = self.peers.get(name).is_some_and(|peer| !peer.is_hasty() && !peer.is_asked());
            if idle && !self.due.contains(name) && self.hints.admit(from) {
                self.due.push_back(name.clone());
            }
        }
    }

    /// An echo could not be sent: it says nothing about its peer, but that its length is out of question if it is `too_long` for
    /// the device.
    pub(super) fn handle_unsent(&mut self, echo: &Echo, too_long: bool, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&echo.to) {
            peer.forget(echo.token, too_long, now);
        }
    }

    /// Takes in how long packets to each peer may be.
    pub(super) fn handle_lengths(&mut self, lengths: &BTreeMap<NodeName, Lengths>, now: Instant) {
        for (name, peer) in &mut self.peers {
            let before = peer.narrow();
            peer.handle_lengths(lengths.get(name).copied(), now);
            self.verdicts += u64::from(before != peer.narrow());
        }
    }

    /// Takes over the longest packets that were sent to a peer by an agent before this one.
    pub(super) fn handle_known(&mut self, name: &NodeName, passes: u32, now: Instant) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.handle_known(passes, now);
            self.verdicts += 1;
        }
    }

    /// Time has passed; every answer that has come was handled before. Finds out who owes an answer, and who is asked next.
    pub(super) fn handle_time(&mut self, now: Instant) {
        // Whoever is late has not been watching.
        let late = self.wanted.take().is_some_and(|wanted| now >= wanted + 2 * self.pace.hasty);
        if late {
            self.hints.handle_late(now + hints::quiet_after_late(self.pace.timeout));
        }
        self.judge(late, now);
        let is_round = now >= self.round;
        if is_round {
            self.hints.begin_round();
            self.begin_round();
            self.begin_long(LONG, |_| true, now);
            // One that was missed is not made up for.
            self.round = self.pace.this(now) + self.pace.usual;
        }
        if now >= self.haste {
            let hasty = self.active.iter().filter(|name| self.peers.get(*name).is_some_and(Peer::is_hasty));
            self.due.extend(hasty.take(HASTY).cloned());
            if !is_round && !self.searched.is_empty() {
                self.begin_long(SEARCHES, Peer::is_searched, now);
            }
            self.haste = self.pace.this(now) + self.pace.hasty;
        }
    }

    /// Finds out which of the peers that were asked owe an answer.
    fn judge(&mut self, late: bool, now: Instant) {
        let mut changed = Vec::new();
        let active = std::mem::take(&mut self.active);
        for name in active {
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            let before = (peer.reach(), peer.is_silent());
            peer.handle_time(self.pace.patience(), late, now);
            self.verdicts += u64::from(before != (peer.reach(), peer.is_silent()));
            self.changes.0 += u64::from(before.0 != Reach::Unreachable && peer.reach() == Reach::Unreachable);
            if peer.poll_hint(self.heard) {
                changed.push(name.clone());
            }
            if peer.is_hasty() || peer.is_asked() {
                self.active.insert(name);
            }
        }
        if self.peers.len() > SAMPLE {
            changed.into_iter().for_each(|name| self.give_hint(&name, now));
        }
    }

    /// Tells some of the hosts that share a network with a peer that it has changed.
    fn give_hint(&mut self, about: &NodeName, now: Instant) {
        let Some(networks) = self.watched.get(about).map(|watched| &watched.networks) else { return };
        if !self.hints.may_give(now) {
            return;
        }
        let concerned = self.watched.iter().filter(|(name, watched)| {
            let answers = self.peers.get(*name).is_some_and(|peer| peer.reach() == Reach::Reachable);
            *name != about && answers && !watched.networks.is_disjoint(networks)
        });
        let told = concerned.map(|(name, _)| name).choose_multiple(&mut self.random, hints::TOLD);
        self.hints.give(about, told.into_iter().cloned());
    }

    /// The next hint to send: the host that gets it, and whom it is about.
    pub(super) fn poll_hint(&mut self) -> Option<(NodeName, BTreeSet<NodeName>)> {
        self.hints.poll()
    }

    fn begin_round(&mut self) {
        for _ in 0..self.turns.len().min(SAMPLE) {
            let Some(name) = self.turns.pop_front() else { return };
            if self.peers.get(&name).is_some_and(|peer| !peer.is_hasty()) {
                self.due.push_back(name.clone());
            }
            self.turns.push_back(name);
        }
    }

    /// Peers of these that have waited longest for a long echo get one, so many at most.
    fn begin_long(&mut self, most: usize, these: impl Fn(&Peer) -> bool, now: Instant) {
        let mut waiting = Vec::new();
        for (name, peer) in self.peers.iter_mut().filter(|(_, peer)| these(peer)) {
            let before = peer.narrow();
            waiting.extend(peer.long_due(self.pace.hasty, now).map(|(since, length)| (since, name, length)));
            self.verdicts += u64::from(before != peer.narrow());
        }
        waiting.sort_unstable();
        let waiting = waiting.into_iter().take(most);
        self.due_long = waiting.map(|(_, name, length)| (name.clone(), length)).collect();
        let searched = self.peers.iter().filter(|(_, peer)| peer.is_searched());
        self.searched = searched.map(|(name, _)| name.clone()).collect();
    }

    /// The next echo to send at this time.
    pub(super) fn poll_echo(&mut self, now: Instant) -> Option<Echo> {
        loop {
            let (to, length) = match self.due.pop_front() {
                Some(to) => (to, None),
                None => self.due_long.pop_front().map(|(to, length)| (to, Some(length)))?,
            };
            let Some(peer) = self.peers.get_mut(&to) else { continue };
            let token = self.random.random();
            match length {
                Some(_) => peer.handle_long_sent(token, now),
                None => {
                    peer.handle_sent(token, now);
                    self.active.insert(to.clone());
                }
            }
            return Some(Echo { to, token, length });
        }
    }

    /// Time at which [`LivenessCore::handle_time`] is to be called; `None` without peers.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        let round = (!self.peers.is_empty()).then_some(self.round);
        let active = || self.active.iter().filter_map(|name| self.peers.get(name));
        let is_searched = |name| self.peers.get(name).is_some_and(Peer::is_searched);
        let is_hasty = active().any(Peer::is_hasty) || self.searched.iter().any(is_searched);
        let hasty = is_hasty.then_some(self.haste);
        let owed = active().filter_map(|peer| peer.deadline(self.pace.patience())).min();
        let owed = owed.map(|owed| self.pace.next(owed));
        self.wanted = [owed, hasty, round].into_iter().flatten().min();
        self.wanted
    }

    /// Counts changes of what there is to say about hosts.
    pub(super) fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// Returns the numbers of peers that were lost, and that have come back, since the last call.
    pub(super) fn take_changes(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.changes)
    }

    /// The hosts that do not answer.
    pub(super) fn unreachable(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.iter().filter(|(_, peer)| peer.reach() == Reach::Unreachable).map(|(name, _)| name)
    }

    /// The hosts that answer, also those that owe an answer.
    pub(super) fn answering(&self) -> impl Iterator<Item = &NodeName> {
        let answers = |reach| matches!(reach, Reach::Reachable | Reach::Suspect);
        self.peers.iter().filter(move |(_, peer)| answers(peer.reach())).map(|(name, _)| name)
    }

    /// The hosts that have been asked for a while and have never answered.
    pub(super) fn silent(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.iter().filter(|(_, peer)| peer.is_silent()).map(|(name, _)| name)
    }

    /// The hosts on the way to whom long packets are lost, and short ones are not.
    pub(super) fn narrow(&self) -> impl Iterator<Item = (&NodeName, Narrow)> {
        self.peers.iter().filter_map(|(name, peer)| Some((name, peer.narrow()?)))
    }

    /// The longest packets to the hosts for whom that is less than what tunnels may have, whether or not they answer now.
    pub(super) fn settled(&self) -> impl Iterator<Item = (&NodeName, u32)> {
        self.peers.iter().filter_map(|(name, peer)| Some((name, peer.settled()?)))
    }

    /// Returns true if a peer has owed answers for half the time that it may.
    pub(super) fn is_in_doubt(&self) -> bool {
        let mut active = self.active.iter().filter_map(|name| self.peers.get(name));
        active.any(|peer| peer.is_in_doubt(MISSING / 2))
    }

    /// Every peer as this host sees it.
    pub(super) fn views(&self) -> BTreeMap<NodeName, PeerView> {
        self.peers.iter().map(|(name, peer)| (name.clone(), peer.view())).collect()
    }
}

#[cfg(test)]
mod tests;
