//! One TLS connection over TCP, driven by hand: large reads, one write for many records.

use std::io::{self, BufRead, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much is read at once.
const READ: usize = 64 * 1024;

/// Why a connection ended.
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

#[derive(Debug)]
pub(super) struct Link {
    tcp: TcpStream,
    tls: Connection,
    incoming: Vec<u8>,
    wire: Vec<u8>,
    written: usize,
}

impl Link {
    pub(super) fn new(tcp: TcpStream, mut tls: Connection) -> Self {
        tls.set_buffer_limit(None);
        Self { tcp, tls, incoming: vec![0; READ], wire: Vec::new(), written: 0 }
    }

    /// Reads once and hands on what plaintext there is; says how many bytes were read.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(&[u8], &dyn Fn(&[u8]) -> Bytes) -> Result<(), LinkError>,
    ) -> Poll<Result<usize, LinkError>> {
        let mut buffer = ReadBuf::new(&mut self.incoming);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
        let mut cipher = buffer.filled();
        let length = cipher.len();
        if length == 0 {
            return Poll::Ready(Err(LinkError::Closed));
        }
        while !cipher.is_empty() {
            self.tls.read_tls(&mut cipher)?;
            let state = self.tls.process_new_packets()?;
            if state.plaintext_bytes_to_read() > 0 {
                let mut reader = self.tls.reader();
                loop {
                    let plain = match reader.fill_buf() {
                        Ok([]) => break,
                        Ok(plain) => plain,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Poll::Ready(Err(error.into())),
                    };
                    handle(plain, &Bytes::copy_from_slice)?;
                    let length = plain.len();
                    reader.consume(length);
                }
            }
            if state.peer_has_closed() {
                return Poll::Ready(Err(LinkError::Closed));
            }
        }
        Poll::Ready(Ok(length))
    }

    /// Encrypts; only when everything before is written.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Result<(), LinkError> {
        self.tls.writer().write_all(plain)?;
        self.collect()
    }

    /// Says that we send nothing more.
    pub(super) fn close(&mut self) -> Result<(), LinkError> {
        self.tls.send_close_notify();
        self.collect()
    }

    fn collect(&mut self) -> Result<(), LinkError> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.wire)?;
        }
        Ok(())
    }

    /// Writes what is sealed; says how many bytes that were.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, LinkError>> {
        while self.written < self.wire.len() {
            let wire = &self.wire[self.written..];
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(cx, wire))?;
            if sent == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.written += sent;
        }
        let sent = std::mem::take(&mut self.written);
        self.wire.clear();
        Poll::Ready(Ok(sent))
    }

    /// Ends our direction of TCP and waits for the end of the peer's.
    pub(super) async fn shut_down(mut self) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        if self.tcp.shutdown().await.is_ok() {
            // Closing with unread bytes would reset the connection, and the peer might lose our last words.
            while self.tcp.read(&mut self.incoming).await.is_ok_and(|length| length > 0) {}
        }
    }
}
