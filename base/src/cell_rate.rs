//! The generic cell rate algorithm (ITU-T I.371): so many events at once, and one per interval in the long run. Pure: time is an
//! argument.

use std::time::{Duration, Instant};

/// A pace of events, which remembers one instant.
#[derive(Clone, Copy, Debug)]
pub struct CellRate {
    interval: Duration,
    burst: u32,
    /// Moment at which everything so far will have taken its time.
    due: Option<Instant>,
}

impl CellRate {
    /// A pace of one event per `interval` in the long run, and of `burst` at once.
    #[must_use]
    pub const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, due: None }
    }

    /// The time between two events in the long run.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// The time by which the events so far are too early; zero while they are not.
    #[must_use]
    pub fn excess(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| {
            due.saturating_duration_since(now).saturating_sub(self.interval * self.burst)
        })
    }

    /// Takes in so many more events.
    pub fn take(&mut self, count: u32, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + self.interval * count);
    }

    /// Returns true if everything so far has taken its time.
    #[must_use]
    pub fn is_rested(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_in_time_and_what_comes_after_it_as_early_as_it_is_too_many() {
        let (interval, now) = (Duration::from_millis(100), Instant::now());
        let mut rate = CellRate::new(interval, 5);
        assert!(rate.is_rested(now));
        rate.take(5, now);
        assert_eq!((rate.excess(now), rate.is_rested(now)), (Duration::ZERO, false));
        rate.take(2, now);
        assert_eq!(rate.excess(now), 2 * interval);
        assert_eq!(rate.excess(now + interval), interval);
        assert!(rate.is_rested(now + 7 * interval));
    }
}
