//! TLS connection over TCP, driven by hand: large reads, one write for many records.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls::Connection;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::piece;

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
    Tunnel(#[from] super::core::TunnelError),
    #[error("the peer closed the tunnel")]
    Closed,
    #[error("the peer is silent")]
    Silent,
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
}

impl Link {
    pub(super) fn new(tcp: TcpStream, mut tls: Connection) -> Self {
        // What may wait for encryption is bounded by the tunnel's core.
        tls.set_buffer_limit(None);
        Self { tcp, tls, sent: 0 }
    }

    /// Reads once and hands on what plaintext there is; says how many bytes were read.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        handle: impl FnMut(&[u8], &dyn Fn(&[u8]) -> Bytes) -> Result<(), LinkError>,
    ) -> Poll<Result<usize, LinkError>> {
        INCOMING.with_borrow_mut(|incoming| {
            let mut buffer = ReadBuf::new(incoming);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            let cipher = buffer.filled();
            if cipher.is_empty() {
                return Poll::Ready(Err(LinkError::Closed));
            }
            Poll::Ready(self.decrypt(cipher, handle).map(|()| cipher.len()))
        })
    }

    fn decrypt(
        &mut self,
        mut cipher: &[u8],
        mut handle: impl FnMut(&[u8], &dyn Fn(&[u8]) -> Bytes) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        while !cipher.is_empty() {
            self.tls.read_tls(&mut cipher)?;
            let state = self.tls.process_new_packets()?;
            if state.plaintext_bytes_to_read() > 0 {
                let mut reader = self.tls.reader();
                loop {
                    let length = match reader.fill_buf() {
                        Ok([]) => break,
                        Ok(plain) => {
                            handle(plain, &piece::keep)?;
                            plain.len()
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    };
                    reader.consume(length);
                }
            }
            if state.peer_has_closed() {
                return Err(LinkError::Closed);
            }
        }
        Ok(())
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
