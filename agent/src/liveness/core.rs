//! Decisions about which hosts can be reached: echoes due and answers in, verdicts out. Pure.
//!
//! Each interval every peer is sent an echo, and above [`SAMPLE`] peers as many of them, in turns of a random order. A peer that
//! owes an answer is suspect: echoes follow hastily, and [`MISSING`] in a row without an answer make it unreachable. So a
//! verdict is a matter of echoes that were sent and watched, not of time: a host that gets no processor sends few, and all that
//! became due while it slept counts as one. Chance alone, at one packet in five lost each way, takes all of them once in some
//! hundred years.

mod long;
mod peer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sealane_proto::types::NodeName;

use peer::Peer;

/// Number of peers that are sent an echo per interval, and number that are asked hastily at once.
pub(super) const SAMPLE: usize = 64;
/// Number of long echoes per interval.
const LONG: usize = 32;
/// Echoes in a row without an answer that make a peer unreachable.
const MISSING: u32 = 24;

/// Reachability of a host, as another one sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The host has never answered: its agent may be older than echoes. It counts as reachable.
    Unknown,
    /// The host answers.
    Reachable,
    /// The host owes an answer. It counts as reachable.
    Suspect,
    /// The host does not answer.
    Unreachable,
}

impl Reach {
    /// Every reachability.
    pub(crate) const ALL: [Self; 4] = [Self::Unknown, Self::Reachable, Self::Suspect, Self::Unreachable];

    /// The word for people, messages and metrics.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reachable => "reachable",
            Self::Suspect => "suspect",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A peer as this host sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PeerView {
    /// Reachability of the peer.
    pub(crate) reach: Reach,
    /// Time to the peer and back, smoothed as RFC 6298 does (section 2).
    pub(crate) round_trip: Option<Duration>,
    /// The share of the last echoes, up to 128, that got no answer; `None` before the first.
    pub(crate) loss: Option<f64>,
    /// True if packets as long as tunnels may be are lost on the way, and short ones are not.
    pub(crate) loses_long: bool,
}

/// Echo that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    /// Host that it is sent to.
    pub(super) to: NodeName,
    /// Token that the answer repeats: nobody else can have it.
    pub(super) token: u64,
    /// True if it is to be as long as packets to its peer may be.
    pub(super) long: bool,
}

/// Intervals of echoes; they follow from the time within which a dead host is to be known.
#[derive(Clone, Copy, Debug)]
struct Pace {
    usual: Duration,
    hasty: Duration,
}

/// The peers of one host.
#[derive(Debug)]
pub(super) struct LivenessCore {
    pace: Pace,
    random: StdRng,
    peers: BTreeMap<NodeName, Peer>,
    /// The peers in the order of their turns.
    turns: VecDeque<NodeName>,
    /// Time of the next usual echoes.
    round: Instant,
    /// Time of the next hasty echoes.
    haste: Instant,
    due: VecDeque<NodeName>,
    due_long: VecDeque<NodeName>,
    /// Time at which the core wanted to be called.
    wanted: Option<Instant>,
    verdicts: u64,
}

impl LivenessCore {
    /// A core without peers, by which a dead host is known within `timeout` and about three times the way to it and back.
    pub(super) fn new(timeout: Duration, seed: [u8; 32], now: Instant) -> Self {
        Self {
            pace: Pace { usual: timeout / 5, hasty: timeout / 40 },
            random: StdRng::from_seed(seed),
            peers: BTreeMap::new(),
            turns: VecDeque::new(),
            round: now,
            haste: now,
            due: VecDeque::new(),
            due_long: VecDeque::new(),
            wanted: None,
            verdicts: 0,
        }
    }

    /// These hosts are watched, and nobody else.
    pub(super) fn handle_peers(&mut self, peers: &BTreeSet<NodeName>) {
        let before = self.peers.len();
        self.peers.retain(|name, _| peers.contains(name));
        self.verdicts += u64::from(self.peers.len() != before);
        for name in peers {
            self.peers.entry(name.clone()).or_default();
        }
        let mut turns: Vec<NodeName> = self.peers.keys().cloned().collect();
        turns.shuffle(&mut self.random);
        self.turns = turns.into();
        self.due.clear();
    }

    /// A host has answered the echo with this token. What nobody asked for is left out.
    pub(super) fn handle_answer(&mut self, from: &NodeName, token: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        let before = (peer.reach(), peer.loses_long());
        peer.handle_answer(token, now);
        self.verdicts += u64::from(before != (peer.reach(), peer.loses_long()));
    }

    /// An echo could not be sent: it says nothing about its peer.
    pub(super) fn handle_unsent(&mut self, echo: &Echo, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&echo.to) {
            peer.forget(echo.token, now);
        }
    }

    /// Time has passed; every answer that has come was handled before. Finds out who owes an answer, and who is asked next.
    pub(super) fn handle_time(&mut self, now: Instant) {
        // Whoever is late has not been watching.
        let late = self.wanted.take().is_some_and(|wanted| now >= wanted + 2 * self.pace.hasty);
        for peer in self.peers.values_mut() {
            let before = (peer.reach(), peer.is_silent());
            peer.handle_time(self.pace.hasty, late, now);
            self.verdicts += u64::from(before != (peer.reach(), peer.is_silent()));
        }
        if now >= self.round {
            self.begin_round();
            self.begin_long(now);
            // One that was missed is not made up for.
            self.round = now + self.pace.usual;
        }
        if now >= self.haste {
            let hasty = self.peers.iter().filter(|(_, peer)| peer.is_hasty()).take(SAMPLE);
            self.due.extend(hasty.map(|(name, _)| name.clone()));
            self.haste = now + self.pace.hasty;
        }
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

    /// Peers that have waited longest for a long echo get one.
    fn begin_long(&mut self, now: Instant) {
        let mut waiting = Vec::new();
        for (name, peer) in &mut self.peers {
            let before = peer.loses_long();
            waiting.extend(peer.long_due(self.pace.hasty, now).map(|since| (since, name)));
            self.verdicts += u64::from(before != peer.loses_long());
        }
        waiting.sort_unstable();
        self.due_long = waiting.into_iter().take(LONG).map(|(_, name)| name.clone()).collect();
    }

    /// The next echo to send at this time.
    pub(super) fn poll_echo(&mut self, now: Instant) -> Option<Echo> {
        loop {
            let (to, long) = match self.due.pop_front() {
                Some(to) => (to, false),
                None => (self.due_long.pop_front()?, true),
            };
            let Some(peer) = self.peers.get_mut(&to) else { continue };
            let token = self.random.random();
            if long {
                peer.handle_long_sent(token, now);
            } else {
                peer.handle_sent(token, now);
            }
            return Some(Echo { to, token, long });
        }
    }

    /// Time at which [`LivenessCore::handle_time`] is to be called; `None` without peers.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        let hasty = self.peers.values().any(Peer::is_hasty).then_some(self.haste);
        let round = (!self.peers.is_empty()).then_some(self.round);
        let owed = self.peers.values().filter_map(|peer| peer.deadline(self.pace.hasty));
        self.wanted = owed.chain(hasty).chain(round).min();
        self.wanted
    }

    /// Counts changes of what there is to say about hosts.
    pub(super) fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// The hosts that do not answer.
    pub(super) fn unreachable(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.iter().filter(|(_, peer)| peer.reach() == Reach::Unreachable).map(|(name, _)| name)
    }

    /// The hosts that have been asked for a while and have never answered.
    pub(super) fn silent(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.iter().filter(|(_, peer)| peer.is_silent()).map(|(name, _)| name)
    }

    /// The hosts on the way to whom long packets are lost, and short ones are not.
    pub(super) fn narrow(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.iter().filter(|(_, peer)| peer.loses_long()).map(|(name, _)| name)
    }

    /// Returns true if a peer has owed answers for half the time that it may.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.peers.values().any(|peer| peer.is_in_doubt(MISSING / 2))
    }

    /// Every peer as this host sees it.
    pub(super) fn views(&self) -> BTreeMap<NodeName, PeerView> {
        self.peers.iter().map(|(name, peer)| (name.clone(), peer.view())).collect()
    }
}

#[cfg(test)]
mod tests;
