//! Two clocks that should say the same.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Times that two hosts' clocks showed at about the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPair {
    /// The one that is asked about.
    pub clock: SystemTime,
    /// The one that it is measured by.
    pub reference: SystemTime,
}

impl ClockPair {
    /// Clocks that differ by less may as well differ by how long a message took.
    pub const TOLERATED: Duration = Duration::from_secs(30);

    /// Returns the difference between the two clocks.
    #[must_use]
    pub fn difference(&self) -> Duration {
        let behind = self.reference.duration_since(self.clock);
        behind.unwrap_or_else(|error| error.duration())
    }

    /// Seconds by which the clock is ahead of the reference; negative: behind.
    #[must_use]
    pub fn ahead_seconds(&self) -> f64 {
        let difference = self.difference().as_secs_f64();
        if self.clock < self.reference { -difference } else { difference }
    }

    /// Returns true if the difference cannot be explained by the time that messages take.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.difference() > Self::TOLERATED
    }
}

/// Phrase such as "is 5m behind (it says 2026-01-01T00:00:00Z at 2026-01-01T00:05:00Z)".
impl fmt::Display for ClockPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.clock < self.reference { "behind" } else { "ahead" };
        let difference = humantime::format_duration(Duration::from_secs(self.difference().as_secs()));
        let [clock, reference] = [self.clock, self.reference].map(humantime::format_rfc3339_seconds);
        write!(f, "is {difference} {way} (it says {clock} at {reference})")
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn pair(clock: u64, reference: u64) -> ClockPair {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds);
        ClockPair { clock: at(clock), reference: at(reference) }
    }

    #[test]
    fn a_clock_that_is_off_is_told_with_both_times() {
        let behind = pair(0, 300);
        assert_eq!(behind.to_string(), "is 5m behind (it says 2027-01-15T08:00:00Z at 2027-01-15T08:05:00Z)");
        assert!(pair(300, 0).to_string().starts_with("is 5m ahead (it says 2027-01-15T08:05:00Z"));
        assert_eq!((behind.ahead_seconds(), pair(7, 0).ahead_seconds()), (-300.0, 7.0));
        assert!(pair(0, 31).is_off() && pair(31, 0).is_off() && !pair(30, 0).is_off());
    }
}
