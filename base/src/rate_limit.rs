//! A bound on what others can cause, such as log lines: so much of it in each period, and a count of the rest.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::mutex::lock;

/// Lets so many through in each period.
#[derive(Debug)]
pub struct RateLimit {
    most: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Beginning of the period: a period begins with the first event after the one before.
    since: Option<Instant>,
    passed: u32,
    withheld: u64,
}

impl RateLimit {
    /// So many in each period.
    #[must_use]
    pub fn new(most: u32, period: Duration) -> Self {
        Self { most, period, state: Mutex::default() }
    }

    /// Lets this event pass or withholds it; an event that passes tells how many were withheld since the last one that
    /// did.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= self.period) {
            state.since = Some(now);
            state.passed = 0;
        }
        if state.passed >= self.most {
            state.withheld += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_withheld_is_counted_until_the_next_one_passes() {
        let (limit, now) = (RateLimit::new(2, Duration::from_secs(1)), Instant::now());
        assert_eq!([0; 5].map(|_| limit.pass(now)), [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.pass(now + Duration::from_secs(2)), Some(3));
    }

    #[test]
    fn a_period_begins_with_the_first_event_after_the_one_before() {
        let period = Duration::from_secs(10);
        let limit = RateLimit::new(1, period);
        let now = Instant::now() + period / 2;
        let table = [(0, Some(0)), (1, None), (1, None), (2, Some(2)), (3, None), (5, Some(1)), (9, Some(0))];
        for (halves, expected) in table {
            assert_eq!(limit.pass(now + period / 2 * halves), expected, "{halves}");
        }
    }
}
