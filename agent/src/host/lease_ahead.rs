//! Addresses that are asked for before they are needed: nothing that starts waits for a block then. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_proto::types::NetworkName;

/// Number of free addresses that are enough, however many are in use.
pub(super) const ENOUGH: usize = 64;
/// Interval at which one more block than so many is asked for.
const SELDOM: Duration = Duration::from_secs(30);

/// Networks of which this host may need more addresses.
#[derive(Debug, Default)]
pub(super) struct LeaseAhead {
    /// Networks whose addresses or blocks have changed since they were last looked at.
    changed: BTreeSet<NetworkName>,
    /// The number of blocks beyond which each was last asked for, and when.
    asked: BTreeMap<NetworkName, (usize, Instant)>,
}

impl LeaseAhead {
    /// This host has taken or got addresses of a network.
    pub(super) fn note(&mut self, network: NetworkName) {
        self.changed.insert(network);
    }

    /// Names the networks of which one more block is to be asked for, with the number of those that this host has, by what each
    /// `wants`.
    pub(super) fn due(
        &mut self,
        wants: impl Fn(&NetworkName) -> Option<usize>,
        now: Instant,
    ) -> Vec<(NetworkName, usize)> {
        let mut due = vec![];
        for network in std::mem::take(&mut self.changed) {
            let Some(blocks) = wants(&network) else {
                self.asked.remove(&network);
                continue;
            };
            let recent = |&(before, at): &(usize, Instant)| before == blocks && now - at < SELDOM;
            if !self.asked.get(&network).is_some_and(recent) {
                self.asked.insert(network.clone(), (blocks, now));
                due.push((network, blocks));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_block_is_asked_for_once_in_a_while() {
        let (mut ahead, start, shop) = (LeaseAhead::default(), Instant::now(), "shop".parse::<NetworkName>());
        let shop = shop.unwrap();
        let mut asked = |blocks: Option<usize>, seconds: u64| {
            ahead.note(shop.clone());
            let due = ahead.due(|_| blocks, start + Duration::from_secs(seconds));
            due.into_iter().map(|(_, blocks)| blocks).collect::<Vec<_>>()
        };
        assert_eq!(asked(None, 0), [0_usize; 0]);
        assert_eq!(asked(Some(1), 1), [1]);
        assert_eq!(asked(Some(1), 30), [0_usize; 0], "the answer is on its way, or was no");
        assert_eq!(asked(Some(2), 30), [2]);
        assert_eq!(asked(Some(2), 60), [2]);
        assert_eq!(asked(None, 61), [0_usize; 0]);
        assert_eq!(asked(Some(2), 62), [2], "it needed none in between");
        assert_eq!(ahead.due(|_| Some(9), start + SELDOM * 9), [], "nothing has changed");
    }
}
