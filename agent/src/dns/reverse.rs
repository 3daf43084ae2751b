//! Names of addresses: in-addr.arpa (RFC 1035, section 3.5).

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::message::QueryName;
use super::zone::{Found, Zone};

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// What a name under arpa is. Every name that stands for addresses of `zones` alone is theirs, however much of it is
/// said, and whatever stands before it; `None` for the others.
pub(super) fn lookup<'a>(zones: &'a [Arc<Zone>], name: &QueryName) -> Option<Found<'a>> {
    let asked = Asked::parse(name)?;
    if LOOPBACK.contains(&asked.block) {
        return Some(asked.found(|_| Some(b"\x09localhost\x00")));
    }
    let zone = zones.iter().find(|zone| zone.subnet.to_net().contains(&asked.block))?;
    Some(asked.found(|address| zone.pointers.get(&address).map(|name| &**name)))
}

struct Asked {
    /// The addresses that the name, or what it is below, stands for.
    block: Ipv4Net,
    /// Whether the name is below that.
    below: bool,
}

impl Asked {
    fn parse(name: &QueryName) -> Option<Self> {
        let count = usize::from(name.label_count()).checked_sub(2)?;
        let mut labels = name.labels().map(|(_, label)| label);
        let mut last = [&[][..]; 4];
        for (at, label) in labels.by_ref().take(count).enumerate() {
            // From right to left: the octets' order.
            if let Some(place) = last.get_mut(count - 1 - at) {
                *place = label;
            }
        }
        if labels.next()? != b"in-addr" {
            return None;
        }
        let mut octets = [0; 4];
        let mut known = 0_usize;
        for (octet, label) in octets.iter_mut().zip(last).take(count) {
            let Some(number) = number(label) else { break };
            *octet = number;
            known += 1;
        }
        let block = Ipv4Net::new(octets.into(), u8::try_from(known * 8).ok()?).ok()?;
        Some(Self { block, below: known < count })
    }

    fn found<'a>(&self, pointer: impl Fn(Ipv4Addr) -> Option<&'a [u8]>) -> Found<'a> {
        match (self.block.prefix_len(), self.below) {
            (32, false) => pointer(self.block.addr()).map_or(Found::Missing, Found::Pointer),
            // There are names below it.
            (_, false) => Found::Addresses(&[]),
            (_, true) => Found::Missing,
        }
    }
}

/// An octet as it is written in names: without leading zeros.
fn number(label: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(label).ok()?;
    digits.parse().ok().filter(|number: &u8| number.to_string() == digits)
}
