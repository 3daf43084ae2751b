//! Values that rules compare and sets hold: their bytes in the kernel, and their words in nft's language. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sealane_proto::types::{MacAddr, Subnet, Subnet6};

/// Length of a device's name, or its kind, in the kernel (IFNAMSIZ).
pub(crate) const NAME_LENGTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Datum {
    /// An IP address.
    Address(IpAddr),
    /// The addresses of a network.
    Net(IpNet),
    /// Addresses from the first to the last.
    Range(IpAddr, IpAddr),
    /// An Ethernet address.
    Mac(MacAddr),
    /// A port of TCP or UDP.
    Port(u16),
    /// The name of a device or its kind; with `*` at its end, of all that begin so.
    Name(String),
    /// The number of a device.
    Index(u32),
    /// The mark of a packet.
    Mark(u32),
    /// Number of so many bytes, in network byte order.
    Number(u128, usize),
    /// A number that has a name.
    Symbol(Symbol),
}

/// A number that has a name in nft's language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Symbol {
    name: &'static str,
    bytes: &'static [u8],
}

impl Symbol {
    const fn new(name: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, bytes }
    }
}

/// Protocols behind IP.
pub(crate) const ICMP: Symbol = Symbol::new("icmp", &[1]);
pub(crate) const TCP: Symbol = Symbol::new("tcp", &[6]);
pub(crate) const UDP: Symbol = Symbol::new("udp", &[17]);
pub(crate) const ICMPV6: Symbol = Symbol::new("ipv6-icmp", &[58]);
/// Families of packets (NFPROTO_*).
pub(crate) const IPV4: Symbol = Symbol::new("ipv4", &[2]);
pub(crate) const IPV6: Symbol = Symbol::new("ipv6", &[10]);
/// Protocols of frames (ETH_P_*).
pub(crate) const FRAME_IP: Symbol = Symbol::new("ip", &[0x08, 0x00]);
pub(crate) const FRAME_ARP: Symbol = Symbol::new("arp", &[0x08, 0x06]);
pub(crate) const FRAME_IP6: Symbol = Symbol::new("ip6", &[0x86, 0xdd]);
/// States of a packet's connection (linux/netfilter/nf_conntrack_common.h).
pub(crate) const INVALID: Symbol = Symbol::new("invalid", &1_u32.to_ne_bytes());
pub(crate) const ESTABLISHED: Symbol = Symbol::new("established", &2_u32.to_ne_bytes());
pub(crate) const RELATED: Symbol = Symbol::new("related", &4_u32.to_ne_bytes());
/// IPS_DST_NAT.
pub(crate) const DNAT: Symbol = Symbol::new("dnat", &(1_u32 << 5).to_ne_bytes());
/// Messages of ICMP.
pub(crate) const ECHO_REQUEST: Symbol = Symbol::new("echo-request", &[8]);
pub(crate) const UNREACHABLE6: Symbol = Symbol::new("destination-unreachable", &[1]);
pub(crate) const ECHO_REQUEST6: Symbol = Symbol::new("echo-request", &[128]);
pub(crate) const ECHO_REPLY6: Symbol = Symbol::new("echo-reply", &[129]);
pub(crate) const ROUTER_SOLICIT: Symbol = Symbol::new("nd-router-solicit", &[133]);
pub(crate) const ROUTER_ADVERT: Symbol = Symbol::new("nd-router-advert", &[134]);
pub(crate) const NEIGHBOR_SOLICIT: Symbol = Symbol::new("nd-neighbor-solicit", &[135]);
pub(crate) const NEIGHBOR_ADVERT: Symbol = Symbol::new("nd-neighbor-advert", &[136]);
pub(crate) const REDIRECT: Symbol = Symbol::new("nd-redirect", &[137]);
pub(crate) const LISTENER_REPORT: Symbol = Symbol::new("mld2-listener-report", &[143]);
/// An answer of ARP.
pub(crate) const REPLY: Symbol = Symbol::new("reply", &[0, 2]);
/// A packet for the host itself (PACKET_HOST).
pub(crate) const HOST: Symbol = Symbol::new("host", &[0]);
/// RTN_UNICAST.
pub(crate) const UNICAST: Symbol = Symbol::new("unicast", &1_u32.to_ne_bytes());
/// No way leads there by that device.
pub(crate) const MISSING: Symbol = Symbol::new("missing", &[0; 4]);

/// Type of a set's keys, as nft numbers and names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyType {
    pub(crate) number: u32,
    pub(crate) length: u32,
    pub(crate) name: &'static str,
}

impl KeyType {
    const fn new(number: u32, length: u32, name: &'static str) -> Self {
        Self { number, length, name }
    }

    /// The numbers of those that nft takes for numbers of the host's byte order.
    pub(crate) const OF_HOST: [u32; 3] = [Self::MARK.number, Self::STATE.number, Self::DEVICE.number];

    pub(crate) const INTEGER: Self = Self::new(4, 4, "integer");
    pub(crate) const IPV4: Self = Self::new(7, 4, "ipv4_addr");
    pub(crate) const IPV6: Self = Self::new(8, 16, "ipv6_addr");
    pub(crate) const FRAME: Self = Self::new(10, 2, "ether_type");
    pub(crate) const PROTOCOL: Self = Self::new(12, 1, "inet_proto");
    pub(crate) const PORT: Self = Self::new(13, 2, "inet_service");
    pub(crate) const MARK: Self = Self::new(19, 4, "mark");
    pub(crate) const STATE: Self = Self::new(26, 4, "ct_state");
    pub(crate) const MESSAGE6: Self = Self::new(29, 1, "icmpv6_type");
    pub(crate) const DEVICE: Self = Self::new(41, 16, "ifname");
}

impl Datum {
    /// The bytes that are compared or looked up: of several addresses, the first one's.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Address(address) | Self::Range(address, _) => octets(*address),
            Self::Net(net) => octets(net.network()),
            Self::Mac(mac) => mac.octets().to_vec(),
            Self::Port(port) => port.to_be_bytes().to_vec(),
            Self::Name(name) => match name.strip_suffix('*') {
                Some(beginning) => beginning.as_bytes().to_vec(),
                None => {
                    let mut bytes = name.as_bytes().to_vec();
                    bytes.resize(NAME_LENGTH, 0);
                    bytes
                }
            },
            Self::Index(number) | Self::Mark(number) => number.to_ne_bytes().to_vec(),
            Self::Number(number, length) => {
                number.to_be_bytes().get(16_usize.saturating_sub(*length)..).unwrap_or_default().to_vec()
            }
            Self::Symbol(symbol) => symbol.bytes.to_vec(),
        }
    }

    /// The first key behind the values that are meant, where they are several; `None` behind the last one of all.
    pub(crate) fn behind(&self) -> Option<Vec<u8>> {
        let last = match self {
            Self::Net(net) => octets(net.broadcast()),
            Self::Range(_, last) => octets(*last),
            Self::Address(_)
            | Self::Mac(_)
            | Self::Port(_)
            | Self::Name(_)
            | Self::Index(_)
            | Self::Mark(_)
            | Self::Number(..)
            | Self::Symbol(_) => self.bytes(),
        };
        behind(&last)
    }

    /// Returns true if several values are meant.
    pub(crate) fn is_interval(&self) -> bool {
        match self {
            Self::Net(net) => net.prefix_len() < net.max_prefix_len(),
            Self::Range(first, last) => first != last,
            Self::Address(_)
            | Self::Mac(_)
            | Self::Port(_)
            | Self::Name(_)
            | Self::Index(_)
            | Self::Mark(_)
            | Self::Number(..)
            | Self::Symbol(_) => false,
        }
    }
}

/// The key behind this one; `None` behind the last one of all.
pub(crate) fn behind(key: &[u8]) -> Option<Vec<u8>> {
    let mut behind = key.to_vec();
    for byte in behind.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(behind);
        }
    }
    None
}

/// An address as packets carry it.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Net(net) if self.is_interval() => net.fmt(formatter),
            Self::Net(net) => net.addr().fmt(formatter),
            Self::Range(first, last) => write!(formatter, "{first}-{last}"),
            Self::Mac(mac) => mac.fmt(formatter),
            Self::Port(port) => port.fmt(formatter),
            Self::Name(name) => write!(formatter, "\"{name}\""),
            Self::Index(number) => number.fmt(formatter),
            Self::Mark(mark) => write!(formatter, "{mark:#010x}"),
            Self::Number(number, length) => write!(formatter, "{number:#0width$x}", width = 2 + 2 * length),
            Self::Symbol(symbol) => formatter.write_str(symbol.name),
        }
    }
}

impl From<Symbol> for Datum {
    fn from(symbol: Symbol) -> Self {
        Self::Symbol(symbol)
    }
}

impl From<IpAddr> for Datum {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<Ipv4Addr> for Datum {
    fn from(address: Ipv4Addr) -> Self {
        Self::Address(address.into())
    }
}

impl From<Ipv6Addr> for Datum {
    fn from(address: Ipv6Addr) -> Self {
        Self::Address(address.into())
    }
}

impl From<IpNet> for Datum {
    fn from(net: IpNet) -> Self {
        Self::Net(net)
    }
}

impl From<Ipv4Net> for Datum {
    fn from(net: Ipv4Net) -> Self {
        Self::Net(net.into())
    }
}

impl From<Ipv6Net> for Datum {
    fn from(net: Ipv6Net) -> Self {
        Self::Net(net.into())
    }
}

impl From<Subnet> for Datum {
    fn from(subnet: Subnet) -> Self {
        subnet.to_net().into()
    }
}

impl From<Subnet6> for Datum {
    fn from(subnet: Subnet6) -> Self {
        subnet.to_net().into()
    }
}

impl From<MacAddr> for Datum {
    fn from(mac: MacAddr) -> Self {
        Self::Mac(mac)
    }
}

impl From<u16> for Datum {
    fn from(port: u16) -> Self {
        Self::Port(port)
    }
}

impl From<&str> for Datum {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_before_the_next_one() {
        let table = [
            ("10.42.0.9/32", Some("10.42.0.10")),
            ("224.0.0.0/4", Some("240.0.0.0")),
            ("255.255.255.255/32", None),
            ("0.0.0.0/0", None),
            ("ff00::/8", None),
            ("fd42::/64", Some("fd42:0:0:1::")),
        ];
        for (net, next) in table {
            let next = next.map(|next| octets(next.parse().unwrap()));
            assert_eq!(Datum::Net(net.parse().unwrap()).behind(), next, "{net}");
        }
    }

    #[test]
    fn one_address_is_no_interval_however_it_is_written() {
        let range = |texts: [&str; 2]| {
            let [first, last] = texts.map(|text| text.parse().unwrap());
            Datum::Range(first, last)
        };
        for (datum, is_interval) in [
            (range(["10.42.0.9", "10.42.0.9"]), false),
            (range(["10.42.0.9", "10.42.0.10"]), true),
            (Datum::Net("10.42.0.9/32".parse().unwrap()), false),
            (Datum::Net("10.42.0.8/31".parse().unwrap()), true),
            (80.into(), false),
        ] {
            assert_eq!(datum.is_interval(), is_interval, "{datum}");
        }
    }

    #[test]
    fn values_are_written_as_nft_writes_them() {
        let table: [(Datum, &str, &[u8]); 8] = [
            ("lo".into(), "\"lo\"", &[b'l', b'o', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("sealane*".into(), "\"sealane*\"", b"sealane"),
            (Datum::Net("192.0.2.1/32".parse().unwrap()), "192.0.2.1", &[192, 0, 2, 1]),
            (Datum::Net("10.42.0.0/16".parse().unwrap()), "10.42.0.0/16", &[10, 42, 0, 0]),
            (Datum::Mark(0x5), "0x00000005", &5_u32.to_ne_bytes()),
            (Datum::Number(0xfd42, 4), "0x0000fd42", &[0, 0, 0xfd, 0x42]),
            (ESTABLISHED.into(), "established", &2_u32.to_ne_bytes()),
            (4789.into(), "4789", &[0x12, 0xb5]),
        ];
        for (datum, text, bytes) in table {
            assert_eq!((datum.to_string().as_str(), datum.bytes().as_slice()), (text, bytes));
        }
    }
}
