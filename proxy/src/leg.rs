//! End of a relayed connection: TCP, or a stream of a tunnel. Bytes are handed on, never copied between buffers.

mod buffer;
mod linger;
mod replay;
mod tcp;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::refusal::refuse;
use crate::tunnel::{RecvHalf, ResetCode, SendHalf, Stream, StreamError};
use tcp::TcpInput;

pub(crate) use linger::{LINGER, close, linger};
pub(crate) use replay::ReplayBuffer;
pub(crate) use tcp::write_all;

/// The reason, for metrics, of what the called side's rules forbid.
pub(crate) const DENIED: &str = "denied";

/// Reasons for which a leg broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LegError {
    /// The TCP connection.
    #[error("{0}")]
    Tcp(#[from] io::Error),
    /// The stream.
    #[error("{0}")]
    Stream(#[from] StreamError),
}

impl LegError {
    /// Returns true if the application has certainly seen nothing of what was sent.
    pub(crate) fn never_processed(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Stream(error) => error.never_processed(),
        }
    }

    /// Returns true if the called side's rules forbid the call: no other attempt would fare better.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Stream(StreamError::Reset(ResetCode::Denied)))
    }

    /// The kind of failure, for metrics: a bounded set.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Tcp(_) | Self::Stream(StreamError::TunnelLost { .. }) => "connection_lost",
            Self::Stream(StreamError::Reset(code) | StreamError::Explained { code, .. }) => match code {
                ResetCode::Refused => "refused",
                ResetCode::Unreachable => "unreachable",
                ResetCode::Gone => "gone",
                ResetCode::Denied => DENIED,
                ResetCode::ResetBeforeResponse | ResetCode::Cancelled => "reset",
                ResetCode::ProtocolError | ResetCode::Internal => "protocol",
            },
        }
    }
}

/// Source of bytes.
#[derive(Debug)]
pub(crate) struct Input {
    from: From,
    /// Bytes that were read before, to be delivered first.
    surplus: Bytes,
    ended: bool,
    recording: Option<Recording>,
}

/// Effect of reading on a replay buffer.
#[derive(Debug)]
enum Recording {
    Keeps(Rc<ReplayBuffer>),
    Ends(Rc<ReplayBuffer>),
}

#[derive(Debug)]
enum From {
    Tcp(TcpInput),
    Stream(RecvHalf),
}

/// Sink of bytes.
#[derive(Debug)]
pub(crate) enum Output {
    /// A TCP connection.
    Tcp(Rc<TcpStream>),
    /// A stream of a tunnel.
    Stream(SendHalf),
}

/// Both halves of one end.
pub(crate) type Leg = (Input, Output);

/// Both halves of a TCP connection.
pub(crate) fn tcp(stream: Rc<TcpStream>) -> Leg {
    let from = From::Tcp(TcpInput::new(stream.clone()));
    (Input::new(from), Output::Tcp(stream))
}

/// Both halves of a stream.
pub(crate) fn stream(stream: Stream) -> Leg {
    let (send, recv) = stream.split();
    (Input::new(From::Stream(recv)), Output::Stream(send))
}

impl Input {
    fn new(from: From) -> Self {
        Self { from, surplus: Bytes::new(), ended: false, recording: None }
    }

    /// Records everything that is read from now on.
    pub(crate) fn record(&mut self, buffer: Rc<ReplayBuffer>) {
        self.recording = Some(Recording::Keeps(buffer));
    }

    /// The first read ends the recording: there is no way back any more.
    pub(crate) fn end_recording(&mut self, buffer: Rc<ReplayBuffer>) {
        self.recording = Some(Recording::Ends(buffer));
    }

    /// The next bytes, `None` at the end. Cancel safe.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, LegError> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// As [`Self::read`].
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LegError>> {
        let bytes = std::task::ready!(self.poll_fresh(cx))?;
        match &self.recording {
            None => {}
            Some(Recording::Keeps(buffer)) => buffer.record(bytes.as_ref()),
            Some(Recording::Ends(buffer)) => {
                buffer.end();
                self.recording = None;
            }
        }
        Poll::Ready(Ok(bytes))
    }

    /// Reads along, in pieces, what has come behind the last read already, up to `limit` bytes.
    pub(crate) fn read_along(&mut self, pieces: &mut VecDeque<Bytes>, limit: usize) {
        // A read of TCP has taken what was there.
        let From::Stream(stream) = &mut self.from else { return };
        if self.recording.is_some() || self.ended || !self.surplus.is_empty() {
            return;
        }
        let mut length: usize = pieces.iter().map(Bytes::len).sum();
        while length < limit
            && let Some(piece) = stream.try_recv()
        {
            length += piece.len();
            pieces.push_back(piece);
        }
    }

    fn poll_fresh(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LegError>> {
        if !self.surplus.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.surplus))));
        }
        self.poll_source(cx)
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LegError>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let bytes = match &mut self.from {
            From::Tcp(tcp) => std::task::ready!(tcp.poll_read(cx))?,
            From::Stream(stream) => std::task::ready!(stream.poll_recv(cx))?,
        };
        self.ended = bytes.is_none();
        Poll::Ready(Ok(bytes))
    }

    /// Gives back what was read too much. It must be all that is left of the last read.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.surplus = bytes;
    }

    /// Returns true if nothing is there to be read, as far as is known: neither bytes nor the end.
    pub(crate) fn is_silent(&self) -> bool {
        let From::Tcp(tcp) = &self.from else { return false };
        self.surplus.is_empty() && !self.ended && tcp.is_silent()
    }

    /// Returns the bytes that were read ahead and not delivered yet.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.surplus
    }

    /// Returns true if the sender has ended and everything was delivered.
    pub(crate) fn is_over(&self) -> bool {
        self.ended && self.surplus.is_empty()
    }

    /// Ready when the next read is. Cancel safe.
    pub(crate) async fn fill(&mut self) -> Result<(), LegError> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// As [`Self::fill`].
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LegError>> {
        if !self.ended
            && self.surplus.is_empty()
            && let Some(bytes) = std::task::ready!(self.poll_fresh(cx))?
        {
            self.surplus = bytes;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads on behind what was read ahead, for whoever must see more before deciding. Cancel safe.
    pub(crate) async fn fill_more(&mut self) -> Result<(), LegError> {
        self.hurry();
        if let Some(more) = poll_fn(|cx| self.poll_source(cx)).await? {
            let mut joined = BytesMut::from(std::mem::take(&mut self.surplus));
            joined.extend_from_slice(&more);
            self.surplus = joined.freeze();
        }
        Ok(())
    }

    /// The sender is expected to go on with what it has begun. One that writes in pieces keeps the next back until the last
    /// is acknowledged (RFC 896), which a kernel in turn puts off as long as an answer may go with it (RFC 1122, section
    /// 4.2.3.2).
    pub(crate) fn await_more(&self) {
        if self.surplus.is_empty() {
            self.hurry();
        }
    }

    fn hurry(&self) {
        if let From::Tcp(tcp) = &self.from
            && !self.ended
            && tcp.is_silent()
        {
            tcp.acknowledge();
        }
    }

    /// Ready with the error when the sender broke off, on a stream also behind its end. Bytes and an orderly end are
    /// kept for the next read.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<LegError> {
        if let (From::Stream(stream), true) = (&mut self.from, self.ended) {
            return stream.poll_broken(cx).map(LegError::Stream);
        }
        if self.ended || !self.surplus.is_empty() {
            return Poll::Pending;
        }
        match std::task::ready!(self.poll_fill(cx)) {
            // The end may have been found just now, and nobody would ask again.
            Ok(()) if self.ended => self.poll_broken(cx),
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }
}

impl Output {
    /// Takes all of `bytes`, when there is room for them.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), LegError> {
        match self {
            Self::Tcp(stream) => Ok(write_all(stream, bytes).await?),
            Self::Stream(stream) => Ok(stream.send(bytes).await?),
        }
    }

    /// Takes all `pieces`, when there is room for them.
    pub(crate) async fn write_pieces(&mut self, pieces: &mut VecDeque<Bytes>) -> Result<(), LegError> {
        match self {
            Self::Tcp(stream) => Ok(tcp::write_pieces(stream, pieces).await?),
            Self::Stream(stream) => {
                while let Some(piece) = pieces.pop_front() {
                    stream.send(piece).await?;
                }
                Ok(())
            }
        }
    }

    /// As [`Self::write`], for what [`Self::finish`] or a drop follows at once: on a connection it may wait for that, to go
    /// in the same segment.
    pub(crate) async fn write_last(&mut self, bytes: Bytes) -> Result<(), LegError> {
        match self {
            Self::Tcp(stream) => Ok(tcp::write_last(stream, bytes).await?),
            Self::Stream(stream) => Ok(stream.send(bytes).await?),
        }
    }

    /// Takes the start of `bytes` and says how much, when there is room for some.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, LegError>> {
        match self {
            Self::Tcp(stream) => tcp::poll_write(stream, cx, |stream| stream.try_write(bytes)),
            Self::Stream(stream) => stream.poll_write(cx, bytes).map_err(LegError::Stream),
        }
    }

    /// As [`Self::poll_write`], from several pieces.
    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<Result<usize, LegError>> {
        match self {
            Self::Tcp(stream) => tcp::poll_write(stream, cx, |stream| stream.try_write_vectored(pieces)),
            Self::Stream(stream) => {
                let mut written = 0;
                for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                    match stream.poll_write(cx, piece) {
                        Poll::Ready(Ok(some)) if some == piece.len() => written += some,
                        Poll::Ready(Ok(some)) => return Poll::Ready(Ok(written + some)),
                        // What was taken is said first; the rest shows with the next write.
                        Poll::Ready(Err(_)) | Poll::Pending if written > 0 => break,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Poll::Ready(Ok(written))
            }
        }
    }

    /// This direction ends here; the other one goes on.
    pub(crate) fn finish(&mut self) -> Result<(), LegError> {
        match self {
            Self::Tcp(stream) => Ok(tcp::shutdown(stream)?),
            Self::Stream(stream) => {
                stream.finish();
                Ok(())
            }
        }
    }

    /// A message is complete: a stream carries one, a connection may carry more.
    pub(crate) fn end_message(&mut self) {
        match self {
            Self::Tcp(_) => {}
            Self::Stream(stream) => stream.finish(),
        }
    }

    /// Both directions break off, so that the other side sees that something is missing.
    pub(crate) fn reset(&mut self, code: ResetCode) {
        match self {
            Self::Tcp(stream) => refuse(stream),
            Self::Stream(stream) => stream.reset(code),
        }
    }

    /// As [`Self::reset`]; a stream's other side is told why.
    pub(crate) fn reset_because(&mut self, code: ResetCode, reason: &str) {
        match self {
            Self::Tcp(stream) => refuse(stream),
            Self::Stream(stream) => stream.reset_because(code, reason),
        }
    }
}
