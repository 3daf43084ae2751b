//! The network beneath: which device carries the outer packets and how long they may be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use sealane_proto::resource::{NetworkSnapshot, Node};
use sealane_proto::types::{IpFamily, UnderlayAddr};
use sealane_sys::NetNsError;

use super::{Overlay, OverlayError, blocking};
use crate::netlink::{Address, NetlinkError, Socket};

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
        "no device of this host has the underlay address {0}; give the interface of --underlay an address, which the agent then \
         takes, or one that `ip addr` shows to --underlay"
    )]
    NotHere(UnderlayAddr),
    /// The address is no single host's.
    #[error(
        "underlay address {address} is the {kind} address of {net}, the network of {own} of this host; give {own}, or another \
         address of this host alone, to --underlay"
    )]
    Shared {
        /// The address.
        address: UnderlayAddr,
        /// `broadcast` or `network`.
        kind: &'static str,
        /// The network.
        net: Ipv4Net,
        /// The host's own address in it.
        own: Ipv4Addr,
    },
    /// The chosen interface has no address that others can send to.
    #[error(
        "{}; give an interface, prefix or address that `ip -br addr` shows to --underlay",
        none_on(.interface, *.there)
    )]
    NoneOn {
        /// Name of the interface.
        interface: String,
        /// True if there is such an interface.
        there: bool,
    },
    /// Both addresses of a host would be of one family.
    #[error(
        "underlay address {address} is of {} like the other one: a host has one underlay address of each family; give one of \
         {family} to the second --underlay", .address.family()
    )]
    OneFamily {
        /// The second address.
        address: UnderlayAddr,
        /// Family that it should be of.
        family: IpFamily,
    },
    /// No address of the host lies in the chosen prefix.
    #[error(
        "no address of this host that others can send to lies in {0}; give a prefix, address or interface that `ip -br addr` \
         shows to --underlay"
    )]
    NoneIn(IpNet),
    /// The host has no route.
    #[error(
        "no route from this host to {to}: {}; hint: give this host's address to --underlay",
        sealane_base::text::plain(source)
    )]
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

fn none_on(interface: &str, there: bool) -> String {
    if there {
        format!("interface {interface} of this host has no address that others can send to")
    } else {
        format!("this host has no interface {interface}")
    }
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

impl Underlay {
    /// Looks the address up among the devices of the socket's namespace.
    ///
    /// # Errors
    /// [`UnderlayError::NotHere`] when none has it, [`UnderlayError::Shared`] when all hosts of a network have it.
    pub fn find(socket: &mut Socket, address: UnderlayAddr) -> Result<Self, UnderlayError> {
        let addresses = socket.addresses()?;
        if let Some(error) = shared(&addresses, address) {
            return Err(error);
        }
        let owner = addresses.into_iter().find(|known| known.address == address.to_ip());
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
        inner_mtu(self.mtu, self.address.family())
    }
}

/// The length of packets inside a tunnel whose packets may be `outer` bytes long.
pub(super) fn inner_mtu(outer: u32, family: IpFamily) -> u32 {
    outer.saturating_sub(overhead(family))
}

/// Says what helps where packets of `lost` bytes are lost on a way from the host `whose`, of which `passes` bytes are known to pass.
#[must_use]
pub fn narrow_remedy(whose: &str, lost: Option<u32>, passes: Option<u32>) -> String {
    let lost = lost.map(|lost| format!(" to {lost}")).unwrap_or_default();
    let passes =
        passes.map_or_else(|| "what passes, if that is 626 or more".to_owned(), |passes| passes.to_string());
    format!(
        "raise the MTU of the network beneath{lost}, or lower that of {whose}'s device to {passes}: networks without --mtu \
         follow it, others must be removed and created again with a smaller one"
    )
}

/// Bytes that a tunnel over this family adds to a packet: outer headers, and the Ethernet header inside (RFC 7348).
#[must_use]
pub const fn overhead(family: IpFamily) -> u32 {
    match family {
        IpFamily::V4 => OVERHEAD_IPV4,
        IpFamily::V6 => OVERHEAD_IPV6,
    }
}

/// Explains that an address is the one of a whole network that this host is in, whichever device has it.
fn shared(addresses: &[Address], address: UnderlayAddr) -> Option<UnderlayError> {
    let IpAddr::V4(wanted) = address.to_ip() else { return None };
    addresses.iter().find_map(|known| {
        let IpAddr::V4(own) = known.address else { return None };
        let net = Ipv4Net::new(own, known.prefix_len).ok()?.trunc();
        let kind = kind_in(net, wanted)?;
        Some(UnderlayError::Shared { address, kind, net, own })
    })
}

/// Names the kind of an address that all hosts of a network have. Networks of one or two addresses have none (RFC 3021).
fn kind_in(net: Ipv4Net, address: Ipv4Addr) -> Option<&'static str> {
    match address {
        _ if net.prefix_len() >= 31 => None,
        address if address == net.broadcast() => Some("broadcast"),
        address if address == net.network() => Some("network"),
        _ => None,
    }
}

/// Returns true if an address is one that all hosts of the network beneath have.
pub(super) fn is_of_all(address: UnderlayAddr, beneath: Option<Ipv4Net>) -> bool {
    match address.to_ip() {
        IpAddr::V4(address) => beneath.is_some_and(|net| kind_in(net, address).is_some()),
        IpAddr::V6(_) => false,
    }
}

/// The network without hosts that claim an address of the whole network beneath: what is sent there, all would get. A sentence
/// names one.
pub(super) fn without_shared(
    snapshot: Arc<NetworkSnapshot>,
    beneath: Option<Ipv4Net>,
) -> (Arc<NetworkSnapshot>, Option<String>) {
    let kind = |node: &Node| {
        let v4 = node.underlay.of(IpFamily::V4)?;
        let IpAddr::V4(address) = v4.to_ip() else { return None };
        Some((v4, kind_in(beneath?, address)?))
    };
    let named = snapshot.nodes.iter().find_map(|node| Some((node, kind(node)?, beneath?)));
    let Some((node, (address, of), net)) = named else { return (snapshot, None) };
    let why = format!("node {} is at {address}, the {of} address of {net} beneath", node.name);
    let mut fit = snapshot.as_ref().clone();
    fit.nodes.retain(|node| kind(node).is_none());
    (Arc::new(fit), Some(why))
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
    fn the_address_of_a_whole_network_is_no_host_s() {
        let address =
            |address: &str, prefix_len| Address { index: 2, address: address.parse().unwrap(), prefix_len };
        let own = [address("192.0.2.11", 24), address("198.51.100.2", 31), address("2001:db8::1", 64)];
        let told = |wanted: &str| {
            let told = shared(&own, wanted.parse().unwrap()).map(|error| error.to_string());
            told.map(|told| told.split(';').next().unwrap_or_default().to_owned())
        };
        let of = |wanted: &str, kind: &str| {
            Some(format!(
                "underlay address {wanted} is the {kind} address of 192.0.2.0/24, the network of 192.0.2.11 of this host"
            ))
        };
        assert_eq!(told("192.0.2.255"), of("192.0.2.255", "broadcast"));
        assert_eq!(told("192.0.2.0"), of("192.0.2.0", "network"));
        for fit in
            ["192.0.2.11", "192.0.2.254", "198.51.100.2", "198.51.100.3", "2001:db8::1", "203.0.113.255"]
        {
            assert_eq!(told(fit), None, "{fit}");
        }
    }

    #[test]
    fn nothing_is_sent_to_a_host_that_claims_the_address_of_all() {
        let node = |name: &str, underlay: &str| Node {
            name: name.parse().unwrap(),
            underlay: underlay.parse().unwrap(),
            mtu: None,
        };
        let nodes =
            vec![node("host-1", "192.0.2.1"), node("all", "192.0.2.255"), node("far", "203.0.113.255")];
        let mut snapshot = crate::testing::snapshot();
        snapshot.nodes = nodes;
        let snapshot = Arc::new(snapshot);
        let (fit, why) = without_shared(snapshot.clone(), "192.0.2.0/24".parse().ok());
        let names: Vec<_> = fit.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["host-1", "far"]);
        assert_eq!(why.unwrap(), "node all is at 192.0.2.255, the broadcast address of 192.0.2.0/24 beneath");
        for beneath in ["192.0.2.254/31".parse().ok(), None] {
            let (fit, why) = without_shared(snapshot.clone(), beneath);
            assert!(Arc::ptr_eq(&fit, &snapshot) && why.is_none(), "{beneath:?}");
        }
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
