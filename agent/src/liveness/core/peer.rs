//! One peer: the echoes that it owes, and what follows from them. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::path::{Lengths, Narrow, PathSearch};
use super::{MISSING, PeerView, Reach, Watched};

/// Echoes that may be under way to one peer: as many as are sent hastily within the longest wait.
const PENDING: usize = 128;
/// Longest wait for an answer, after which its echo is lost.
const LOST: Duration = Duration::from_secs(2);
/// Answers, less the echoes without one, that make an unreachable peer reachable, and the most that it takes when it comes and goes.
const ANSWERS: u32 = 3;
const MOST_ANSWERS: u32 = 24;
/// A peer that is lost again within this time has to answer twice as often the next time.
const STEADY: Duration = Duration::from_secs(60);
/// Echoes without an answer after which a peer that has never answered is named.
const SILENT: u32 = 2 * MISSING;
/// Echoes in a row without an answer for which a host that has answered no echo yet has time, unless it was there before this
/// agent: it is setting up its device.
const SETTING_UP: u32 = 4 * MISSING;
/// Echoes in a row without an answer after which others are told whose turn it is.
const HINTED: u32 = 3;
/// Number of echoes whose loss is remembered.
const HISTORY: u32 = u128::BITS;

/// Knowledge of a peer.
#[derive(Debug)]
pub(super) struct Peer {
    reach: Reach,
    /// True if its host says that it answers echoes: it is judged before its first answer.
    speaks: bool,
    /// Echoes in a row without an answer that make it unreachable.
    enough: u32,
    pending: VecDeque<Pending>,
    /// Echoes in a row that are owed an answer.
    missing: u32,
    /// Time at which the first of them was sent.
    owes_since: Option<Instant>,
    /// True if others are to be told that it has changed, or were told that it owes answers.
    returns: bool,
    hinted: bool,
    /// Answers in a row since the last echo that was owed one; of an unreachable peer, answers less the echoes that were owed one.
    answers: u32,
    /// Answers that make it reachable.
    needed: u32,
    /// Time of its last return.
    returned: Option<Instant>,
    round_trip: Option<Duration>,
    /// The last echoes, newest in the lowest bit: 1 for one that was lost.
    history: u128,
    /// Number of bits that say something.
    echoes: u32,
    path: PathSearch,
}

/// An echo under way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    token: u64,
    sent: Instant,
    /// True once it has been waited for in vain.
    owed: bool,
}

impl Peer {
    /// A peer that has answered nothing yet; `before` is what an earlier agent of this host knew of it.
    pub(super) fn new(watched: &Watched, before: Option<Reach>) -> Self {
        Self {
            reach: before.filter(|before| *before == Reach::Unreachable).unwrap_or(Reach::Unknown),
            speaks: watched.speaks,
            enough: if before.is_some() { MISSING } else { SETTING_UP },
            pending: VecDeque::new(),
            missing: 0,
            owes_since: None,
            returns: false,
            hinted: false,
            answers: 0,
            needed: ANSWERS,
            returned: None,
            round_trip: None,
            history: 0,
            echoes: 0,
            path: PathSearch::default(),
        }
    }

    /// Takes in what its host says of itself. One that says that it answers echoes no more is of an older version than it was: it
    /// has never answered.
    pub(super) fn handle_watched(&mut self, watched: &Watched) {
        if self.speaks && !watched.speaks {
            *self = Self::new(watched, None);
        }
        self.speaks = watched.speaks;
    }

    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// Returns true if it is to be asked hastily: one that owes an answer, or that is coming back.
    pub(super) fn is_hasty(&self) -> bool {
        match self.reach {
            Reach::Suspect => true,
            Reach::Unreachable => self.answers > 0,
            Reach::Unknown | Reach::Reachable => false,
        }
    }

    /// Returns true if an echo to it is under way.
    pub(super) fn is_asked(&self) -> bool {
        self.pending.iter().any(|pending| !pending.owed)
    }

    /// Returns true if others are to be told once that it has changed: that it answers again, or that it owes answers although
    /// somebody else has answered since, at `heard`.
    pub(super) fn poll_hint(&mut self, heard: Option<Instant>) -> bool {
        let owes = self.reach == Reach::Suspect && self.missing >= HINTED && self.round_trip.is_some();
        let heard_since = heard.zip(self.owes_since).is_some_and(|(heard, since)| heard > since);
        let doubted = owes && heard_since && !self.hinted;
        self.hinted |= doubted;
        std::mem::take(&mut self.returns) || doubted
    }

    /// Returns true if it has never answered although it was asked for a while.
    pub(super) fn is_silent(&self) -> bool {
        self.reach == Reach::Unknown && self.missing >= SILENT
    }

    /// Returns true if it is suspect and has owed this many answers.
    pub(super) fn is_in_doubt(&self, answers: u32) -> bool {
        self.reach == Reach::Suspect && self.missing >= answers
    }

    pub(super) fn view(&self) -> PeerView {
        let loss = f64::from(self.history.count_ones()) / f64::from(self.echoes.max(1));
        PeerView {
            reach: self.reach,
            round_trip: self.round_trip,
            loss: (self.echoes > 0).then_some(loss),
            path_mtu: self.path.passes(),
            narrow: self.narrow(),
            checksum_fault: None,
        }
    }

    /// Wait for an answer before it is owed: half the way to the peer and back more than that, and never less than `least`.
    fn patience(&self, least: Duration) -> Duration {
        self.round_trip.map_or(least, |round_trip| least + round_trip * 3 / 2)
    }

    /// Time at which the oldest echo that is waited for is owed an answer.
    pub(super) fn deadline(&self, least: Duration) -> Option<Instant> {
        let oldest = self.pending.iter().find(|pending| !pending.owed)?;
        Some(oldest.sent + self.patience(least))
    }

    pub(super) fn handle_sent(&mut self, token: u64, now: Instant) {
        self.expire(now);
        if self.pending.len() == PENDING {
            self.pending.pop_front();
            self.remember(true);
        }
        self.pending.push_back(Pending { token, sent: now, owed: false });
    }

    /// An echo that was not sent after all.
    pub(super) fn forget(&mut self, token: u64, too_long: bool, now: Instant) {
        self.pending.retain(|pending| pending.token != token);
        self.path.handle_unsent(token, too_long, now);
    }

    /// Lengths that are lost on the way, if short packets are not.
    pub(super) fn narrow(&self) -> Option<Narrow> {
        let lost = self.path.lost().filter(|_| self.reach != Reach::Unreachable)?;
        Some(Narrow { passes: self.path.passing(), lost })
    }

    /// The longest packets that are to be sent to it, where that is less than the greatest length.
    pub(super) fn settled(&self) -> Option<u32> {
        self.path.settled()
    }

    /// Returns true if the longest packets that pass are being looked for.
    pub(super) fn is_searched(&self) -> bool {
        self.reach == Reach::Reachable && self.path.is_searching()
    }

    pub(super) fn handle_lengths(&mut self, lengths: Option<Lengths>, now: Instant) {
        self.path.handle_lengths(lengths, now);
    }

    pub(super) fn handle_known(&mut self, passes: u32, now: Instant) {
        self.path.handle_known(passes, now);
    }

    /// Time since which a long echo is due, and its length; `None` when none is, as while short ones are not answered.
    pub(super) fn long_due(&mut self, least: Duration, now: Instant) -> Option<(Option<Instant>, u32)> {
        let answers = self.reach == Reach::Reachable;
        // A long one takes longer, too.
        self.path.handle_time(2 * self.patience(least), answers, now);
        self.path.due(now).filter(|_| answers)
    }

    pub(super) fn handle_long_sent(&mut self, token: u64, now: Instant) {
        self.path.handle_sent(token, now);
    }

    /// Takes an answer; returns true if it is one to an echo that was sent.
    pub(super) fn handle_answer(&mut self, token: u64, now: Instant) -> bool {
        self.path.handle_answer(token, now);
        let Some(at) = self.pending.iter().position(|pending| pending.token == token) else { return false };
        let Some(answered) = self.pending.remove(at) else { return false };
        // A late one as well: the way may have become longer.
        let took = now.saturating_duration_since(answered.sent);
        self.round_trip = Some(self.round_trip.map_or(took, |known| (known * 7 + took) / 8));
        self.remember(false);
        (self.missing, self.owes_since, self.hinted, self.enough) = (0, None, false, MISSING);
        self.answers = self.answers.saturating_add(1);
        match self.reach {
            Reach::Unreachable if self.answers < self.needed => {}
            Reach::Unreachable => {
                self.reach = Reach::Reachable;
                self.returned = Some(now);
                self.returns = true;
            }
            Reach::Unknown | Reach::Suspect | Reach::Reachable => self.reach = Reach::Reachable,
        }
        true
    }

    /// Counts the echoes that are owed an answer by now; all those of a time in which nobody watched (`late`) count as one.
    pub(super) fn handle_time(&mut self, least: Duration, late: bool, now: Instant) {
        let patience = self.patience(least);
        let mut owed = 0;
        for pending in &mut self.pending {
            if !pending.owed && now >= pending.sent + patience {
                self.owes_since = self.owes_since.or(Some(pending.sent));
                pending.owed = true;
                owed += 1;
            }
        }
        if late {
            owed = owed.min(1);
        }
        self.expire(now);
        if owed == 0 {
            return;
        }
        self.missing = self.missing.saturating_add(owed);
        // What is lost now and then keeps no host away for good: an answer makes up for an echo without one.
        self.answers = match self.reach {
            Reach::Unreachable => self.answers.saturating_sub(owed),
            Reach::Unknown | Reach::Suspect | Reach::Reachable => 0,
        };
        match self.reach {
            Reach::Reachable => self.reach = Reach::Suspect,
            Reach::Unknown if self.speaks => self.reach = Reach::Suspect,
            Reach::Suspect if self.missing >= self.enough => {
                let again = self.returned.is_some_and(|returned| now < returned + STEADY);
                self.needed = if again { (self.needed * 2).min(MOST_ANSWERS) } else { ANSWERS };
                self.reach = Reach::Unreachable;
            }
            Reach::Unknown | Reach::Suspect | Reach::Unreachable => {}
        }
    }

    /// Counts the echoes that nobody waits for any more as lost.
    fn expire(&mut self, now: Instant) {
        while self.pending.front().is_some_and(|pending| now >= pending.sent + LOST) {
            self.pending.pop_front();
            self.remember(true);
        }
    }

    fn remember(&mut self, lost: bool) {
        self.history = (self.history << 1) | u128::from(lost);
        self.echoes = (self.echoes + 1).min(HISTORY);
    }
}
