//! Memory that a process holds and does not use: after a busy time an allocator keeps what was freed, until it is asked to give it
//! back to the kernel.

use std::time::Duration;

/// Interval at which it is looked at.
pub const LOOK: Duration = Duration::from_secs(5);
/// Bytes that must be held without use for them to be given back.
const LEAST: usize = 8 * 1024 * 1024;

/// Detector of a heap that holds much that is not in use. Pure.
#[derive(Debug, Default)]
pub struct Slack {
    /// Bytes that were left the last time.
    left: usize,
    before: usize,
}

impl Slack {
    /// To be asked regularly with what is held and not in use: whether it should be given back, since it has been so
    /// since the last time, and is more than could not be given back then.
    pub fn handle_unused(&mut self, unused: usize) -> bool {
        let lasting = unused.min(self.before);
        self.before = unused;
        self.left = self.left.min(unused);
        lasting > self.left + LEAST
    }

    /// Takes in the bytes that are still held after some were given back.
    pub fn handle_released(&mut self, unused: usize) {
        (self.left, self.before) = (unused, unused);
    }

    /// Looks once: asks `unused`, where that can be known, and has `release` give back what should be. Returns how many bytes that were.
    pub fn look(&mut self, unused: impl Fn() -> Option<usize>, release: impl FnOnce()) -> usize {
        let Some(held) = unused().filter(|&held| self.handle_unused(held)) else { return 0 };
        release();
        let left = unused().unwrap_or(held);
        self.handle_released(left);
        held.saturating_sub(left)
    }
}

/// Looks at intervals, as long as it is polled.
pub async fn watch(unused: impl Fn() -> Option<usize>, release: impl Fn()) {
    let mut slack = Slack::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let bytes = slack.look(&unused, &release);
        if bytes > 0 {
            tracing::debug!(kib = bytes / 1024, "memory of the heap given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_the_heap_does_not_use_is_given_back_once_it_has_lasted() {
        let mut slack = Slack::default();
        assert!(!slack.handle_unused(2 * MIB));
        assert!(!slack.handle_unused(100 * MIB), "only just");
        assert!(slack.handle_unused(90 * MIB));
        slack.handle_released(30 * MIB);
        // What is in pieces stays.
        assert!(!slack.handle_unused(31 * MIB) && !slack.handle_unused(33 * MIB));
        assert!(!slack.handle_unused(60 * MIB));
        assert!(slack.handle_unused(60 * MIB));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_time_is_followed_by_memory_given_back() {
        let held = Cell::new(250 * MIB);
        let watched = watch(|| Some(held.get()), || held.set(10 * MIB));
        assert!(tokio::time::timeout(3 * LOOK, watched).await.is_err(), "it goes on");
        assert_eq!(held.get(), 10 * MIB);
    }
}
