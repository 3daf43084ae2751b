//! Plain connections that the sidecar makes, marked so that the redirect rules let them pass, and those kept for reuse.

mod idle;
mod open;
mod pulse;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use sealane_proto::sidecar::MARK;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::tunnel::{Away, AwayPeers};
pub(crate) use idle::{Client, IdleConnections, IdleKey, Used};
pub(crate) use open::Awaits;
use open::OpenConnections;
use pulse::Pulse;

/// Limit for a plain connection to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit for one to a host that cannot be reached, as this host's agent knows.
const AWAY_TIMEOUT: Duration = Duration::from_millis(300);

/// Side that is going to speak first on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstWord {
    /// We are, at once.
    Ours,
    /// Nobody knows which side speaks first.
    Anyones,
}

/// Maker of one worker's plain connections.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    pulse: Pulse,
    away: Away,
    open: OpenConnections,
}

impl Dialer {
    /// Connects to another workload, or to the world. Once the host of a workload cannot be reached, the connection ends while an answer
    /// is awaited.
    ///
    /// # Errors
    /// What the kernel says; `TimedOut` after two seconds, after 300 ms where the host cannot be reached; `PermissionDenied` without
    /// CAP_NET_ADMIN, for the mark.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        (first_word, awaits): (FirstWord, Awaits),
    ) -> io::Result<Rc<TcpStream>> {
        let socket = socket(address)?;
        tune(&socket)?;
        let (mut away, began) = (self.away.watch(), Instant::now());
        let stream = tokio::select! {
            biased;
            dialled = self.dial(socket, address, first_word) => dialled?,
            is_away = away.expire(address.ip(), began, [CONNECT_TIMEOUT, AWAY_TIMEOUT]) => {
                let text = if is_away { "its host cannot be reached" } else { "deadline has elapsed" };
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        };
        self.open.enter(address, &stream, awaits);
        Ok(stream)
    }

    /// Nobody waits for these peers.
    pub(crate) fn set_away(&self, peers: &AwayPeers) {
        self.away.set(peers.clone());
    }

    /// Bytes of another protocol follow on this connection, which has carried requests.
    pub(crate) fn set_upgraded(&self, stream: &Rc<TcpStream>) {
        self.open.set_upgraded(stream);
    }

    /// Connects to the application. Its kernel is the own one, which tells of each end: no probes keep the connection alive.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn connect_to_application(
        &self,
        address: SocketAddr,
        first_word: FirstWord,
    ) -> io::Result<Rc<TcpStream>> {
        let socket = socket(address)?;
        socket.set_tcp_nodelay(true)?;
        tokio::time::timeout(CONNECT_TIMEOUT, self.dial(socket, address, first_word)).await?
    }

    /// Connects without a limit of its own, behind a pulse for that of its caller.
    async fn dial(
        &self,
        socket: Socket,
        address: SocketAddr,
        first_word: FirstWord,
    ) -> io::Result<Rc<TcpStream>> {
        socket.set_mark(MARK)?;
        if first_word == FirstWord::Ours {
            // The last segment of the handshake waits for our first bytes and goes with them (TCP_QUICKACK in tcp(7)).
            socket.set_tcp_quickack(false)?;
        }
        self.pulse.raise();
        let socket = TcpSocket::from_std_stream(socket.into());
        Ok(Rc::new(socket.connect(address).await?))
    }

    /// Keeps the limits of connections cheap and ends those to hosts that are away, as long as it is polled.
    pub(crate) async fn run(&self) {
        tokio::join!(self.pulse.beat(), self.open.watch(&self.away));
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
}

/// Returns true if a connection failed because all local ports for its destination are in use.
pub(crate) fn lacks_port(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Sets the options of every connection: no delay, and probes that keep an idle one alive through middleboxes.
/// Connections have what their listener had.
///
/// # Errors
/// When the socket is dead already.
pub(crate) fn tune(socket: &impl AsFd) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}
