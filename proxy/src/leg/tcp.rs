//! TCP as a leg: readiness is awaited by one reader and one writer.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::LegError;
use super::buffer::ReadBuffer;

/// The reading half.
#[derive(Debug)]
pub(super) struct TcpInput {
    stream: Rc<TcpStream>,
    buffer: ReadBuffer,
}

impl TcpInput {
    pub(super) fn new(stream: Rc<TcpStream>) -> Self {
        Self { stream, buffer: ReadBuffer::default() }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if self.stream.poll_read_ready(cx)?.is_pending() {
                self.buffer.rest();
                return Poll::Pending;
            }
            let room = self.buffer.room();
            let size = room.capacity();
            match read_available(&self.stream, room) {
                Ok(0) => {
                    self.buffer.rest();
                    return Poll::Ready(Ok(None));
                }
                Ok(_) => return Poll::Ready(Ok(Some(self.buffer.take(size)))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Closing the stream from now on sends RST instead of FIN (SO_LINGER 0).
pub(crate) fn refuse(stream: &TcpStream) {
    // A socket that cannot be told so is closed either way.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Sends FIN.
pub(super) fn shutdown(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(Shutdown::Write) {
        // The peer has broken off already and knows.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// Reads what is there into the spare capacity of `bytes`, which must have some.
fn read_available(stream: &TcpStream, bytes: &mut BytesMut) -> io::Result<usize> {
    let room = bytes.capacity() - bytes.len();
    let got = stream.try_read_buf(bytes)?;
    if 0 < got && got < room {
        // A read that was not filled has drained the socket; saying so saves a read that finds nothing. Edge-triggered
        // readiness returns with the next byte, and tokio keeps a closed peer's.
        let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
    Ok(got)
}

/// Writes what there is room for.
pub(super) fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    attempt: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<Result<usize, LegError>> {
    loop {
        match attempt(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(stream.poll_write_ready(cx))?;
            }
            result => return Poll::Ready(Ok(result?)),
        }
    }
}

/// Writes all of `bytes`.
///
/// # Errors
/// When the peer is gone.
pub(crate) async fn write_all(stream: &TcpStream, mut bytes: Bytes) -> io::Result<()> {
    poll_fn(|cx| {
        while bytes.has_remaining() {
            match stream.try_write(&bytes) {
                Ok(sent) => bytes.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
