//! Hosts that control refuses, as the log tells of them: an agent tries again at once, and for as long as its reason lasts.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sealane_base::mutex::lock;
use sealane_proto::types::NodeName;

/// Time after which the same is told again.
const AGAIN: Duration = Duration::from_secs(600);
/// Hosts that are remembered.
const MOST: usize = 4_096;

/// The last refusal of each host.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<BTreeMap<NodeName, Refusal>>);

#[derive(Debug)]
struct Refusal {
    reason: String,
    told: Instant,
    /// Times since then.
    again: u64,
}

impl Refused {
    /// A host is refused; returns how often it was so since that was told last, if it is to be told now.
    pub(super) fn again(&self, node: &NodeName, reason: &str, now: Instant) -> Option<u64> {
        let mut refused = lock(&self.0);
        let before = refused.get_mut(node);
        if let Some(same) = before.filter(|before| before.reason == reason)
            && now.saturating_duration_since(same.told) < AGAIN
        {
            same.again += 1;
            return None;
        }
        if refused.len() >= MOST && !refused.contains_key(node) {
            refused.pop_first();
        }
        let refusal = Refusal { reason: reason.to_owned(), told: now, again: 0 };
        Some(refused.insert(node.clone(), refusal).map_or(0, |before| before.again))
    }

    /// A host is not refused any more.
    pub(super) fn forget(&self, node: &NodeName) {
        lock(&self.0).remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_host_out_is_told_once_in_a_while_and_when_it_is_something_else() {
        let (refused, start) = (Refused::default(), Instant::now());
        let pass = |node: &str, reason, seconds| {
            refused.again(&node.parse().unwrap(), reason, start + Duration::from_secs(seconds))
        };
        let table = [
            ("h1", "address", 0, Some(0)),
            ("h2", "address", 0, Some(0)),
            ("h1", "address", 1, None),
            ("h1", "address", 599, None),
            ("h1", "address", 600, Some(2)),
            ("h1", "version", 601, Some(0)),
            ("h1", "address", 602, Some(0)),
        ];
        for (node, reason, seconds, expected) in table {
            assert_eq!(pass(node, reason, seconds), expected, "{node} {reason} {seconds}");
        }
        refused.forget(&"h1".parse().unwrap());
        assert_eq!(pass("h1", "address", 603), Some(0));
    }
}
