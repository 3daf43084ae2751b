//! Waiting for what has no event.

use std::thread;
use std::time::{Duration, Instant};

/// Time that something may take on a machine that does much else; whatever takes longer does not come at all.
pub const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(10);

/// Tries until `attempt` returns something.
///
/// # Panics
/// When `within` is over; `what` says what did not come.
#[track_caller]
pub fn eventually<T>(within: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(INTERVAL);
    }
}
