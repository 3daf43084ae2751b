//! Questions about how the other host sees its own peers, in both directions, within a conversation. Pure.

use std::collections::VecDeque;

use sealane_proto::peer::{PeerCell, PeerFrame};

/// Number of hosts that an answer tells of.
const MOST_CELLS: usize = 1_024;
/// Number of hosts in one frame: with the longest names and words they are half as large as a frame may be.
const TOGETHER: usize = 64;

/// Questions and answers of one conversation. Of several questions of one side, the last one counts.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// A question that is to be asked.
    question: Option<u64>,
    /// The question whose answer is awaited, and what has come of it.
    awaited: Option<(u64, Vec<PeerCell>)>,
    /// An answer that has come, whole.
    answer: Option<Vec<PeerCell>>,
    /// The peer's question.
    theirs: Option<u64>,
    /// Parts of our answer.
    row: VecDeque<PeerFrame>,
}

impl Asking {
    pub(super) fn ask(&mut self, token: u64) {
        (self.question, self.awaited) = (Some(token), Some((token, Vec::new())));
    }

    pub(super) fn handle_ask(&mut self, token: u64) {
        self.theirs = Some(token);
    }

    /// Takes a part of an answer; one that nobody has asked for, or more than one host may tell of, is left out.
    pub(super) fn handle_row(&mut self, token: u64, cells: Vec<PeerCell>, last: bool) {
        let Some((awaited, come)) = &mut self.awaited else { return };
        if *awaited != token {
            return;
        }
        let room = MOST_CELLS.saturating_sub(come.len());
        come.extend(cells.into_iter().take(room));
        if last {
            self.answer = self.awaited.take().map(|(_, come)| come);
        }
    }

    pub(super) fn take_question(&mut self) -> Option<u64> {
        self.theirs.take()
    }

    pub(super) fn take_answer(&mut self) -> Option<Vec<PeerCell>> {
        self.answer.take()
    }

    pub(super) fn answer(&mut self, token: u64, cells: &[PeerCell]) {
        let cells = &cells[..cells.len().min(MOST_CELLS)];
        let part = |cells: &[PeerCell]| PeerFrame::Row { token, cells: cells.to_vec(), last: false };
        self.row = cells.chunks(TOGETHER).map(part).collect();
        self.row.push_back(PeerFrame::Row { token, cells: Vec::new(), last: true });
    }

    pub(super) fn poll_frame(&mut self) -> Option<PeerFrame> {
        self.question.take().map(PeerFrame::Ask).or_else(|| self.row.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::peer::Reach;

    use super::*;

    fn cell(number: usize) -> PeerCell {
        PeerCell {
            node: format!("h{number}").parse().unwrap(),
            reach: Reach::Reachable,
            round_trip: None,
            loss_permille: None,
            path_mtu: None,
            loses_long: false,
            loses_checksums: false,
            channel_problem: None,
            heard: None,
        }
    }

    #[test]
    fn an_answer_is_taken_once_whole_up_to_a_bound_and_only_to_the_last_question() {
        let (mut asker, mut asked) = (Asking::default(), Asking::default());
        let row: Vec<PeerCell> = (0..MOST_CELLS + 100).map(cell).collect();
        asker.ask(1);
        asker.ask(2);
        assert_eq!(asker.poll_frame(), Some(PeerFrame::Ask(2)));
        asker.handle_row(1, row.clone(), true);
        assert_eq!(asker.take_answer(), None, "of another question");
        asked.handle_ask(2);
        let token = asked.take_question().unwrap();
        asked.answer(token, &row);
        let mut parts = 0;
        while let Some(PeerFrame::Row { token, cells, last }) = asked.poll_frame() {
            assert!(cells.len() <= TOGETHER);
            parts += 1;
            assert_eq!(asker.take_answer(), None, "not whole");
            asker.handle_row(token, cells, last);
        }
        assert_eq!(parts, MOST_CELLS / TOGETHER + 1);
        assert_eq!(asker.take_answer().unwrap(), row[..MOST_CELLS]);
        // Nobody has asked.
        asker.handle_row(2, row.clone(), true);
        assert_eq!(asker.take_answer(), None);
        asker.ask(3);
        for part in row.chunks(TOGETHER) {
            asker.handle_row(3, part.to_vec(), false);
        }
        asker.handle_row(3, Vec::new(), true);
        assert_eq!(asker.take_answer().map(|cells| cells.len()), Some(MOST_CELLS));
    }
}
