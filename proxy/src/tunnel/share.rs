//! Things that the tunnels of one peer share: turns, in which they do no more than leaves everybody else theirs, and a pace for what nobody
//! does often. Pure: time is an argument.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sealane_base::cell_rate::CellRate;

/// Work that all tunnels of a peer may do together before the other tasks of the worker get their turn.
const ALL: Turn = Turn { bytes: 256 * 1024, frames: 1024, opens: 64 };
/// Work that each of them may do however many there are.
const LEAST: Turn = Turn { bytes: 1024, frames: 16, opens: 1 };
/// Requests that a peer may give up before their answer: as many at once as all of its tunnels carry, and then some.
const GIVEN_UP: CellRate = CellRate::new(Duration::from_micros(250), 16_384);
/// Frames that a peer may send that carry nothing. Nobody needs more than one every few seconds.
const IDLE: CellRate = CellRate::new(Duration::from_millis(10), 1024);
/// Time for which a peer that has gone beyond that gets no tunnel.
const BARRED: Duration = Duration::from_secs(1);
/// Number of peers that are remembered at least before those are looked for of whom nothing need be known.
const PRUNE_AT: usize = 64;

/// Work that a tunnel may still do before the other tasks of the worker get their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    bytes: usize,
    frames: usize,
    opens: usize,
}

/// Excess of something that nobody does so often; the tunnel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flood {
    #[error("opens streams and gives them up faster than anybody has use for")]
    GivenUp,
    #[error("sends more frames that carry nothing than anybody has use for")]
    Idle,
}

/// Knowledge of one peer.
#[derive(Debug)]
pub(super) struct Share {
    tunnels: Cell<usize>,
    given_up: Cell<CellRate>,
    idle: Cell<CellRate>,
    barred: Cell<Option<Instant>>,
}

/// Membership of a tunnel in its peer's share, as long as the tunnel lives.
#[derive(Debug)]
pub(super) struct Member(Rc<Share>);

/// Knowledge of peers, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Shares(RefCell<Known>);

#[derive(Debug, Default)]
struct Known {
    by_peer: HashMap<IpAddr, Rc<Share>>,
    prune_at: usize,
}

impl Turn {
    /// Returns true if nothing more is to be done.
    pub(super) fn is_over(&self) -> bool {
        self.bytes == 0 || self.frames == 0 || self.opens == 0
    }

    /// Returns the number of bytes that may be read.
    pub(super) fn room(&self) -> usize {
        self.bytes
    }

    /// Takes in that so many bytes were read.
    pub(super) fn take_bytes(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
    }

    /// Returns true if another frame may be handled.
    pub(super) fn has_frame(&self) -> bool {
        self.frames > 0 && self.opens > 0
    }

    /// Takes in that a frame is handled, which may open a stream.
    pub(super) fn take_frame(&mut self, opens: bool) {
        self.frames = self.frames.saturating_sub(1);
        self.opens = self.opens.saturating_sub(usize::from(opens));
    }
}

impl Default for Share {
    fn default() -> Self {
        Self {
            tunnels: Cell::new(0),
            given_up: Cell::new(GIVEN_UP),
            idle: Cell::new(IDLE),
            barred: Cell::new(None),
        }
    }
}

impl Share {
    /// Counts one more tunnel, as long as what this returns lives.
    pub(super) fn join(self: &Rc<Self>) -> Member {
        self.tunnels.update(|count| count + 1);
        Member(self.clone())
    }

    /// Returns the work that one of the tunnels may do at a time.
    pub(super) fn turn(&self) -> Turn {
        let of = |all: usize, least: usize| (all / self.tunnels.get().max(1)).max(least);
        Turn {
            bytes: of(ALL.bytes, LEAST.bytes),
            frames: of(ALL.frames, LEAST.frames),
            opens: of(ALL.opens, LEAST.opens),
        }
    }

    /// Takes in that so many requests were given up, and so many frames carried nothing.
    ///
    /// # Errors
    /// When that is too much; the peer gets no tunnel for a while.
    pub(super) fn handle_counts(&self, given_up: u32, idle: u32, now: Instant) -> Result<(), Flood> {
        for (pace, count, flood) in
            [(&self.given_up, given_up, Flood::GivenUp), (&self.idle, idle, Flood::Idle)]
        {
            let mut moved = pace.get();
            if count == 0 {
                continue;
            }
            moved.take(count, now);
            pace.set(moved);
            if !moved.excess(now).is_zero() {
                self.barred.set(Some(now + BARRED));
                return Err(flood);
            }
        }
        Ok(())
    }

    /// Returns true if the peer gets no tunnel now.
    pub(super) fn is_barred(&self, now: Instant) -> bool {
        self.barred.get().is_some_and(|until| now < until)
    }

    /// Returns true if nothing need be known of it any more.
    fn is_rested(&self, now: Instant) -> bool {
        self.tunnels.get() == 0
            && !self.is_barred(now)
            && self.given_up.get().is_rested(now)
            && self.idle.get().is_rested(now)
    }
}

impl Deref for Member {
    type Target = Share;

    fn deref(&self) -> &Share {
        &self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.tunnels.update(|count| count.saturating_sub(1));
    }
}

impl Shares {
    /// Returns what is known of this peer.
    pub(super) fn of(&self, peer: IpAddr, now: Instant) -> Rc<Share> {
        let Known { by_peer, prune_at } = &mut *self.0.borrow_mut();
        if by_peer.len() >= (*prune_at).max(PRUNE_AT) {
            by_peer.retain(|_, share| Rc::strong_count(share) > 1 || !share.is_rested(now));
            *prune_at = 2 * by_peer.len();
        }
        by_peer.entry(peer).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnels_of_a_peer_do_together_what_one_would_do_alone() {
        let share = Rc::<Share>::default();
        let one = share.join();
        assert_eq!(one.turn(), ALL);
        let others: Vec<_> = (0..7).map(|_| share.join()).collect();
        assert_eq!(one.turn(), Turn { bytes: ALL.bytes / 8, frames: ALL.frames / 8, opens: ALL.opens / 8 });
        let more: Vec<_> = (0..1000).map(|_| share.join()).collect();
        assert_eq!(one.turn(), LEAST, "each goes on all the same");
        drop((others, more));
        assert_eq!(one.turn(), ALL);
    }

    #[test]
    fn a_turn_ends_with_its_frames_its_streams_or_its_bytes() {
        let whole = Turn { bytes: 10, frames: 2, opens: 1 };
        let mut turn = whole;
        turn.take_frame(false);
        assert!(!turn.is_over() && turn.has_frame());
        turn.take_frame(false);
        assert!(turn.is_over() && !turn.has_frame());
        turn = whole;
        turn.take_frame(true);
        assert!(turn.is_over() && !turn.has_frame());
        turn = whole;
        turn.take_bytes(11);
        assert!(turn.is_over() && turn.has_frame(), "what was read may be handled");
    }

    #[test]
    fn who_gives_up_all_its_requests_now_and_then_goes_on_and_who_never_stops_is_barred_for_a_while() {
        let (shares, began) = (Shares::default(), Instant::now());
        let peer = IpAddr::from([10, 42, 0, 1]);
        let after = |millis| began + Duration::from_millis(millis);
        let share = shares.of(peer, began);
        for minute in 0..10 {
            assert_eq!(share.handle_counts(8000, 0, after(60_000 * minute)), Ok(()));
        }
        let flood = (600_000..).find(|&at| share.handle_counts(20, 0, after(at)).is_err()).unwrap();
        assert!((601_000..603_000).contains(&flood), "20,000 a second for some time: {flood}");
        drop(share);
        let again = shares.of(peer, after(flood));
        assert!(again.is_barred(after(flood + 999)), "a new tunnel is the same peer's");
        assert!(!again.is_barred(after(flood + 1000)));
    }

    #[test]
    fn frames_that_carry_nothing_have_a_pace() {
        let (share, began) = (Share::default(), Instant::now());
        for second in 0..1000 {
            assert_eq!(share.handle_counts(0, 50, began + Duration::from_secs(second)), Ok(()));
        }
        assert_eq!(share.handle_counts(0, 2000, began + Duration::from_secs(1000)), Err(Flood::Idle));
    }

    #[test]
    fn peers_of_whom_nothing_need_be_known_are_forgotten() {
        let (shares, began) = (Shares::default(), Instant::now());
        let barred = shares.of(IpAddr::from([10, 42, 0, 1]), began);
        assert!(barred.handle_counts(0, 5000, began).is_err());
        drop(barred);
        for n in 0..10_000_u32 {
            shares.of(IpAddr::from(n.to_be_bytes()), began);
        }
        assert!(shares.0.borrow().by_peer.len() <= 2 * PRUNE_AT);
        assert!(shares.of(IpAddr::from([10, 42, 0, 1]), began).is_barred(began));
    }
}
