//! The conversation over one connection, without the connection. Pure: frames, facts and times come in, frames and what the peer
//! said go out.
//!
//! Both sides are alike. What is told survives losses: the receiver keeps what it heard ([`Heard`]) from one connection to the next and
//! begins each with a digest of it; the sender sends what differs. In between, digests prove that both agree.

mod asking;
mod heard;
mod said;
mod saying;
mod working;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::text::one_line;
use sealane_proto::peer::{FrameError, HeldFacts, PeerCell, PeerFrame, PeerHello};
use sealane_proto::resource::{Edition, HostPlaces, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName};

use asking::Asking;
pub(crate) use heard::Heard;
pub(crate) use said::{Said, SaidFacts};
use saying::Saying;
use working::Working;

use crate::host::Acknowledged;

/// A sign of life goes out when nothing else has for so long.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A peer of which nothing has come for so long is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// Interval of digests.
const DIGEST: Duration = Duration::from_secs(10);
/// Entries of a digest in one frame: of the longest names, they are half as large as a frame may be.
const ENTRIES: usize = 300;
/// Hosts that wait to be hinted at, in each direction; what goes beyond that is left out.
const HINTED: usize = 128;

/// Reasons for which a conversation ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Nothing came.
    #[error("it fell silent")]
    Silent,
    /// Something came that is no frame.
    #[error("what it says cannot be read: {0}")]
    Malformed(#[from] FrameError),
    /// Another kind of conversation than this version can have.
    #[error("its version {0} speaks another protocol between hosts; run the same version on both")]
    Protocol(String),
    /// A frame that has no place where it came.
    #[error("it says what has no place in the conversation")]
    Unexpected,
    /// More workloads, networks or hosts together than one host may tell of.
    #[error("it tells of more workloads, networks or hosts than one host may tell of")]
    TooMuch,
    /// Everything was told, and the peer has heard something else.
    #[error("it heard something else than it was told")]
    Disagrees,
}

impl Fault {
    /// The fault in a word, for a label.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Malformed(_) => "malformed",
            Self::Protocol(_) => "protocol",
            Self::Unexpected => "unexpected",
            Self::TooMuch => "too_much",
            Self::Disagrees => "disagrees",
        }
    }
}

/// The conversation.
#[derive(Debug)]
pub(crate) struct Session {
    /// Our first words, until they are said.
    hello: Option<PeerHello>,
    /// True once the peer has said its own.
    greeted: bool,
    saying: Saying,
    heard: Heard,
    working: Working,
    /// Networks whose last part is to be answered.
    answers: BTreeSet<NetworkName>,
    /// Hosts that the peer is to be told of as changed, and those that it has told of.
    hints: BTreeSet<NodeName>,
    their_hints: BTreeSet<NodeName>,
    /// Questions about how each sees its own peers.
    asking: Asking,
    /// Places that the peer is to be told of, and those of which it has told.
    places: Option<Arc<HostPlaces>>,
    their_places: Option<HostPlaces>,
    /// Parts of a digest that is being sent.
    digest: VecDeque<PeerFrame>,
    digest_due: Instant,
    /// Parts of a digest that is coming.
    theirs: BTreeMap<NetworkName, HeldFacts>,
    last_said: Instant,
    last_heard: Instant,
}

impl Session {
    /// A conversation that begins now, with a peer of which this was heard before.
    pub(crate) fn new(version: &str, mut heard: Heard, now: Instant) -> Self {
        heard.begin();
        Self {
            hello: Some(PeerHello::own(version)),
            greeted: false,
            saying: Saying::default(),
            heard,
            working: Working::default(),
            answers: BTreeSet::new(),
            hints: BTreeSet::new(),
            their_hints: BTreeSet::new(),
            asking: Asking::default(),
            places: None,
            their_places: None,
            digest: VecDeque::new(),
            digest_due: now,
            theirs: BTreeMap::new(),
            last_said: now,
            last_heard: now,
        }
    }

    /// Returns what the peer has said, when the connection is gone.
    pub(crate) fn into_heard(self) -> Heard {
        self.heard
    }

    /// Returns true once the peer has spoken.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Returns the time for which nothing has come from the peer.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    /// The facts that the peer is to know: of networks that both carry.
    pub(crate) fn handle_facts(&mut self, facts: Said, shared: &BTreeSet<NetworkName>) {
        self.heard.handle_shared(shared);
        self.saying.handle_facts(facts, shared);
    }

    /// A frame came.
    ///
    /// # Errors
    /// When the conversation cannot go on.
    pub(crate) fn handle_frame(&mut self, frame: PeerFrame, now: Instant) -> Result<(), Fault> {
        self.last_heard = now;
        match frame {
            PeerFrame::Hello(hello) if !self.greeted => {
                if !hello.fits() {
                    return Err(Fault::Protocol(one_line(&hello.version, 64).into_owned()));
                }
                self.greeted = true;
                self.saying.handle_hello(hello.tells_works);
                self.heard.renew();
                Ok(())
            }
            PeerFrame::Alive => Ok(()),
            PeerFrame::Hello(_) => Err(Fault::Unexpected),
            PeerFrame::Facts(_)
            | PeerFrame::Held(_)
            | PeerFrame::Digest { .. }
            | PeerFrame::Hint(_)
            | PeerFrame::Ask(_)
            | PeerFrame::Row { .. }
            | PeerFrame::Places(_)
            | PeerFrame::Works(..)
                if !self.greeted =>
            {
                Err(Fault::Unexpected)
            }
            // Every version hints at so many together at most.
            PeerFrame::Hint(about) if about.len() > HINTED => Err(Fault::TooMuch),
            PeerFrame::Hint(about) => {
                add_within(&mut self.their_hints, about);
                Ok(())
            }
            PeerFrame::Ask(token) => {
                self.asking.handle_ask(token);
                Ok(())
            }
            PeerFrame::Row { token, cells, last } => {
                self.asking.handle_row(token, cells, last);
                Ok(())
            }
            PeerFrame::Places(places) => {
                self.their_places = Some(places);
                Ok(())
            }
            PeerFrame::Works(network, edition) => self.saying.handle_works(network, edition),
            PeerFrame::Facts(part) => {
                let (network, last) = (part.network.clone(), part.last);
                self.heard.handle_part(part)?;
                if last {
                    self.answers.insert(network);
                }
                Ok(())
            }
            PeerFrame::Held(held) => self.saying.handle_held(&held),
            PeerFrame::Digest { held, last } => self.handle_digest(held, last),
        }
    }

    /// A part of all that the peer has heard came.
    fn handle_digest(&mut self, held: Vec<HeldFacts>, last: bool) -> Result<(), Fault> {
        self.theirs.extend(held.into_iter().map(|held| (held.network.clone(), held)));
        if self.theirs.len() > heard::MOST_NETWORKS {
            return Err(Fault::TooMuch);
        }
        if last {
            self.saying.handle_digest(&std::mem::take(&mut self.theirs));
        }
        Ok(())
    }

    /// Time passed.
    ///
    /// # Errors
    /// When the peer has been silent for too long.
    pub(crate) fn handle_time(&mut self, now: Instant) -> Result<(), Fault> {
        if self.silence(now) >= SILENCE { Err(Fault::Silent) } else { Ok(()) }
    }

    /// The next frame to send.
    pub(crate) fn poll_frame(&mut self, now: Instant) -> Option<PeerFrame> {
        let frame = self.next_frame(now);
        if frame.is_some() {
            self.last_said = now;
        }
        frame
    }

    fn next_frame(&mut self, now: Instant) -> Option<PeerFrame> {
        if let Some(hello) = self.hello.take() {
            return Some(PeerFrame::Hello(hello));
        }
        // A digest is of one moment: nothing is acknowledged between its parts.
        if let Some(part) = self.digest.pop_front() {
            return Some(part);
        }
        if let Some(network) = self.answers.pop_first() {
            return Some(PeerFrame::Held(self.heard.held(&network)));
        }
        if let Some(frame) = self.greeted.then(|| self.working.poll_frame()).flatten() {
            return Some(frame);
        }
        if let Some(places) = self.places.take_if(|_| self.greeted) {
            return Some(PeerFrame::Places(HostPlaces::clone(&places)));
        }
        if !self.hints.is_empty() && self.greeted {
            return Some(PeerFrame::Hint(std::mem::take(&mut self.hints)));
        }
        if let Some(frame) = self.greeted.then(|| self.asking.poll_frame()).flatten() {
            return Some(frame);
        }
        if now >= self.digest_due {
            self.digest_due = now + DIGEST;
            self.digest = digest(self.heard.all_held());
            return self.digest.pop_front();
        }
        if let Some(part) = self.saying.poll_part() {
            return Some(PeerFrame::Facts(part));
        }
        (now >= self.last_said + HEARTBEAT).then_some(PeerFrame::Alive)
    }

    /// This host works by these editions of the peer's words.
    pub(crate) fn handle_works(&mut self, works: &BTreeMap<NetworkName, Edition>) {
        self.working.handle_works(works);
    }

    /// The peer is to be told where this host is, and where it has found others.
    pub(crate) fn handle_places(&mut self, places: Arc<HostPlaces>) {
        self.places = Some(places);
    }

    /// Places of which the peer has told since the last call: its own, and those of others.
    pub(crate) fn take_places(&mut self) -> Option<HostPlaces> {
        self.their_places.take()
    }

    /// The peer is to be told that these hosts have changed.
    pub(crate) fn give_hint(&mut self, about: BTreeSet<NodeName>) {
        add_within(&mut self.hints, about);
    }

    /// Returns true if the peer has told of hosts that have changed.
    pub(crate) fn has_hints(&self) -> bool {
        !self.their_hints.is_empty()
    }

    /// The hosts of which the peer has said since the last call that they have changed.
    pub(crate) fn take_hints(&mut self) -> BTreeSet<NodeName> {
        std::mem::take(&mut self.their_hints)
    }

    /// Asks the peer how it sees its own peers.
    pub(crate) fn ask(&mut self, token: u64) {
        self.asking.ask(token);
    }

    /// The peer's question, if there is one that was not taken yet.
    pub(crate) fn take_question(&mut self) -> Option<u64> {
        self.asking.take_question()
    }

    /// Answers a question of the peer's.
    pub(crate) fn answer(&mut self, token: u64, cells: &[PeerCell]) {
        self.asking.answer(token, cells);
    }

    /// The peer's answer to the last question, if it is whole and was not taken yet.
    pub(crate) fn take_answer(&mut self) -> Option<Vec<PeerCell>> {
        self.asking.take_answer()
    }

    /// Returns true if there is a word of the peer that was not taken yet.
    pub(crate) fn has_news(&self) -> bool {
        self.heard.has_news()
    }

    /// The newest word of the peer about one network, if there is one that was not taken yet.
    pub(crate) fn poll_heard(&mut self) -> Option<OwnerFacts> {
        self.heard.poll_news()
    }

    /// Returns the number of workloads that the peer told of and that were not accepted, since the last call.
    pub(crate) fn take_refused(&mut self) -> u64 {
        self.heard.take_refused()
    }

    /// Returns the editions that the peer has heard and works by, if they may be others than at the last call, and at the first.
    pub(crate) fn take_acknowledged(&mut self) -> Option<Acknowledged> {
        self.saying.take_acknowledged()
    }

    /// Returns the number of networks whose digest was another one than ours, since the last call.
    pub(crate) fn take_disagreements(&mut self) -> u64 {
        self.saying.take_disagreements()
    }

    /// The time of the next call of [`Session::handle_time`] and [`Session::poll_frame`], if nothing else happens.
    pub(crate) fn due(&self) -> Instant {
        (self.last_said + HEARTBEAT).min(self.digest_due).min(self.last_heard + SILENCE)
    }
}

/// Adds as many as there is room for.
fn add_within(hinted: &mut BTreeSet<NodeName>, about: BTreeSet<NodeName>) {
    let room = HINTED.saturating_sub(hinted.len());
    hinted.extend(about.into_iter().take(room));
}

/// A digest in parts.
fn digest(held: Vec<HeldFacts>) -> VecDeque<PeerFrame> {
    let mut parts: VecDeque<PeerFrame> =
        held.chunks(ENTRIES).map(|part| PeerFrame::Digest { held: part.to_vec(), last: false }).collect();
    match parts.back_mut() {
        Some(PeerFrame::Digest { last, .. }) => *last = true,
        Some(_) | None => parts.push_back(PeerFrame::Digest { held: Vec::new(), last: true }),
    }
    parts
}

#[cfg(test)]
mod tests;
