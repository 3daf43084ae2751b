//! Effects of the peer's frames.

use std::rc::Rc;

use bytes::Bytes;

use super::state::{Pace, Stake, State};
use super::{Core, OUTPUT_FLOOD, Opened, Side};
use crate::tunnel::frame::{Event, FrameError, ResetCode, StreamId, encode};
use crate::tunnel::open::{OpenHeader, OpenHeaderError};
use crate::tunnel::share::Turn;

/// The greatest credit that a peer may give.
const MAX_CREDIT: u32 = 0x7fff_ffff;

/// A peer that breaks the protocol; the tunnel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::tunnel) enum TunnelError {
    #[error("the peer sent {0}")]
    Frame(#[from] FrameError),
    #[error("the peer spoke of stream {0}, which was never opened")]
    Unopened(StreamId),
    #[error("the peer opened stream {0}, which it may not")]
    Open(StreamId),
    #[error("the peer sent more on stream {0} than it has credit for")]
    Credit(StreamId),
    #[error("the peer sent data on stream {0} after its end")]
    AfterEnd(StreamId),
    #[error("the peer gave more than 2^31 - 1 bytes of credit on stream {0}")]
    Window(StreamId),
    #[error("the peer makes us answer more than it reads")]
    Flood,
}

impl Core {
    /// Takes plaintext, as much as `turn` has frames for, and says how much; `own` makes pieces of it last.
    pub(in crate::tunnel) fn handle(
        &mut self,
        plain: &[u8],
        turn: &mut Turn,
        own: impl Fn(&[u8]) -> Bytes,
    ) -> Result<usize, TunnelError> {
        let mut rest = plain;
        // The decoder is taken out so that its events and the streams may be borrowed together.
        let mut decoder = std::mem::take(&mut self.decoder);
        while turn.has_frame()
            && let Some(event) = decoder.next(&mut rest)?
        {
            turn.take_frame(matches!(event, Event::Open(..)));
            self.counts.idle += u32::from(event.carries_nothing());
            self.handle_event(event, &own)?;
        }
        self.decoder = decoder;
        if self.output.len() > OUTPUT_FLOOD { Err(TunnelError::Flood) } else { Ok(plain.len() - rest.len()) }
    }

    fn handle_event(&mut self, event: Event<'_>, own: impl Fn(&[u8]) -> Bytes) -> Result<(), TunnelError> {
        match event {
            Event::Data(id, data) => self.handle_data(id, data, own),
            Event::Open(id, header) => self.handle_open(id, header),
            Event::End(id) => self.handle_end(id),
            Event::Reset(id, code, reason) => self.handle_reset(id, code, reason),
            Event::Window(id, credit) => self.handle_window(id, credit),
            Event::Ping(echo) => {
                encode::pong(&mut self.output, echo);
                Ok(())
            }
            Event::Pong(_) | Event::Nothing => Ok(()),
            Event::GoAway(last) => {
                self.handle_go_away(last);
                Ok(())
            }
            Event::Hello { max_streams } => {
                self.greeted = Some(max_streams);
                if let Some(waker) = self.greeting.take() {
                    waker.wake();
                }
                Ok(())
            }
        }
    }

    fn handle_open(
        &mut self,
        id: StreamId,
        header: Result<OpenHeader, OpenHeaderError>,
    ) -> Result<(), TunnelError> {
        let Side::Accepting { max_streams } = self.side else {
            return Err(TunnelError::Open(id));
        };
        if id <= self.last {
            return Err(TunnelError::Open(id));
        }
        let refusal = if self.going {
            Some(ResetCode::Gone)
        } else if self.streams.len() >= max_streams as usize {
            self.counts.refused += 1;
            Some(ResetCode::Refused)
        } else {
            header.is_err().then_some(ResetCode::ProtocolError)
        };
        self.last = id;
        match (refusal, header) {
            (None, Ok(header)) => {
                self.streams.insert(id, State::new(0, Stake::Work));
                self.waiting += 1;
                self.opened.push(Opened { id, header });
            }
            (code, _) => encode::reset(&mut self.output, id, code.unwrap_or(ResetCode::ProtocolError), ""),
        }
        Ok(())
    }

    fn handle_data(
        &mut self,
        id: StreamId,
        data: &[u8],
        own: impl Fn(&[u8]) -> Bytes,
    ) -> Result<(), TunnelError> {
        let looks = self.looks;
        let Some(state) = self.known(id)? else { return Ok(()) };
        if state.ended {
            return Err(TunnelError::AfterEnd(id));
        }
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        state.allowed = state.allowed.checked_sub(length).ok_or(TunnelError::Credit(id))?;
        let is_open = state.reset.is_none();
        if !state.receiver_gone && is_open {
            state.deliver(data, own);
        }
        if is_open {
            let before = std::mem::replace(&mut state.pace, Pace::Talking);
            state.spoken = looks;
            if state.stake == Stake::Nothing {
                state.stake = Stake::Work;
            }
            self.waiting -= usize::from(before == Pace::Waiting);
            self.talked = true;
        }
        Ok(())
    }

    fn handle_end(&mut self, id: StreamId) -> Result<(), TunnelError> {
        let Some(state) = self.known(id)? else { return Ok(()) };
        if state.reset.is_none() {
            state.ended = true;
            state.wake_receiver();
            self.rest(id);
            self.release(id);
        }
        Ok(())
    }

    fn handle_reset(
        &mut self,
        id: StreamId,
        code: ResetCode,
        reason: Option<Rc<str>>,
    ) -> Result<(), TunnelError> {
        let Some(state) = self.known(id)? else { return Ok(()) };
        let gives_up = state.reset.is_none();
        if gives_up {
            (state.reset, state.reason) = (Some(code), reason);
        }
        state.wake();
        self.rest(id);
        if gives_up && self.side != Side::Connecting {
            self.counts.given_up += 1;
            self.stillborn |= self.opened.first().is_some_and(|first| id >= first.id);
        }
        self.release(id);
        Ok(())
    }

    fn handle_window(&mut self, id: StreamId, credit: u32) -> Result<(), TunnelError> {
        let Some(state) = self.known(id)? else { return Ok(()) };
        let credit = state.credit.checked_add(credit).filter(|&credit| credit <= MAX_CREDIT);
        state.credit = credit.ok_or(TunnelError::Window(id))?;
        state.wake_sender();
        Ok(())
    }

    fn handle_go_away(&mut self, last: StreamId) {
        if self.side != Side::Connecting {
            return;
        }
        self.going = true;
        let unprocessed: Vec<StreamId> = self.streams.keys().copied().filter(|&id| id > last).collect();
        for id in unprocessed {
            if let Some(state) = self.streams.get_mut(&id) {
                state.reset.get_or_insert(ResetCode::Gone);
                state.wake();
            }
            self.rest(id);
        }
        self.notify();
    }

    /// Nothing more is expected on the stream.
    pub(super) fn rest(&mut self, id: StreamId) {
        if let Some(state) = self.streams.get_mut(&id) {
            let before = std::mem::replace(&mut state.pace, Pace::Quiet);
            self.waiting -= usize::from(before == Pace::Waiting);
            self.talked = true;
        }
    }

    /// The stream, unless it is over.
    fn known(&mut self, id: StreamId) -> Result<Option<&mut State>, TunnelError> {
        if id > self.last {
            return Err(TunnelError::Unopened(id));
        }
        Ok(self.streams.get_mut(&id))
    }
}
