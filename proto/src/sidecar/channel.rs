//! The stream socket between agent and sidecar: messages behind their length, descriptors beside them.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use prost::Message as _;
use tokio::io::Interest;
use tokio::net::UnixStream;

use sealane_sys::fdpass;

use super::convert::Message;
use crate::wire::WireError;

/// The longest message in bytes; a longer one is refused by both sides.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Length (4 bytes, big endian) and the number of descriptors (1 byte).
const HEADER: usize = 5;
/// Read at once. It lives on the stack: an agent has a receiver per sidecar, and between two messages none holds anything.
const CHUNK: usize = 16 * 1024;

/// Reasons for which the channel broke. Every one of these ends it: connect again.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the sidecar channel: {0}")]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the sidecar channel was closed")]
    Closed,
    /// A message that does not say what it should.
    #[error("a malformed message on the sidecar channel: {0}")]
    Malformed(String),
}

impl From<WireError> for ChannelError {
    fn from(error: WireError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// End of a channel that sends `S` and receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    /// The sending half.
    pub sender: Sender<S>,
    /// The receiving half.
    pub receiver: Receiver<R>,
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<M> {
    socket: Arc<UnixStream>,
    kind: PhantomData<fn(M)>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<M> {
    socket: Arc<UnixStream>,
    buffer: BytesMut,
    fds: Vec<OwnedFd>,
    kind: PhantomData<fn() -> M>,
}

impl<S, R> From<UnixStream> for Channel<S, R> {
    fn from(socket: UnixStream) -> Self {
        let socket = Arc::new(socket);
        Self {
            sender: Sender { socket: socket.clone(), kind: PhantomData },
            receiver: Receiver { socket, buffer: BytesMut::new(), fds: Vec::new(), kind: PhantomData },
        }
    }
}

impl<M: Message> Sender<M> {
    /// Sends one message; answers its length in bytes. Not cancel safe: a cancelled send breaks the channel.
    ///
    /// # Errors
    /// When the peer is gone or the message is longer than [`MAX_MESSAGE`].
    pub async fn send(&mut self, message: M) -> Result<usize, ChannelError> {
        let (wire, fds) = message.pack()?;
        let length = wire.encoded_len();
        if length > MAX_MESSAGE {
            return Err(ChannelError::Malformed(format!("{length} bytes are more than {MAX_MESSAGE}")));
        }
        let mut bytes = BytesMut::with_capacity(HEADER + length);
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&[u8::try_from(fds.len()).unwrap_or(u8::MAX)]);
        wire.encode(&mut bytes).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        // The descriptors go with the first bytes only.
        let mut borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        while bytes.has_remaining() {
            let sent = self
                .socket
                .async_io(Interest::WRITABLE, || fdpass::send(&*self.socket, &bytes, &borrowed))
                .await?;
            borrowed.clear();
            bytes.advance(sent);
        }
        Ok(HEADER + length)
    }
}

impl<M: Message> Receiver<M> {
    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the end of the stream; every error ends the channel.
    pub async fn recv(&mut self) -> Result<M, ChannelError> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(message);
            }
            let (socket, buffer, fds) = (&self.socket, &mut self.buffer, &mut self.fds);
            let mut take = || {
                let mut chunk = [0; CHUNK];
                let got = fdpass::recv(&**socket, &mut chunk, fds)?;
                buffer.extend_from_slice(&chunk[..got]);
                Ok(got)
            };
            if socket.async_io(Interest::READABLE, &mut take).await? == 0 {
                return Err(ChannelError::Closed);
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<M>, ChannelError> {
        let Some(&[a, b, c, d, fds]) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (length, fds) = (u32::from_be_bytes([a, b, c, d]) as usize, usize::from(fds));
        if length > MAX_MESSAGE {
            return Err(ChannelError::Malformed(format!("{length} bytes are more than {MAX_MESSAGE}")));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        // Descriptors arrive with a message's first byte, so they are here; later messages' may be, too.
        if self.fds.len() < fds {
            return Err(ChannelError::Malformed(format!("{fds} descriptors expected, {}", self.fds.len())));
        }
        self.buffer.advance(HEADER);
        let body = self.buffer.split_to(length);
        if self.buffer.is_empty() {
            // Its memory goes with the message's.
            self.buffer = BytesMut::new();
        }
        let wire = M::Wire::decode(body).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        M::unpack(wire, self.fds.drain(..fds).collect()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use crate::resource::NetworkChange;
    use crate::sidecar::{Change, Down, Listeners, Up, Want};

    use super::*;

    fn fd() -> OwnedFd {
        let dir =
            std::env::temp_dir().join(format!("sealane-{}-{}", std::process::id(), rand::random::<u64>()));
        let listener = UnixListener::bind(&dir).unwrap();
        std::fs::remove_file(dir).unwrap();
        listener.into()
    }

    #[tokio::test]
    async fn descriptors_stay_with_their_message() {
        let (agent, sidecar) = UnixStream::pair().unwrap();
        let mut agent = Channel::<Down, Up>::from(agent);
        let mut sidecar = Channel::<Up, Down>::from(sidecar);
        agent.sender.send(Down::Collect).await.unwrap();
        let listeners = Listeners { outbound: fd(), inbound: fd(), tunnel: fd(), ipv6: None };
        agent.sender.send(Down::Listeners(listeners)).await.unwrap();
        agent.sender.send(Down::Collect).await.unwrap();
        drop(agent);
        assert!(matches!(sidecar.receiver.recv().await, Ok(Down::Collect)));
        assert!(matches!(sidecar.receiver.recv().await, Ok(Down::Listeners(_))));
        assert!(matches!(sidecar.receiver.recv().await, Ok(Down::Collect)));
        assert!(matches!(sidecar.receiver.recv().await, Err(ChannelError::Closed)));
    }

    #[tokio::test]
    async fn addresses_arrive_as_they_were_said() {
        let (agent, sidecar) = UnixStream::pair().unwrap();
        let mut agent = Channel::<Down, Up>::from(agent);
        let mut sidecar = Channel::<Up, Down>::from(sidecar);
        let addresses = |last: [u8; 2]| last.map(|last| [10, 42, 255, last].into()).into();
        let want = Want { addresses: addresses([1, 2]), unused: addresses([3, 255]) };
        sidecar.sender.send(Up::Want(want.clone())).await.unwrap();
        let Ok(Up::Want(heard)) = agent.receiver.recv().await else { panic!() };
        assert_eq!(heard, want);
        let (told, untold) = (want.addresses, want.unused);
        let change = NetworkChange::default().into();
        let change = Change { sequence: 8, since: 7, change, told, untold };
        agent.sender.send(Down::Change(change.clone())).await.unwrap();
        let Ok(Down::Change(heard)) = sidecar.receiver.recv().await else { panic!() };
        assert_eq!(heard, change);
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_ends_the_channel() {
        let (raw, sidecar) = UnixStream::pair().unwrap();
        raw.writable().await.unwrap();
        raw.try_write(&[0xff; HEADER]).unwrap();
        let mut sidecar = Channel::<Up, Down>::from(sidecar);
        assert!(matches!(sidecar.receiver.recv().await, Err(ChannelError::Malformed(_))));
    }
}
