//! Segments that a connection sent again lately. Pure.

use std::time::{Duration, Instant};

/// Span of a count; "lately" is the present one and the one before.
const SPAN: Duration = Duration::from_secs(5);

/// Counts of segments that were sent again.
#[derive(Debug)]
pub(super) struct Losses {
    /// Number since the connection began.
    total: u32,
    began: Instant,
    present: u32,
    before: u32,
}

impl Losses {
    pub(super) fn new(now: Instant) -> Self {
        Self { total: 0, began: now, present: 0, before: 0 }
    }

    /// Takes in how many there were since the connection began.
    pub(super) fn note(&mut self, total: u32, now: Instant) {
        let spans = (now - self.began).as_millis() / SPAN.as_millis();
        if spans > 0 {
            self.before = if spans == 1 { self.present } else { 0 };
            (self.began, self.present) = (now, 0);
        }
        self.present += total.saturating_sub(self.total);
        self.total = self.total.max(total);
    }

    /// Returns the number of the last five to ten seconds.
    pub(super) fn lately(&self) -> u32 {
        self.present.saturating_add(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_again_counts_for_five_to_ten_seconds() {
        let start = Instant::now();
        let mut losses = Losses::new(start);
        let table = [
            (0, 0, 0),
            (1, 2, 2),
            (4, 3, 3),
            (6, 3, 3),
            (9, 4, 4),
            (11, 4, 1),
            (16, 4, 0),
            (90, 9, 5),
            (100, 9, 0),
        ];
        for (seconds, total, lately) in table {
            losses.note(total, start + Duration::from_secs(seconds));
            assert_eq!(losses.lately(), lately, "at {seconds} s");
        }
    }
}
