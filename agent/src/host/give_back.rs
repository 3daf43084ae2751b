//! Addresses that this host has and does not need: it gives them back, so that others have them. Pure.
//!
//! A block that is empty goes when enough free addresses are left without it. Where a network has few addresses left, every part
//! of a block goes in which nothing is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use sealane_proto::types::{NetworkName, OverlayIp, Subnet};

use super::lease_ahead::ENOUGH;

/// Time for which addresses must have been of no use before they are given back.
const IDLE: Duration = Duration::from_secs(10);

/// Memory of what is not needed.
#[derive(Debug, Default)]
pub(super) struct GiveBack {
    /// Since when.
    idle: BTreeMap<(NetworkName, Ipv4Net), Instant>,
}

impl GiveBack {
    /// Names the ranges that are given back from now on, by those that are not needed at this moment.
    pub(super) fn due(
        &mut self,
        surplus: BTreeMap<NetworkName, Vec<Ipv4Net>>,
        now: Instant,
    ) -> BTreeMap<NetworkName, BTreeSet<Ipv4Net>> {
        let before = std::mem::take(&mut self.idle);
        let mut due: BTreeMap<NetworkName, BTreeSet<Ipv4Net>> = BTreeMap::new();
        for (network, ranges) in surplus {
            for range in ranges {
                let key = (network.clone(), range);
                let since = before.get(&key).copied().unwrap_or(now);
                if now - since >= IDLE {
                    due.entry(network.clone()).or_default().insert(range);
                }
                self.idle.insert(key, since);
            }
        }
        due
    }
}

/// Finds what is not needed of these blocks when these addresses are in use. Something is always left.
pub(super) fn surplus(
    subnet: Subnet,
    blocks: &BTreeSet<Ipv4Net>,
    used: &BTreeSet<OverlayIp>,
    is_short: bool,
) -> Vec<Ipv4Net> {
    let mut kept: BTreeSet<OverlayIp> = used
        .iter()
        .copied()
        .filter(|address| blocks.iter().any(|block| block.contains(&address.to_ipv4())))
        .collect();
    let free = |block: &Ipv4Net| size(*block) - reserved(subnet, *block);
    let mut left = blocks.iter().map(free).sum::<usize>().saturating_sub(kept.len());
    if kept.is_empty()
        && let Some(block) = blocks.iter().find(|block| free(block) > 0)
    {
        let assignable =
            block.hosts().map(OverlayIp::from).find(|address| !subnet.reserved().contains(address));
        kept.extend(assignable);
    }
    if is_short {
        let mut parts = vec![];
        blocks.iter().for_each(|block| empty_parts(subnet, *block, &kept, &mut parts));
        return parts;
    }
    let enough = 2 * used.len().min(ENOUGH);
    let mut empty: Vec<Ipv4Net> = blocks.iter().copied().filter(|block| is_empty(*block, &kept)).collect();
    empty.sort_by_key(|block| Reverse((size(*block), *block)));
    empty.retain(|block| {
        let goes = left.saturating_sub(free(block)) >= enough;
        left -= if goes { free(block) } else { 0 };
        goes
    });
    empty
}

/// Finds the largest parts of a block, of a cell at least, in which nothing is.
fn empty_parts(subnet: Subnet, block: Ipv4Net, kept: &BTreeSet<OverlayIp>, parts: &mut Vec<Ipv4Net>) {
    if is_empty(block, kept) {
        parts.push(block);
    } else if block.prefix_len() < subnet.cell_prefix()
        && let Ok(halves) = block.subnets(block.prefix_len() + 1)
    {
        halves.for_each(|half| empty_parts(subnet, half, kept, parts));
    }
}

fn is_empty(block: Ipv4Net, kept: &BTreeSet<OverlayIp>) -> bool {
    let (first, last) = (OverlayIp::from(block.network()), OverlayIp::from(block.broadcast()));
    kept.range(first..=last).next().is_none()
}

fn size(block: Ipv4Net) -> usize {
    1 << (32 - block.prefix_len())
}

fn reserved(subnet: Subnet, block: Ipv4Net) -> usize {
    subnet.reserved().iter().filter(|address| block.contains(&address.to_ipv4())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(subnet: &str, blocks: &[&str], used: &[&str], is_short: bool, expected: &[&str]) {
        let blocks = blocks.iter().map(|block| block.parse().unwrap()).collect();
        let addresses = used.iter().map(|address| address.parse().unwrap()).collect();
        let found = surplus(subnet.parse().unwrap(), &blocks, &addresses, is_short);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{blocks:?} {used:?} {is_short}");
    }

    #[test]
    fn empty_blocks_go_while_enough_is_left() {
        let (net, blocks) = ("10.42.0.0/16", ["10.42.0.0/28", "10.42.0.16/28", "10.42.0.32/27"]);
        check(net, &blocks, &[], false, &["10.42.0.32/27", "10.42.0.16/28"]);
        check(net, &blocks, &["10.42.0.2"], false, &["10.42.0.32/27", "10.42.0.16/28"]);
        check(net, &blocks, &["10.42.0.33"], false, &["10.42.0.16/28", "10.42.0.0/28"]);
        check(net, &blocks, &["10.42.0.2", "10.42.0.17"], false, &["10.42.0.32/27"]);
        let seven =
            ["10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.5", "10.42.0.6", "10.42.0.7", "10.42.0.8"];
        check(net, &blocks, &seven, false, &["10.42.0.32/27"]);
        check(net, &blocks[..2], &seven, false, &["10.42.0.16/28"][..0]);
        check(net, &blocks[..2], &seven[..5], false, &[]);
        check(net, &blocks[..2], &seven[..4], false, &["10.42.0.16/28"]);
        // The largest one is needed, and a smaller one goes.
        check(
            net,
            &["10.42.0.4/30", "10.42.0.16/28", "10.42.0.32/27"],
            &[
                "10.42.0.16",
                "10.42.0.17",
                "10.42.0.18",
                "10.42.0.19",
                "10.42.0.20",
                "10.42.0.21",
                "10.42.0.22",
            ],
            false,
            &["10.42.0.4/30"],
        );
        let small = ["10.42.0.16/29", "10.42.0.24/30", "10.42.0.32/27"];
        let five = ["10.42.0.16", "10.42.0.17", "10.42.0.18", "10.42.0.24", "10.42.0.25"];
        check(net, &small, &five[..4], false, &["10.42.0.32/27"]);
        check(net, &small, &five, false, &[]);
        // Of the first block no workload has an address.
        check(net, &["10.42.0.0/31", "10.42.0.16/28"], &[], false, &["10.42.0.0/31"]);
        check(net, &blocks[..1], &[], false, &[]);
        check(net, &blocks[..1], &["10.42.99.9"], false, &[]);
    }

    #[test]
    fn empty_parts_go_where_addresses_are_short() {
        check("10.42.0.0/28", &["10.42.0.2/32"], &[], true, &[]);
        check(
            "10.42.0.0/28",
            &["10.42.0.2/31", "10.42.0.4/30"],
            &[],
            true,
            &["10.42.0.3/32", "10.42.0.4/30"],
        );
        check(
            "10.42.0.0/26",
            &["10.42.0.16/28", "10.42.0.32/30"],
            &["10.42.0.19", "10.42.0.24"],
            true,
            &[
                "10.42.0.16/31",
                "10.42.0.18/32",
                "10.42.0.20/30",
                "10.42.0.25/32",
                "10.42.0.26/31",
                "10.42.0.28/30",
                "10.42.0.32/30",
            ],
        );
        // No part is smaller than a cell.
        check("10.42.0.0/24", &["10.42.0.16/28"], &["10.42.0.19"], true, &["10.42.0.20/30", "10.42.0.24/29"]);
    }

    #[test]
    fn what_is_needed_again_meanwhile_stays() {
        let (mut back, start) = (GiveBack::default(), Instant::now());
        let shop: NetworkName = "shop".parse().unwrap();
        let mut look = |ranges: &[&str], seconds: u64| {
            let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
            let due = back.due([(shop.clone(), ranges)].into(), start + Duration::from_secs(seconds));
            due.values().flatten().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(look(&["10.42.0.16/28", "10.42.0.32/28"], 0), [""; 0]);
        assert_eq!(look(&["10.42.0.16/28"], 5), [""; 0]);
        assert_eq!(look(&["10.42.0.16/28", "10.42.0.32/28"], 10), ["10.42.0.16/28"]);
        assert_eq!(look(&["10.42.0.16/28", "10.42.0.32/28"], 20), ["10.42.0.16/28", "10.42.0.32/28"]);
    }
}
