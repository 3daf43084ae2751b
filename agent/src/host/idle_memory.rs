//! The agent's memory after a busy time: what only that has needed is given back.

use std::time::Duration;

use sealane_base::task;
use sealane_base::timer::sleep_until;
use sealane_sys::resident;
use tokio::time::Instant;

/// Time for which nothing must change before a busy time is over.
const QUIET: Duration = Duration::from_secs(3);

/// Detector of the end of a busy time.
#[derive(Debug, Default)]
pub(super) struct IdleMemory {
    until: Option<Instant>,
}

impl IdleMemory {
    /// Something has changed.
    pub(super) fn disturb(&mut self) {
        self.until = Some(Instant::now() + QUIET);
    }

    /// Returns when nothing has changed for a while; never, when nothing has changed since the last time.
    pub(super) async fn over(&self) {
        sleep_until(self.until).await;
    }

    /// Gives back what the heap holds free.
    pub(super) async fn release(&mut self) {
        self.until = None;
        // It is memory alone: one that panicked has given back less.
        let _ = task::blocking(resident::release_heap).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_time_is_over_once_when_nothing_has_changed_for_a_while() {
        let mut rest = IdleMemory::default();
        assert_eq!(rest.until, None, "nothing has changed");
        let began = Instant::now();
        rest.disturb();
        assert!(rest.until.is_some_and(|until| until >= began + QUIET));
        rest.release().await;
        assert_eq!(rest.until, None);
    }
}
