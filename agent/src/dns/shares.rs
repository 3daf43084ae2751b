//! Bounds on questions that wait for the host's resolvers, and on answers that wait for their askers: of one asker, and of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sealane_base::mutex::lock;

/// Largest number of questions that wait at once, on this host; each takes a descriptor.
pub(super) const MAX_IN_FLIGHT: usize = 1024;
/// Largest number of them from one asker.
pub(super) const MAX_OF_ASKER: usize = 128;
/// Largest number of bytes of answers over TCP that wait on this host for those who asked.
pub(super) const MAX_UNREAD: usize = 16 << 20;
/// Part of the free places that one asker gets at most, so that there is always something for the next one.
const PART: usize = 4;
/// Number of askers of a shared socket that are remembered before idle ones are forgotten.
const MAX_ASKERS: usize = 1024;

/// Askers at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Askers {
    /// A single workload asks.
    One,
    /// Many, by their addresses.
    Many,
}

/// All questions under way.
#[derive(Clone, Debug, Default)]
pub(super) struct QuestionsInFlight(Arc<AtomicUsize>);

/// Bytes of answers over TCP that nobody has taken yet, of the whole host.
#[derive(Clone, Debug, Default)]
pub(super) struct UnreadAnswers(Arc<AtomicUsize>);

/// Room for answers, until dropped.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    counts: [Arc<AtomicUsize>; 2],
}

/// Share of one asker.
#[derive(Clone, Debug, Default)]
pub(super) struct Share(Arc<AtomicUsize>);

/// The shares of everybody who asks at one address, whatever the transport.
#[derive(Clone, Debug)]
pub(super) enum Shares {
    One(Share),
    Many(Arc<Mutex<HashMap<IpAddr, Share>>>),
}

/// Place of one question under way, until dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl QuestionsInFlight {
    /// A place for one more question of this asker, if there is any for it.
    pub(super) fn take(&self, share: &Share) -> Option<Place> {
        let others = self.0.fetch_add(1, Ordering::Relaxed);
        let own = share.0.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.0.clone(), share.0.clone());
        let free = MAX_IN_FLIGHT.saturating_sub(others);
        (own < MAX_OF_ASKER.min(free.div_ceil(PART))).then_some(place)
    }
}

impl UnreadAnswers {
    /// Room for so many bytes more of those who ask at one address, if there is any for them.
    pub(super) fn take(&self, share: &Share, bytes: usize) -> Option<Room> {
        let others = self.0.fetch_add(bytes, Ordering::Relaxed);
        let own = share.0.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { bytes, counts: [self.0.clone(), share.0.clone()] };
        let free = MAX_UNREAD.saturating_sub(others);
        (own + bytes <= free.div_ceil(PART)).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for count in &self.counts {
            count.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for count in [&self.0, &self.1] {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Shares {
    pub(super) fn new(askers: Askers) -> Self {
        match askers {
            Askers::One => Self::One(Share::default()),
            Askers::Many => Self::Many(Arc::default()),
        }
    }

    pub(super) fn of(&self, asker: IpAddr) -> Share {
        match self {
            Self::One(share) => share.clone(),
            Self::Many(shares) => {
                let mut shares = lock(shares);
                if shares.len() >= MAX_ASKERS {
                    shares.retain(|_, share| share.0.load(Ordering::Relaxed) > 0);
                }
                shares.entry(asker).or_default().clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_are_greedy_the_next_one_gets_something() {
        let waiting = QuestionsInFlight::default();
        let mut places = Vec::new();
        for _ in 0..20 {
            let share = Share::default();
            let taken: Vec<Place> = std::iter::from_fn(|| waiting.take(&share)).collect();
            assert!((1..=MAX_OF_ASKER).contains(&taken.len()), "{}", taken.len());
            places.extend(taken);
        }
        assert!(places.len() <= MAX_IN_FLIGHT);
        drop(places);
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn however_many_take_no_answers_what_they_leave_is_bounded_and_the_next_one_gets_room() {
        const ANSWERS: usize = 64 << 10;
        let unread = UnreadAnswers::default();
        let mut rooms = Vec::new();
        for _ in 0..12 {
            let share = Share::default();
            let taken: Vec<Room> = std::iter::from_fn(|| unread.take(&share, ANSWERS)).collect();
            assert!(!taken.is_empty());
            rooms.extend(taken);
        }
        assert!(rooms.len() * ANSWERS <= MAX_UNREAD);
        drop(rooms);
        assert_eq!(unread.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn askers_of_a_shared_socket_do_not_take_each_others_places() {
        let (waiting, shares) = (QuestionsInFlight::default(), Shares::new(Askers::Many));
        let [one, other] = [1, 2].map(|last| shares.of([10, 42, 0, last].into()));
        let taken: Vec<Place> = std::iter::from_fn(|| waiting.take(&one)).collect();
        assert_eq!(taken.len(), MAX_OF_ASKER);
        assert!(waiting.take(&shares.of([10, 42, 0, 1].into())).is_none());
        assert!(waiting.take(&other).is_some());
    }
}
