//! Prefixes and addresses of either family.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{OverlayIp, Subnet, Subnet6};

/// An address of a network, and its twin where the network has IPv6, each with the length of its prefix.
pub fn addresses(
    subnet: Subnet,
    subnet6: Option<Subnet6>,
    address: OverlayIp,
) -> impl Iterator<Item = IpNet> + use<> {
    let ipv4 = Ipv4Net::new_assert(address.to_ipv4(), subnet.to_net().prefix_len());
    let twin =
        |subnet6: Subnet6| Ipv6Net::new_assert(subnet6.address(address), subnet6.to_net().prefix_len());
    [Some(ipv4.into()), subnet6.map(|subnet6| twin(subnet6).into())].into_iter().flatten()
}

/// Returns true if two prefixes have addresses in common: one contains the other then. Prefixes of different families have none.
#[must_use]
pub fn overlap(one: impl Into<IpNet>, other: impl Into<IpNet>) -> bool {
    let (one, other) = (one.into(), other.into());
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_overlap_when_one_lies_in_the_other() {
        for (one, other, expected) in [
            ("10.42.0.0/16", "10.42.0.0/16", true),
            ("10.42.0.0/16", "10.42.7.0/24", true),
            ("10.42.0.0/16", "10.43.0.0/16", false),
            ("fd42::/64", "fd42::/16", true),
            ("fd42::/64", "fd43::/64", false),
            ("::/0", "0.0.0.0/0", false),
        ] {
            let [a, b] = [one, other].map(|text| text.parse::<IpNet>().unwrap());
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{one} {other}");
        }
    }
}
