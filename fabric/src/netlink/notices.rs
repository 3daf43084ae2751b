//! Being told that something of a namespace has changed, by the kernel's multicast groups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{self, MsgFlags, sockopt};
use sealane_base::task::THREADS;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::io::unix::AsyncFd;

use crate::async_fd;

/// Subject of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Rules of nf_tables, which are iptables' as well where those are of its kind.
    Rules,
    /// Links, addresses, routes, and the rules that lead to tables of routes.
    Links,
}

impl Subject {
    fn protocol(self) -> isize {
        match self {
            Self::Rules => NETLINK_NETFILTER,
            Self::Links => NETLINK_ROUTE,
        }
    }

    /// linux/netfilter/nfnetlink.h and linux/rtnetlink.h.
    fn groups(self) -> &'static [u32] {
        match self {
            Self::Rules => &[7], // NFNLGRP_NFTABLES
            // RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE,
            // RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF: forwarding is one of a namespace's settings
            Self::Links => &[1, 5, 7, 8, 9, 11, 19, 24, 25],
        }
    }
}

/// Tells that something has changed, not what. It keeps its namespace alive.
#[derive(Debug)]
pub struct Notices(AsyncFd<OwnedFd>);

impl Notices {
    /// Listens in `ns`; what changes from now on is heard.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or at the limit of open files.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(hopper: &Hopper, ns: &NetNs, subject: Subject) -> io::Result<Self> {
        listen(hopper, ns, subject.protocol(), subject.groups(), None).map(Self)
    }

    /// Waits until something has changed since the last time. All that has been told by then counts as one change.
    ///
    /// # Errors
    /// When the socket fails for good.
    ///
    /// # Cancel safety
    /// Nothing that was told is lost but when this has returned.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            let mut told = false;
            loop {
                match ready.try_io(|socket| recv(socket.get_ref())) {
                    Ok(Ok(())) => told = true,
                    Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => told = true,
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_would_block) => break,
                }
            }
            if told {
                return Ok(());
            }
        }
    }
}

/// Joins groups of a protocol in `ns`. The socket keeps so many bytes of what was not taken yet, or as many as the host's default says.
pub(super) fn listen(
    hopper: &Hopper,
    ns: &NetNs,
    protocol: isize,
    groups: &'static [u32],
    buffer: Option<usize>,
) -> io::Result<AsyncFd<OwnedFd>> {
    let socket = hopper.run(ns, move || -> io::Result<Socket> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        if let Some(buffer) = buffer {
            socket::setsockopt(&socket, sockopt::RcvBufForce, &buffer)?;
        }
        for &group in groups {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(socket)
    })??;
    async_fd::socket(socket.as_fd().try_clone_to_owned()?)
}

/// Takes one message, however long it is.
fn recv(socket: &OwnedFd) -> io::Result<()> {
    socket::recv(socket.as_raw_fd(), &mut [0], MsgFlags::empty())?;
    Ok(())
}

/// `NFT_MSG_NEWGEN` of nf_tables, which the kernel sends behind each transaction's changes (linux/netfilter/nf_tables.h).
const NEW_GENERATION: u16 = (10 << 8) | 15;
/// `NFTA_GEN_PROC_NAME`
const MAKER: u16 = 3;
/// Lengths of a message's header, `nlmsghdr` and `nfgenmsg`, and of an attribute's.
const HEADS: (usize, usize) = (20, 4);

/// Returns true if a message ends a transaction of another program than this one, whose threads have one name.
pub(super) fn is_of_others(message: &[u8]) -> bool {
    let half = |at: usize| Some(u16::from_ne_bytes([*message.get(at)?, *message.get(at + 1)?]));
    if half(4) != Some(NEW_GENERATION) {
        return false;
    }
    let (mut at, head) = HEADS;
    while let (Some(length), Some(kind)) = (half(at).map(usize::from), half(at + 2)) {
        let end = at + length.max(head);
        if kind == MAKER {
            let name = message.get(at + head..end).unwrap_or_default();
            return name.split(|byte| *byte == 0).next() != Some(THREADS.as_bytes());
        }
        at = end.next_multiple_of(4);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of nf_tables with one attribute besides a generation's number.
    fn message(kind: u16, maker: &str) -> Vec<u8> {
        let head = |length: usize, kind: u16| {
            let length = u16::try_from(length).unwrap();
            [length.to_ne_bytes(), kind.to_ne_bytes()].concat()
        };
        let mut message = vec![0; 20];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend([head(8, 1), vec![0, 0, 0, 9]].concat());
        let maker = [maker.as_bytes(), &[0]].concat();
        message.extend([head(4 + maker.len(), MAKER), maker].concat());
        message
    }

    #[test]
    fn transactions_are_told_apart_by_the_name_of_who_made_them() {
        assert!(is_of_others(&message(NEW_GENERATION, "nft")));
        assert!(is_of_others(&message(NEW_GENERATION, "sealane2")));
        assert!(!is_of_others(&message(NEW_GENERATION, THREADS)));
        assert!(!is_of_others(&message((10 << 8) | 6, "nft")), "its end is told as well");
        assert!(is_of_others(&message(NEW_GENERATION, THREADS)[..28]), "nobody is named");
        assert!(!is_of_others(&[]));
    }
}
