//! Values that rules compare, as the kernel takes them.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::netlink::netfilter::Attributes;

/// Length of a device's name in the kernel.
const NAME: usize = 16;

/// Value that is compared, in the first register.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// nft's number for its type.
    pub(super) kind: u32,
    pub(super) length: usize,
    /// True if nft takes it for a number of the host's byte order.
    pub(super) of_host: bool,
    pub(super) read: fn(&str) -> Option<Vec<u8>>,
}

pub(super) const DEVICE: Key = Key { kind: 41, length: NAME, of_host: true, read: device };
pub(super) const PORT: Key = Key { kind: 13, length: 2, of_host: false, read: port };
pub(super) const STATE: Key = Key { kind: 26, length: 4, of_host: true, read: state };
pub(super) const MESSAGE: Key = Key { kind: 29, length: 1, of_host: false, read: message };

/// An address or, of several, the first; and how many bits of it count.
pub(super) fn prefix(text: &str) -> Option<(Vec<u8>, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let address = match address.parse::<Ipv4Addr>() {
        Ok(address) => address.octets().to_vec(),
        Err(_) => address.parse::<Ipv6Addr>().ok()?.octets().to_vec(),
    };
    let all = u32::try_from(address.len()).ok()? * 8;
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some((address, bits))
}

/// A key of a set, or where a range of keys begins.
pub(super) fn row(key: &[u8]) -> Attributes {
    Attributes::of(|row| row.nested(1, |data| data.bytes(1, key)))
}

/// The first key behind a range of them.
pub(super) fn end(key: &[u8]) -> Attributes {
    let mut row = row(key);
    row.number(3, 1); // NFT_SET_ELEM_INTERVAL_END
    row
}

/// Begins a range that the last of all keys ends.
pub(super) fn last(key: &[u8]) -> Attributes {
    let mut row = row(key);
    // As nft keeps it: a type, the length, SET_ELEM_F_INTERVAL_OPEN.
    row.bytes(6, &[&[1, 4], &1_u32.to_ne_bytes()[..]].concat());
    row
}

/// As many ones as a prefix has bits.
pub(super) fn mask(bits: u32, length: usize) -> Vec<u8> {
    let byte = |place: usize| {
        let ones = bits.saturating_sub(u32::try_from(place * 8).unwrap_or(u32::MAX)).min(8);
        u8::try_from(0xff00_u16 >> ones & 0xff).unwrap_or_default()
    };
    (0..length).map(byte).collect()
}

/// The first address behind a network; `None` behind the last one of all.
pub(super) fn behind(network: &[u8], bits: u32) -> Option<Vec<u8>> {
    let mut wide = [0; 16];
    wide.get_mut(16 - network.len()..)?.copy_from_slice(network);
    let host_bits = u32::try_from(network.len()).ok()? * 8 - bits;
    let behind = u128::from_be_bytes(wide).checked_add(1_u128.checked_shl(host_bits)?)?.to_be_bytes();
    let (above, behind) = behind.split_at_checked(16 - network.len())?;
    above.iter().all(|byte| *byte == 0).then(|| behind.to_vec())
}

pub(super) fn address4(text: &str) -> Option<Vec<u8>> {
    Some(text.parse::<Ipv4Addr>().ok()?.octets().to_vec())
}

pub(super) fn address6(text: &str) -> Option<Vec<u8>> {
    Some(text.parse::<Ipv6Addr>().ok()?.octets().to_vec())
}

fn device(text: &str) -> Option<Vec<u8>> {
    let mut name = text.as_bytes().to_vec();
    name.resize(NAME, 0);
    (text.len() < NAME && !text.is_empty() && !text.contains('*')).then_some(name)
}

pub(super) fn port(text: &str) -> Option<Vec<u8>> {
    Some(text.parse::<u16>().ok()?.to_be_bytes().to_vec())
}

fn state(text: &str) -> Option<Vec<u8>> {
    let bit: u32 = match text {
        "established" => 2,
        "related" => 4,
        _ => return None,
    };
    Some(bit.to_ne_bytes().to_vec())
}

fn message(text: &str) -> Option<Vec<u8>> {
    let number = match text {
        "nd-router-solicit" => 133,
        "nd-router-advert" => 134,
        "nd-neighbor-solicit" => 135,
        "nd-neighbor-advert" => 136,
        "nd-redirect" => 137,
        _ => return None,
    };
    Some(vec![number])
}

pub(super) fn ethernet(text: &str) -> Option<Vec<u8>> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    (bytes.len() == 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_ends_before_the_next_address() {
        let table = [
            ("10.42.0.9", 32, Some("10.42.0.10")),
            ("224.0.0.0", 4, Some("240.0.0.0")),
            ("255.255.255.255", 32, None),
            ("0.0.0.0", 0, None),
            ("ff00::", 8, None),
            ("fd42::", 64, Some("fd42:0:0:1::")),
        ];
        for (network, bits, next) in table {
            let bytes = |text: &str| prefix(text).unwrap().0;
            assert_eq!(behind(&bytes(network), bits), next.map(bytes), "{network}/{bits}");
        }
    }

    #[test]
    fn masks_have_as_many_ones_as_a_prefix_has_bits() {
        assert_eq!(mask(20, 4), [255, 255, 240, 0]);
        assert_eq!(mask(0, 4), [0; 4]);
        assert_eq!(mask(64, 16), [[255; 8], [0; 8]].concat());
    }
}
