//! The watch over other hosts without socket and device, for simulations: verdicts and echoes are the core's, and whoever runs it
//! carries the echoes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_proto::client::CarriedNetworks;
use sealane_proto::types::NodeName;

use super::Reach;
use super::core::{HASTY, LivenessCore, SAMPLE};
use super::{peers_of, watched_of};

/// Watch of one host over those that share a network with it.
#[derive(Debug)]
pub struct SimulatedWatch {
    own: NodeName,
    core: LivenessCore,
    /// Verdicts that were taken.
    verdicts: u64,
}

impl SimulatedWatch {
    /// Number of peers that are sent an echo per interval.
    pub const SAMPLE: usize = SAMPLE;
    /// Number of peers that are asked hastily at once.
    pub const HASTY: usize = HASTY;

    /// The watch of an agent that starts, by which a dead host is known within `timeout`, with these networks on its disk.
    #[must_use]
    pub fn new(
        own: NodeName,
        timeout: Duration,
        seed: [u8; 32],
        carried: &CarriedNetworks,
        now: Instant,
    ) -> Self {
        let before = peers_of(carried, &own).0.into_keys().map(|name| (name, Reach::Unknown)).collect();
        let mut watch = Self { own, core: LivenessCore::new(timeout, seed, before, now), verdicts: 0 };
        watch.follow(carried);
        watch
    }

    /// Takes in who shares a network with this host. Each has a place on its device at once.
    pub fn follow(&mut self, carried: &CarriedNetworks) {
        let (peers, _) = peers_of(carried, &self.own);
        self.core.handle_peers(&watched_of(carried, &peers));
    }

    /// A host has answered the echo with this token, at `at`.
    pub fn handle_answer(&mut self, from: &NodeName, token: u64, at: Instant) {
        self.core.handle_answer(from, token, at);
    }

    /// Another host says that these have changed.
    pub fn handle_hint(&mut self, from: &NodeName, about: &BTreeSet<NodeName>) {
        self.core.handle_hint(from, about);
    }

    /// Time has passed, and every answer that has come was handled.
    pub fn handle_time(&mut self, now: Instant) {
        self.core.handle_time(now);
    }

    /// The next echo to send: its receiver and its token.
    pub fn poll_echo(&mut self, now: Instant) -> Option<(NodeName, u64)> {
        self.core.poll_echo(now).map(|echo| (echo.to, echo.token))
    }

    /// The next hint to send: the host that gets it, and whom it is about.
    pub fn poll_hint(&mut self) -> Option<(NodeName, BTreeSet<NodeName>)> {
        self.core.poll_hint()
    }

    /// Time at which the watch is to be run.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    /// The hosts that do not answer, if there was a verdict since the last call.
    pub fn poll_verdict(&mut self) -> Option<BTreeSet<NodeName>> {
        let known = std::mem::replace(&mut self.verdicts, self.core.verdicts());
        (known != self.verdicts).then(|| self.core.unreachable().cloned().collect())
    }

    /// The word for each host that is watched.
    #[must_use]
    pub fn words(&self) -> BTreeMap<NodeName, &'static str> {
        self.core.views().into_iter().map(|(name, view)| (name, view.reach.word())).collect()
    }
}
