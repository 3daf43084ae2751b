//! The two halves of a stream.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use super::core::Core;
use super::error::StreamError;
use super::frame::{ResetCode, StreamId};

/// A stream of a tunnel: two directions that end on their own, or together by a reset.
#[derive(Debug)]
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
}

/// Sends. Dropping it before [`SendHalf::finish`] resets the stream, both directions, with
/// [`ResetCode::Cancelled`].
#[derive(Debug)]
pub struct SendHalf(Handle);

/// Receives. Dropping it before the peer's END resets the stream, both directions, with
/// [`ResetCode::Cancelled`].
#[derive(Debug)]
pub struct RecvHalf(Handle);

#[derive(Debug)]
struct Handle {
    tunnel: Rc<RefCell<Core>>,
    id: StreamId,
}

impl Stream {
    /// The handles of a stream that has just been opened; there must be only one such pair.
    pub(super) fn new(tunnel: &Rc<RefCell<Core>>, id: StreamId) -> Self {
        let handle = || Handle { tunnel: tunnel.clone(), id };
        Self { send: SendHalf(handle()), recv: RecvHalf(handle()) }
    }

    /// Splits it into halves, which may go to different tasks of this thread.
    #[must_use]
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    /// Says that what goes on in it cannot be made again: it is not left as soon as its peer is slow to answer.
    pub fn set_work(&self) {
        self.send.0.tunnel.borrow_mut().set_work(self.send.0.id);
    }

    /// Resets both directions.
    pub fn reset(mut self, code: ResetCode) {
        self.send.reset(code);
    }
}

impl SendHalf {
    /// Returns the number of bytes that [`SendHalf::poll_write`] would take now, at least 1: for loops that read from a
    /// socket no more than they can send.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel lost.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        self.0.tunnel.borrow_mut().poll_room(self.0.id, cx)
    }

    /// Sends the start of `data` and says how much it took. Data is copied to the tunnel's output, which goes out
    /// when the tasks that are ready now have run.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel lost.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        self.0.tunnel.borrow_mut().poll_write(self.0.id, cx, data)
    }

    /// Sends all of `data`; waits for credit. Not cancel safe: a part may have been sent.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel lost.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), StreamError> {
        while !data.is_empty() {
            let sent = poll_fn(|cx| self.poll_write(cx, data)).await?;
            data = &data[sent..];
        }
        Ok(())
    }

    /// Sends the start of `data` and moves it past what was sent; ready when all is.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel lost.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        while data.has_remaining() {
            let sent = std::task::ready!(self.poll_write(cx, data))?;
            data.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends all of `data`; waits for credit. Not cancel safe: a part may have been sent.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel lost.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_send(cx, &mut data)).await
    }

    /// Completes this direction; the other goes on.
    pub fn finish(&mut self) {
        self.0.tunnel.borrow_mut().finish(self.0.id);
    }

    /// Ends both directions at once. Nothing happens when both are complete or the stream is reset already.
    pub fn reset(&mut self, code: ResetCode) {
        self.0.tunnel.borrow_mut().reset(self.0.id, code);
    }
}

impl SendHalf {
    /// As [`SendHalf::reset`], and tells the other side why.
    pub fn reset_because(&mut self, code: ResetCode, reason: &str) {
        self.0.tunnel.borrow_mut().reset_because(self.0.id, code, reason);
    }
}

impl RecvHalf {
    /// The next data, never empty, or `None` when the peer's direction is complete. What arrived before a reset or
    /// the loss of the tunnel comes first.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel lost before the end.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.0.tunnel.borrow_mut().poll_recv(self.0.id, cx)
    }

    /// The next data if it is there, never empty.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        self.0.tunnel.borrow_mut().try_recv(self.0.id)
    }

    /// Ready when the stream is reset or its tunnel lost, also behind the end of the peer's direction.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.0.tunnel.borrow_mut().poll_broken(self.0.id, cx)
    }

    /// As [`RecvHalf::poll_recv`]. Cancel safe.
    ///
    /// # Errors
    /// When the stream was reset or its tunnel lost before the end.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Ends both directions at once. Nothing happens when both are complete or the stream is reset already.
    pub fn reset(&mut self, code: ResetCode) {
        self.0.tunnel.borrow_mut().reset(self.0.id, code);
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.0.tunnel.borrow_mut().drop_sender(self.0.id);
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.0.tunnel.borrow_mut().drop_receiver(self.0.id);
    }
}
