//! Trials of endpoints that are left out for what they were: one piece of work shows what they are.
//!
//! A latency of a second is forgotten within half a minute and more (see `ewma`); what it came from may be over after a moment. So an endpoint
//! from which nothing was heard for a second gets one piece of work though it costs noticeably more than another one. A quick
//! answer makes the old latency forgotten; after a slow one the next trial waits for twice as long.

use std::time::Duration;

/// Time without an observation after which a trial is due, and the most that it grows to.
const FIRST: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(16);

/// Trials of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trials {
    /// Number of slow ones in a row.
    slow: u32,
}

impl Trials {
    /// Returns true if nothing was observed for so long that one is due.
    pub(super) fn is_due(self, idle: Duration) -> bool {
        idle >= FIRST && idle >= FIRST.saturating_mul(1 << self.slow.min(10)).min(LIMIT)
    }

    /// Notes a trial that has ended with a slow answer, or none.
    pub(super) fn handle_slow(&mut self) {
        self.slow += 1;
    }

    /// The endpoint is as quick as others.
    pub(super) fn handle_quick(&mut self) {
        self.slow = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slow_trial_puts_the_next_one_off_for_twice_as_long_up_to_a_limit() {
        let mut trials = Trials::default();
        for wait in [1, 2, 4, 8, 16, 16] {
            let wait = Duration::from_secs(wait);
            assert!(trials.is_due(wait) && !trials.is_due(wait - Duration::from_millis(1)));
            trials.handle_slow();
        }
        trials.handle_quick();
        assert!(trials.is_due(FIRST));
    }
}
