//! The sockets that DNS is served on.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Port at which DNS is asked.
pub const PORT: u16 = 53;
/// Room in a UDP socket for queries while no agent answers, in bytes as the kernel counts them: some 2,000 queries.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
/// Number of TCP connections that may wait to be accepted.
pub(super) const BACKLOG: i32 = 128;

/// Sockets of one address, UDP and TCP.
#[derive(Debug)]
pub struct DnsSockets {
    /// For datagrams.
    pub udp: UdpSocket,
    /// For streams.
    pub tcp: TcpListener,
}

impl DnsSockets {
    /// Binds port 53 of `address` in the network namespace of the calling thread. The sockets are non-blocking.
    ///
    /// # Errors
    /// When the address is not there, the port is taken, or the caller is not root.
    pub fn bind(address: Ipv4Addr) -> io::Result<Self> {
        Self::bind_at(SocketAddrV4::new(address, PORT))
    }

    /// Binds another port than 53; 0 takes one that is free for UDP, and the same for TCP.
    ///
    /// # Errors
    /// As [`DnsSockets::bind`].
    pub fn bind_at(address: SocketAddrV4) -> io::Result<Self> {
        let udp = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        if force_receive_buffer(&udp).is_err() {
            udp.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        udp.set_nonblocking(true)?;
        udp.bind(&address.into())?;
        let udp = UdpSocket::from(udp);
        let tcp = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        tcp.set_reuse_address(true)?;
        tcp.set_nonblocking(true)?;
        tcp.bind(&udp.local_addr()?.into())?;
        tcp.listen(BACKLOG)?;
        Ok(Self { udp, tcp: tcp.into() })
    }
}

/// Beyond the system's limit (net.core.rmem_max), which root may pass.
fn force_receive_buffer(socket: &Socket) -> nix::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER)
}

impl From<DnsSockets> for Vec<OwnedFd> {
    /// In the order in which they are taken back.
    fn from(sockets: DnsSockets) -> Self {
        vec![sockets.udp.into(), sockets.tcp.into()]
    }
}

impl TryFrom<Vec<OwnedFd>> for DnsSockets {
    type Error = io::Error;

    /// Takes back what was made by [`DnsSockets::bind`]; anything else is `InvalidData`.
    fn try_from(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not the two sockets of DNS");
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| wrong())?;
        for (fd, kind) in [(&udp, Type::DGRAM), (&tcp, Type::STREAM)] {
            if SockRef::from(fd).r#type()? != kind {
                return Err(wrong());
            }
        }
        Ok(Self { udp: udp.into(), tcp: tcp.into() })
    }
}

#[cfg(test)]
impl DnsSockets {
    /// A port of the loopback address that is free for both.
    pub(super) fn on_loopback() -> Self {
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        loop {
            match Self::bind_at(any) {
                // The one that was free for UDP is not for TCP.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound.unwrap(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_back_from_their_descriptors_and_others_do_not() {
        let sockets = DnsSockets::on_loopback();
        let address = sockets.udp.local_addr().unwrap();
        assert_eq!(sockets.tcp.local_addr().unwrap(), address);
        let mut fds = Vec::<OwnedFd>::from(sockets);
        fds.reverse();
        assert!(DnsSockets::try_from(fds).is_err());
        let fds = Vec::from(DnsSockets::on_loopback());
        assert!(DnsSockets::try_from(fds).is_ok());
    }
}
