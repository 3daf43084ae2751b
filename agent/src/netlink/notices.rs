//! Being told that something of a namespace has changed, by the kernel's multicast groups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{self, MsgFlags};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::io::unix::AsyncFd;

use crate::readable;

/// Subject of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Rules of nf_tables, which are iptables' as well where those are of its kind.
    Rules,
    /// Links, IPv4 addresses and IPv4 routes.
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
            Self::Rules => &[7],       // NFNLGRP_NFTABLES
            Self::Links => &[1, 5, 7], // RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE
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
        let socket = hopper.run(ns, move || -> io::Result<Socket> {
            let mut socket = Socket::new(subject.protocol())?;
            socket.bind(&SocketAddr::new(0, 0))?;
            for &group in subject.groups() {
                socket.add_membership(group)?;
            }
            socket.set_non_blocking(true)?;
            Ok(socket)
        })??;
        readable::socket(socket.as_fd().try_clone_to_owned()?).map(Self)
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

/// Takes one message, however long it is: a byte of it will do.
fn recv(socket: &OwnedFd) -> io::Result<()> {
    socket::recv(socket.as_raw_fd(), &mut [0], MsgFlags::empty())?;
    Ok(())
}
