//! Reports of one host that wait for control's words. Pure.

use std::collections::VecDeque;

use crate::figures::Ticket;

/// Sequence of a host's reports over all its streams, and who waits for which.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    sequence: u64,
    answering: VecDeque<(u64, Ticket)>,
    settling: VecDeque<(u64, Ticket)>,
}

impl Progress {
    /// The number of the next report. A report with a ticket is waited for until it, or a later one, has settled.
    pub(crate) fn next(&mut self, ticket: Option<Ticket>) -> u64 {
        self.sequence += 1;
        if let Some(ticket) = ticket {
            self.answering.push_back((self.sequence, ticket.clone()));
            self.settling.push_back((self.sequence, ticket));
        }
        self.sequence
    }

    /// Control has all reports up to this one.
    pub(crate) fn answered(&mut self, sequence: u64) {
        due(&mut self.answering, sequence).for_each(|ticket| ticket.answered());
    }

    /// Every host works by all reports up to this one.
    pub(crate) fn settled(&mut self, sequence: u64) {
        due(&mut self.settling, sequence).for_each(|ticket| ticket.settled());
    }
}

fn due(waiting: &mut VecDeque<(u64, Ticket)>, sequence: u64) -> impl Iterator<Item = Ticket> + '_ {
    let count = waiting.partition_point(|(known, _)| *known <= sequence);
    waiting.drain(..count).map(|(_, ticket)| ticket)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::figures::Round;

    #[test]
    fn a_later_report_settles_those_before_it_also_over_another_stream() {
        let (mut progress, round) = (Progress::default(), Arc::new(Round::default()));
        let ticket = || Some(round.ticket(Instant::now()));
        let counts = || round.look(|times| (times.answered.len(), times.settled.len()));
        assert_eq!((progress.next(ticket()), progress.next(ticket())), (1, 2));
        progress.answered(1);
        assert_eq!(counts(), (1, 0));
        // The stream broke: what the host says on the next one contains both.
        assert_eq!(progress.next(None), 3);
        progress.answered(3);
        progress.settled(2);
        assert_eq!(counts(), (2, 2));
        progress.settled(3);
        assert_eq!(counts(), (2, 2));
    }
}
