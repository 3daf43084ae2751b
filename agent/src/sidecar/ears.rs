//! Sockets that listen for a sidecar, which whoever is root in its workload's namespace can close (`ss -K`).

use std::os::fd::OwnedFd;

use socket2::SockRef;

/// Returns true while a socket listens, or cannot be asked.
pub(crate) fn listens(socket: &OwnedFd) -> bool {
    SockRef::from(socket).is_listener().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_socket_that_was_shut_does_not_listen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let copy = OwnedFd::from(listener.try_clone().unwrap());
        assert!(listens(&copy));
        SockRef::from(&listener).shutdown(std::net::Shutdown::Both).unwrap();
        assert!(!listens(&copy), "all copies are one socket");
    }
}
