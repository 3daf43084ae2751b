//! How often a workload is looked at. Pure.

use std::time::{Duration, Instant};

/// While it starts: a service is callable this long after it listens.
const STARTING: Duration = Duration::from_millis(20);
/// While it starts slowly.
const SLOW: Duration = Duration::from_millis(250);
/// While it is ready.
const READY: Duration = Duration::from_millis(500);
/// How long a start is expected to take.
const START: Duration = Duration::from_secs(30);

/// When to look next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    unready_since: Instant,
    ready: bool,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { unready_since: now, ready: false }
    }

    /// Takes what was seen; returns how long to wait.
    pub(crate) fn handle(&mut self, ready: bool, now: Instant) -> Duration {
        if self.ready && !ready {
            self.unready_since = now;
        }
        self.ready = ready;
        match ready {
            true => READY,
            false if now.saturating_duration_since(self.unready_since) < START => STARTING,
            false => SLOW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_watched_closely_and_one_that_takes_long_or_is_done_less() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let table = [
            (0, false, STARTING),
            (29, false, STARTING),
            (30, false, SLOW),
            (31, true, READY),
            (100, true, READY),
            // Stopped, to be started again.
            (101, false, STARTING),
            (130, false, STARTING),
            (131, false, SLOW),
        ];
        for (seconds, ready, expected) in table {
            assert_eq!(pace.handle(ready, start + Duration::from_secs(seconds)), expected, "{seconds}");
        }
    }
}
