//! Queue before places: whoever finds none waits in turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::{Inner, Limits, Place, Places};
use crate::mutex::lock;

/// Those who wait for a place.
#[derive(Debug)]
pub(super) struct Queue<S: Ord + Clone> {
    limits: Limits,
    next: u64,
    /// In the order in which they came.
    waiters: BTreeMap<u64, Waiter<S>>,
    sources: BTreeMap<S, usize>,
}

#[derive(Debug)]
struct Waiter<S: Ord + Clone> {
    source: S,
    give: oneshot::Sender<Place<S>>,
}

/// A wait, which ends with this.
struct Wait<'a, S: Ord + Clone> {
    inner: &'a Mutex<Inner<S>>,
    id: u64,
}

impl<S: Ord + Clone> Places<S> {
    /// So many places, all free, for which so many may wait.
    #[must_use]
    pub fn with_queue(limits: Limits, waiting: Limits) -> Self {
        let queue = Queue { limits: waiting, next: 0, waiters: BTreeMap::new(), sources: BTreeMap::new() };
        let (occupants, sources) = (BTreeMap::new(), BTreeMap::new());
        Self { inner: Arc::new(Mutex::new(Inner { limits, next: 0, occupants, sources, queue })) }
    }

    /// Waits for a place in turn, by source. Only a source that has more places than others loses one to somebody who comes later; and
    /// where too many wait, the source's oldest place is given to the next of them.
    ///
    /// # Cancel safety
    /// The turn is lost.
    pub async fn turn(&self, source: S) -> Option<Place<S>> {
        let (id, place) = {
            let mut inner = lock(&self.inner);
            if inner.has_room(&source) || inner.level(&source) {
                return Some(inner.occupy(&self.inner, source));
            }
            if let Some(crowded) = inner.crowded(&source) {
                inner.vacate(&crowded);
            }
            inner.queue.push(source)
        };
        let wait = Wait { inner: &self.inner, id };
        pass_on(&self.inner);
        // Whoever is in the queue gets a place or leaves.
        let place = place.await.ok();
        drop(wait);
        place
    }
}

impl<S: Ord + Clone> Inner<S> {
    fn has_room(&self, source: &S) -> bool {
        !self.is_full() && !self.is_full_for(source)
    }

    /// Takes a place away from a source that has more than this one has with a further one; returns false if there is none.
    fn level(&mut self, source: &S) -> bool {
        let fewer = self.count(source) + 1;
        let largest =
            self.largest().filter(|largest| !self.is_full_for(source) && self.count(largest) > fewer);
        largest.iter().for_each(|largest| self.vacate(largest));
        largest.is_some()
    }

    /// The source that is to lose a place because too many wait: this one, or the one with the most places.
    fn crowded(&self, source: &S) -> Option<S> {
        let Queue { limits, waiters, sources, .. } = &self.queue;
        let is_crowded = sources.get(source).is_some_and(|waiting| *waiting >= limits.each);
        if is_crowded && self.count(source) > 0 {
            Some(source.clone())
        } else if waiters.len() >= limits.total {
            self.largest()
        } else {
            None
        }
    }
}

impl<S: Ord + Clone> Queue<S> {
    fn push(&mut self, source: S) -> (u64, oneshot::Receiver<Place<S>>) {
        let (give, place) = oneshot::channel();
        self.next += 1;
        *self.sources.entry(source.clone()).or_default() += 1;
        self.waiters.insert(self.next, Waiter { source, give });
        (self.next, place)
    }

    fn remove(&mut self, id: u64) -> Option<Waiter<S>> {
        let waiter = self.waiters.remove(&id)?;
        if let Some(waiting) = self.sources.get_mut(&waiter.source) {
            *waiting -= 1;
            if *waiting == 0 {
                self.sources.remove(&waiter.source);
            }
        }
        Some(waiter)
    }
}

/// Gives free places to those who wait.
pub(super) fn pass_on<S: Ord + Clone>(shared: &Arc<Mutex<Inner<S>>>) {
    loop {
        let mut inner = lock(shared);
        if inner.queue.waiters.is_empty() || inner.is_full() {
            return;
        }
        let mut waiters = inner.queue.waiters.iter();
        let next = waiters.find(|(_, waiter)| inner.has_room(&waiter.source)).map(|(id, _)| *id);
        let Some(Waiter { source, give }) = next.and_then(|id| inner.queue.remove(id)) else { return };
        let place = inner.occupy(shared, source);
        drop(inner);
        // The place of one that has left just now is given back here.
        drop(give.send(place));
    }
}

impl<S: Ord + Clone> Drop for Wait<'_, S> {
    fn drop(&mut self) {
        drop(lock(self.inner).queue.remove(self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Turn<'a> = Pin<Box<dyn Future<Output = Option<Place<u8>>> + 'a>>;

    fn places(total: usize, each: usize, waiting: usize) -> Places<u8> {
        Places::with_queue(Limits { total, each }, Limits { total: 2 * waiting, each: waiting })
    }

    fn turn(places: &Places<u8>, source: u8) -> Turn<'_> {
        let mut turn: Turn<'_> = Box::pin(places.turn(source));
        if let Some(place) = place(&mut turn) {
            return Box::pin(std::future::ready(Some(place)));
        }
        turn
    }

    fn place(turn: &mut Turn<'_>) -> Option<Place<u8>> {
        match turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place.unwrap()),
            Poll::Pending => None,
        }
    }

    fn is_taken(place: &mut Place<u8>) -> bool {
        pin!(place.taken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn those_who_find_no_place_get_one_in_the_order_in_which_they_came() {
        let places = places(8, 2, 8);
        let mut held: Vec<Place<u8>> = (0..2).map(|_| place(&mut turn(&places, 1)).unwrap()).collect();
        let [mut third, fourth, mut fifth] = [1; 3].map(|source| turn(&places, source));
        assert!(place(&mut third).is_none() && place(&mut fifth).is_none());
        assert!(place(&mut turn(&places, 2)).is_some(), "of another source");
        assert!(held.iter_mut().all(|held| !is_taken(held)), "nobody loses a place to who comes later");
        held.pop();
        let third = place(&mut third).unwrap();
        assert!(place(&mut fifth).is_none());
        drop(fourth);
        drop(third);
        assert!(place(&mut fifth).is_some(), "who has left is left out");
    }

    #[test]
    fn a_source_with_more_places_than_others_gives_them_up_and_equals_wait() {
        let places = places(4, 4, 8);
        let mut many: Vec<Place<u8>> = (0..4).map(|_| place(&mut turn(&places, 1)).unwrap()).collect();
        let mut second = place(&mut turn(&places, 2)).unwrap();
        let _third = place(&mut turn(&places, 2)).unwrap();
        assert_eq!(many.iter_mut().map(is_taken).collect::<Vec<_>>(), [true, true, false, false]);
        let mut waiting = turn(&places, 2);
        assert!(place(&mut waiting).is_none() && !is_taken(&mut second));
        many.pop();
        assert!(place(&mut waiting).is_some());
    }

    #[test]
    fn where_too_many_wait_the_oldest_place_goes_to_the_next_of_them() {
        let places = places(8, 1, 2);
        let mut first = place(&mut turn(&places, 1)).unwrap();
        let [mut second, mut third] = [1; 2].map(|source| turn(&places, source));
        assert!(!is_taken(&mut first) && place(&mut second).is_none());
        let mut fourth = turn(&places, 1);
        assert!(is_taken(&mut first));
        let second = place(&mut second).unwrap();
        assert!(place(&mut third).is_none() && place(&mut fourth).is_none());
        drop((second, third));
        assert!(place(&mut fourth).is_some());
        assert!(lock(&places.inner).queue.sources.is_empty());
    }
}
