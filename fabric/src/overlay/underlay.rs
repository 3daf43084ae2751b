//! The network beneath: which device carries the outer packets and how long they may be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use sealane_proto::types::UnderlayAddr;
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, NetNsError};

use super::{Overlay, OverlayError, blocking};
use crate::netlink::{NetlinkError, Socket};

/// Bytes that VXLAN adds to a frame over IPv4: outer IP 20, UDP 8, VXLAN 8 and the inner Ethernet header 14 (RFC 7348).
const OVERHEAD_IPV4: u32 = 50;
/// The same over IPv6.
const OVERHEAD_IPV6: u32 = 70;

/// The device that has the underlay address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The address.
    pub address: UnderlayAddr,
    /// The device's name.
    pub device: String,
    /// Number of the device.
    pub index: u32,
    /// The device's MTU in bytes.
    pub mtu: u32,
    /// The length of the address's prefix.
    pub prefix_len: u8,
}

/// Reasons for which there is no underlay.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// No device of this host has the address.
    #[error(
        "no device of this host has the underlay address {0}; give one that `ip addr` shows to --underlay"
    )]
    NotHere(UnderlayAddr),
    /// The host has no route.
    #[error("no route from this host to {to}: {source}; hint: give this host's address to --underlay")]
    NoRoute {
        /// Destination.
        to: SocketAddr,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The kernel could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The own namespace cannot be opened.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
}

impl Overlay {
    /// Returns true if the host has an address.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn has_address(&self, address: IpAddr) -> Result<bool, OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || {
            let addresses = Socket::open(&kernel.hopper, &kernel.host)?.addresses()?;
            Ok(addresses.iter().any(|known| known.address == address))
        })
        .await
    }
}

/// Checks that a device of the calling thread's namespace has an address.
///
/// # Errors
/// [`UnderlayError::NotHere`] when none has it.
pub fn check_here(hopper: &Hopper, address: UnderlayAddr) -> Result<(), UnderlayError> {
    let mut socket = Socket::open(hopper, &NetNs::current()?)?;
    Underlay::find(&mut socket, address).map(drop)
}

impl Underlay {
    /// Looks the address up among the devices of the socket's namespace.
    ///
    /// # Errors
    /// [`UnderlayError::NotHere`] when none has it.
    pub fn find(socket: &mut Socket, address: UnderlayAddr) -> Result<Self, UnderlayError> {
        let owner = socket.addresses()?.into_iter().find(|known| known.address == address.to_ip());
        let owner = owner.ok_or(UnderlayError::NotHere(address))?;
        let link = socket.links()?.into_iter().find(|link| link.index == owner.index);
        let link = link.ok_or(UnderlayError::NotHere(address))?;
        Ok(Self {
            address,
            device: link.name,
            index: link.index,
            mtu: link.mtu,
            prefix_len: owner.prefix_len,
        })
    }

    /// The MTU inside the overlay when it is not given: what fits into the device's with the outer headers.
    #[must_use]
    pub fn inner_mtu(&self) -> u32 {
        self.mtu.saturating_sub(match self.address.to_ip() {
            IpAddr::V4(_) => OVERHEAD_IPV4,
            IpAddr::V6(_) => OVERHEAD_IPV6,
        })
    }
}

/// The address that this host has towards `to` (control, usually): its underlay address unless another is given.
/// Nothing is sent.
///
/// # Errors
/// When there is no route.
pub fn source_towards(to: SocketAddr) -> Result<UnderlayAddr, UnderlayError> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let source = || -> io::Result<SocketAddr> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.local_addr()
    };
    source().map(|own| own.ip().into()).map_err(|source| UnderlayError::NoRoute { to, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_loopback_comes_from_loopback() {
        let source = source_towards("127.0.0.1:7443".parse().unwrap()).unwrap();
        assert_eq!(source.to_string(), "127.0.0.1");
    }

    #[test]
    fn outer_headers_are_taken_off_the_mtu() {
        let underlay = |ip: &str| Underlay {
            address: ip.parse().unwrap(),
            device: "eth0".into(),
            index: 2,
            mtu: 1500,
            prefix_len: 24,
        };
        assert_eq!((underlay("192.0.2.1").inner_mtu(), underlay("2001:db8::1").inner_mtu()), (1450, 1430));
    }
}
