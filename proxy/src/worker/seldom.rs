//! Log lines that are worth saying, but not each time.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time for which nothing more is said.
const PAUSE: Duration = Duration::from_secs(10);

/// Kind of a message.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// Takes in another occurrence: `None` when it is not to be said now, else how often it went unsaid.
    pub(crate) fn handle(&self, now: Instant) -> Option<u64> {
        let quiet = self.said.get().is_some_and(|said| now.saturating_duration_since(said) < PAUSE);
        if quiet {
            self.unsaid.update(|unsaid| unsaid + 1);
            return None;
        }
        self.said.set(Some(now));
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_unsaid_is_counted_with_what_is_said() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.handle(now), Some(0));
        assert_eq!(seldom.handle(now + PAUSE / 2), None);
        assert_eq!(seldom.handle(now + PAUSE / 2), None);
        assert_eq!(seldom.handle(now + PAUSE), Some(2));
        assert_eq!(seldom.handle(now + PAUSE * 3), Some(0));
    }
}
