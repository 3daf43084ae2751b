//! Arithmetic on address prefixes, without any state of its own.
//!
//! Hosts' blocks grow from the bottom of the subnet, blocks of service addresses from its top. All blocks of a
//! network have one size, so the block of an address follows from the address.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use sealane_proto::types::{OverlayIp, Subnet};

/// End of a subnet at which a free block is looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Low addresses first.
    Bottom,
    /// High addresses first.
    Top,
    /// From the middle up, the low ones last: where nobody knows what was leased at the bottom.
    Middle,
}

/// The prefix length of a network's blocks: about as many blocks as addresses in one, 16 addresses at least.
pub(super) fn block_prefix(subnet: Subnet) -> u8 {
    let prefix = subnet.to_net().prefix_len();
    (prefix + (32 - prefix) / 2).min(28)
}

/// The block that an address of the subnet lies in.
pub(super) fn block_of(subnet: Subnet, address: OverlayIp) -> Ipv4Net {
    net(address.to_ipv4().to_bits(), block_prefix(subnet))
}

/// Returns the number of blocks of a subnet.
pub(super) fn block_count(subnet: Subnet) -> u32 {
    1 << (block_prefix(subnet) - subnet.to_net().prefix_len())
}

/// The number of addresses in a block of a subnet.
pub(super) fn block_size(subnet: Subnet) -> usize {
    1 << (32 - block_prefix(subnet))
}

/// All addresses of a block.
pub(super) fn addresses(block: Ipv4Net) -> RangeInclusive<OverlayIp> {
    block.network().into()..=block.broadcast().into()
}

/// The first block from this end that is not `taken`.
pub(super) fn free_block(subnet: Subnet, end: End, taken: impl Fn(Ipv4Net) -> bool) -> Option<Ipv4Net> {
    let (prefix, count) = (block_prefix(subnet), block_count(subnet));
    let first = subnet.to_net().network().to_bits();
    let block = |index: u32| net(first + (index << (32 - prefix)), prefix);
    (0..count)
        .map(|index| match end {
            End::Bottom => block(index),
            End::Top => block(count - 1 - index),
            End::Middle => block((index + count / 2) % count),
        })
        .find(|block| !taken(*block))
}

/// Returns true if an address can be a workload's or a service's: inside, and not reserved.
pub(super) fn is_assignable(subnet: Subnet, address: OverlayIp) -> bool {
    subnet.contains(address) && !subnet.reserved().contains(&address)
}

/// The lowest assignable address of a block that is not `taken`.
pub(super) fn free_address(
    subnet: Subnet,
    block: Ipv4Net,
    taken: impl Fn(OverlayIp) -> bool,
) -> Option<OverlayIp> {
    (block.network().to_bits()..=block.broadcast().to_bits())
        .map(|bits| OverlayIp::from(Ipv4Addr::from_bits(bits)))
        .find(|&address| is_assignable(subnet, address) && !taken(address))
}

/// A private subnet of the same size that overlaps none of `taken`.
pub(super) fn free_subnet(like: Subnet, taken: &[Subnet]) -> Option<Subnet> {
    const POOLS: [(Ipv4Addr, u8); 3] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
    ];
    let prefix = like.to_net().prefix_len();
    POOLS.into_iter().filter(|&(_, pool)| pool <= prefix).find_map(|(first, pool)| {
        let pool = net(first.to_bits(), pool);
        free_subnet_in(pool, prefix, taken)
    })
}

fn free_subnet_in(pool: Ipv4Net, prefix: u8, taken: &[Subnet]) -> Option<Subnet> {
    let size = 1_u64 << (32 - prefix);
    let mut at = u64::from(pool.network().to_bits());
    while at + size - 1 <= u64::from(pool.broadcast().to_bits()) {
        let candidate: Subnet = net(u32::try_from(at).ok()?, prefix).to_string().parse().ok()?;
        let Some(other) = taken.iter().find(|other| other.overlaps(candidate)) else {
            return Some(candidate);
        };
        // On behind the other one, which may be larger than the candidate.
        at = (u64::from(other.to_net().broadcast().to_bits()) + 1).next_multiple_of(size);
    }
    None
}

/// The prefix of this length around an address. Lengths here are those of blocks and subnets, never above 32.
fn net(bits: u32, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), prefix).trunc()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_are_sized_by_the_subnet() {
        let table = [("10.42.0.0/16", 24), ("10.42.0.0/20", 26), ("10.42.0.0/24", 28), ("10.42.0.0/26", 28)];
        for (text, prefix) in table {
            assert_eq!(block_prefix(subnet(text)), prefix, "{text}");
        }
    }

    #[test]
    fn a_free_subnet_lies_behind_what_overlaps() {
        let taken = ["10.0.0.0/9", "10.128.0.0/16"].map(subnet);
        assert_eq!(free_subnet(subnet("10.1.0.0/16"), &taken), Some(subnet("10.129.0.0/16")));
        assert_eq!(free_subnet(subnet("10.0.0.0/8"), &[subnet("10.42.0.0/16")]), None);
        assert_eq!(
            free_subnet(subnet("10.1.0.0/24"), &[subnet("10.0.0.0/8")]),
            Some(subnet("172.16.0.0/24"))
        );
    }

    #[test]
    fn a_pool_that_is_free_as_a_whole_is_one_subnet() {
        assert_eq!(free_subnet(subnet("10.0.0.0/8"), &[]), Some(subnet("10.0.0.0/8")));
    }

    #[test]
    fn blocks_from_the_middle_go_up_and_come_round_at_last() {
        let subnet = subnet("10.42.0.0/16");
        let block = |index: u32| net(0x0a2a_0000 + (index << 8), 24);
        let first = |taken: std::ops::Range<u32>| {
            free_block(subnet, End::Middle, |one| taken.clone().any(|index| block(index) == one))
        };
        assert_eq!(first(0..0), Some(block(128)));
        assert_eq!(first(128..129), Some(block(129)));
        assert_eq!(first(128..256), Some(block(0)));
        assert_eq!(first(0..256), None);
    }

    proptest! {
        #[test]
        fn blocks_from_both_ends_partition_the_subnet(prefix in 8_u8..=26, ends in prop::collection::vec(any::<bool>(), 1..40)) {
            let subnet: Subnet = net(0x0a00_0000, prefix).to_string().parse().unwrap();
            let mut taken = BTreeSet::new();
            for top in ends {
                let end = if top { End::Top } else { End::Bottom };
                match free_block(subnet, end, |block| taken.contains(&block)) {
                    Some(block) => {
                        prop_assert!(subnet.to_net().contains(&block));
                        prop_assert!(taken.insert(block));
                    }
                    None => prop_assert_eq!(taken.len(), block_count(subnet) as usize),
                }
            }
        }

        #[test]
        fn no_address_is_assigned_twice_and_none_that_is_reserved(prefix in 20_u8..=26, count in 1_usize..100) {
            let subnet: Subnet = net(0x0a2a_0000, prefix).to_string().parse().unwrap();
            let block = free_block(subnet, End::Bottom, |_| false).unwrap();
            let mut taken = BTreeSet::new();
            for _ in 0..count {
                let Some(address) = free_address(subnet, block, |address| taken.contains(&address)) else { break };
                prop_assert!(is_assignable(subnet, address) && block_of(subnet, address) == block);
                prop_assert!(taken.insert(address));
            }
            prop_assert!(taken.len() == count || taken.len() == (1 << (32 - block.prefix_len())) - 2);
        }
    }
}
