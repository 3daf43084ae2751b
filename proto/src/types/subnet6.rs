//! The IPv6 half of a network: every address is made from an IPv4 one.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::{OverlayIp, Subnet, SubnetError};

/// An IPv6 prefix of 16 to 96 bits, written without host bits, whose addresses end in those of an IPv4 [`Subnet`]:
/// fd42::/64 gives the workload at 10.42.0.5 fd42::a2a:5. So there is one set of blocks, leases and service addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet6(Ipv6Net);

/// Reasons for which a text is not a usable IPv6 subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Subnet6Error {
    /// Not an address, a slash and a prefix length.
    #[error("subnet {0:?} is not a CIDR like fd42::/64")]
    Malformed(String),
    /// Bits are set behind the prefix.
    #[error("subnet {given} has host bits set; did you mean {meant}?")]
    HostBits {
        /// Prefix that was written.
        given: Ipv6Net,
        /// The same without host bits.
        meant: Ipv6Net,
    },
    /// Too small for an IPv4 address, or too large.
    #[error("subnet {0} must have a prefix between /16 and /96")]
    Size(Ipv6Net),
    /// Addresses that hosts do not route between them.
    #[error(
        "subnet {0} is loopback, link-local, multicast, IPv4-mapped or reserved; take a private one like fd42::/64"
    )]
    Reserved(Ipv6Net),
}

impl Subnet6 {
    /// The prefix.
    #[must_use]
    pub fn to_net(self) -> Ipv6Net {
        self.0
    }

    /// The IPv6 address of who has the IPv4 address `address`.
    #[must_use]
    pub fn address(self, address: OverlayIp) -> Ipv6Addr {
        self.of_ipv4(address.to_ipv4())
    }

    /// See [`Subnet6::address`].
    #[must_use]
    pub fn of_ipv4(self, address: Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0.network().to_bits() | u128::from(address.to_bits()))
    }

    /// The IPv4 address that `address` is made from; `None` outside of the prefix and where more than the last 32
    /// bits are set behind it.
    #[must_use]
    pub fn to_ipv4(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let behind = address.to_bits() ^ self.0.network().to_bits();
        u32::try_from(behind).ok().map(Ipv4Addr::from_bits)
    }

    /// The addresses that are made from those of `subnet`.
    #[must_use]
    pub fn part(self, subnet: Subnet) -> Ipv6Net {
        let net = subnet.to_net();
        Ipv6Net::new_assert(self.of_ipv4(net.network()), 96 + net.prefix_len())
    }

    /// Returns true if the address lies inside.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.0.contains(&address)
    }

    /// Returns true if both have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        super::overlap(self.0, other.0)
    }
}

impl FromStr for Subnet6 {
    type Err = Subnet6Error;
    fn from_str(text: &str) -> Result<Self, Subnet6Error> {
        let net: Ipv6Net = text.parse().map_err(|_| Subnet6Error::Malformed(text.to_owned()))?;
        if net.trunc() != net {
            return Err(Subnet6Error::HostBits { given: net, meant: net.trunc() });
        }
        if !(16..=96).contains(&net.prefix_len()) {
            return Err(Subnet6Error::Size(net));
        }
        let first = net.network();
        // ::/8 has the unspecified, loopback and IPv4-mapped addresses; 64:ff9b::/96 is NAT64's (RFC 6052).
        let reserved = first.segments()[0] < 0x100 || first.is_unicast_link_local() || first.is_multicast();
        if reserved { Err(Subnet6Error::Reserved(net)) } else { Ok(Self(net)) }
    }
}

impl TryFrom<String> for Subnet6 {
    type Error = Subnet6Error;
    fn try_from(text: String) -> Result<Self, Subnet6Error> {
        text.parse()
    }
}

impl From<Subnet6> for String {
    fn from(subnet: Subnet6) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// A subnet of either family, as `network create --subnet` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AnySubnet {
    /// IPv4.
    V4(Subnet),
    /// IPv6.
    V6(Subnet6),
}

/// A text that is a usable subnet of neither family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnySubnetError {
    /// Taken for IPv4.
    #[error(transparent)]
    V4(#[from] SubnetError),
    /// Taken for IPv6: there is a colon in it.
    #[error(transparent)]
    V6(#[from] Subnet6Error),
}

impl FromStr for AnySubnet {
    type Err = AnySubnetError;
    fn from_str(text: &str) -> Result<Self, AnySubnetError> {
        if text.contains(':') { Ok(Self::V6(text.parse()?)) } else { Ok(Self::V4(text.parse()?)) }
    }
}

impl TryFrom<String> for AnySubnet {
    type Error = AnySubnetError;
    fn try_from(text: String) -> Result<Self, AnySubnetError> {
        text.parse()
    }
}

impl From<AnySubnet> for String {
    fn from(subnet: AnySubnet) -> Self {
        match subnet {
            AnySubnet::V4(subnet) => subnet.into(),
            AnySubnet::V6(subnet) => subnet.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_in_those_they_are_made_from() {
        let subnet: Subnet6 = "fd42:0:0:7::/64".parse().unwrap();
        let address = subnet.address("10.42.0.5".parse().unwrap());
        assert_eq!(address.to_string(), "fd42::7:0:0:a2a:5");
        assert_eq!(subnet.to_ipv4(address), Some(Ipv4Addr::new(10, 42, 0, 5)));
        for stranger in ["fd42:0:0:7:0:1:a2a:5", "fd42:0:0:8::a2a:5", "::a2a:5"] {
            assert_eq!(subnet.to_ipv4(stranger.parse().unwrap()), None, "{stranger}");
        }
        let part = subnet.part("10.42.0.0/16".parse().unwrap());
        assert_eq!(part.to_string(), "fd42::7:0:0:a2a:0/112");
        let narrow: Subnet6 = "fd42::/96".parse().unwrap();
        assert_eq!(narrow.of_ipv4(Ipv4Addr::new(255, 0, 0, 1)).to_string(), "fd42::ff00:1");
    }

    #[test]
    fn subnets_are_private_prefixes_without_host_bits() {
        let table = [
            ("fd42::", "not a CIDR"),
            ("fd42::/129", "not a CIDR"),
            ("fd42::1/64", "did you mean fd42::/64"),
            ("fd42::/97", "between /16 and /96"),
            ("fc00::/7", "between /16 and /96"),
            ("fe80::/64", "link-local"),
            ("ff02::/16", "multicast"),
            ("::/64", "reserved"),
            ("64:ff9b::/96", "reserved"),
            ("::ffff:0.0.0.0/96", "IPv4-mapped"),
        ];
        for (text, expected) in table {
            let error = text.parse::<AnySubnet>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(matches!("10.42.0.0/16".parse(), Ok(AnySubnet::V4(_))));
        assert!(matches!("2001:db8::/64".parse(), Ok(AnySubnet::V6(_))));
    }
}
