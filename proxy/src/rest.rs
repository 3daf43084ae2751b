//! The memory of a sidecar at rest: what only its start or a busy time has needed is given back.

use std::time::Duration;

use sealane_sys::heap;
use sealane_sys::resident::{anonymous, release_file_pages, release_heap};

/// Interval at which the heap is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Number of looks in a row at which nothing must happen before a busy time is over.
const QUIET: u32 = 12;
/// Bytes beyond those in use that the process must hold for them to be given back.
const SLACK: usize = 8 * 1024 * 1024;

/// Detector of the end of a busy time. Pure.
#[derive(Debug, Default)]
struct Rest {
    seen: u64,
    released: u64,
}

impl Rest {
    /// To be asked regularly, with a number that grows with everything that happens: whether something has happened
    /// since this was true the last time, and nothing since it was asked the last time.
    fn handle_activity(&mut self, count: u64) -> bool {
        let over = count == self.seen && count != self.released;
        self.seen = count;
        if over {
            self.released = count;
        }
        over
    }
}

/// Detector of a heap that holds much that is not in use. Pure.
#[derive(Debug, Default)]
struct Slack {
    /// Bytes that were left the last time.
    left: usize,
    before: usize,
}

impl Slack {
    /// To be asked regularly with what is held and not in use: whether it should be given back, since it has been so
    /// since the last time, and is more than could not be given back then.
    fn handle_slack(&mut self, slack: usize) -> bool {
        let lasting = slack.min(self.before);
        self.before = slack;
        self.left = self.left.min(slack);
        lasting > self.left + SLACK
    }

    /// Takes in the bytes that are still held after a trim.
    fn handle_trimmed(&mut self, slack: usize) {
        (self.left, self.before) = (slack, slack);
    }
}

/// Gives memory back, as long as it is polled: what the heap has not in use when that is much, and program pages after
/// every busy time. `activity` grows with everything that happens.
pub(crate) async fn watch(activity: impl Fn() -> u64) {
    let (mut rest, mut slack) = (Rest::default(), Slack::default());
    for look in 1_u32.. {
        tokio::time::sleep(LOOK).await;
        if let Some(unused) = unused()
            && slack.handle_slack(unused)
        {
            release_heap();
            let left = self::unused().unwrap_or(unused);
            tracing::debug!(kib = unused.saturating_sub(left) / 1024, "memory of the heap given back");
            slack.handle_trimmed(left);
        }
        if look % QUIET == 0 && rest.handle_activity(activity()) {
            release();
        }
    }
}

/// Returns the bytes of its own memory that the process holds without using them.
fn unused() -> Option<usize> {
    Some(anonymous().ok()?.saturating_sub(heap::total()))
}

/// Gives back program pages; what is used comes back from the page cache.
pub(crate) fn release() {
    match release_file_pages() {
        Ok(kib) => tracing::debug!(kib, "program pages given back"),
        Err(error) => tracing::debug!(%error, "program pages stay resident"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_time_is_over_once_when_nothing_has_happened_for_a_while() {
        let mut rest = Rest::default();
        let table =
            [(0, false), (0, false), (5, false), (7, false), (7, true), (7, false), (9, false), (9, true)];
        for (count, expected) in table {
            assert_eq!(rest.handle_activity(count), expected, "{rest:?}");
        }
    }

    #[test]
    fn what_the_heap_does_not_use_is_given_back_once_it_has_lasted() {
        const MIB: usize = 1024 * 1024;
        let mut slack = Slack::default();
        assert!(!slack.handle_slack(2 * MIB));
        assert!(!slack.handle_slack(100 * MIB), "only just");
        assert!(slack.handle_slack(90 * MIB));
        slack.handle_trimmed(30 * MIB);
        // What is in pieces stays.
        assert!(!slack.handle_slack(31 * MIB) && !slack.handle_slack(33 * MIB));
        assert!(!slack.handle_slack(60 * MIB));
        assert!(slack.handle_slack(60 * MIB));
    }
}
