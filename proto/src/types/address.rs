//! Addresses on both sides of the tunnel, never mixed up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::external::unfit;

macro_rules! transparent {
    ($name:ident, $inner:ty, $normal:expr) => {
        impl FromStr for $name {
            type Err = std::net::AddrParseError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse::<$inner>().map(Self::from)
            }
        }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                Self($normal(inner))
            }
        }

        impl From<$name> for $inner {
            fn from(outer: $name) -> Self {
                outer.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// An address inside an overlay network: a workload's, a service's (VIP), the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OverlayIp(Ipv4Addr);
transparent!(OverlayIp, Ipv4Addr, std::convert::identity);

impl OverlayIp {
    /// The address as the standard library has it.
    #[must_use]
    pub fn to_ipv4(self) -> Ipv4Addr {
        self.0
    }
}

/// An address of a host on the network beneath: the outer header of the overlay. An IPv4 address is one of IPv4, also
/// where it was written as an IPv6 one (`::ffff:192.0.2.1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "IpAddr")]
pub struct UnderlayAddr(IpAddr);
transparent!(UnderlayAddr, IpAddr, canonical);

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl UnderlayAddr {
    /// The address as the standard library has it.
    #[must_use]
    pub fn to_ip(self) -> IpAddr {
        self.0
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address of a workload interface that has none of its own: locally administered (IEEE 802, bit 1 of
    /// the first octet) and derived from network and address, so that it does not change when an address
    /// moves to another workload or host, and neighbour caches stay right.
    #[must_use]
    pub fn derived(vni: super::Vni, address: OverlayIp) -> Self {
        let [.., low] = vni.get().to_be_bytes();
        let [a, b, c, d] = address.0.octets();
        Self([0x02, low, a, b, c, d])
    }

    /// The address of a host's echo device: locally administered and of one interface (IEEE 802, the two low bits of the first
    /// octet), and for the rest the first six octets of the SHA-256 of the host's name, so that every host knows those of all
    /// others.
    #[must_use]
    pub fn of_host(name: &super::NodeName) -> Self {
        let hash = Sha256::digest(name.as_str());
        Self([(hash[0] & 0xfc) | 0x02, hash[1], hash[2], hash[3], hash[4], hash[5]])
    }

    /// The link-local IPv6 address that goes with it: its modified EUI-64 behind fe80::/64 (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The six octets in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// An address from its octets in transmission order.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// Returns true if an interface can have it: not a group address, not all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a unicast Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a unicast MAC address like 02:00:0a:2a:00:05")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let parse = || {
            let mut octets = [0; 6];
            let mut parts = text.split(':');
            for octet in &mut octets {
                let digits =
                    |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
                let part = parts.next().filter(digits)?;
                *octet = u8::from_str_radix(part, 16).ok()?;
            }
            let mac = Self(octets);
            (parts.next().is_none() && mac.is_unicast()).then_some(mac)
        };
        parse().ok_or_else(|| ParseMacError(text.to_owned()))
    }
}

/// The address range of an overlay network: an IPv4 prefix of 8 to 28 bits, written without host bits.
///
/// Invariants: the first address is the network's, the second the gateway's, the last the broadcast address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(Ipv4Net);

/// Reasons for which a text is not a usable subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not an address, a slash and a prefix length.
    #[error("subnet {0:?} is not a CIDR like 10.42.0.0/16")]
    Malformed(String),
    /// Of the other family.
    #[error("subnet {0:?} is IPv6; an IPv4 CIDR like 10.42.0.0/16 is wanted here")]
    NotIpv4(String),
    /// Bits are set behind the prefix.
    #[error("subnet {given} has host bits set; did you mean {meant}?")]
    HostBits {
        /// Prefix that was written.
        given: Ipv4Net,
        /// The same without host bits.
        meant: Ipv4Net,
    },
    /// Too small or too large.
    #[error("subnet {0} must have a prefix between /8 and /28")]
    Size(Ipv4Net),
    /// Addresses that hosts do not route between them.
    #[error(
        "subnet {0} is loopback, link-local, multicast or reserved; take a private one like 10.42.0.0/16"
    )]
    Reserved(Ipv4Net),
}

impl Subnet {
    /// The prefix.
    #[must_use]
    pub fn to_net(self) -> Ipv4Net {
        self.0
    }

    /// The gateway's address: the first usable one, the same on every host.
    #[must_use]
    pub fn gateway(self) -> OverlayIp {
        OverlayIp(Ipv4Addr::from_bits(self.0.network().to_bits() + 1))
    }

    /// The addresses inside that are no workload's and no service's: the network's own, the gateway's and the broadcast address.
    #[must_use]
    pub fn reserved(self) -> [OverlayIp; 3] {
        [self.0.network().into(), self.gateway(), self.0.broadcast().into()]
    }

    /// The prefix length of its cells, the smallest blocks that a host is given: 16 addresses, or fewer so that there are 64
    /// cells.
    #[must_use]
    pub fn cell_prefix(self) -> u8 {
        (self.0.prefix_len() + 6).clamp(28, 32)
    }

    /// The next larger subnet that begins with the same address, and so has the same gateway.
    #[must_use]
    pub fn larger(self) -> Option<Self> {
        format!("{}/{}", self.0.network(), self.0.prefix_len() - 1).parse().ok()
    }

    /// Returns true if the address lies inside.
    #[must_use]
    pub fn contains(self, address: OverlayIp) -> bool {
        self.0.contains(&address.0)
    }

    /// Returns true if both have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        super::overlap(self.0, other.0)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let net: Ipv4Net = text.parse().map_err(|_| {
            if text.parse::<ipnet::Ipv6Net>().is_ok() {
                SubnetError::NotIpv4(text.to_owned())
            } else {
                SubnetError::Malformed(text.to_owned())
            }
        })?;
        if net.trunc() != net {
            return Err(SubnetError::HostBits { given: net, meant: net.trunc() });
        }
        if !(8..=28).contains(&net.prefix_len()) {
            return Err(SubnetError::Size(net));
        }
        if unfit(net.network()).is_some() {
            return Err(SubnetError::Reserved(net));
        }
        Ok(Self(net))
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_private_prefixes_without_host_bits() {
        assert_eq!("10.42.0.0/16".parse::<Subnet>().unwrap().gateway().to_string(), "10.42.0.1");
        let table = [
            ("10.42.0.0", "not a CIDR"),
            ("10.42.0.0/33", "not a CIDR"),
            ("fd00::/64", "IPv6"),
            ("10.42.0.1/16", "did you mean 10.42.0.0/16"),
            ("10.42.0.0/29", "between /8 and /28"),
            ("127.0.0.0/8", "loopback"),
            ("224.0.0.0/8", "multicast"),
        ];
        for (text, expected) in table {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn cells_are_small_enough_for_many_hosts() {
        let table = [
            ("10.0.0.0/8", 28),
            ("10.42.0.0/16", 28),
            ("10.42.0.0/22", 28),
            ("10.42.0.0/24", 30),
            ("10.42.0.0/25", 31),
            ("10.42.0.0/26", 32),
            ("10.42.0.0/28", 32),
        ];
        for (text, prefix) in table {
            assert_eq!(text.parse::<Subnet>().unwrap().cell_prefix(), prefix, "{text}");
        }
    }

    #[test]
    fn a_larger_subnet_begins_with_the_same_address() {
        for (text, larger) in [
            ("10.42.0.0/24", Some("10.42.0.0/23")),
            ("10.42.1.0/24", None),
            ("10.0.0.0/8", None),
            ("10.42.0.0/16", Some("10.42.0.0/15")),
        ] {
            let found = text.parse::<Subnet>().unwrap().larger();
            assert_eq!(found.map(|found| found.to_string()).as_deref(), larger, "{text}");
        }
    }

    #[test]
    fn overlap_is_symmetric() {
        let [a, b, c] =
            ["10.0.0.0/8", "10.42.0.0/16", "10.43.0.0/16"].map(|text| text.parse::<Subnet>().unwrap());
        assert!(a.overlaps(b) && b.overlaps(a) && !b.overlaps(c));
    }

    #[test]
    fn addresses_of_echo_devices_follow_from_names_and_stay_what_they_are() {
        let derived = |name: &str| MacAddr::of_host(&name.parse().unwrap());
        // `printf host-1 | sha256sum`
        assert_eq!(derived("host-1").to_string(), "4a:17:96:ac:49:35");
        assert_eq!(derived("host-1").link_local().to_string(), "fe80::4817:96ff:feac:4935");
        for name in ["a", "host-1", "host-2", "db"] {
            let mac = derived(name);
            assert!(mac.is_unicast() && mac.octets()[0] & 2 == 2, "{mac}");
        }
    }

    #[test]
    fn macs_round_trip_and_group_addresses_are_refused() {
        assert_eq!("02:00:0a:2a:00:05".parse::<MacAddr>().unwrap().to_string(), "02:00:0a:2a:00:05");
        for bad in ["", "02:00:0a:2a:00", "01:00:5e:00:00:01", "00:00:00:00:00:00", "+2:00:0a:2a:00:05"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
