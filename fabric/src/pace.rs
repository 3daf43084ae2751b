//! Pace of looks at a namespace in which somebody changes things again and again. Pure.

use std::time::{Duration, Instant};

/// Looks take one part in so many of a processor's time.
const REST: u32 = 10;
/// Number of mendings in a row that follow each other as fast as that allows.
const PATIENCE: u32 = 64;
/// The rest after the next one; each one after it is twice as long.
const FIRST: Duration = Duration::from_secs(2);
/// The longest rest: everything is looked at once a minute anyway.
const LONGEST: Duration = Duration::from_secs(60);
/// After such a time without anything to mend, a row is over.
const OVER: Duration = Duration::from_secs(150);

/// Pace of the looks at one namespace.
///
/// A change is mended soon. Whoever undoes that at once, again and again, is looked at more and more seldom, so that it costs
/// neither processor time nor others' turns.
#[derive(Clone, Copy, Debug)]
pub struct LookPace {
    /// Number of mendings in a row, and when the last one was.
    row: u32,
    last: Instant,
    earliest: Instant,
}

impl LookPace {
    /// The pace of a namespace in which nothing was mended yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { row: 0, last: now, earliest: now }
    }

    /// A look took `took` until `now`; `mended` says that there was something to mend, or to fail at.
    pub fn handle_look(&mut self, took: Duration, mended: bool, now: Instant) {
        if now.saturating_duration_since(self.last) >= OVER {
            self.row = 0;
        }
        let mut rest = took * REST;
        if mended {
            (self.row, self.last) = (self.row.saturating_add(1), now);
        }
        if let Some(beyond) = self.row.checked_sub(PATIENCE + 1) {
            rest = rest.max((FIRST * (1 << beyond.min(5))).min(LONGEST));
        }
        self.earliest = now + rest;
    }

    /// The time before which nothing is looked at again.
    #[must_use]
    pub fn earliest(&self) -> Instant {
        self.earliest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(1);

    /// The rests between looks of somebody who undoes each mending at once.
    fn rests(pace: &mut LookPace, mut now: Instant, count: usize) -> (Vec<Duration>, Instant) {
        let rests = (0..count).map(|_| {
            now += TOOK;
            pace.handle_look(TOOK, true, now);
            let rest = pace.earliest() - now;
            now += rest;
            rest
        });
        (rests.collect(), now)
    }

    #[test]
    fn whoever_undoes_every_mending_is_looked_at_more_and_more_seldom_until_once_a_minute() {
        let start = Instant::now();
        let mut pace = LookPace::new(start);
        let (first, now) = rests(&mut pace, start, PATIENCE as usize);
        assert!(first.iter().all(|rest| *rest == TOOK * REST), "{first:?}");
        let (then, now) = rests(&mut pace, now, 7);
        let seconds: Vec<u64> = then.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 60, 60]);
        let mended = now - LONGEST;
        let (early, _) = rests(&mut pace.clone(), mended + OVER - TOOK * 2, 1);
        assert_eq!(early, [LONGEST]);
        let (again, _) = rests(&mut pace, mended + OVER - TOOK, 1);
        assert_eq!(again, [TOOK * REST], "who has stopped is forgiven");
    }

    #[test]
    fn looks_that_find_nothing_rest_by_their_length_alone() {
        let mut now = Instant::now();
        let mut pace = LookPace::new(now);
        for _ in 0..1_000 {
            pace.handle_look(TOOK, false, now);
            assert_eq!(pace.earliest() - now, TOOK * REST);
            now += TOOK * 11;
        }
    }
}
