//! Latency that rises at once and is forgotten slowly (Finagle's peak EWMA).

use std::time::{Duration, Instant};

/// Time in which the weight of an observation falls to 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// No latency is taken for less, in seconds: pending work must count.
const FLOOR: f64 = 20e-6;

/// Latency of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PeakEwma {
    last: Option<(f64, Instant)>,
}

impl PeakEwma {
    /// Takes in the duration of one call.
    pub(super) fn observe(&mut self, latency: Duration, now: Instant) {
        let latency = latency.as_secs_f64();
        let estimate = match self.last {
            Some((estimate, at)) if latency < estimate => {
                let weight = weight(now.saturating_duration_since(at));
                estimate * weight + latency * (1.0 - weight)
            }
            Some(_) | None => latency,
        };
        self.last = Some((estimate, now));
    }

    /// Takes in the duration of one call after which nothing of before counts.
    pub(super) fn renew(&mut self, latency: Duration, now: Instant) {
        self.last = Some((latency.as_secs_f64(), now));
    }

    /// Time since the last observation; `None` before the first.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        self.last.map(|(_, at)| now.saturating_duration_since(at))
    }

    /// The latency when it was last observed.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last.map(|(estimate, _)| Duration::from_secs_f64(estimate))
    }

    /// The latency now, in seconds. One that nobody asked for a while is taken for better, so that it is asked again.
    pub(super) fn estimate(&self, now: Instant) -> Option<f64> {
        let (estimate, at) = self.last?;
        let idle = now.saturating_duration_since(at);
        // The exponential is worth computing only for those that were not asked lately.
        let decayed = if idle < Duration::from_millis(100) { estimate } else { estimate * weight(idle) };
        Some(decayed.max(FLOOR))
    }
}

fn weight(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_rises_at_once_and_is_forgotten_over_ten_seconds() {
        const SECOND: Duration = Duration::from_secs(1);
        let (now, mut latency) = (Instant::now(), PeakEwma::default());
        let check = |latency: &PeakEwma, at: Instant, expected: f64| {
            let estimate = latency.estimate(at).unwrap();
            assert!((estimate - expected).abs() < 1e-9, "{estimate} in place of {expected}");
        };
        assert_eq!((latency.last(), latency.estimate(now)), (None, None));
        latency.observe(SECOND, now);
        let in_e = (-1.0_f64).exp();
        for (millis, expected) in [(0, 1.0), (99, 1.0), (100, (-0.01_f64).exp()), (10_000, in_e)] {
            check(&latency, now + Duration::from_millis(millis), expected);
        }
        assert_eq!(latency.last(), Some(SECOND), "however long ago");
        latency.observe(3 * SECOND, now + 10 * SECOND);
        check(&latency, now + 10 * SECOND, 3.0);
        latency.observe(SECOND, now + 20 * SECOND);
        check(&latency, now + 20 * SECOND, 3.0 * in_e + (1.0 - in_e));
        latency.renew(SECOND / 100, now + 21 * SECOND);
        check(&latency, now + 21 * SECOND, 0.01);
        assert_eq!(
            (latency.idle(now + 23 * SECOND), PeakEwma::default().idle(now)),
            (Some(2 * SECOND), None)
        );
        let mut instant = PeakEwma::default();
        instant.observe(Duration::ZERO, now);
        check(&instant, now, FLOOR);
    }
}
