//! Pulse that stands in front of other timers.
//!
//! A timer that is due before all others of an event loop wakes that by a system call when it is set, and the loop turns once more in
//! vain. Limits are set all the time and hardly ever come due; behind a timer that is due before them they cost neither.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

/// Time between two beats: shorter than the limits that the pulse stands in front of.
const BEAT: Duration = Duration::from_secs(1);

/// Pulse of one worker, which beats while limits are set and rests else.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    raised: Cell<bool>,
    begun: Notify,
}

impl Pulse {
    /// Keeps the pulse beating for a while.
    pub(super) fn raise(&self) {
        if !self.raised.replace(true) {
            self.begun.notify_one();
        }
    }

    /// Beats, as long as it is polled.
    pub(super) async fn beat(&self) {
        loop {
            self.begun.notified().await;
            self.beat_on(BEAT).await;
        }
    }

    /// Beats until nothing has raised the pulse since the last beat.
    async fn beat_on(&self, beat: Duration) {
        while self.raised.take() {
            tokio::time::sleep(beat).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_pulse_rests_after_a_beat_in_which_nothing_raised_it() {
        let (pulse, beat) = (Pulse::default(), Duration::from_millis(20));
        assert!(pulse.beat_on(beat).now_or_never().is_some(), "nothing raised it");
        for _ in 0..3 {
            pulse.raise();
        }
        let began = Instant::now();
        let again = async {
            tokio::task::yield_now().await;
            pulse.raise();
        };
        tokio::join!(pulse.beat_on(beat), again);
        assert!(began.elapsed() >= 2 * beat, "it was raised again within the first beat");
        assert!(pulse.beat_on(beat).now_or_never().is_some(), "it rests");
    }
}
