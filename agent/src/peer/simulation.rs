//! Conversations between hosts without connections, for simulations: what is said, remembered and given up is the session's, and
//! whoever runs it carries the frames.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_proto::peer::PeerFrame;
use sealane_proto::resource::{Edition, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName};

use super::session::{Heard, Said, SaidFacts, Session};
use crate::host::Acknowledged;

/// Words of one host, encoded once for all that hear them.
#[derive(Clone, Debug, Default)]
pub struct Voice(Said);

impl Voice {
    /// Takes in what the host says now.
    pub fn follow(&mut self, facts: &BTreeMap<NetworkName, Arc<OwnerFacts>>) {
        self.0 = SaidFacts::all(facts, &self.0);
    }
}

/// Words of a peer that outlive a connection to it.
#[derive(Debug)]
pub struct Memory(Heard);

impl Memory {
    /// Memory without a word of this peer.
    #[must_use]
    pub fn of(owner: NodeName) -> Self {
        Self(Heard::of(owner))
    }
}

/// Progress of a peer with this host's words.
#[derive(Debug)]
pub struct SimulatedAcknowledgement(pub(crate) Acknowledged);

/// End of a conversation.
#[derive(Debug)]
pub struct SimulatedTalk(Session);

impl SimulatedTalk {
    /// A conversation that begins now.
    #[must_use]
    pub fn new(memory: Memory, now: Instant) -> Self {
        Self(Session::new(crate::VERSION, memory.0, now))
    }

    /// The conversation is over.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        Memory(self.0.into_heard())
    }

    /// The peer is to know this, of networks that both carry.
    pub fn tell(&mut self, voice: &Voice, shared: &BTreeSet<NetworkName>) {
        self.0.handle_facts(voice.0.clone(), shared);
    }

    /// A frame came.
    ///
    /// # Errors
    /// When the conversation cannot go on.
    pub fn handle_frame(&mut self, frame: PeerFrame, now: Instant) -> Result<(), String> {
        self.0.handle_frame(frame, now).map_err(|fault| fault.to_string())
    }

    /// Returns true if the peer has been silent for too long.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.0.handle_time(now).is_err()
    }

    /// The time for which nothing has come from the peer.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Duration {
        self.0.silence(now)
    }

    /// The next frame to send.
    pub fn poll_frame(&mut self, now: Instant) -> Option<PeerFrame> {
        self.0.poll_frame(now)
    }

    /// The next word of the peer.
    pub fn poll_word(&mut self) -> Option<OwnerFacts> {
        self.0.poll_heard()
    }

    /// This host works by these editions of the peer's words.
    pub fn works(&mut self, works: &BTreeMap<NetworkName, Edition>) {
        self.0.handle_works(works);
    }

    /// The peer's progress with this host's words, if it may be another one than at the last call.
    pub fn take_acknowledged(&mut self) -> Option<SimulatedAcknowledgement> {
        self.0.take_acknowledged().map(SimulatedAcknowledgement)
    }

    /// The peer is to be told that these hosts have changed.
    pub fn give_hint(&mut self, about: BTreeSet<NodeName>) {
        self.0.give_hint(about);
    }

    /// The hosts of which the peer has said that they have changed.
    pub fn take_hints(&mut self) -> BTreeSet<NodeName> {
        self.0.take_hints()
    }

    /// Time at which the conversation is to be looked at, if nothing else happens.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.0.due()
    }
}
