//! Pipe: a leg as one byte stream, for crate h2.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::io::AsyncWrite;

use super::Cause;
use crate::leg::{Input, Leg, LegError, Output};

/// Both halves of a leg, of which the output is [`AsyncWrite`].
#[derive(Debug)]
pub(crate) struct Pipe {
    input: Input,
    output: Output,
    diagnosis: Rc<Diagnosis>,
    counters: Option<(IntCounter, IntCounter)>,
}

/// Diagnosis of a connection, beside its bytes; outlives it.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    /// True once anything was read.
    pub(crate) heard: Cell<bool>,
    /// True if the first bytes that were read are those of an HTTP/1 response.
    pub(crate) speaks_http1: Cell<bool>,
    /// True if the other side has certainly processed nothing of what was written.
    pub(crate) never_processed: Cell<bool>,
    /// Name of its breakage, for metrics.
    pub(crate) reason: Cell<Option<&'static str>>,
    /// The last messages that were not let pass, by stream.
    condemned: RefCell<VecDeque<(u32, Cause)>>,
}

/// Number of messages that are remembered that were not let pass.
const CONDEMNED: usize = 64;

impl Diagnosis {
    /// This stream's message was not let pass.
    pub(crate) fn condemn(&self, stream: u32, cause: Cause) {
        let mut condemned = self.condemned.borrow_mut();
        if condemned.len() >= CONDEMNED {
            condemned.pop_front();
        }
        condemned.push_back((stream, cause));
    }

    /// Returns the cause for which this stream's message was not let pass, as far as it is known.
    pub(crate) fn cause(&self, stream: u32) -> Option<Cause> {
        let condemned = self.condemned.borrow();
        condemned.iter().rev().find(|(known, _)| *known == stream).map(|&(_, cause)| cause)
    }
}

impl Pipe {
    /// A pipe over both halves; what is read and written is added to `counters`, in this order.
    pub(crate) fn new((input, output): Leg, counters: Option<&(IntCounter, IntCounter)>) -> Self {
        Self { input, output, diagnosis: Rc::default(), counters: counters.cloned() }
    }

    /// Returns its diagnosis, which goes on.
    pub(crate) fn diagnosis(&self) -> Rc<Diagnosis> {
        self.diagnosis.clone()
    }

    /// The next bytes, or `None` at their end.
    ///
    /// # Errors
    /// How it broke.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match ready!(self.input.poll_read(cx)) {
            Ok(Some(bytes)) => {
                if !self.diagnosis.heard.replace(true) {
                    self.diagnosis.speaks_http1.set(bytes.starts_with(b"HTTP/1."));
                }
                if let Some((read, _)) = &self.counters {
                    read.inc_by(bytes.len() as u64);
                }
                Poll::Ready(Ok(Some(bytes)))
            }
            Ok(None) => Poll::Ready(Ok(None)),
            Err(error) => Poll::Ready(Err(self.broken(error))),
        }
    }

    /// The error as the traits have it; what it means is kept.
    fn broken(&self, error: LegError) -> io::Error {
        self.diagnosis.never_processed.set(error.never_processed());
        self.diagnosis.reason.set(Some(error.reason()));
        match error {
            LegError::Tcp(error) => error,
            LegError::Stream(error) => io::Error::new(io::ErrorKind::ConnectionReset, error.to_string()),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.output.poll_write(cx, bytes)).map_err(|error| self.broken(error))?;
        if let Some((_, count)) = &self.counters {
            count.inc_by(written as u64);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written =
            ready!(self.output.poll_write_vectored(cx, pieces)).map_err(|error| self.broken(error))?;
        if let Some((_, count)) = &self.counters {
            count.inc_by(written as u64);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Bytes are on their way when they are written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = self.output.finish();
        Poll::Ready(finished.map_err(|error| self.broken(error)))
    }
}
