//! Screen before crate h2: a connection's frames are judged beforehand, and no more at a time is read than leaves the
//! other tasks of the worker theirs.

mod fields;
mod frames;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod huffman;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{MAX_HEAD_READ, Pipe};
use crate::http::MAX_HEAD;
use frames::Frames;

pub(crate) use frames::{Cause, Peer};

/// Number of frames, and number of bytes, that are read before the other tasks get their turn.
const FRAMES_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 512 * 1024;

/// A connection as h2 sees it.
#[derive(Debug)]
pub(crate) struct Screen {
    pipe: Pipe,
    frames: Frames,
    ahead: Bytes,
    turn: Rc<Turn>,
}

/// Allowance that a connection may still read before the other tasks of the worker get their turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    frames: Cell<usize>,
    bytes: Cell<usize>,
}

impl Screen {
    /// A screen before what this peer says.
    pub(crate) fn new(pipe: Pipe, peer: Peer) -> Self {
        let limit = match peer {
            // Whoever asks with too large a head is answered in its own words, up to where h2 ends the connection.
            Peer::Client | Peer::Sidecar { .. } => 4 * MAX_HEAD_READ,
            Peer::Application => MAX_HEAD,
        };
        Self { pipe, frames: Frames::new(peer, limit), ahead: Bytes::new(), turn: Rc::default() }
    }

    /// Returns its allowance.
    pub(crate) fn turn(&self) -> Rc<Turn> {
        self.turn.clone()
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            ready!(self.turn.poll_left(cx));
            if let Some((ahead, frames)) = self.frames.pass() {
                self.turn.take(frames, ahead.len());
                self.ahead = ahead;
                return Poll::Ready(Ok(true));
            }
            let Some(bytes) = ready!(self.pipe.poll_bytes(cx))? else { return Poll::Ready(Ok(false)) };
            let diagnosis = self.pipe.diagnosis();
            self.frames.handle(bytes, |stream, cause| diagnosis.condemn(stream, cause));
            self.turn.take(self.frames.take_dropped(), 0);
        }
    }
}

impl Turn {
    /// Moves a connection's task on, which may read as much as is read at a time whenever it is polled.
    pub(crate) async fn of<T>(turn: Rc<Self>, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        poll_fn(|cx| {
            turn.frames.set(0);
            turn.bytes.set(0);
            task.as_mut().poll(cx)
        })
        .await
    }

    fn take(&self, frames: usize, bytes: usize) {
        self.frames.set(self.frames.get() + frames);
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// Ready as long as anything is left; the task is woken when the others have had their turn.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.frames.get() < FRAMES_AT_ONCE && self.bytes.get() < BYTES_AT_ONCE {
            return Poll::Ready(());
        }
        // Woken behind every ready task and a look at the sockets, which waking ourselves would come before.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }
}

impl AsyncRead for Screen {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() && !ready!(self.poll_more(cx))? {
            return Poll::Ready(Ok(()));
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Screen {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
