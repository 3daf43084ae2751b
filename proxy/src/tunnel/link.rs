//! TLS connection over TCP, driven by hand: large reads, one write for many records.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls::Connection;
use sealane_sys::tcp::TcpTraffic;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::core::TunnelError;
use super::share::{Flood, Turn};

/// Number of bytes that are read at once.
const READ: usize = 64 * 1024;

/// Reasons for which a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
    Tunnel(#[from] TunnelError),
    #[error("the peer closed the tunnel")]
    Closed,
    #[error("the peer is silent")]
    Silent,
    #[error("the peer {0}")]
    Flood(#[from] Flood),
}

impl LinkError {
    /// Returns true if the peer has done more of something than anybody has use for.
    pub(super) fn is_flood(&self) -> bool {
        matches!(self, Self::Flood(_) | Self::Tunnel(TunnelError::Flood))
    }
}

thread_local! {
    /// Buffer that every tunnel of a worker reads to: bytes that TLS cannot use yet, it keeps itself.
    static INCOMING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

#[derive(Debug)]
pub(super) struct Link {
    tcp: TcpStream,
    tls: Connection,
    sent: u64,
    /// True if something is left of the last read, since the turn was over.
    paused: bool,
    /// Bytes of that which are not decrypted: those from `from` on.
    held: Vec<u8>,
    from: usize,
    /// True if the peer has said that nothing follows.
    closed: bool,
}

/// Takes plaintext, as much as the turn is for, and returns how much.
pub(super) trait Handle: FnMut(&[u8], &mut Turn) -> Result<usize, LinkError> {}

impl<T: FnMut(&[u8], &mut Turn) -> Result<usize, LinkError>> Handle for T {}

impl Link {
    pub(super) fn new(tcp: TcpStream, mut tls: Connection) -> Self {
        // What may wait for encryption is bounded by the tunnel's core.
        tls.set_buffer_limit(None);
        Self { tcp, tls, sent: 0, paused: false, held: Vec::new(), from: 0, closed: false }
    }

    /// Reads once, no more than `turn` has room for, and hands on what plaintext there is until the turn is over; says how many bytes
    /// were read. What is left comes first the next time.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut Turn,
        mut handle: impl Handle,
    ) -> Poll<Result<usize, LinkError>> {
        if self.paused {
            self.resume(turn, &mut handle)?;
            return Poll::Ready(Ok(0));
        }
        INCOMING.with_borrow_mut(|incoming| {
            let room = turn.room().min(READ);
            let mut buffer = ReadBuf::new(&mut incoming[..room]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            let cipher = buffer.filled();
            if cipher.is_empty() {
                return Poll::Ready(Err(LinkError::Closed));
            }
            turn.take_bytes(cipher.len());
            let taken = self.decrypt(cipher, turn, &mut handle)?;
            if taken < cipher.len() {
                self.held = cipher[taken..].to_vec();
            }
            Poll::Ready(Ok(cipher.len()))
        })
    }

    /// Goes on with what is left of the last read.
    fn resume(&mut self, turn: &mut Turn, handle: &mut impl Handle) -> Result<(), LinkError> {
        if !self.drain(turn, handle)? {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let from = self.from + self.decrypt(&held[self.from..], turn, handle)?;
        (self.held, self.from) = if from < held.len() { (held, from) } else { (Vec::new(), 0) };
        Ok(())
    }

    /// Decrypts and hands on until the turn is over; says how much of `cipher` that needed.
    fn decrypt(
        &mut self,
        cipher: &[u8],
        turn: &mut Turn,
        handle: &mut impl Handle,
    ) -> Result<usize, LinkError> {
        let mut rest = cipher;
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest)?;
            let state = self.tls.process_new_packets()?;
            self.closed |= state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 && !self.drain(turn, handle)? {
                return Ok(cipher.len() - rest.len());
            }
            if self.closed {
                return Err(LinkError::Closed);
            }
        }
        Ok(cipher.len())
    }

    /// Hands on what is decrypted; returns true if that was all.
    fn drain(&mut self, turn: &mut Turn, handle: &mut impl Handle) -> Result<bool, LinkError> {
        let mut reader = self.tls.reader();
        loop {
            let (length, taken) = match reader.fill_buf() {
                Ok([]) => break,
                Ok(plain) => (plain.len(), handle(plain, turn)?),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            reader.consume(taken);
            self.paused = taken < length;
            if self.paused {
                return Ok(false);
            }
        }
        // Behind its last words nothing follows.
        if self.closed { Err(LinkError::Closed) } else { Ok(true) }
    }

    /// Encrypts; to be called when everything before is written.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Result<(), LinkError> {
        Ok(self.tls.writer().write_all(plain)?)
    }

    /// Says that we send nothing more.
    pub(super) fn close(&mut self) {
        self.tls.send_close_notify();
    }

    /// Returns the number of bytes that were written since the last time.
    pub(super) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// Writes what is encrypted. When `more` follows at once, a last segment that is not full waits for that.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, more: bool) -> Poll<Result<(), LinkError>> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket { tcp: &self.tcp, cx, flags }) {
                Ok(0) => return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
                Ok(length) => self.sent += length as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Traffic of the connection, where the kernel tells.
    pub(super) fn traffic(&self) -> Option<TcpTraffic> {
        TcpTraffic::of(&self.tcp).ok().flatten()
    }

    /// Sends what waits for more to follow (TCP_NODELAY in tcp(7): setting it flushes).
    pub(super) fn push(&self) -> io::Result<()> {
        self.tcp.set_nodelay(true)
    }

    /// Ends our direction of TCP and waits for the end of the peer's.
    pub(super) async fn shut_down(mut self) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut ignored = [0; 512];
        if self.tcp.shutdown().await.is_ok() {
            // Closing with unread bytes would reset the connection, and the peer might lose our last words.
            while self.tcp.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
        }
    }
}

/// A socket that is written to from inside a poll.
struct Socket<'a, 'b> {
    tcp: &'a TcpStream,
    cx: &'a mut Context<'b>,
    flags: SendFlags,
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let send = || Ok(sendmsg(self.tcp, pieces, &mut SendAncillaryBuffer::default(), self.flags)?);
        loop {
            match self.tcp.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    blocking(self.tcp.poll_write_ready(self.cx))?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
