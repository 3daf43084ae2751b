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
