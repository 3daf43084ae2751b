//! Throttle of log lines that are worth saying, but not each time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time for which nothing more is said.
const PAUSE: Duration = Duration::from_secs(10);

/// Throttle of one kind of line.
#[derive(Debug, Default)]
pub(super) struct LogThrottle(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    unsaid: u64,
}

impl LogThrottle {
    /// Takes in another occurrence: `None` when it is not to be said now, else how often it went unsaid.
    pub(super) fn handle(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            said.unsaid += 1;
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_unsaid_is_counted_with_what_is_said() {
        let (throttle, now) = (LogThrottle::default(), Instant::now());
        assert_eq!(throttle.handle(now), Some(0));
        assert_eq!(throttle.handle(now + PAUSE / 2), None);
        assert_eq!(throttle.handle(now + PAUSE / 2), None);
        assert_eq!(throttle.handle(now + PAUSE), Some(2));
        assert_eq!(throttle.handle(now + PAUSE * 3), Some(0));
    }
}
