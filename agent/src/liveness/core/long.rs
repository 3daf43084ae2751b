//! Echoes as long as packets of tunnels may be: they find out whether a way loses packets of that length alone, and nobody says
//! so (a black hole, RFC 8899, section 1.1). Pure.

use std::time::{Duration, Instant};

/// Interval of long echoes while they are answered; the next one follows at once where one is not.
const USUAL: Duration = Duration::from_secs(2);
/// Long echoes in a row without an answer, while short ones are answered, that make their length lost.
const MISSING: u32 = 16;

/// Long echoes to one peer.
#[derive(Debug, Default)]
pub(super) struct LongEchoes {
    /// Time of the next one; at once without.
    next: Option<Instant>,
    pending: Option<(u64, Instant)>,
    missing: u32,
}

impl LongEchoes {
    /// Time since which one is due; `None` when none is.
    pub(super) fn due(&self, now: Instant) -> Option<Option<Instant>> {
        (self.pending.is_none() && self.next.is_none_or(|next| now >= next)).then_some(self.next)
    }

    pub(super) fn handle_sent(&mut self, token: u64, now: Instant) {
        self.pending = Some((token, now));
    }

    /// Forgets one that was not sent: the next follows in its time.
    pub(super) fn handle_unsent(&mut self, token: u64, now: Instant) {
        if self.is_pending(token) {
            (self.pending, self.next) = (None, Some(now + USUAL));
        }
    }

    /// Takes an answer, if it is one to a long echo.
    pub(super) fn handle_answer(&mut self, token: u64, now: Instant) {
        if self.is_pending(token) {
            *self = Self { next: Some(now + USUAL), ..Self::default() };
        }
    }

    /// Counts an echo that was owed an answer for longer than `patience`, unless `short` ones are not answered either.
    pub(super) fn handle_time(&mut self, patience: Duration, short: bool, now: Instant) {
        if self.pending.is_some_and(|(_, sent)| now >= sent + patience) {
            (self.pending, self.next) = (None, Some(now));
            self.missing = self.missing.saturating_add(u32::from(short));
        }
    }

    /// Returns true if long packets are lost on the way.
    pub(super) fn are_lost(&self) -> bool {
        self.missing >= MISSING
    }

    fn is_pending(&self, token: u64) -> bool {
        self.pending.is_some_and(|(pending, _)| pending == token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_lost_after_echoes_in_a_row_while_short_ones_pass_and_not_any_more_at_the_first_answer() {
        let (begin, patience) = (Instant::now(), Duration::from_millis(50));
        let mut long = LongEchoes::default();
        let mut now = begin;
        let ask = |long: &mut LongEchoes, now: Instant, short: bool| {
            assert!(long.due(now).is_some());
            long.handle_sent(7, now);
            assert!(long.due(now).is_none(), "one at a time");
            long.handle_time(patience, short, now + patience);
        };
        for count in 0..MISSING {
            assert!(!long.are_lost(), "{count}");
            ask(&mut long, now, true);
            now += patience;
        }
        assert!(long.are_lost());
        long.handle_sent(8, now);
        long.handle_answer(7, now);
        assert!(long.are_lost(), "it was an earlier one's");
        long.handle_answer(8, now);
        assert!(!long.are_lost() && long.due(now).is_none() && long.due(now + USUAL).is_some());
        // Where short ones are lost too, the length is not to blame.
        for _ in 0..2 * MISSING {
            now += USUAL;
            ask(&mut long, now, false);
        }
        assert!(!long.are_lost());
        now += USUAL;
        long.handle_sent(9, now);
        long.handle_unsent(9, now);
        long.handle_time(patience, true, now + patience);
        assert!(!long.are_lost() && long.due(now + patience).is_none());
    }
}
