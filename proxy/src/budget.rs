//! Budget of a target's retries: a fifth of its requests, and ten a second. Pure.

use std::time::Instant;

/// Deposit of one request.
const DEPOSIT: f64 = 0.2;
/// Deposit per second whatever happens.
const PER_SECOND: f64 = 10.0;
/// The most that is saved: a burst of failures after a quiet time.
const SAVINGS: f64 = 100.0;

/// The retries that are left.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    balance: f64,
    at: Instant,
}

impl RetryBudget {
    /// A budget that begins with one second's worth.
    pub(crate) fn new(now: Instant) -> Self {
        Self { balance: PER_SECOND, at: now }
    }

    /// A request was made.
    pub(crate) fn deposit(&mut self) {
        self.balance = (self.balance + DEPOSIT).min(SAVINGS);
    }

    /// Asks for one retry.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.balance = (self.balance + earned).min(SAVINGS);
        self.at = now;
        let granted = self.balance >= 1.0;
        if granted {
            self.balance -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn granted(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second_may_be_retried() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        assert_eq!(granted(&mut budget, now), 10);
        (0..100).for_each(|_| budget.deposit());
        assert!((19..=20).contains(&granted(&mut budget, now)));
        assert_eq!(granted(&mut budget, now + Duration::from_secs(1)), 10);
        assert_eq!(granted(&mut budget, now + Duration::from_secs(3600)), 100);
    }
}
