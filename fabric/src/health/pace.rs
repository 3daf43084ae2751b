//! Pace at which a workload is looked at. Pure.

use std::time::{Duration, Instant};

/// The first wait while it starts; each one after it is twice as long, up to [`STARTING`].
const FIRST: Duration = Duration::from_millis(1);
/// While it starts: a service is callable this long after it listens.
const STARTING: Duration = Duration::from_millis(20);
/// While it starts slowly.
const SLOW: Duration = Duration::from_millis(250);
/// While it is ready.
const READY: Duration = Duration::from_millis(500);
/// Time that a start is expected to take.
const START: Duration = Duration::from_secs(30);

/// Schedule of the looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    unready_since: Instant,
    next: Duration,
    ready: bool,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { unready_since: now, next: FIRST, ready: false }
    }

    /// Takes what was seen; returns how long to wait.
    pub(crate) fn handle(&mut self, ready: bool, now: Instant) -> Duration {
        if self.ready && !ready {
            (self.unready_since, self.next) = (now, FIRST);
        }
        self.ready = ready;
        match ready {
            true => READY,
            false if now.saturating_duration_since(self.unready_since) < START => {
                let wait = self.next;
                self.next = (wait * 2).min(STARTING);
                wait
            }
            false => SLOW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: [u64; 7] = [1, 2, 4, 8, 16, 20, 20];

    #[test]
    fn a_start_is_watched_closely_at_first_and_one_that_takes_long_or_is_done_less() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut check = |seconds, ready, expected: Duration| {
            assert_eq!(pace.handle(ready, start + Duration::from_secs(seconds)), expected, "{seconds}");
        };
        STARTED.into_iter().for_each(|wait| check(0, false, Duration::from_millis(wait)));
        check(29, false, STARTING);
        check(30, false, SLOW);
        check(31, true, READY);
        check(100, true, READY);
        // Stopped, to be started again.
        STARTED.into_iter().for_each(|wait| check(101, false, Duration::from_millis(wait)));
        check(130, false, STARTING);
        check(131, false, SLOW);
    }
}
