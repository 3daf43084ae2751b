//! Notices of changes in one namespace: of its links, addresses, rows and routes by one socket, of its rules by another.
//!
//! A socket of this kind hears of its own namespace alone. One socket for all of them (`NETLINK_LISTEN_ALL_NSID`) would have one
//! buffer for all: whoever fills it in one namespace would make this program deaf for the others.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sys::socket::{self, MsgFlags};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::notices::{is_of_others, listen};

/// Groups of linux/rtnetlink.h: LINK, NEIGH (forwarding tables come by it as well), IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR,
/// IPV4_NETCONF, IPV6_NETCONF.
const NETWORK: &[u32] = &[1, 3, 5, 7, 9, 24, 25];
/// NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const RULES: &[u32] = &[7];
/// The kernel's longest notice, in bytes: a link with all that its kind has.
const LONGEST: usize = 16 << 10;

/// A change in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something came, is other than before, or went.
    Entry(Box<RouteNetlinkMessage>),
    /// A device forwards packets of a family, or does so no more. Numbers below zero are those of all devices and of new ones.
    Forwarding {
        /// The device's number.
        index: i32,
        /// True if the family is IPv6.
        ipv6: bool,
        /// True if it forwards.
        on: bool,
    },
}

/// Sum of what was heard at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// True if another program has changed rules.
    pub rules: bool,
    /// True if there was more than the socket keeps, or than is taken at once: anything may have changed.
    pub lost: bool,
}

/// Sockets that hear of changes in a namespace, which they keep alive.
#[derive(Debug)]
pub struct Ear {
    network: AsyncFd<OwnedFd>,
    rules: AsyncFd<OwnedFd>,
}

impl Ear {
    /// Listens in `ns`; what changes from now on is heard. Each socket keeps so many bytes of what was not taken yet, as the kernel
    /// counts them (some 800 per notice).
    ///
    /// # Errors
    /// When the namespace cannot be entered, or at the limit of open files.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(hopper: &Hopper, ns: &NetNs, buffer: usize) -> io::Result<Self> {
        let open = |protocol, groups| listen(hopper, ns, protocol, groups, Some(buffer));
        Ok(Self { network: open(NETLINK_ROUTE, NETWORK)?, rules: open(NETLINK_NETFILTER, RULES)? })
    }

    /// Waits until there is something to take of links, addresses, rows and routes.
    ///
    /// # Errors
    /// When the socket fails for good.
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub async fn network_told(&self) -> io::Result<()> {
        self.network.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Waits until there is something to take of rules.
    ///
    /// # Errors
    /// As [`Ear::network_told`].
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub async fn rules_told(&self) -> io::Result<()> {
        self.rules.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Takes notices of links, addresses, rows and routes, `most` at most. Answers whether some were lost or left.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub fn drain_network(&self, most: usize, mut take: impl FnMut(Notice)) -> io::Result<bool> {
        let mut buffer = vec![0; LONGEST];
        drain(&self.network, most, &mut buffer, |message| {
            Notice::read(message).into_iter().for_each(&mut take)
        })
    }

    /// Takes notices of rules, `most` at most.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub fn drain_rules(&self, most: usize) -> io::Result<Heard> {
        let (mut buffer, mut rules) = ([0; 256], false);
        let lost = drain(&self.rules, most, &mut buffer, |message| rules |= is_of_others(message))?;
        Ok(Heard { rules, lost })
    }
}

impl Notice {
    /// Reads a message of NETLINK_ROUTE; `None` when it tells nothing of what is looked after.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let kind = u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]);
        if kind == NEW_NETCONF {
            return forwarding(message.get(NETCONF_HEAD..)?, i32::from(message[FAMILY]) == libc::AF_INET6);
        }
        let Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(entry), .. }) =
            NetlinkMessage::deserialize(message)
        else {
            return None;
        };
        Some(Self::Entry(Box::new(entry)))
    }
}

/// `RTM_NEWNETCONF`, and where its attributes begin: behind `nlmsghdr` and `netconfmsg` (linux/netconf.h).
const NEW_NETCONF: u16 = 80;
const NETCONF_HEAD: usize = 20;
const FAMILY: usize = 16;
/// `NETCONFA_IFINDEX` and `NETCONFA_FORWARDING`.
const INDEX: u16 = 1;
const FORWARDING: u16 = 2;

fn forwarding(mut attributes: &[u8], ipv6: bool) -> Option<Notice> {
    let (mut index, mut on) = (None, None);
    while let [a, b, c, d, rest @ ..] = attributes {
        let (length, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]));
        let number = rest.first_chunk().map(|number| i32::from_ne_bytes(*number)).filter(|_| length == 8);
        match kind {
            INDEX => index = number,
            FORWARDING => on = number.map(|number| number != 0),
            _ => {}
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Notice::Forwarding { index: index?, ipv6, on: on? })
}

/// Takes messages until there are none, `most` at most; answers whether some were lost or left.
fn drain(
    socket: &AsyncFd<OwnedFd>,
    most: usize,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]),
) -> io::Result<bool> {
    let mut lost = false;
    for _ in 0..most {
        let received = socket.try_io(Interest::READABLE, |socket| {
            Ok(socket::recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?)
        });
        match received {
            Ok(length) => take(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netconf(attributes: &[(u16, i32)]) -> Vec<u8> {
        let mut message = vec![0; NETCONF_HEAD];
        message[4..6].copy_from_slice(&NEW_NETCONF.to_ne_bytes());
        for (kind, value) in attributes {
            message.extend([8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat());
            message.extend(value.to_ne_bytes());
        }
        message
    }

    #[test]
    fn a_device_that_forwards_no_more_is_told_by_its_number() {
        let off = Some(Notice::Forwarding { index: -1, ipv6: false, on: false });
        assert_eq!(Notice::read(&netconf(&[(INDEX, -1), (FORWARDING, 0)])), off);
        let on = Some(Notice::Forwarding { index: 7, ipv6: false, on: true });
        assert_eq!(Notice::read(&netconf(&[(3, 0), (FORWARDING, 1), (INDEX, 7)])), on);
        assert_eq!(Notice::read(&netconf(&[(INDEX, 7), (3, 1)])), None, "of another setting");
    }

    #[test]
    fn what_is_cut_off_tells_nothing() {
        let whole = netconf(&[(INDEX, 1), (FORWARDING, 1)]);
        for length in 0..whole.len() {
            assert_eq!(Notice::read(&whole[..length]), None, "{length}");
        }
    }
}
