//! Pace at which a host reads what another one says: whoever says more waits, and takes no more of this host's processors. Pure.

use std::time::{Duration, Instant};

use sealane_base::cell_rate::CellRate;

/// Octets that count as much as a frame does.
const SHARE: usize = 1 << 10;
/// Interval of frames, or of KiB, in the long run: 4,096 a second.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / 4_096);
/// Frames and KiB that are read at once: all that a host may tell of its workloads (16 MiB), and as much of anything else.
const BURST: u32 = 32 << 10;

/// The frames of one connection, as they are read.
#[derive(Debug)]
pub(super) struct Intake(CellRate);

impl Intake {
    pub(super) fn new() -> Self {
        Self(CellRate::new(INTERVAL, BURST))
    }

    /// Takes in that so many frames of so many octets together were read.
    pub(super) fn count(&mut self, frames: usize, octets: usize, now: Instant) {
        self.0.take(u32::try_from(frames + octets / SHARE).unwrap_or(u32::MAX), now);
    }

    /// The time for which nothing more is read.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        self.0.excess(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets that are read of somebody who sends frames of this length without an end, in so many seconds.
    fn read_of_a_flood(length: usize, seconds: u64) -> usize {
        let (mut intake, begun) = (Intake::new(), Instant::now());
        let (mut now, mut octets) = (begun, 0);
        while now < begun + Duration::from_secs(seconds) {
            let rest = intake.rest(now);
            if rest.is_zero() {
                intake.count(1, length, now);
                octets += length;
            }
            now += rest;
        }
        octets
    }

    #[test]
    fn who_says_something_without_an_end_is_read_at_a_pace() {
        let mebi = 1 << 20;
        let [after_one, after_nine] = [1, 9].map(|seconds| read_of_a_flood(64 << 10, seconds));
        assert!((16 * mebi..40 * mebi).contains(&after_one), "{after_one}");
        assert!(after_nine - after_one <= 33 * mebi, "{after_nine}");
        let frames = read_of_a_flood(4, 9) / 4 - read_of_a_flood(4, 1) / 4;
        assert!(frames <= 8 * 4_200, "{frames}");
    }

    #[test]
    fn all_that_a_host_may_tell_is_read_at_once() {
        let (mut intake, now) = (Intake::new(), Instant::now());
        (0..256).for_each(|_| intake.count(1, 64 << 10, now));
        assert!(intake.rest(now).is_zero());
    }
}
