//! State of one stream.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::INITIAL_WINDOW;
use crate::tunnel::frame::ResetCode;

/// Number of pieces that wait for a reader before small ones are joined.
const MANY: usize = 16;
/// Size of a small piece.
const SMALL: usize = 2048;

/// Course of a stream's conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing is expected of the peer.
    Quiet,
    /// The peer has said something, and may be about to go on.
    Talking,
    /// The last word is ours.
    Waiting,
}

/// Loss that the end of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stake {
    /// Nothing has come: what was sent can be sent elsewhere.
    Nothing,
    /// Requests of HTTP/2, each of which may be sent elsewhere or not.
    Requests,
    /// A request that cannot be made again, or an answer that has begun.
    Work,
}

/// Looks at which the peer was heard within which it may be about to go on in a stream.
const RECENT: u64 = 2;

#[derive(Debug)]
pub(super) struct State {
    /// Offset in the tunnel's output at which the stream begins.
    pub(super) opened_at: u64,
    /// Both directions were ended by one side.
    pub(super) reset: Option<ResetCode>,
    /// Reason, in the words of the other side.
    pub(super) reason: Option<Rc<str>>,
    /// Reason for which we wait for the other side no longer.
    pub(super) abandoned: Option<Rc<str>>,
    pub(super) pace: Pace,
    /// Number of the look before which the peer last said something here.
    pub(super) spoken: u64,
    pub(super) stake: Stake,

    /// Bytes that the peer lets us send.
    pub(super) credit: u32,
    /// We have said END.
    pub(super) finished: bool,
    pub(super) sender_gone: bool,
    /// Waits in the tunnel's queue for less output.
    pub(super) blocked: bool,
    pub(super) sender: Option<Waker>,

    pub(super) inbox: VecDeque<Bytes>,
    /// Bytes that the peer may have in flight or unread here.
    pub(super) window: u32,
    /// Bytes of that which it has left.
    pub(super) allowed: u32,
    /// True if the reader has taken everything since credit was last returned.
    pub(super) drained: bool,
    /// Bytes that were read and not returned as credit.
    pub(super) unreturned: u32,
    /// The peer has said END.
    pub(super) ended: bool,
    pub(super) receiver_gone: bool,
    pub(super) receiver: Option<Waker>,
}

impl State {
    pub(super) fn new(opened_at: u64, stake: Stake) -> Self {
        Self {
            opened_at,
            reset: None,
            reason: None,
            abandoned: None,
            pace: Pace::Waiting,
            spoken: 0,
            stake,
            credit: INITIAL_WINDOW,
            finished: false,
            sender_gone: false,
            blocked: false,
            sender: None,
            inbox: VecDeque::new(),
            window: INITIAL_WINDOW,
            allowed: INITIAL_WINDOW,
            drained: true,
            unreturned: 0,
            ended: false,
            receiver_gone: false,
            receiver: None,
        }
    }

    /// Returns true if something is expected of the peer, which was heard at so many looks. A peer that has gone on to speak elsewhere is
    /// not about to go on here.
    pub(super) fn expects(&self, looks: u64) -> bool {
        match self.pace {
            Pace::Quiet => false,
            Pace::Talking => looks - self.spoken <= RECENT,
            Pace::Waiting => true,
        }
    }

    /// Returns true if nobody here holds it and nothing more is said about it.
    pub(super) fn is_over(&self, tunnel_dead: bool) -> bool {
        let held = !self.sender_gone || !self.receiver_gone;
        !held && (tunnel_dead || self.reset.is_some() || (self.finished && self.ended))
    }

    /// Takes data for the reader. `own` makes it last.
    pub(super) fn deliver(&mut self, data: &[u8], own: impl Fn(&[u8]) -> Bytes) {
        // A reader that lags gets small pieces joined: a piece costs more memory than its bytes.
        if self.inbox.len() >= MANY
            && data.len() < SMALL
            && self.inbox.back().is_some_and(|last| last.len() < SMALL)
            && let Some(last) = self.inbox.pop_back()
        {
            let mut joined = last.try_into_mut().unwrap_or_else(|last| BytesMut::from(&last[..]));
            joined.extend_from_slice(data);
            self.inbox.push_back(joined.freeze());
        } else {
            self.inbox.push_back(own(data));
        }
        self.wake_receiver();
    }

    pub(super) fn wake_sender(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_receiver(&mut self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    pub(super) fn wake(&mut self) {
        self.wake_sender();
        self.wake_receiver();
    }
}

/// Keeps `waker` in `slot` for the next wake-up.
pub(super) fn register(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) => known.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}
