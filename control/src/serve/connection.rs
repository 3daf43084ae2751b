//! A connection whose handshake is done, with what it may cost.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus::IntCounterVec;
use sealane_base::admission::Place;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::Peer;
use super::source::Source;

/// Time for which somebody without a host's certificate may stay: long enough to join.
const STRANGERS_LIFE: Duration = Duration::from_secs(10);
/// Number of bytes that they may send in all.
const STRANGERS_BYTES: u64 = 1 << 20;
/// Limit until a host speaks HTTP/2.
const PREFACE: Duration = Duration::from_secs(5);
/// Length of HTTP/2's client preface (RFC 9113, section 3.4).
const PREFACE_BYTES: u64 = 24;

/// A place among connections, by who is there.
#[derive(Debug)]
pub(super) enum ConnectionPlace {
    /// Among those of a host or another control plane, by its key.
    Known(Place<[u8; 32]>),
    /// Among those of a source.
    Stranger(Place<Source>),
}

/// A connection, with who it is.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    place: ConnectionPlace,
    /// Time at which it ends by itself: a stranger's life, or a host's time for its first words.
    end: Option<Pin<Box<Sleep>>>,
    read: u64,
    ended: IntCounterVec,
}

impl Connection {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: Peer,
        place: ConnectionPlace,
        ended: IntCounterVec,
    ) -> Self {
        let life = match &place {
            ConnectionPlace::Known(_) => PREFACE,
            ConnectionPlace::Stranger(_) => STRANGERS_LIFE,
        };
        Self { stream, peer, place, end: Some(Box::pin(sleep(life))), read: 0, ended }
    }

    pub(super) fn is_stranger(&self) -> bool {
        matches!(self.place, ConnectionPlace::Stranger(_))
    }

    pub(super) fn is_control(&self) -> bool {
        self.peer.is_control()
    }

    /// Returns the reason for which the connection ends now, in a word, if it does.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        let taken = match &mut self.place {
            ConnectionPlace::Known(place) => place.poll_taken(cx),
            ConnectionPlace::Stranger(place) => place.poll_taken(cx),
        };
        if taken.is_ready() {
            return Poll::Ready("displaced");
        }
        match &mut self.end {
            Some(end) => end.as_mut().poll(cx).map(|()| match self.place {
                ConnectionPlace::Known(_) => "no_preface",
                ConnectionPlace::Stranger(_) => "stranger_too_long",
            }),
            None => Poll::Pending,
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_ended(cx) {
            Poll::Ready(reason) => Err(self.end(reason)),
            Poll::Pending => Ok(()),
        }
    }

    fn end(&self, reason: &'static str) -> io::Error {
        self.ended.with_label_values(&[reason]).inc();
        io::Error::new(io::ErrorKind::ConnectionAborted, reason)
    }

    /// Counts what was read against what may be.
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.read = self.read.saturating_add(bytes as u64);
        match self.place {
            ConnectionPlace::Stranger(_) if self.read > STRANGERS_BYTES => Err(self.end("stranger_too_much")),
            ConnectionPlace::Known(_) if self.end.is_some() && self.read >= PREFACE_BYTES => {
                self.end = None;
                Ok(())
            }
            ConnectionPlace::Known(_) | ConnectionPlace::Stranger(_) => Ok(()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let bytes = buffer.filled().len() - before;
        Poll::Ready(self.count(bytes))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        // Who reads nothing would hold the place for ever: nothing is read from them meanwhile either.
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
