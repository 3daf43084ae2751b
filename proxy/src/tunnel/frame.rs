//! Frames as bytes and back; the format is described in [`super`]. Pure, and safe on whatever arrives.

use std::fmt;
use std::rc::Rc;

use super::open::{OpenHeader, OpenHeaderError};

/// The size of a frame's header.
pub(super) const HEADER: usize = 8;
/// Bytes of DATA that we put into one frame: with its header it fills one TLS record.
pub(crate) const DATA_SENT: usize = 16_384 - HEADER;
/// Bytes of DATA that a frame may have.
const MAX_DATA: usize = 16_384;
/// Largest payload of any other frame.
const MAX_CONTROL: usize = 4_096;

/// Longest reason of a RESET.
const MAX_REASON: usize = 256;

const DATA: u8 = 0;
const OPEN: u8 = 1;
const END: u8 = 2;
const RESET: u8 = 3;
const WINDOW: u8 = 4;
const PING: u8 = 5;
const PONG: u8 = 6;
const GOAWAY: u8 = 7;
const HELLO: u8 = 8;

/// Reason of a stream's reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCode {
    /// The receiver has too many streams. Nothing was processed: safe to retry anywhere.
    Refused,
    /// The application's port refused the connection. Nothing was sent to it: safe to retry.
    Unreachable,
    /// The application closed without a byte of response.
    ResetBeforeResponse,
    /// The other side lost interest.
    Cancelled,
    /// The receiver could not understand the other side or its application.
    ProtocolError,
    /// The other side failed.
    Internal,
    /// The workload is ending. Nothing was processed: safe to retry elsewhere.
    Gone,
    /// Policy forbids the call. Nothing was processed, and a retry would not help.
    Denied,
}

impl ResetCode {
    const ALL: [Self; 8] = [
        Self::Refused,
        Self::Unreachable,
        Self::ResetBeforeResponse,
        Self::Cancelled,
        Self::ProtocolError,
        Self::Internal,
        Self::Gone,
        Self::Denied,
    ];

    /// Returns true if no byte of the stream reached the application, so that a retry repeats nothing.
    #[must_use]
    pub fn never_processed(self) -> bool {
        match self {
            Self::Refused | Self::Unreachable | Self::Gone | Self::Denied => true,
            Self::ResetBeforeResponse | Self::Cancelled | Self::ProtocolError | Self::Internal => false,
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::Refused => 0,
            Self::Unreachable => 1,
            Self::ResetBeforeResponse => 2,
            Self::Cancelled => 3,
            Self::ProtocolError => 4,
            Self::Internal => 5,
            Self::Gone => 6,
            Self::Denied => 7,
        }
    }

    fn from_wire(code: u8) -> Self {
        Self::ALL.into_iter().find(|known| known.to_wire() == code).unwrap_or(Self::Internal)
    }
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "too many streams",
            Self::Unreachable => "the application's port refused the connection",
            Self::ResetBeforeResponse => "the application closed before it answered",
            Self::Cancelled => "cancelled",
            Self::ProtocolError => "the stream could not be understood",
            Self::Internal => "the other sidecar failed",
            Self::Gone => "the workload is ending",
            Self::Denied => "denied by policy",
        })
    }
}

/// A stream of a tunnel, 1 to 2^31 - 1.
pub(super) type StreamId = u32;
/// The greatest stream id.
pub(super) const MAX_STREAM: StreamId = 0x7fff_ffff;

/// Event that arrived. DATA comes in the pieces in which it arrived; everything else whole.
#[derive(Debug, PartialEq)]
pub(super) enum Event<'a> {
    Open(StreamId, Result<OpenHeader, OpenHeaderError>),
    Data(StreamId, &'a [u8]),
    End(StreamId),
    Reset(StreamId, ResetCode, Option<Rc<str>>),
    Window(StreamId, u32),
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway(StreamId),
    Hello {
        max_streams: u32,
    },
    /// A frame that says nothing: of an unknown type, or DATA of no bytes.
    Nothing,
}

impl Event<'_> {
    /// Returns true if nothing follows from it for any stream, whatever the state of the tunnel.
    pub(super) fn carries_nothing(&self) -> bool {
        match self {
            Self::Ping(_) | Self::Pong(_) | Self::GoAway(_) | Self::Hello { .. } | Self::Nothing => true,
            Self::Window(_, credit) => *credit == 0,
            Self::Open(..) | Self::Data(..) | Self::End(_) | Self::Reset(..) => false,
        }
    }
}

/// Bytes that are no frames; the tunnel cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of type {kind} with {length} bytes is beyond the limit")]
    TooLong { kind: u8, length: usize },
    #[error("a frame of type {kind} with {length} bytes is too short")]
    TooShort { kind: u8, length: usize },
    #[error("a frame of type {kind} on stream {stream}")]
    WrongStream { kind: u8, stream: StreamId },
}

/// Reads frames from plaintext that arrives in arbitrary pieces.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The start of a frame whose rest has not arrived.
    partial: Vec<u8>,
    /// The stream and how much is to come of the DATA frame that is being read.
    data: Option<(StreamId, usize)>,
}

#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    length: usize,
    stream: StreamId,
}

impl Header {
    fn parse(bytes: [u8; HEADER]) -> Result<Self, FrameError> {
        let [a, b, c, kind, stream @ ..] = bytes;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let limit = if kind == DATA { MAX_DATA } else { MAX_CONTROL };
        if length > limit {
            return Err(FrameError::TooLong { kind, length });
        }
        let stream = u32::from_be_bytes(stream) & MAX_STREAM;
        let of_tunnel = matches!(kind, PING | PONG | GOAWAY | HELLO);
        if kind <= HELLO && (stream == 0) != of_tunnel {
            return Err(FrameError::WrongStream { kind, stream });
        }
        Ok(Self { kind, length, stream })
    }
}

impl Decoder {
    /// The next event of `input`, which is moved past it; `None` when all input is used.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, FrameError> {
        loop {
            if let Some((stream, left)) = self.data {
                let piece = take(input, left);
                let left = left - piece.len();
                self.data = (left > 0).then_some((stream, left));
                return Ok((!piece.is_empty()).then_some(Event::Data(stream, piece)));
            }
            let whole = if self.partial.is_empty() { take_frame(input)? } else { None };
            let event = match whole {
                Some((header, _)) if header.kind == DATA => self.begin_data(header),
                Some((header, payload)) => Some(decode(header, payload)?),
                None if input.is_empty() => return Ok(None),
                None => self.join(input)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn begin_data(&mut self, header: Header) -> Option<Event<'static>> {
        self.data = (header.length > 0).then_some((header.stream, header.length));
        self.data.is_none().then_some(Event::Nothing)
    }

    /// Takes what is missing of a frame that arrives in pieces.
    fn join(&mut self, input: &mut &[u8]) -> Result<Option<Event<'static>>, FrameError> {
        let missing = HEADER.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(take(input, missing));
        let Some(&bytes) = self.partial.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::parse(bytes)?;
        if header.kind == DATA {
            self.partial.clear();
            return Ok(self.begin_data(header));
        }
        let missing = HEADER + header.length - self.partial.len();
        self.partial.extend_from_slice(take(input, missing));
        if self.partial.len() < HEADER + header.length {
            return Ok(None);
        }
        let event = decode(header, &self.partial[HEADER..])?;
        self.partial.clear();
        Ok(Some(event))
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    piece
}

/// A frame that has arrived whole, or the header alone of a DATA frame.
fn take_frame<'a>(input: &mut &'a [u8]) -> Result<Option<(Header, &'a [u8])>, FrameError> {
    let Some((&bytes, rest)) = input.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let header = Header::parse(bytes)?;
    if header.kind == DATA {
        *input = rest;
        return Ok(Some((header, &[])));
    }
    let Some((payload, rest)) = rest.split_at_checked(header.length) else {
        return Ok(None);
    };
    *input = rest;
    Ok(Some((header, payload)))
}

fn decode(header: Header, payload: &[u8]) -> Result<Event<'static>, FrameError> {
    let Header { kind, length, stream } = header;
    let short = FrameError::TooShort { kind, length };
    let number = || payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(short);
    let echo = || payload.first_chunk().copied().ok_or(short);
    Ok(match kind {
        OPEN => Event::Open(stream, OpenHeader::decode(payload)),
        END => Event::End(stream),
        RESET => {
            let (&code, text) = payload.split_first().ok_or(short)?;
            Event::Reset(stream, ResetCode::from_wire(code), reason(text))
        }
        WINDOW => Event::Window(stream, number()?),
        PING => Event::Ping(echo()?),
        PONG => Event::Pong(echo()?),
        GOAWAY => Event::GoAway(number()? & MAX_STREAM),
        HELLO => Event::Hello { max_streams: number()? },
        _ => Event::Nothing,
    })
}

/// The words that come with a RESET, which go into logs and answers: bounded, and without control characters.
fn reason(text: &[u8]) -> Option<Rc<str>> {
    if text.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_REASON)]).replace(char::is_control, " ");
    Some(text.trim()).filter(|text| !text.is_empty()).map(Into::into)
}

/// Writes frames behind each other.
pub(super) mod encode {
    use super::{
        DATA, END, GOAWAY, HEADER, HELLO, MAX_REASON, OPEN, PING, PONG, RESET, ResetCode, StreamId, WINDOW,
    };
    use crate::tunnel::open::OpenHeader;

    pub(in crate::tunnel) fn open(out: &mut Vec<u8>, stream: StreamId, open: &OpenHeader) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        open.encode(out);
        let length = out.len() - start - HEADER;
        out[start..start + HEADER].copy_from_slice(&header(length, OPEN, stream));
    }

    /// At most [`super::DATA_SENT`] bytes.
    pub(in crate::tunnel) fn data(out: &mut Vec<u8>, stream: StreamId, data: &[u8]) {
        out.extend_from_slice(&header(data.len(), DATA, stream));
        out.extend_from_slice(data);
    }

    pub(in crate::tunnel) fn end(out: &mut Vec<u8>, stream: StreamId) {
        frame(out, END, stream, &[]);
    }

    /// Of `reason`, which may be empty, so much as is read.
    pub(in crate::tunnel) fn reset(out: &mut Vec<u8>, stream: StreamId, code: ResetCode, reason: &str) {
        let reason = &reason.as_bytes()[..reason.len().min(MAX_REASON)];
        out.extend_from_slice(&header(1 + reason.len(), RESET, stream));
        out.push(code.to_wire());
        out.extend_from_slice(reason);
    }

    pub(in crate::tunnel) fn window(out: &mut Vec<u8>, stream: StreamId, credit: u32) {
        frame(out, WINDOW, stream, &credit.to_be_bytes());
    }

    pub(in crate::tunnel) fn ping(out: &mut Vec<u8>, echo: [u8; 8]) {
        frame(out, PING, 0, &echo);
    }

    pub(in crate::tunnel) fn pong(out: &mut Vec<u8>, echo: [u8; 8]) {
        frame(out, PONG, 0, &echo);
    }

    pub(in crate::tunnel) fn go_away(out: &mut Vec<u8>, last: StreamId) {
        frame(out, GOAWAY, 0, &last.to_be_bytes());
    }

    pub(in crate::tunnel) fn hello(out: &mut Vec<u8>, max_streams: u32) {
        frame(out, HELLO, 0, &max_streams.to_be_bytes());
    }

    fn frame(out: &mut Vec<u8>, kind: u8, stream: StreamId, payload: &[u8]) {
        out.extend_from_slice(&header(payload.len(), kind, stream));
        out.extend_from_slice(payload);
    }

    #[allow(clippy::cast_possible_truncation, reason = "the callers' payloads are within 24 bits")]
    fn header(length: usize, kind: u8, stream: StreamId) -> [u8; HEADER] {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        [a, b, c, kind, d, e, f, g]
    }
}

#[cfg(feature = "benching")]
pub(crate) mod benching;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
#[cfg(any(test, feature = "fuzzing"))]
mod said;
#[cfg(test)]
mod tests;
