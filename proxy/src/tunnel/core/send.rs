//! Effects of a stream's handles.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::state::{Pace, State, register};
use super::{Core, INITIAL_WINDOW, MAX_WINDOW, OUTPUT_LIMIT};
use crate::tunnel::error::StreamError;
use crate::tunnel::frame::{DATA_SENT, ResetCode, StreamId, encode};

/// Bytes that one call sends at most, so that streams take turns.
const TURN: usize = 4 * DATA_SENT;

impl Core {
    /// Waits for credit and for room in the output; returns the bytes that can be sent now.
    pub(in crate::tunnel) fn poll_room(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        if let Some(error) = self.error(id) {
            return Poll::Ready(Err(error));
        }
        let full = self.output.len() >= OUTPUT_LIMIT;
        let Some(state) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(gone()));
        };
        if state.credit > 0 && !full {
            return Poll::Ready(Ok(TURN.min(state.credit as usize)));
        }
        register(&mut state.sender, cx.waker());
        if state.credit > 0 && !std::mem::replace(&mut state.blocked, true) {
            self.blocked.push_back(id);
        }
        Poll::Pending
    }

    /// Sends the start of `data`, as much as can be sent now, and says how much that was.
    pub(in crate::tunnel) fn poll_write(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        if data.is_empty() {
            return Poll::Ready(self.error(id).map_or(Ok(0), Err));
        }
        let room = ready!(self.poll_room(id, cx))?;
        let data = &data[..room.min(data.len())];
        self.write(id, data);
        Poll::Ready(Ok(data.len()))
    }

    /// Sends the start of `data` right behind the OPEN, and says how much that was.
    pub(in crate::tunnel) fn write_first(&mut self, id: StreamId, data: &[u8]) -> usize {
        if self.output.len() >= OUTPUT_LIMIT {
            return 0;
        }
        let data = &data[..data.len().min(INITIAL_WINDOW as usize)];
        self.write(id, data);
        data.len()
    }

    fn write(&mut self, id: StreamId, data: &[u8]) {
        if let Some(state) = self.streams.get_mut(&id) {
            state.credit = state.credit.saturating_sub(u32::try_from(data.len()).unwrap_or(u32::MAX));
            let pace = if state.ended { Pace::Talking } else { Pace::Waiting };
            let before = std::mem::replace(&mut state.pace, pace);
            self.waiting =
                self.waiting + usize::from(pace == Pace::Waiting) - usize::from(before == Pace::Waiting);
            self.talked = true;
        }
        for piece in data.chunks(DATA_SENT) {
            encode::data(&mut self.output, id, piece);
        }
        self.notify();
    }

    /// END.
    pub(in crate::tunnel) fn finish(&mut self, id: StreamId) {
        let alive = self.dead.is_none();
        let Some(state) = self.streams.get_mut(&id) else { return };
        if alive && state.reset.is_none() && !std::mem::replace(&mut state.finished, true) {
            encode::end(&mut self.output, id);
            let before = state.pace;
            if !state.ended && before != Pace::Waiting {
                state.pace = Pace::Waiting;
                self.waiting += 1;
            }
            self.talked = true;
            self.notify();
        }
    }

    /// RESET, unless both directions are complete or the stream is reset already.
    pub(in crate::tunnel) fn reset(&mut self, id: StreamId, code: ResetCode) {
        self.reset_because(id, code, "");
    }

    /// RESET with a reason in words, which may be empty.
    pub(in crate::tunnel) fn reset_because(&mut self, id: StreamId, code: ResetCode, reason: &str) {
        let alive = self.dead.is_none();
        let Some(state) = self.streams.get_mut(&id) else { return };
        if alive && state.reset.is_none() && !(state.finished && state.ended) {
            state.reset = Some(code);
            state.wake();
            encode::reset(&mut self.output, id, code, reason);
            self.rest(id);
            self.notify();
        }
    }

    /// The next data that is there. Returns credit.
    pub(in crate::tunnel) fn try_recv(&mut self, id: StreamId) -> Option<Bytes> {
        let state = self.streams.get_mut(&id)?;
        let data = state.inbox.pop_front()?;
        state.unreturned += u32::try_from(data.len()).unwrap_or(u32::MAX);
        state.drained |= state.inbox.is_empty();
        if !state.ended && state.reset.is_none() && state.unreturned >= state.window / 2 {
            grow(state, &mut self.growth);
            let credit = std::mem::take(&mut state.unreturned);
            state.allowed += credit;
            encode::window(&mut self.output, id, credit);
            self.notify();
        }
        Some(data)
    }

    /// The next data; `None` is the peer's END. Returns credit.
    pub(in crate::tunnel) fn poll_recv(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        if let Some(data) = self.try_recv(id) {
            return Poll::Ready(Ok(Some(data)));
        }
        let Some(state) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(gone()));
        };
        if state.ended {
            return Poll::Ready(Ok(None));
        }
        register(&mut state.receiver, cx.waker());
        self.error(id).map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }

    /// Ready when the stream is reset or its tunnel lost, also behind the peer's END; what arrived before stays.
    pub(in crate::tunnel) fn poll_broken(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<StreamError> {
        if let Some(error) = self.error(id) {
            return Poll::Ready(error);
        }
        if let Some(state) = self.streams.get_mut(&id) {
            register(&mut state.receiver, cx.waker());
        }
        Poll::Pending
    }

    /// The sending half is dropped.
    pub(in crate::tunnel) fn drop_sender(&mut self, id: StreamId) {
        if let Some(state) = self.streams.get_mut(&id) {
            state.sender_gone = true;
            state.sender = None;
            if !state.finished {
                self.reset(id, ResetCode::Cancelled);
            }
            self.release(id);
        }
    }

    /// The receiving half is dropped.
    pub(in crate::tunnel) fn drop_receiver(&mut self, id: StreamId) {
        if let Some(state) = self.streams.get_mut(&id) {
            state.receiver_gone = true;
            state.receiver = None;
            state.inbox.clear();
            if !state.ended {
                self.reset(id, ResetCode::Cancelled);
            }
            self.release(id);
        }
    }

    fn error(&self, id: StreamId) -> Option<StreamError> {
        let Some(state) = self.streams.get(&id) else {
            return Some(gone());
        };
        if let Some(reason) = &state.abandoned {
            return Some(StreamError::TunnelLost { never_sent: false, reason: reason.clone() });
        }
        let reset = state.reset.map(|code| match &state.reason {
            None => StreamError::Reset(code),
            Some(reason) => StreamError::Explained { code, reason: reason.clone() },
        });
        reset.or_else(|| self.lost(state.opened_at))
    }
}

/// Grows the window of a reader that keeps up: what it is given goes out with the credit that is due.
fn grow(state: &mut State, growth: &mut u32) {
    let more = state.window.min(MAX_WINDOW - state.window).min(*growth);
    if std::mem::take(&mut state.drained) {
        *growth -= more;
        state.window += more;
        state.unreturned += more;
    }
}

/// A handle outlives its entry only by a mistake of ours.
fn gone() -> StreamError {
    StreamError::Reset(ResetCode::Internal)
}
