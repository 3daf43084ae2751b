//! TCP connections to other hosts, whose packets are so short that they pass wherever tunnels do.
//!
//! A router may drop long packets and tell nobody: a connection stands then, short messages pass, and long ones are lost for as long as
//! that lasts. The length of segments that is set here is announced to the other side too, so it holds both ways.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// The most bytes of a segment: what every host may send without asking (RFC 9293, 3.7.1), in packets of 576 bytes.
const SEGMENT: u32 = 536;

/// Connects to an address.
///
/// # Errors
/// When nobody answers there.
pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    socket_to(address)?.connect(address).await
}

/// Connects to the first address of `HOST:PORT` that answers.
///
/// # Errors
/// When the host has no address, or nobody answers: the last failure.
pub async fn dial_name(name: &str) -> io::Result<TcpStream> {
    let mut failure: io::Error = io::ErrorKind::AddrNotAvailable.into();
    for address in lookup_host(name).await? {
        match dial(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn socket_to(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(segment) = segment_to(address) {
        SockRef::from(&socket).set_tcp_mss(segment)?;
    }
    Ok(socket)
}

/// The most bytes of a segment to this address; `None` for what the kernel chooses: nothing is lost on a host's own loopback.
fn segment_to(address: SocketAddr) -> Option<u32> {
    (!address.ip().is_loopback()).then_some(SEGMENT)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn segments_are_short_but_on_loopback() {
        let segment = |address: &str| segment_to(address.parse().unwrap());
        for address in ["192.0.2.1:7443", "[2001:db8::1]:7443"] {
            assert_eq!(segment(address), Some(SEGMENT));
        }
        assert!(segment("127.0.0.1:7443").is_none() && segment("[::1]:7443").is_none());
    }

    #[tokio::test]
    async fn a_name_is_reached_at_any_of_its_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(dial_name(&format!("localhost:{port}")).await.unwrap().peer_addr().unwrap().port(), port);
        drop(listener);
        let refused = dial_name(&format!("localhost:{port}")).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
