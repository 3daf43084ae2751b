//! The state of one tunnel: streams, credit, what is to be sent. Pure: frames go in by [`Core::handle`], handles
//! of streams act by `poll_*` and friends, plaintext comes out by [`Core::take_output`].

mod map;
mod receive;
mod send;
mod state;

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use self::map::StreamMap;
use self::state::{Pace, Stake, State};
use super::error::StreamError;
use super::frame::{Decoder, ResetCode, StreamId, encode};
use super::liveness::Silence;
use super::open::OpenHeader;
use crate::protocol::Protocol;

pub(super) use receive::TunnelError;

/// The credit that every direction of every stream starts with.
pub(super) const INITIAL_WINDOW: u32 = 65_536;
/// Size to which the window of a stream grows.
const MAX_WINDOW: u32 = 1 << 20;
/// By how much all windows of a tunnel together may grow.
const GROWTH: u32 = 16 << 20;
/// From how much unsent output on streams wait before they send more.
pub(super) const OUTPUT_LIMIT: usize = 128 * 1024;
/// Unsent output at which the peer, whose frames make us answer, is given up.
const OUTPUT_FLOOD: usize = OUTPUT_LIMIT + 1024 * 1024;

/// Side of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Connecting,
    Accepting { max_streams: u32 },
}

/// A stream that the peer opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: StreamId,
    pub(super) header: OpenHeader,
}

/// Counts of events since somebody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Streams that were refused for being too many.
    pub(super) refused: u32,
    /// Streams that ended.
    pub(super) finished: u32,
    /// Streams that the side that opened them gave up before their end.
    pub(super) given_up: u32,
    /// Frames that carried nothing.
    pub(super) idle: u32,
}

/// The state of a tunnel.
#[derive(Debug)]
pub(super) struct Core {
    side: Side,
    streams: StreamMap,
    decoder: Decoder,
    /// Frames that are to be sent.
    output: Vec<u8>,
    /// Bytes of output that have been taken since the start.
    taken: u64,
    /// The greatest stream id that was opened.
    last: StreamId,
    /// The peer's limit of streams, once it has said HELLO.
    greeted: Option<u32>,
    greeting: Option<Waker>,
    /// True if no stream is opened any more.
    going: bool,
    /// True if the peer may be about to go.
    doubted: bool,
    /// True if the peer's host cannot be reached, as this host's agent knows.
    away: bool,
    /// True if the peer has left questions unanswered for a while.
    stalled: bool,
    /// The peer's silence, while calls do not wait for its end.
    silence: Option<Silence>,
    /// Number of streams on which the last word is ours.
    waiting: usize,
    /// True if something was said on a stream since somebody asked.
    talked: bool,
    /// Looks at which the peer had been heard since the one before.
    looks: u64,
    dead: Option<Rc<str>>,
    /// Streams that wait for less output, in order.
    blocked: std::collections::VecDeque<StreamId>,
    /// Bytes by which the windows may still grow.
    growth: u32,
    opened: Vec<Opened>,
    /// True if any of those was reset since.
    stillborn: bool,
    counts: Counts,
    driver: Option<Waker>,
    notified: bool,
}

impl Core {
    pub(super) fn new(side: Side) -> Self {
        let mut core = Self {
            side,
            streams: StreamMap::default(),
            decoder: Decoder::default(),
            output: Vec::new(),
            taken: 0,
            last: 0,
            greeted: None,
            greeting: None,
            going: false,
            doubted: false,
            away: false,
            stalled: false,
            silence: None,
            waiting: 0,
            talked: false,
            looks: 0,
            dead: None,
            blocked: std::collections::VecDeque::new(),
            growth: GROWTH,
            opened: Vec::new(),
            stillborn: false,
            counts: Counts::default(),
            driver: None,
            notified: false,
        };
        if let Side::Accepting { max_streams } = side {
            encode::hello(&mut core.output, max_streams);
        }
        core
    }

    /// Returns true if another stream may be opened here.
    pub(super) fn can_open(&self) -> bool {
        let limit = self.greeted.unwrap_or(0) as usize;
        self.accepts_work() && self.streams.len() < limit && self.last < super::frame::MAX_STREAM
    }

    /// Returns true if the tunnel is alive and takes new streams, as far as it is not full.
    pub(super) fn accepts_work(&self) -> bool {
        !self.going && self.dead.is_none() && self.silence.is_none()
    }

    /// Returns true if the peer is known to be silent, so that another tunnel would fare no better.
    pub(super) fn is_silent(&self) -> bool {
        self.dead.is_none()
            && match self.silence {
                Some(Silence::Mute | Silence::Frozen) => true,
                Some(Silence::Away) => self.away,
                Some(Silence::Unknown) | None => false,
            }
    }

    /// Returns the number of streams, including those that are over but still held.
    pub(super) fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream; the caller has asked [`Core::can_open`].
    pub(super) fn open(&mut self, header: &OpenHeader) -> StreamId {
        self.last += 1;
        let id = self.last;
        let stake = match header.protocol {
            Protocol::Http1 => Stake::Nothing,
            Protocol::Http2 => Stake::Requests,
            // What was sent is sent nowhere else.
            Protocol::Tls | Protocol::Opaque => Stake::Work,
        };
        self.streams.insert(id, State::new(self.taken + self.output.len() as u64, stake));
        (self.waiting, self.talked) = (self.waiting + 1, true);
        encode::open(&mut self.output, id, header);
        self.notify();
        id
    }

    /// Ready when the peer has said HELLO, an error when the tunnel died before.
    pub(super) fn poll_greeting(&mut self, cx: &Context<'_>) -> Poll<Result<(), Rc<str>>> {
        if let Some(reason) = &self.dead {
            return Poll::Ready(Err(reason.clone()));
        }
        if self.greeted.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.greeting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Returns the streams that the peer opened since the last time and has not given up.
    pub(super) fn take_opened(&mut self) -> Vec<Opened> {
        let mut opened = std::mem::take(&mut self.opened);
        if std::mem::take(&mut self.stillborn) {
            opened.retain(|opened| !self.forget_given_up(opened));
        }
        opened
    }

    /// Forgets a stream if it is over before anybody here has heard of it. What a connection has said before it broke off still
    /// counts, but nobody need begin an exchange whose answer nobody waits for.
    fn forget_given_up(&mut self, opened: &Opened) -> bool {
        let Some(state) = self.streams.get_mut(&opened.id) else { return true };
        if state.reset.is_none() || (opened.header.protocol != Protocol::Http1 && !state.inbox.is_empty()) {
            return false;
        }
        (state.sender_gone, state.receiver_gone) = (true, true);
        self.release(opened.id);
        // It has not been counted as one that began.
        self.counts.finished = self.counts.finished.saturating_sub(1);
        true
    }

    /// Returns the counts since the last time.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// No new streams from now on: the accepting side says so to its peer.
    pub(super) fn go_away(&mut self) {
        if std::mem::replace(&mut self.going, true) {
            return;
        }
        if matches!(self.side, Side::Accepting { .. }) {
            encode::go_away(&mut self.output, self.last);
        }
        self.notify();
    }

    /// Returns true if nothing is left to do on a tunnel that takes no new streams.
    pub(super) fn is_done(&self) -> bool {
        self.going && self.streams.is_empty() && self.output.is_empty()
    }

    /// Asks whether the peer is there.
    pub(super) fn ping(&mut self) {
        encode::ping(&mut self.output, [0; 8]);
    }

    /// Asks now whether the peer is there.
    pub(super) fn ask(&mut self) {
        self.ping();
        self.notify();
    }

    /// The peer has left questions unanswered for a while, or has not.
    pub(super) fn set_stalled(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// Returns true if streams fare better on another tunnel.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The peer has spoken on another tunnel: its process works.
    pub(super) fn handle_proof(&mut self) {
        self.silence = self.silence.filter(|silence| !silence.is_of_process());
    }

    /// The peer may be about to go without a word, or is not.
    pub(super) fn doubt(&mut self, doubted: bool) {
        if std::mem::replace(&mut self.doubted, doubted) != doubted {
            self.notify();
        }
    }

    /// Returns true if the peer may be about to go without a word.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// The peer's host cannot be reached, or can.
    pub(super) fn set_away(&mut self, away: bool) {
        if std::mem::replace(&mut self.away, away) != away {
            self.notify();
        }
    }

    /// Returns true if the peer's host cannot be reached, as this host's agent knows.
    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    /// Returns true if a stream waits for the peer.
    pub(super) fn waits(&self) -> bool {
        self.waiting > 0
    }

    /// Returns true if something was said on a stream since the last time.
    pub(super) fn take_talked(&mut self) -> bool {
        std::mem::take(&mut self.talked)
    }

    /// The peer has answered: it is not silent, and nothing is expected on streams on which the last word is its own.
    pub(super) fn settle(&mut self) {
        for state in self.streams.values_mut().filter(|state| state.pace == Pace::Talking) {
            state.pace = Pace::Quiet;
        }
    }

    /// The peer was heard since the look before.
    pub(super) fn resume(&mut self) {
        self.silence = None;
        self.looks += 1;
    }

    /// Marks a stream as one whose request cannot be made again.
    pub(super) fn set_work(&mut self, id: StreamId) {
        if let Some(state) = self.streams.get_mut(&id) {
            state.stake = Stake::Work;
        }
    }

    /// The peer does not answer: streams that expect something of it end, the others stay, and there are no new ones until it is heard.
    /// A peer that is mute may be short of time: what cannot be made again stays. Returns the number of streams that end.
    pub(super) fn abandon(&mut self, silence: Silence) -> usize {
        self.silence = Some(silence);
        let reason: Rc<str> = silence.words().into();
        let looks = self.looks;
        let expectant = |(_, state): &(&StreamId, &State)| {
            let leaves = silence != Silence::Mute || state.stake != Stake::Work;
            leaves && state.expects(looks) && state.reset.is_none()
        };
        let ids: Vec<StreamId> = self.streams.iter().filter(expectant).map(|(id, _)| *id).collect();
        for id in &ids {
            if let Some(state) = self.streams.get_mut(id) {
                state.abandoned = Some(reason.clone());
            }
            self.reset(*id, ResetCode::Cancelled);
        }
        ids.len()
    }

    /// The connection died: every stream learns of it. The first reason stands.
    pub(super) fn lose(&mut self, reason: &str) {
        if self.dead.is_some() {
            return;
        }
        self.dead = Some(reason.into());
        self.streams.values_mut().for_each(State::wake);
        if let Some(waker) = self.greeting.take() {
            waker.wake();
        }
    }

    /// Returns true if streams are opened by us.
    pub(super) fn is_connecting(&self) -> bool {
        self.side == Side::Connecting
    }

    /// Has `cx` woken at the next change that matters to the driver.
    pub(super) fn register_driver(&mut self, cx: &Context<'_>) {
        self.notified = false;
        if !self.driver.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }

    /// Returns the number of bytes of output that wait.
    pub(super) fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Gives back what memory a busy time has taken.
    pub(super) fn shrink(&mut self) {
        self.output.shrink_to_fit();
        self.streams.shrink_to_fit();
    }

    /// Swaps the output with the (empty) `buffer` and lets waiting streams send again. Returns whether there are any.
    pub(super) fn take_output(&mut self, buffer: &mut Vec<u8>) -> bool {
        self.taken += self.output.len() as u64;
        std::mem::swap(&mut self.output, buffer);
        let waiting = !self.blocked.is_empty();
        while let Some(id) = self.blocked.pop_front() {
            if let Some(state) = self.streams.get_mut(&id) {
                state.blocked = false;
                state.wake_sender();
            }
        }
        waiting
    }

    /// Returns the error of a stream on a dead tunnel.
    fn lost(&self, opened_at: u64) -> Option<StreamError> {
        let reason = self.dead.clone()?;
        let never_sent = self.side == Side::Connecting && self.taken <= opened_at;
        Some(StreamError::TunnelLost { never_sent, reason })
    }

    fn notify(&mut self) {
        if !self.notified
            && let Some(driver) = &self.driver
        {
            self.notified = true;
            driver.wake_by_ref();
        }
    }

    /// Forgets a stream that is over on the wire and that nobody holds.
    fn release(&mut self, id: StreamId) {
        if let Some(state) = self.streams.get(&id)
            && state.is_over(self.dead.is_some())
        {
            self.growth += state.window - INITIAL_WINDOW;
            self.waiting -= usize::from(state.pace == Pace::Waiting);
            self.streams.remove(&id);
            self.counts.finished += 1;
            if self.going {
                self.notify();
            }
        }
    }
}

#[cfg(test)]
mod tests;
