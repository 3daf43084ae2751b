//! Arithmetic on address prefixes, without any state of its own.
//!
//! Blocks are of any size that is a power of two, at least a cell of their subnet when they are leased. Hosts' blocks grow from
//! the bottom of the subnet, blocks of service addresses from its top. Which block an address lies in, the state says.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use sealane_proto::types::{OverlayIp, Subnet};

/// The largest block, in addresses.
const LARGEST: usize = 4_096;
/// The largest block of service addresses.
const LARGEST_OF_SERVICES: usize = 256;

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

/// The cell that an address of the subnet lies in.
pub(super) fn cell_of(subnet: Subnet, address: OverlayIp) -> Ipv4Net {
    net(address.to_ipv4().to_bits(), subnet.cell_prefix())
}

/// The number of addresses in a cell of a subnet.
pub(super) fn cell_size(subnet: Subnet) -> usize {
    1 << (32 - subnet.cell_prefix())
}

/// The number of addresses in a range.
pub(super) fn size(range: Ipv4Net) -> usize {
    1 << (32 - range.prefix_len())
}

/// The number of addresses of a range that can be a workload's or a service's.
pub(super) fn assignable(subnet: Subnet, range: Ipv4Net) -> usize {
    size(range) - subnet.reserved().iter().filter(|reserved| range.contains(&reserved.to_ipv4())).count()
}

/// The number of addresses that the next block of a host is to have, by those that it holds: as many again.
pub(super) fn next_size(subnet: Subnet, held: usize) -> usize {
    held.next_power_of_two().clamp(cell_size(subnet), LARGEST)
}

/// The same of the next block of service addresses.
pub(super) fn next_size_of_services(subnet: Subnet, held: usize) -> usize {
    let cell = cell_size(subnet);
    let first = (size(subnet.to_net()) / LARGEST_OF_SERVICES).clamp(cell, LARGEST_OF_SERVICES);
    held.clamp(first, LARGEST_OF_SERVICES)
}

/// All addresses of a block.
pub(super) fn addresses(block: Ipv4Net) -> RangeInclusive<OverlayIp> {
    block.network().into()..=block.broadcast().into()
}

/// Addresses of a subnet that are not to be leased, beside the cells of which no address can be assigned.
#[derive(Debug)]
pub(super) struct Taken {
    subnet: Subnet,
    /// First addresses, and the first ones behind: sorted, with something between each two.
    ranges: Vec<(u64, u64)>,
}

impl Taken {
    pub(super) fn new(subnet: Subnet, ranges: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let cells = subnet.reserved().map(|reserved| cell_of(subnet, reserved));
        let useless = cells.into_iter().filter(|&cell| assignable(subnet, cell) == 0);
        let mut all: Vec<(u64, u64)> = ranges.into_iter().chain(useless).map(bounds).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (first, behind) in all {
            match ranges.last_mut().filter(|last| first <= last.1) {
                Some(last) => last.1 = last.1.max(behind),
                None => ranges.push((first, behind)),
            }
        }
        Self { subnet, ranges }
    }

    /// Returns true if some address of a range is taken.
    pub(super) fn overlaps(&self, range: Ipv4Net) -> bool {
        let (first, behind) = bounds(range);
        let next = self.ranges.partition_point(|known| known.1 <= first);
        self.ranges.get(next).is_some_and(|known| known.0 < behind)
    }

    /// The number of addresses that are left.
    pub(super) fn free(&self) -> usize {
        self.gaps().map(|(first, behind)| usize::try_from(behind - first).unwrap_or(usize::MAX)).sum()
    }

    /// Finds a free block from this end: of at most so many addresses, and as many of them as can be had, but no less than a
    /// cell.
    pub(super) fn find(&self, most: usize, end: End) -> Option<Ipv4Net> {
        let (largest, cell) = (most.checked_ilog2()?, cell_size(self.subnet).ilog2());
        (cell..=largest).rev().find_map(|power| self.find_of(power, end))
    }

    fn find_of(&self, power: u32, end: End) -> Option<Ipv4Net> {
        let size = 1_u64 << power;
        let lowest = |(first, behind): (u64, u64)| {
            let at = first.next_multiple_of(size);
            (at + size <= behind).then_some(at)
        };
        let highest = |(first, behind): (u64, u64)| {
            let at = (behind / size * size).checked_sub(size)?;
            (at >= first).then_some(at)
        };
        let at = match end {
            End::Bottom => self.gaps().find_map(lowest),
            End::Top => self.gaps().filter_map(highest).last(),
            End::Middle => {
                let (first, behind) = bounds(self.subnet.to_net());
                let middle = u64::midpoint(first, behind);
                let upper = self.gaps().map(|gap| (gap.0.max(middle), gap.1.max(middle)));
                upper.into_iter().find_map(lowest).or_else(|| self.gaps().find_map(lowest))
            }
        };
        let prefix = u8::try_from(32 - power).ok()?;
        Some(net(u32::try_from(at?).ok()?, prefix))
    }

    /// The ranges between, lowest first.
    fn gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        let (first, behind) = bounds(self.subnet.to_net());
        let begins = [first].into_iter().chain(self.ranges.iter().map(|taken| taken.1));
        let ends = self.ranges.iter().map(|taken| taken.0).chain([behind]);
        begins.zip(ends).map(|(begin, end)| (begin, end.max(begin)))
    }
}

/// The first address of a range, and the first one behind it.
fn bounds(range: Ipv4Net) -> (u64, u64) {
    let first = u64::from(range.network().to_bits());
    (first, first + (1_u64 << (32 - range.prefix_len())))
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
    fn cells_without_an_assignable_address_are_leased_to_nobody() {
        for (text, first, last, free) in [
            ("10.42.0.0/24", "10.42.0.0/30", "10.42.0.252/30", 256),
            ("10.42.0.0/25", "10.42.0.2/31", "10.42.0.126/31", 126),
            ("10.42.0.0/28", "10.42.0.2/32", "10.42.0.14/32", 13),
        ] {
            let none = Taken::new(subnet(text), []);
            let cell = cell_size(subnet(text));
            let found = [End::Bottom, End::Top].map(|end| none.find(cell, end).unwrap().to_string());
            assert_eq!((found, none.free()), ([first.to_owned(), last.to_owned()], free), "{text}");
        }
    }

    #[test]
    fn a_block_is_as_large_as_can_be_had() {
        let blocks = ["10.42.0.0/28", "10.42.0.32/28", "10.42.0.128/25"].map(|text| text.parse().unwrap());
        let taken = Taken::new(subnet("10.42.0.0/24"), blocks);
        for (most, found) in [
            (3, None),
            (4, Some("10.42.0.16/30")),
            (16, Some("10.42.0.16/28")),
            (32, Some("10.42.0.64/27")),
            (63, Some("10.42.0.64/27")),
            (64, Some("10.42.0.64/26")),
            (4_096, Some("10.42.0.64/26")),
        ] {
            let block = taken.find(most, End::Bottom).map(|block| block.to_string());
            assert_eq!(block.as_deref(), found, "{most}");
        }
        assert_eq!(taken.find(16, End::Top), Some("10.42.0.112/28".parse().unwrap()));
        assert_eq!(taken.free(), 16 + 16 + 64);
        for (text, overlaps) in [("10.42.0.16/28", false), ("10.42.0.16/27", true), ("10.42.0.200/32", true)]
        {
            assert_eq!(taken.overlaps(text.parse().unwrap()), overlaps, "{text}");
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
        let first = |range: std::ops::Range<u32>| Taken::new(subnet, range.map(block)).find(256, End::Middle);
        assert_eq!(first(0..0), Some(block(128)));
        assert_eq!(first(128..129), Some(block(129)));
        assert_eq!(first(128..256), Some(block(0)));
        assert_eq!(first(0..256), None);
    }

    proptest! {
        #[test]
        fn blocks_of_all_sizes_from_all_ends_are_disjoint_and_leave_nothing_over(
            prefix in 20_u8..=28, asked in prop::collection::vec((0_u32..9, 0_u8..3), 1..60),
        ) {
            let subnet: Subnet = net(0x0a00_0000, prefix).to_string().parse().unwrap();
            let cell = cell_size(subnet);
            let mut blocks: Vec<Ipv4Net> = vec![];
            for (power, end) in asked {
                let end = [End::Bottom, End::Top, End::Middle][usize::from(end)];
                let taken = Taken::new(subnet, blocks.iter().copied());
                let most = (1 << power).max(cell);
                match taken.find(most, end) {
                    Some(block) => {
                        prop_assert!(subnet.to_net().contains(&block) && block == block.trunc());
                        prop_assert!((cell..=most).contains(&size(block)) && assignable(subnet, block) > 0);
                        prop_assert!(!taken.overlaps(block));
                        prop_assert!(blocks.iter().all(|other| !other.contains(&block) && !block.contains(other)));
                        blocks.push(block);
                    }
                    None => prop_assert_eq!(taken.free(), 0),
                }
            }
        }

        #[test]
        fn no_address_is_assigned_twice_and_none_that_is_reserved(prefix in 20_u8..=28, count in 1_usize..100) {
            let subnet: Subnet = net(0x0a2a_0000, prefix).to_string().parse().unwrap();
            let block = Taken::new(subnet, []).find(64, End::Bottom).unwrap();
            let mut taken = BTreeSet::new();
            for _ in 0..count {
                let Some(address) = free_address(subnet, block, |address| taken.contains(&address)) else { break };
                prop_assert!(is_assignable(subnet, address) && block.contains(&address.to_ipv4()));
                prop_assert!(taken.insert(address));
            }
            prop_assert!(taken.len() == count || taken.len() == assignable(subnet, block));
        }
    }
}
