//! Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

use std::time::Duration;

/// Waits that double up to a limit, each drawn between half and all of it.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first`, never more than `limit`.
    #[must_use]
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// The next wait; `random` is drawn uniformly from 0.0 to 1.0.
    pub fn next_wait(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.limit);
        wait
    }

    /// Starts again from the first wait, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_limit_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        let waits = [1.0; 4].map(|random| backoff.next_wait(random).as_millis());
        assert_eq!(waits, [100, 200, 300, 300]);
        assert_eq!(backoff.next_wait(0.0).as_millis(), 150);
        backoff.reset();
        assert_eq!(backoff.next_wait(0.0).as_millis(), 50);
    }
}
