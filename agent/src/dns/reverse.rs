//! Names of addresses: in-addr.arpa (RFC 1035, section 3.5) and ip6.arpa (RFC 3596, section 2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::message::QueryName;
use super::zone::{Addresses, Lookup, Zone};

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
/// The most labels that stand for an address: one per half byte.
const MAX_UNITS: usize = 32;

/// Finds the owner of a name under arpa. Every name that stands for addresses of `zones` alone is theirs, however much
/// of it is said, and whatever stands before it; `None` for the others.
pub(super) fn lookup<'a>(zones: &'a [Arc<Zone>], name: &QueryName) -> Option<Lookup<'a>> {
    let asked = ReverseName::parse(name)?;
    if asked.is_loopback() {
        return Some(asked.found(|_| Some(b"\x09localhost\x00")));
    }
    let zone = zones.iter().find(|zone| match asked.block {
        IpNet::V4(block) => zone.subnet.to_net().contains(&block),
        IpNet::V6(block) => zone.subnet6.is_some_and(|subnet| subnet.to_net().contains(&block)),
    })?;
    Some(asked.found(|address| match address {
        IpAddr::V4(address) => zone.pointer(address),
        IpAddr::V6(address) => zone.pointer(zone.subnet6?.to_ipv4(address)?),
    }))
}

struct ReverseName {
    /// The addresses that the name, or what it is below, stands for.
    block: IpNet,
    /// True if the name is below that.
    below: bool,
}

impl ReverseName {
    fn parse(name: &QueryName) -> Option<Self> {
        let count = usize::from(name.label_count()).checked_sub(2)?;
        let mut labels = name.labels().map(|(_, label)| label);
        let mut units = [&[][..]; MAX_UNITS];
        for (at, label) in labels.by_ref().take(count).enumerate() {
            // From right to left: the order of an address.
            if let Some(place) = units.get_mut(count - 1 - at) {
                *place = label;
            }
        }
        let (block, known) = match labels.next()? {
            b"in-addr" => ipv4(units.get(..count.min(4))?),
            b"ip6" => ipv6(units.get(..count.min(32))?),
            _ => None,
        }?;
        Some(Self { block, below: known < count })
    }

    fn is_loopback(&self) -> bool {
        match self.block {
            IpNet::V4(block) => LOOPBACK.contains(&block),
            IpNet::V6(block) => block == Ipv6Net::from(Ipv6Addr::LOCALHOST),
        }
    }

    fn found<'a>(&self, pointer: impl Fn(IpAddr) -> Option<&'a [u8]>) -> Lookup<'a> {
        let single = self.block.prefix_len() == self.block.max_prefix_len();
        match (single, self.below) {
            (true, false) => pointer(self.block.addr()).map_or(Lookup::Missing, Lookup::Pointer),
            // There are names below it.
            (false, false) => Lookup::Addresses(Addresses::default()),
            (_, true) => Lookup::Missing,
        }
    }
}

/// The addresses that begin with the numbers that `units` begin with, and how many of them there are.
fn ipv4(units: &[&[u8]]) -> Option<(IpNet, usize)> {
    let mut octets = [0; 4];
    let mut known = 0_u8;
    for (octet, label) in octets.iter_mut().zip(units) {
        let Some(number) = octet_of(label) else { break };
        *octet = number;
        known += 1;
    }
    Some((Ipv4Net::new(octets.into(), known * 8).ok()?.into(), known.into()))
}

/// See [`ipv4`].
fn ipv6(units: &[&[u8]]) -> Option<(IpNet, usize)> {
    let mut bits = 0_u128;
    let mut known = 0_u8;
    for label in units {
        let Some(half) = half_of(label) else { break };
        known += 1;
        bits |= u128::from(half) << (128 - 4 * u32::from(known));
    }
    Some((Ipv6Net::new(Ipv6Addr::from_bits(bits), known * 4).ok()?.into(), known.into()))
}

/// An octet as it is written in names: without leading zeros.
fn octet_of(label: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(label).ok()?;
    digits.parse().ok().filter(|number: &u8| number.to_string() == digits)
}

/// Half a byte; names are in lower case here.
fn half_of(label: &[u8]) -> Option<u8> {
    match label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}
