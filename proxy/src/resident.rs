//! The memory of a sidecar at rest: what only its start or a busy time has needed is given back.

use std::time::Duration;

use sealane_base::slack;
use sealane_sys::heap;
use sealane_sys::resident::{release_file_pages, release_heap};

/// Time for which nothing must happen before a busy time is over.
const QUIET: Duration = Duration::from_secs(60);

/// Detector of the end of a busy time. Pure.
#[derive(Debug, Default)]
struct QuietDetector {
    seen: u64,
    released: u64,
}

impl QuietDetector {
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

/// Gives memory back, as long as it is polled: what the heap has not in use when that is much, and program pages after
/// every busy time. `activity` grows with everything that happens.
pub(crate) async fn watch(activity: impl Fn() -> u64) {
    let pages = async {
        let mut quiet = QuietDetector::default();
        loop {
            tokio::time::sleep(QUIET).await;
            if quiet.handle_activity(activity()) {
                release();
            }
        }
    };
    tokio::join!(pages, slack::watch(heap::unused, release_heap));
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
        let mut quiet = QuietDetector::default();
        let table =
            [(0, false), (0, false), (5, false), (7, false), (7, true), (7, false), (9, false), (9, true)];
        for (count, expected) in table {
            assert_eq!(quiet.handle_activity(count), expected, "{quiet:?}");
        }
    }
}
