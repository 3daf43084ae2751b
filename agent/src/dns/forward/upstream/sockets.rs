//! Sockets that are connected to the one who is asked: the kernel drops what comes from elsewhere, and says if nobody
//! listens.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

/// Makes sockets to the servers, for hickory.
#[derive(Clone)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    /// Addresses with their scopes, which the pool does not keep.
    servers: Arc<[SocketAddr]>,
}

/// A socket for datagrams.
pub(super) struct Datagrams {
    socket: UdpSocket,
    server: SocketAddr,
}

type Made<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl Sockets {
    pub(super) fn new(servers: impl Iterator<Item = SocketAddr>) -> Self {
        Self { tokio: TokioRuntimeProvider::new(), servers: servers.collect() }
    }

    fn scoped(&self, server: SocketAddr) -> SocketAddr {
        let is = |known: &&SocketAddr| (known.ip(), known.port()) == (server.ip(), server.port());
        self.servers.iter().find(is).copied().unwrap_or(server)
    }
}

impl RuntimeProvider for Sockets {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = Datagrams;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        from: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Made<Self::Tcp> {
        self.tokio.connect_tcp(self.scoped(server), from, timeout)
    }

    fn bind_udp(&self, from: SocketAddr, server: SocketAddr) -> Made<Datagrams> {
        let server = self.scoped(server);
        Box::pin(async move {
            let socket = UdpSocket::bind(from).await?;
            socket.connect(server).await?;
            Ok(Datagrams { socket, server })
        })
    }
}

impl DnsUdpSocket for Datagrams {
    type Time = <TokioRuntimeProvider as RuntimeProvider>::Timer;

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.socket.poll_recv(context, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), self.server)))
    }

    /// As [`Self::poll_recv_from`], which an error alone does not wake: that nobody listens is heard at once.
    fn recv_from<'socket, 'buffer, 'both>(
        &'socket self,
        buffer: &'buffer mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<(usize, SocketAddr)>> + Send + 'both>>
    where
        'socket: 'both,
        'buffer: 'both,
        Self: 'both,
    {
        Box::pin(async move {
            let fd = self.socket.as_raw_fd();
            let interest = Interest::READABLE | Interest::ERROR;
            let receive = || recv(fd, buffer, MsgFlags::empty()).map_err(io::Error::from);
            Ok((self.socket.async_io(interest, receive).await?, self.server))
        })
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        datagram: &[u8],
        _server: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, datagram)
    }
}
