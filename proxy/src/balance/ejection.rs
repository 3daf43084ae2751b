//! Leaving out an endpoint that refuses, for a while that doubles, until one probe succeeds.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(10);
/// A probe that has not ended after this long no longer keeps others out.
const PROBE: Duration = Duration::from_secs(1);

/// One endpoint's standing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ejection {
    refusals: u32,
    until: Option<Instant>,
}

impl Ejection {
    /// Whether work may be sent there.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Work begins there; on an ejected endpoint it is the probe, and keeps others out until it ends.
    pub(super) fn handle_start(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = Some(now + PROBE);
        }
    }

    /// It refused; returns whether it was admitted before.
    pub(super) fn handle_refusal(&mut self, now: Instant) -> bool {
        let ejected = self.until.is_none();
        let wait = FIRST.saturating_mul(1 << self.refusals.min(10)).min(LIMIT);
        self.refusals += 1;
        self.until = Some(now + wait);
        ejected
    }

    /// It works.
    pub(super) fn handle_success(&mut self) {
        *self = Self::default();
    }

    /// A probe ended without a verdict: the next one may come.
    pub(super) fn handle_abandoned(&mut self) {
        self.until = self.until.map(|until| until - PROBE.min(FIRST));
    }
}
