//! Plain connections that the sidecar makes, marked so that the redirect rules let them pass, and those kept for reuse.

mod idle;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sealane_proto::sidecar::MARK;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) use idle::IdleConnections;

/// How long a plain connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects.
///
/// # Errors
/// What the kernel says; `TimedOut` after two seconds; `PermissionDenied` without CAP_NET_ADMIN, for the mark.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<Rc<TcpStream>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_mark(MARK)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await??;
    tune(&stream)?;
    Ok(Rc::new(stream))
}

/// What every connection has: no delay, and probes that keep an idle one alive through middleboxes.
///
/// # Errors
/// When the socket is dead already.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
