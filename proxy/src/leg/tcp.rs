//! TCP as a leg: readiness is awaited by one reader and one writer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::LegError;
use super::buffer::ReadBuffer;

/// Number of pieces that are written with one system call.
const PIECES: usize = 32;

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

    /// Lets an acknowledgement go that waits for an answer to go with (TCP_QUICKACK in tcp(7)).
    pub(super) fn acknowledge(&self) {
        // That it failed is seen when it is read.
        let _ = SockRef::from(&*self.stream).set_tcp_quickack(true);
    }

    /// Returns true if nothing has come since the last read.
    pub(super) fn is_silent(&self) -> bool {
        self.stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending()
    }
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
pub(crate) async fn write_all(stream: &TcpStream, bytes: Bytes) -> io::Result<()> {
    write(stream, bytes, |bytes| stream.try_write(bytes)).await
}

/// Writes all `pieces`, as many as can be with one system call.
///
/// # Errors
/// When the peer is gone.
pub(super) async fn write_pieces(stream: &TcpStream, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
    poll_fn(|cx| {
        while !pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count =
                slices.iter_mut().zip(&*pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            match stream.try_write_vectored(&slices[..count]) {
                Ok(sent) => skip(pieces, sent),
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

/// Takes the first `length` bytes off `pieces`.
fn skip(pieces: &mut VecDeque<Bytes>, mut length: usize) {
    while let Some(mut piece) = pieces.pop_front() {
        if piece.len() > length {
            piece.advance(length);
            return pieces.push_front(piece);
        }
        length -= piece.len();
    }
}

/// Writes all of `bytes`, of which a last segment that is not full is held back for up to 200 ms, for the end to go with
/// it (MSG_MORE in send(2)).
///
/// # Errors
/// When the peer is gone.
pub(super) async fn write_last(stream: &TcpStream, bytes: Bytes) -> io::Result<()> {
    let attempt = |bytes: &[u8]| Ok(send(stream, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?);
    write(stream, bytes, |bytes| stream.try_io(Interest::WRITABLE, || attempt(bytes))).await
}

async fn write(
    stream: &TcpStream,
    mut bytes: Bytes,
    attempt: impl Fn(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    poll_fn(|cx| {
        while bytes.has_remaining() {
            match attempt(&bytes) {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (connected, accepted) = tokio::join!(connecting, listener.accept());
        (connected.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order_however_many_there_are() {
        let (near, mut far) = pair().await;
        let mut pieces: VecDeque<Bytes> =
            (0..5 * PIECES).map(|n| Bytes::from(vec![u8::try_from(n % 251).unwrap(); 7 * n])).collect();
        let expected: Vec<u8> = pieces.iter().flatten().copied().collect();
        // More than the socket takes at once.
        pieces.push_back(Bytes::from(vec![7; 8 << 20]));
        let mut seen = Vec::new();
        let (written, read) = tokio::join!(
            async {
                write_pieces(&near, &mut pieces).await?;
                shutdown(&near)
            },
            far.read_to_end(&mut seen),
        );
        assert_eq!((written.unwrap(), read.unwrap()), ((), expected.len() + (8 << 20)));
        assert_eq!(seen[..expected.len()], expected);
    }

    #[tokio::test]
    async fn last_bytes_go_out_with_the_end() {
        let (near, mut far) = pair().await;
        write_last(&near, Bytes::from_static(b"last words")).await.unwrap();
        drop(near);
        let mut seen = String::new();
        far.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "last words");
    }
}
