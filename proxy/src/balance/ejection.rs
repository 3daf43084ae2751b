//! Leaving out an endpoint that refuses, for a while that doubles, until one probe succeeds.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(10);
/// The same for one that hangs: a probe costs a client all the time that it has.
const FIRST_HANG: Duration = Duration::from_secs(1);
const LIMIT_HANG: Duration = Duration::from_secs(30);
/// A probe that has not ended after this long no longer keeps others out.
const PROBE: Duration = Duration::from_secs(1);

/// Standing of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ejection {
    refusals: u32,
    until: Option<Instant>,
}

impl Ejection {
    /// Returns true if work may be sent there.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Work begins there; on an ejected endpoint it is the probe, and keeps others out until it ends.
    pub(super) fn handle_start(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = Some(now + PROBE);
        }
    }

    /// Takes in a refusal; returns true if the endpoint was admitted before.
    pub(super) fn handle_refusal(&mut self, now: Instant) -> bool {
        let ejected = self.until.is_none();
        self.wait(now, FIRST, LIMIT);
        ejected
    }

    /// A client has given up waiting for it; returns whether it was admitted before.
    pub(super) fn handle_hang(&mut self, now: Instant) -> bool {
        let ejected = self.until.is_none();
        // Of those that give up together, the first has said it.
        if self.admits(now) {
            self.wait(now, FIRST_HANG, LIMIT_HANG);
        }
        ejected
    }

    fn wait(&mut self, now: Instant, first: Duration, limit: Duration) {
        let wait = first.saturating_mul(1 << self.refusals.min(10)).min(limit);
        self.refusals += 1;
        self.until = Some(now + wait);
    }

    /// Takes in a success.
    pub(super) fn handle_success(&mut self) {
        *self = Self::default();
    }

    /// A probe ended without a verdict: the next one may come.
    pub(super) fn handle_abandoned(&mut self) {
        self.until = self.until.map(|until| until - PROBE.min(FIRST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Returns the time for which nothing is sent there.
    fn absence(ejection: &Ejection, now: Instant) -> Duration {
        let until = ejection.until.unwrap();
        assert!(!ejection.admits(until - MS) && ejection.admits(until));
        until - now
    }

    #[test]
    fn each_absence_is_twice_as_long_as_the_one_before_up_to_a_limit() {
        let mut now = Instant::now();
        let (mut refusing, mut hanging) = (Ejection::default(), Ejection::default());
        for wait in [200_u32, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            assert_eq!(refusing.handle_refusal(now), wait == 200, "only the first one ejects");
            assert_eq!(absence(&refusing, now), wait * MS);
        }
        for wait in [1_u32, 2, 4, 8, 16, 30, 30] {
            assert_eq!(hanging.handle_hang(now), wait == 1, "only the first one ejects");
            assert_eq!(absence(&hanging, now), wait * 1000 * MS);
            now += wait * 1000 * MS;
        }
        hanging.handle_success();
        assert!(hanging.admits(now) && hanging.handle_hang(now), "a success forgets everything");
        assert_eq!(absence(&hanging, now), FIRST_HANG);
    }

    #[test]
    fn of_clients_that_give_up_together_the_first_one_counts() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        assert!(ejection.handle_hang(now));
        assert!(!ejection.handle_hang(now + MS));
        assert_eq!(absence(&ejection, now), FIRST_HANG);
    }

    #[test]
    fn a_probe_keeps_others_out_for_a_second_and_for_less_once_it_ended_without_a_verdict() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        ejection.handle_start(now);
        assert!(ejection.admits(now), "work on one that is not ejected is no probe");
        ejection.handle_refusal(now);
        ejection.handle_start(now + MS);
        assert_eq!(absence(&ejection, now), FIRST, "neither is work while all are ejected");
        let back = now + FIRST;
        ejection.handle_start(back);
        assert_eq!(absence(&ejection, back), PROBE);
        ejection.handle_abandoned();
        assert_eq!(absence(&ejection, back), PROBE - FIRST);
    }
}
