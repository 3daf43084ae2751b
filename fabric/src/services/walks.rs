//! Share of a processor that walks through the host's table of flows may take. Pure.

use std::time::{Duration, Instant};

/// Walks take one part in so many of a processor's time.
const SHARE: u32 = 10;
/// Rest that walks may owe: so many follow each other at once.
const OWED: Duration = Duration::from_secs(2);

/// Walks of one host.
#[derive(Debug)]
pub(super) struct Walks {
    /// Time until which those so far are to rest.
    rest: Option<Instant>,
}

impl Walks {
    /// No walk so far.
    pub(super) const fn new() -> Self {
        Self { rest: None }
    }

    /// Returns the time from which another one may begin, if it has to wait.
    pub(super) fn may_begin_at(&self) -> Option<Instant> {
        self.rest?.checked_sub(OWED)
    }

    /// A walk took `took` until `now`.
    pub(super) fn handle_walk(&mut self, took: Duration, now: Instant) {
        let from = self.rest.map_or(now, |rest| rest.max(now));
        self.rest = Some(from + took * SHARE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_walks_follow_each_other_at_once_and_all_of_them_take_a_tenth_of_the_time() {
        let (begin, took) = (Instant::now(), Duration::from_millis(20));
        let (mut walks, mut now, mut spent) = (Walks::new(), begin, Duration::ZERO);
        let mut at_once = None;
        while now < begin + Duration::from_secs(60) {
            if walks.may_begin_at().is_none_or(|at| at <= now) {
                now += took;
                spent += took;
                walks.handle_walk(took, now);
            } else {
                at_once.get_or_insert(spent / took.as_millis() as u32);
                now += Duration::from_millis(1);
            }
        }
        assert_eq!(at_once, Some(Duration::from_millis(12)), "12 walks of 20 ms");
        let share = spent.as_secs_f64() / 60.0;
        assert!((0.09..0.105).contains(&share), "{share}");
    }
}
