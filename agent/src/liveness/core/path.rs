//! Search for the longest packets that the way to a peer takes, by echoes of many lengths (DPLPMTUD, RFC 8899, section 5). Pure.
//!
//! While nothing is lost, an echo of the greatest length is sent from time to time, and nothing else. If such echoes are lost in
//! a row while short ones are answered, the way is a black hole for them (section 4.3), and the greatest length that passes is
//! looked for by halves, between what is taken for granted and what was lost; at the end the greatest is tried once more. The found
//! length is confirmed by echoes as the greatest was; after a while greater ones are tried again, as the way may have grown
//! (PMTU_RAISE_TIMER).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Interval of echoes of the length in force while they are answered; the next one follows at once where one is not.
const USUAL: Duration = Duration::from_secs(2);
/// Echoes of the length in force in a row without an answer, while short ones are answered, that make that length lost.
const MISSING: u32 = 16;
/// Echoes in a row without an answer that make another length lost (MAX_PROBES): on the way down, and on the way up, where a
/// mistake costs a turn.
const ATTEMPTS: u32 = 5;
const ATTEMPTS_UP: u32 = 3;
/// Time after which greater lengths are tried again. The RFC has ten minutes, for paths with many users.
const RAISE: Duration = Duration::from_secs(15);
/// Number of echoes whose answer is known by its token: late ones count as well.
const REMEMBERED: usize = 64;

/// Lengths of packets to a peer, in bytes with all outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Lengths {
    /// Length that every way takes.
    pub(in super::super) least: u32,
    /// The longest that is sent to the peer.
    pub(in super::super) most: u32,
}

/// The longest packets that pass on a way that loses longer ones, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    /// They are being looked for.
    Sought,
    /// They are this long.
    Bytes(u32),
    /// They are shorter than what every way should take.
    Less(u32),
}

/// A way that loses long packets without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Narrow {
    /// The longest packets that pass.
    pub(crate) passes: Passing,
    /// A length that is lost, in bytes.
    pub(crate) lost: u32,
}

/// The search for one peer.
#[derive(Debug, Default)]
pub(super) struct PathSearch {
    /// Lengths to search among; `None` until they are known.
    lengths: Option<Lengths>,
    phase: Phase,
    /// The greatest length that passes, once others were lost.
    settled: Option<u32>,
    /// True once an echo of the length in force was answered.
    confirmed: bool,
    /// Time of the next echo; at once without.
    next: Option<Instant>,
    /// The echo that is waited for.
    pending: Option<(u64, Instant)>,
    /// The last echoes, by token and length.
    sent: VecDeque<(u64, u32)>,
    /// Echoes of one length in a row without an answer.
    missing: u32,
}

#[derive(Debug, Default)]
enum Phase {
    /// Every length passes, as far as is known.
    #[default]
    Whole,
    Searching(Search),
    /// The settled length is in force.
    Narrow {
        raise: Instant,
    },
}

/// A search under way.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// A length that passes.
    passes: u32,
    /// A greater one that does not.
    lost: u32,
    /// The greatest length of all.
    most: u32,
    next: Candidate,
    attempts: u32,
    /// True if the greatest length is to be tried once more before the end: something has passed since it was lost.
    looks_again: bool,
}

/// Length that is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    /// The greatest that is not known to be lost.
    Most,
    /// A byte more than what passes: if that is lost, too, the way has not grown.
    Above,
    /// Half way between what passes and what is lost.
    Middle,
    /// The greatest of all, at the end: the way may have grown meanwhile.
    Last,
}

impl Search {
    fn down(passes: u32, lost: u32, most: u32) -> Self {
        let (next, attempts) = (Candidate::Middle, ATTEMPTS);
        Self { passes, lost, most, next, attempts, looks_again: false }
    }

    fn up(passes: u32, most: u32) -> Self {
        let (lost, next, attempts) = (most.saturating_add(1), Candidate::Most, ATTEMPTS_UP);
        Self { passes, lost, most, next, attempts, looks_again: false }
    }

    fn length(&self) -> u32 {
        match self.next {
            Candidate::Most => self.lost - 1,
            Candidate::Above => self.passes + 1,
            Candidate::Middle => self.passes + (self.lost - self.passes) / 2,
            Candidate::Last => self.most,
        }
    }

    fn handle_passed(&mut self, length: u32) {
        self.passes = self.passes.max(length);
        // A late answer to what was taken for lost.
        self.lost = self.lost.max(length.saturating_add(1));
        (self.next, self.looks_again) = (Candidate::Middle, true);
    }

    fn handle_lost(&mut self) {
        (self.lost, self.next) = match self.next {
            Candidate::Most => (self.length(), Candidate::Above),
            Candidate::Above | Candidate::Middle => (self.length(), Candidate::Middle),
            Candidate::Last => (self.lost, Candidate::Middle),
        };
    }

    /// Returns true once the length is found and nothing is to be tried any more.
    fn poll_over(&mut self) -> bool {
        let is_found = self.lost <= self.passes + 1;
        if is_found && std::mem::take(&mut self.looks_again) {
            self.next = Candidate::Last;
        }
        is_found && self.next != Candidate::Last
    }
}

impl PathSearch {
    /// Takes in between which lengths the search goes; other ones than before may pass now.
    pub(super) fn handle_lengths(&mut self, lengths: Option<Lengths>, now: Instant) {
        if self.lengths == lengths {
            return;
        }
        self.lengths = lengths;
        (self.missing, self.next, self.pending) = (0, None, None);
        let most = lengths.map_or(0, |lengths| lengths.most);
        self.settled = self.settled.filter(|settled| *settled < most);
        self.confirmed = false;
        self.phase = if self.settled.is_some() { Phase::Narrow { raise: now } } else { Phase::Whole };
    }

    /// Takes over the length that was in force before this program began, and looks at once for greater ones.
    pub(super) fn handle_known(&mut self, passes: u32, now: Instant) {
        if self.lengths.is_none_or(|lengths| passes < lengths.most) {
            (self.settled, self.phase, self.next) = (Some(passes), Phase::Narrow { raise: now }, None);
        }
    }

    /// Time since which an echo is due, and its length; `None` when none is.
    pub(super) fn due(&self, now: Instant) -> Option<(Option<Instant>, u32)> {
        let due = self.pending.is_none() && self.next.is_none_or(|next| now >= next);
        due.then_some((self.next, self.length()?))
    }

    /// Returns true if the next echoes are to follow hastily.
    pub(super) fn is_searching(&self) -> bool {
        matches!(self.phase, Phase::Searching(_))
    }

    pub(super) fn handle_sent(&mut self, token: u64, now: Instant) {
        let Some(length) = self.length() else { return };
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((token, length));
        self.pending = Some((token, now));
    }

    /// Takes in that an echo was not sent: because it is longer than the device takes, or for another reason.
    pub(super) fn handle_unsent(&mut self, token: u64, too_long: bool, now: Instant) {
        if !self.is_pending(token) {
            return;
        }
        self.pending = None;
        match &mut self.phase {
            Phase::Searching(search) if too_long => {
                search.handle_lost();
                (self.missing, self.next) = (0, Some(now));
                self.settle(now);
            }
            Phase::Whole | Phase::Searching(_) | Phase::Narrow { .. } => self.next = Some(now + USUAL),
        }
    }

    /// Takes an answer, if it is one to an echo of this search.
    pub(super) fn handle_answer(&mut self, token: u64, now: Instant) {
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == token) else { return };
        let Some((_, length)) = self.sent.remove(at) else { return };
        if self.is_pending(token) {
            self.pending = None;
        }
        let Some(Lengths { most, .. }) = self.lengths else { return };
        if length >= most {
            self.missing = 0;
            (self.settled, self.confirmed) = (None, true);
            (self.phase, self.next) = (Phase::Whole, Some(now + USUAL));
            return;
        }
        match &mut self.phase {
            // Of a time when less was enough.
            Phase::Whole => {}
            Phase::Searching(search) => {
                search.handle_passed(length);
                (self.missing, self.next) = (0, Some(now));
                self.settle(now);
            }
            Phase::Narrow { .. } => {
                if self.settled.is_none_or(|settled| length >= settled) {
                    (self.settled, self.confirmed, self.missing) = (Some(length), true, 0);
                    self.next = Some(now + USUAL);
                }
            }
        }
    }

    /// Counts an echo that was owed an answer for longer than `patience`, unless `short` ones are not answered either, and
    /// begins what is due.
    pub(super) fn handle_time(&mut self, patience: Duration, short: bool, now: Instant) {
        if self.pending.is_some_and(|(_, sent)| now >= sent + patience) {
            (self.pending, self.next) = (None, Some(now));
            if short {
                self.missing = self.missing.saturating_add(1);
                self.judge(now);
            }
        }
        let Some(Lengths { most, .. }) = self.lengths else { return };
        if let (Phase::Narrow { raise }, Some(settled)) = (&self.phase, self.settled)
            && now >= *raise
            && short
            && self.missing == 0
            && self.pending.is_none()
        {
            (self.phase, self.next) = (Phase::Searching(Search::up(settled, most)), Some(now));
        }
    }

    /// The length in force, where it is not the greatest.
    pub(super) fn settled(&self) -> Option<u32> {
        self.settled
    }

    /// The longest packets that pass, once an echo has shown it.
    pub(super) fn passes(&self) -> Option<u32> {
        let in_force = match (self.settled, self.lost()) {
            (Some(settled), _) => Some(settled),
            (None, None) => self.lengths.map(|lengths| lengths.most),
            (None, Some(_)) => None,
        };
        in_force.filter(|_| self.confirmed && !matches!(self.passing(), Passing::Less(_)))
    }

    /// The longest packets that pass where longer ones are lost. That all ways take the least length is taken for granted by the
    /// search, and found out when that is in force.
    pub(super) fn passing(&self) -> Passing {
        let least = self.lengths.map_or(0, |lengths| lengths.least);
        match self.settled {
            Some(settled) if settled > least || (self.confirmed && self.missing < ATTEMPTS) => {
                Passing::Bytes(settled)
            }
            Some(settled) if self.missing >= ATTEMPTS => Passing::Less(settled),
            Some(_) | None => Passing::Sought,
        }
    }

    /// A length that is lost on the way, if one is.
    pub(super) fn lost(&self) -> Option<u32> {
        let Lengths { most, .. } = self.lengths?;
        match (&self.phase, self.settled) {
            (_, Some(_)) | (Phase::Searching(_), None) => Some(most),
            (Phase::Whole | Phase::Narrow { .. }, None) => (self.missing >= MISSING).then_some(most),
        }
    }

    /// Draws the conclusion from echoes in a row without an answer.
    fn judge(&mut self, now: Instant) {
        let Some(Lengths { least, most }) = self.lengths else { return };
        match &mut self.phase {
            Phase::Searching(search) => {
                if self.missing >= search.attempts {
                    search.handle_lost();
                    self.missing = 0;
                    self.settle(now);
                }
            }
            Phase::Whole | Phase::Narrow { .. } => {
                let lost = self.settled.unwrap_or(most);
                if self.missing >= MISSING && lost > least {
                    self.phase = Phase::Searching(Search::down(least, lost, most));
                    self.missing = 0;
                    self.settle(now);
                }
            }
        }
    }

    /// Ends a search that is over.
    fn settle(&mut self, now: Instant) {
        let Phase::Searching(search) = &mut self.phase else { return };
        if search.poll_over() {
            let passes = search.passes;
            let was_confirmed = self.confirmed && self.settled == Some(passes);
            let least = self.lengths.map_or(0, |lengths| lengths.least);
            self.confirmed = was_confirmed || passes > least;
            self.settled = Some(passes);
            (self.phase, self.next) = (Phase::Narrow { raise: now + RAISE }, Some(now + USUAL));
        }
    }

    /// The length of the next echo.
    fn length(&self) -> Option<u32> {
        let Lengths { most, .. } = self.lengths?;
        Some(match &self.phase {
            Phase::Whole => most,
            Phase::Searching(search) => search.length(),
            Phase::Narrow { .. } => self.settled.unwrap_or(most),
        })
    }

    fn is_pending(&self, token: u64) -> bool {
        self.pending.is_some_and(|(pending, _)| pending == token)
    }
}

#[cfg(test)]
mod tests;
