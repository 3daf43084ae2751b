//! Liveness of a tunnel: it asks if its peer is there, leaves calls that wait for one that does not answer, gives the tunnel up, and
//! closes it for want of use. Pure.
//!
//! While a stream waits, a tunnel that is silent asks hastily. A question counts once the peer's kernel has taken it: then it was not
//! lost, and who does not answer several is frozen or hangs. A question that is not taken counts only where this host knows the peer's
//! host to be away, or for long. A worker that was itself late counts nothing. The tunnel stays: whoever answers after all is
//! called again.
//!
//! An answer also waits behind a packet of the same connection that is lost, for as long as that takes to arrive. So a peer that is
//! silent here is asked on another connection as well, and one that speaks there lives.

mod losses;

use std::time::{Duration, Instant};

use sealane_sys::tcp::TcpTraffic;

use super::settings::Patience;
use losses::Losses;

/// Interval of looks while something is expected; after one without a word the peer is asked.
const WATCH: Duration = Duration::from_millis(200);
/// Part of the time since something was last said that the interval grows to: a call that has waited for long waits on.
const WATCH_PART: u32 = 50;
/// Interval of looks, and of questions, while an answer is owed.
const HASTE: Duration = Duration::from_millis(100);
/// Questions that the peer has taken and not answered, after which calls do not wait for it.
const UNANSWERED: u32 = 6;
/// The number grows by as many times as segments were sent again lately, up to so many times: on a way that loses packets, answers
/// may be lost too.
const MOST_LOSSES: u32 = 6;
/// The number grows by as many times, and one, as looks were late by so much, up to so many times: the peer may be as short of time
/// as this worker.
const LATE: Duration = Duration::from_millis(50);
const MOST_LATE: u32 = 2;
/// Looks without a word after which the peer is asked on another connection.
const PROOF: u32 = 3;
/// Silence counts after so many times as long of a peer that speaks on another connection; and of one, on the side that accepts, whose
/// kernel takes what is sent. TCP may send a lost packet again only after 13 s.
const PROVEN: u32 = 4;
const ACCEPTED: u32 = 3;
/// Time that a peer has for an answer whose host is said to be away.
const AWAY: Duration = Duration::from_millis(200);
/// Time for which a peer that came back gets more questions the next time, twice as many for each time.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_LAPSES: u32 = 3;

/// Action on a tunnel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// The peer has answered, and nothing is expected of it.
    Settled,
    Ping,
    /// Streams that wait do so in vain.
    Abandon(Silence),
    Lost,
    Idle,
}

/// Kind of a peer's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// The peer's kernel takes what is sent, and nobody answers.
    Mute,
    /// Nobody has answered for as many questions again: it is frozen, and not short of time.
    Frozen,
    /// The peer's host cannot be reached, as this host's agent knows.
    Away,
    /// Nothing is known but that nothing is heard.
    Unknown,
}

impl Silence {
    /// Reason for callers not to wait.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Mute | Self::Frozen => "its sidecar does not answer",
            Self::Away => "its host cannot be reached",
            Self::Unknown => "nothing is heard of its sidecar",
        }
    }

    /// Returns true if the peer's kernel works: its process does not answer.
    pub(super) fn is_of_process(self) -> bool {
        match self {
            Self::Mute | Self::Frozen => true,
            Self::Away | Self::Unknown => false,
        }
    }
}

/// Observations on a tunnel since the look before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// Bytes have come.
    pub(super) heard: bool,
    /// Something was said on a stream, by whichever side.
    pub(super) talked: bool,
    /// A stream waits for the peer now.
    pub(super) waits: bool,
    /// There are streams.
    pub(super) in_use: bool,
    /// The peer's host cannot be reached, as this host's agent knows.
    pub(super) away: bool,
    /// The peer has spoken on another connection.
    pub(super) proven: bool,
    /// This side accepts: it has nobody else to turn to.
    pub(super) accepts: bool,
    /// Traffic of the connection, where the kernel tells.
    pub(super) traffic: Option<TcpTraffic>,
}

impl Look {
    /// Returns true if the peer's kernel has taken all that was sent.
    fn is_taken(&self) -> bool {
        self.traffic.is_some_and(|traffic| traffic.unacknowledged == 0)
    }
}

/// Memory of a tunnel's silence.
#[derive(Debug)]
pub(super) struct Liveness {
    heard: Instant,
    used: Instant,
    /// Time at which something was last said.
    talked: Instant,
    /// Something was said since the peer last answered a question.
    restless: bool,
    asked: Option<Asked>,
    losses: Losses,
    /// Times that a peer came back that calls did not wait for, and the last of them.
    lapses: u32,
    lapsed: Option<Instant>,
    /// True while something is expected.
    hasty: bool,
    /// True if something was expected at the last look, and nothing was heard.
    unheard: bool,
    /// Time at which the next look is due.
    due: Option<Instant>,
}

/// Questions without an answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: Instant,
    taken: u32,
    late: u32,
    received: u32,
    /// Looks since the peer was last asked on another connection, or spoke there.
    unproven: u32,
    /// Time at which it last spoke there.
    proven: Option<Instant>,
    stalled: bool,
    abandoned: Option<Silence>,
}

impl Asked {
    fn new(now: Instant, received: u32) -> Self {
        Self {
            since: now,
            taken: 0,
            late: 0,
            received,
            unproven: 0,
            proven: None,
            stalled: false,
            abandoned: None,
        }
    }

    /// Takes in what came, and what was taken, since the look before.
    fn note(&mut self, now: Instant, look: Look, late: bool) {
        self.late += u32::from(late);
        let received = look.traffic.map_or(self.received, |traffic| traffic.received);
        if look.proven {
            (self.taken, self.unproven, self.proven) = (0, 0, Some(now));
            self.abandoned = self.abandoned.filter(|silence| !silence.is_of_process());
        }
        if received != self.received {
            // Something has come whose turn is not yet, since something before it was lost: the peer lives.
            (self.received, self.taken) = (received, 0);
        } else if look.is_taken() && !late && !look.proven {
            self.taken += 1;
        }
    }
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            heard: now,
            used: now,
            talked: now,
            restless: false,
            asked: None,
            losses: Losses::new(now),
            lapses: 0,
            lapsed: None,
            hasty: false,
            unheard: false,
            due: None,
        }
    }

    /// A stream waits, and none did before: returns the time until the next look.
    pub(super) fn hurry(&mut self, now: Instant) -> Duration {
        (self.hasty, self.talked) = (true, now);
        self.due = Some(now + WATCH);
        WATCH
    }

    /// Returns true while the peer is watched, as something is expected of it.
    pub(super) fn is_hasty(&self) -> bool {
        self.hasty
    }

    /// To be asked when [`Liveness::next`] says, or before: says what is to be done. A tunnel without streams is kept for
    /// `idle_timeout`.
    pub(super) fn check(
        &mut self,
        now: Instant,
        look: Look,
        idle_timeout: Duration,
        patience: Patience,
    ) -> Verdict {
        let late = self.due.take().is_some_and(|due| now >= due + LATE);
        let settled = self.note(now, look);
        if look.in_use {
            self.used = now;
        }
        self.restless &= look.in_use;
        self.hasty = look.in_use && (look.waits || self.restless);
        // Whoever goes on talking to a peer that says nothing asks, too.
        let quiet = !look.heard && (!look.talked || self.unheard);
        self.unheard = self.hasty && !look.heard;
        let verdict = match self.asked {
            Some(asked) => self.judge(now, look, late, asked, patience),
            None if settled => Verdict::Settled,
            None if now - self.used >= idle_timeout => Verdict::Idle,
            None if (self.hasty && quiet) || now - self.heard >= patience.ping_after => {
                self.asked = Some(Asked::new(now, look.traffic.unwrap_or_default().received));
                Verdict::Ping
            }
            None => Verdict::Fine,
        };
        self.due = Some(now + self.next(now, patience));
        verdict
    }

    /// Returns true if questions have been unanswered for a while: streams fare better on another connection.
    pub(super) fn is_stalled(&self) -> bool {
        self.asked.is_some_and(|asked| asked.stalled)
    }

    /// Returns true if it is time to ask the peer on another connection, and takes in that this is done.
    pub(super) fn take_doubt(&mut self) -> bool {
        match &mut self.asked {
            Some(asked) if asked.unproven >= PROOF => {
                asked.unproven = 0;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Time until the next look.
    pub(super) fn next(&self, now: Instant, patience: Patience) -> Duration {
        let watch = ((now - self.talked) / WATCH_PART).max(WATCH).min(patience.look_every);
        match self.asked {
            Some(Asked { abandoned: None, .. }) if self.hasty => HASTE,
            Some(Asked { abandoned: Some(_), .. }) => WATCH,
            None if self.hasty => watch,
            Some(_) | None => patience.look_every,
        }
    }

    /// Takes in what was heard; returns true if the peer has answered and nothing is expected any more.
    fn note(&mut self, now: Instant, look: Look) -> bool {
        self.losses.note(look.traffic.unwrap_or_default().sent_again, now);
        if look.talked {
            (self.restless, self.talked) = (true, now);
        }
        if !look.heard {
            return false;
        }
        self.heard = now;
        let asked = self.asked.take();
        if asked.and_then(|asked| asked.abandoned).is_some_and(Silence::is_of_process) {
            let recent = self.lapsed.is_some_and(|lapsed| now - lapsed < REMEMBERED);
            self.lapses = if recent { (self.lapses + 1).min(MOST_LAPSES) } else { 1 };
            self.lapsed = Some(now);
        }
        let settled = self.restless && !look.talked;
        self.restless &= !settled;
        settled
    }

    /// Judges a silence that was asked about.
    fn judge(
        &mut self,
        now: Instant,
        look: Look,
        late: bool,
        mut asked: Asked,
        patience: Patience,
    ) -> Verdict {
        asked.note(now, look, late);
        let (silent, lost_after) = (now - asked.since, self.lost_after(now, look, asked, patience));
        let unanswered = self.unanswered(asked.late, now);
        let silence = if silent >= lost_after {
            Some(Silence::Unknown)
        } else if asked.taken >= 2 * unanswered {
            Some(Silence::Frozen)
        } else if look.away && !late && silent >= AWAY {
            Some(Silence::Away)
        } else {
            (asked.taken >= unanswered).then_some(Silence::Mute)
        };
        // What is known of it does not become less.
        let before = asked.abandoned.filter(|before| *before != Silence::Mute);
        asked.abandoned = before.or(silence.filter(|_| self.hasty)).or(asked.abandoned);
        let in_doubt = matches!(asked.abandoned, None | Some(Silence::Mute)) && !look.away;
        if self.hasty && in_doubt && !late {
            asked.unproven += 1;
            asked.stalled |= asked.unproven >= PROOF;
        }
        self.asked = Some(asked);
        if silent >= lost_after && now - self.heard >= lost_after + patience.ping_after {
            return Verdict::Lost;
        }
        match asked.abandoned {
            Some(silence) if self.hasty => {
                // An answer that has begun waits on for a mute one.
                self.restless &= silence == Silence::Mute;
                Verdict::Abandon(silence)
            }
            // A question behind one that was not taken would wait for that.
            Some(_) | None if look.is_taken() => Verdict::Ping,
            Some(_) | None => Verdict::Fine,
        }
    }

    /// Time after which silence counts although questions are not taken: twice as much where segments are sent again, as TCP pauses for
    /// more than three seconds between these (RFC 6298, section 5.5), and more yet where the peer is known to live.
    fn lost_after(&self, now: Instant, look: Look, asked: Asked, patience: Patience) -> Duration {
        let times = if asked.proven.is_some_and(|proven| now - proven < patience.lost_after) {
            PROVEN
        } else if look.accepts && look.is_taken() {
            ACCEPTED
        } else if self.losses.lately() > 0 {
            2
        } else {
            1
        };
        times * patience.lost_after
    }

    /// Number of questions that a peer may leave unanswered.
    fn unanswered(&self, late: u32, now: Instant) -> u32 {
        let recent = self.lapsed.is_some_and(|lapsed| now - lapsed < REMEMBERED);
        let lapses = if recent { self.lapses } else { 0 };
        UNANSWERED * self.losses.lately().min(MOST_LOSSES).max(1 << lapses).max(1 + late.min(MOST_LATE))
    }
}

#[cfg(test)]
mod tests;
