//! Listener look-ups on a netlink socket in a workload's namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use sealane_proto::types::{ServicePort, Transport};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::diag::{self, Answer};
use super::families::Families;
use super::watch::ProbeTarget;

/// Answers are 72 bytes and attributes.
const ANSWER_ROOM: usize = 4096;

/// Asks the kernel who listens in one network namespace.
///
/// The socket keeps the namespace alive: drop it before the namespace is to go.
#[derive(Debug)]
pub struct Listening {
    netlink: Mutex<Netlink>,
}

#[derive(Debug)]
struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Listening {
    /// Opens a netlink socket in `ns`.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or at the limit of open files.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> io::Result<Self> {
        hopper.run(ns, Self::open_here)?
    }

    fn open_here() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        // The kernel puts its answer into the socket before send(2) returns, so there is nothing to wait for.
        socket.set_non_blocking(true)?;
        let netlink = Netlink { socket, sequence: 0, buffer: Vec::with_capacity(ANSWER_ROOM) };
        Ok(Self { netlink: Mutex::new(netlink) })
    }

    /// Returns at which addresses every one of the target's ports takes what comes now, or any, where that is enough; at both
    /// without ports. Never blocks: two system calls and a look-up in a hash table per port and family, until one decides.
    ///
    /// # Errors
    /// When the kernel does not answer, for example because it was built without this.
    pub fn listening(&self, target: &ProbeTarget) -> io::Result<Families> {
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let any_port = target.any_port && !target.ports.is_empty();
        let decided = Families::both(any_port);
        let mut seen = Families::both(!any_port);
        for port in &target.ports {
            seen = seen.with(netlink.takes(target, port)?, any_port);
            if seen == decided {
                break;
            }
        }
        Ok(seen)
    }
}

impl Netlink {
    /// A sidecar leads what comes to one address to whoever listens at the other; datagrams pass none.
    fn takes(&mut self, target: &ProbeTarget, port: &ServicePort) -> io::Result<Families> {
        let (transport, number) = (port.protocol.transport(), port.port.get());
        let led = target.sidecar.is_some() && transport == Transport::Tcp;
        let v4 = self.listens(transport, target.address.into(), number)?;
        match target.ipv6 {
            Some(ipv6) if !(led && v4) => {
                let v6 = self.listens(transport, ipv6.into(), number)?;
                Ok(if led { Families::both(v6) } else { Families { v4, v6 } })
            }
            Some(_) | None => Ok(Families::both(v4)),
        }
    }

    fn listens(&mut self, transport: Transport, address: IpAddr, port: u16) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&diag::request(self.sequence, transport, address, port), 0)?;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            match diag::parse(&self.buffer, self.sequence, transport) {
                Some(Answer::Listening) => return Ok(true),
                Some(Answer::Closed) => return Ok(false),
                Some(Answer::Error(errno)) => return Err(io::Error::from_raw_os_error(errno)),
                None => {} // Left over from a question that failed.
            }
        }
    }
}

/// Checks that the kernel can tell who listens: it finds two sockets made here. Without it, nothing would ever become
/// ready, for it answers "no such socket" where it was built without TCP or UDP in it.
///
/// # Errors
/// Names the kernel option that is missing.
pub fn check_kernel() -> io::Result<()> {
    let missing = |option: &str, error: &dyn std::fmt::Display| {
        let text = format!("the kernel cannot tell who listens ({error}); it needs {option}");
        io::Error::new(io::ErrorKind::Unsupported, text)
    };
    let mut netlink = Listening::open_here()
        .map_err(|error| missing("CONFIG_INET_DIAG", &error))?
        .netlink
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (tcp, udp) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
    for (transport, port, option) in [
        (Transport::Tcp, tcp.local_addr()?.port(), "CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG"),
        (Transport::Udp, udp.local_addr()?.port(), "CONFIG_INET_UDP_DIAG"),
    ] {
        match netlink.listens(transport, Ipv4Addr::LOCALHOST.into(), port) {
            Ok(true) => {}
            Ok(false) => return Err(missing(option, &"a socket that is there is not found")),
            Err(error) => return Err(missing(option, &error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
