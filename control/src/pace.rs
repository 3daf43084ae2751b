//! Pace of events: now and then many times at once, in the long run so many times a second. Pure.

use std::time::Duration;

use sealane_base::cell_rate::CellRate;
use tokio::time::Instant;

/// A pace at which whoever is too fast waits its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace(CellRate);

/// A caller is too fast for it to be worth waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("asks too often: more than {per_second} times a second in the long run; try again in {} s", .wait.as_secs() + 1)]
pub(crate) struct TooOften {
    per_second: u128,
    wait: Duration,
}

impl Pace {
    /// Longest wait; beyond it an event is refused.
    const PATIENCE: Duration = Duration::from_secs(10);

    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self(CellRate::new(interval, burst))
    }

    /// Says whether the next one may come right now; it has its turn then.
    pub(crate) fn may(&mut self, now: Instant) -> bool {
        let in_time = self.0.excess(now.into_std()).is_zero();
        if in_time {
            self.0.take(1, now.into_std());
        }
        in_time
    }

    /// Returns the time that the next one must wait; it has its turn then.
    pub(crate) fn next(&mut self, now: Instant) -> Result<Duration, TooOften> {
        let wait = self.0.excess(now.into_std());
        if wait > Self::PATIENCE {
            let per_second = 1_000 / self.0.interval().as_millis().max(1);
            return Err(TooOften { per_second, wait });
        }
        self.0.take(1, now.into_std());
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_then_everybody_waits_then_nobody_gets_in() {
        let (mut pace, now) = (Pace::new(Duration::from_millis(100), 5), Instant::now());
        let waits: Vec<u128> = (0..8).map(|_| pace.next(now).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 100, 200]);
        let later = now + Duration::from_secs(5);
        assert_eq!(pace.next(later).unwrap(), Duration::ZERO, "time heals");
        let refused = (0..200).find_map(|_| pace.next(later).err()).unwrap().to_string();
        assert!(refused.contains("more than 10 times a second") && refused.contains("in 11 s"), "{refused}");
    }
}
