//! Places for connections from peers: a bound in all, a share for each peer, and who goes when one more comes. Pure: time
//! is an argument.
//!
//! Outbound connections have places of their own, so that no peer can keep the workload from calling.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

/// Number of connections from peers that a worker holds at once.
const MAX_INBOUND: usize = 8192;
/// Number of them that one address may have.
const SHARE: usize = MAX_INBOUND / 8;
/// Number of streams of tunnels that a worker holds at once, most of which are a connection to the application.
const MAX_STREAMS: usize = 2 * MAX_INBOUND;

/// The connections from peers. `T` ends its connection when it is dropped.
#[derive(Debug)]
pub(crate) struct Places<T> {
    limit: usize,
    share: usize,
    count: usize,
    next: u64,
    peers: HashMap<IpAddr, Peer<T>>,
    /// Number of peers at which those are looked for that have nothing any more.
    prune_at: usize,
    streams: Rc<Streams>,
}

/// Connections and streams of one peer.
#[derive(Debug)]
struct Peer<T> {
    queue: Queue<T>,
    /// The number of streams of all its tunnels, which may outlive them.
    streams: Rc<Cell<usize>>,
}

/// The streams of all peers.
#[derive(Debug)]
struct Streams {
    limit: usize,
    share: usize,
    count: Cell<usize>,
}

/// The connections of one peer in the order in which they would go, as far as is known: one that was used since stands
/// further back, and is put there when its turn comes.
type Queue<T> = BTreeMap<(Standing, u64), (Rc<ConnectionUsage>, T)>;

/// Standing by which connections go: plain connections and tunnels that have carried nothing first, then tunnels; of each
/// those that were idle longest.
type Standing = (bool, Instant);

/// Usage of a connection, as whoever serves it tells.
#[derive(Debug)]
pub(crate) struct ConnectionUsage {
    id: u64,
    peer: IpAddr,
    at: Cell<Instant>,
    is_tunnel: Cell<bool>,
    streams: Cell<usize>,
    of_peer: Rc<Cell<usize>>,
    of_all: Rc<Streams>,
    /// Position in its queue.
    queued: Cell<Standing>,
}

/// Reasons for which a connection had to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The peer has all that one may have.
    Share,
    /// All places are taken.
    Full,
}

impl ConnectionUsage {
    /// Something has passed.
    pub(crate) fn moved(&self, now: Instant) {
        self.at.set(self.at.get().max(now));
    }

    /// A stream of it begins, until what this returns is dropped; `None` when its peer, or all peers together, have as many as
    /// they may.
    pub(crate) fn begin_stream(self: &Rc<Self>) -> Option<StreamUsage> {
        self.is_tunnel.set(true);
        if !self.of_all.may_begin(self.of_peer.get()) {
            return None;
        }
        for streams in [&self.streams, &*self.of_peer, &self.of_all.count] {
            streams.update(|streams| streams + 1);
        }
        Some(StreamUsage(self.clone()))
    }

    /// Returns its standing, which only ever moves back.
    fn standing(&self, now: Instant) -> Standing {
        let at = if self.streams.get() > 0 { now } else { self.at.get() };
        (self.is_tunnel.get(), at)
    }
}

/// A stream of a tunnel that is in use.
#[derive(Debug)]
pub(crate) struct StreamUsage(Rc<ConnectionUsage>);

impl Drop for StreamUsage {
    fn drop(&mut self) {
        for streams in [&self.0.streams, &*self.0.of_peer, &self.0.of_all.count] {
            streams.update(|streams| streams.saturating_sub(1));
        }
        self.0.moved(Instant::now());
    }
}

impl Streams {
    /// Returns true if a peer that has so many may begin another one: within its share, or as long as twice as many are free.
    fn may_begin(&self, held: usize) -> bool {
        let free = self.limit.saturating_sub(self.count.get());
        free > 0 && (held < self.share || held < free / 2)
    }
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self::new(MAX_INBOUND, SHARE, MAX_STREAMS)
    }
}

impl<T> Places<T> {
    fn new(limit: usize, share: usize, streams: usize) -> Self {
        let streams = Rc::new(Streams { limit: streams, share, count: Cell::new(0) });
        Self { limit, share, count: 0, next: 0, peers: HashMap::new(), prune_at: 0, streams }
    }

    /// A place for one more connection of this peer, served by what `serve` returns; and the connection that has to go for it: of
    /// the same peer when that has its share, else of who has most, so that nobody who has less loses one to anybody who has
    /// more. Of those of a peer the one idle longest goes.
    pub(crate) fn enter(
        &mut self,
        peer: IpAddr,
        now: Instant,
        serve: impl FnOnce(Rc<ConnectionUsage>) -> T,
    ) -> Option<(Bound, T)> {
        let held = self.peers.get(&peer).map_or(0, |known| known.queue.len());
        let gone = if held >= self.share {
            self.remove_first(peer, now).map(|connection| (Bound::Share, connection))
        } else if self.count >= self.limit {
            let peer = self.largest_peer(peer, now);
            peer.and_then(|peer| self.remove_first(peer, now)).map(|connection| (Bound::Full, connection))
        } else {
            None
        };
        self.prune();
        let known =
            self.peers.entry(peer).or_insert_with(|| Peer { queue: Queue::new(), streams: Rc::default() });
        let usage = Rc::new(ConnectionUsage {
            id: self.next,
            peer,
            at: Cell::new(now),
            is_tunnel: Cell::new(false),
            streams: Cell::new(0),
            of_peer: known.streams.clone(),
            of_all: self.streams.clone(),
            queued: Cell::new((false, now)),
        });
        self.next += 1;
        self.count += 1;
        let connection = serve(usage.clone());
        known.queue.insert((usage.queued.get(), usage.id), (usage, connection));
        gone
    }

    /// The connection has ended; one that had to go is not there any more.
    pub(crate) fn leave(&mut self, usage: &ConnectionUsage) -> Option<T> {
        let queue = &mut self.peers.get_mut(&usage.peer)?.queue;
        let (_, connection) = queue.remove(&(usage.queued.get(), usage.id))?;
        self.forget(usage.peer);
        Some(connection)
    }

    /// Finds the address with most connections, with the one that `comer` is to have: of equals the comer itself, or the one
    /// whose connection would go first.
    fn largest_peer(&mut self, comer: IpAddr, now: Instant) -> Option<IpAddr> {
        let held = |peer, queue: &Queue<T>| queue.len() + usize::from(peer == comer);
        let most = self.peers.iter().map(|(peer, known)| held(*peer, &known.queue)).max()?;
        if self.peers.get(&comer).is_some_and(|known| held(comer, &known.queue) == most) {
            return Some(comer);
        }
        let largest = self.peers.iter_mut().filter(|(peer, known)| held(**peer, &known.queue) == most);
        let firsts = largest.filter_map(|(peer, known)| Some((first(&mut known.queue, now)?, *peer)));
        firsts.min().map(|(_, peer)| peer)
    }

    fn remove_first(&mut self, peer: IpAddr, now: Instant) -> Option<T> {
        let queue = &mut self.peers.get_mut(&peer)?.queue;
        let key = first(queue, now)?;
        let (_, connection) = queue.remove(&key)?;
        self.forget(peer);
        Some(connection)
    }

    /// A connection of the peer was removed.
    fn forget(&mut self, peer: IpAddr) {
        self.count -= 1;
        if self.peers.get(&peer).is_some_and(Peer::is_gone) {
            self.peers.remove(&peer);
        }
    }

    /// Forgets peers whose last streams have ended after their connections, now and then.
    fn prune(&mut self) {
        if self.peers.len() > self.prune_at {
            self.peers.retain(|_, known| !known.is_gone());
            self.prune_at = 2 * self.peers.len();
        }
    }
}

impl<T> Peer<T> {
    fn is_gone(&self) -> bool {
        self.queue.is_empty() && self.streams.get() == 0
    }
}

/// The one that would go first, as it stands now.
fn first<T>(queue: &mut Queue<T>, now: Instant) -> Option<(Standing, u64)> {
    loop {
        let entry = queue.first_entry()?;
        let (known, id) = *entry.key();
        let standing = entry.get().0.standing(now);
        if standing <= known {
            return Some((known, id));
        }
        let moved = entry.remove();
        moved.0.queued.set(standing);
        queue.insert((standing, id), moved);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 42, 0, n])
    }

    /// Enters connections that are named by their usage.
    fn enter(
        places: &mut Places<Rc<ConnectionUsage>>,
        from: u8,
        now: Instant,
    ) -> (Rc<ConnectionUsage>, Option<(Bound, u64)>) {
        let mut entered = None;
        let gone = places.enter(peer(from), now, |usage| {
            entered = Some(usage.clone());
            usage
        });
        (entered.unwrap(), gone.map(|(bound, usage)| (bound, usage.id)))
    }

    #[test]
    fn a_peer_with_its_share_makes_room_by_its_own_connection_that_was_idle_longest() {
        let (mut places, began) = (Places::new(10, 2, 10), Instant::now());
        let after = |n| began + Duration::from_secs(n);
        let (other, _) = enter(&mut places, 1, after(0));
        let (first, _) = enter(&mut places, 2, after(1));
        let (second, _) = enter(&mut places, 2, after(2));
        first.moved(after(3));
        assert_eq!(enter(&mut places, 2, after(4)).1, Some((Bound::Share, second.id)));
        assert_eq!(places.count, 3);
        assert!(places.leave(&second).is_none(), "it is gone already");
        assert!(places.leave(&other).is_some() && places.leave(&first).is_some());
        assert_eq!(places.count, 1);
    }

    #[test]
    fn when_all_places_are_taken_plain_connections_go_before_tunnels_and_busy_tunnels_last() {
        let (mut places, began) = (Places::new(3, 3, 10), Instant::now());
        let after = |n| began + Duration::from_secs(n);
        let busy = enter(&mut places, 1, after(0)).0;
        let idle = enter(&mut places, 2, after(1)).0;
        let plain = enter(&mut places, 3, after(2)).0;
        let _stream = busy.begin_stream();
        drop(idle.begin_stream());
        plain.moved(after(3));
        let mut gone = Vec::new();
        for n in 4..7 {
            // Of a peer each: nobody has more than another.
            let from = u8::try_from(n).unwrap();
            let (next, went) = enter(&mut places, from, after(n));
            // Newcomers become tunnels in use.
            std::mem::forget(next.begin_stream());
            gone.push(went);
        }
        let full = |usage: &Rc<ConnectionUsage>| Some((Bound::Full, usage.id));
        assert_eq!(gone, [full(&plain), full(&idle), full(&busy)]);
    }

    #[test]
    fn peers_that_have_many_places_together_take_none_of_who_has_few() {
        let (mut places, began) = (Places::new(8, 4, 10), Instant::now());
        let mut now = began;
        let mut enter = |from| {
            now += Duration::from_secs(1);
            enter(&mut places, from, now)
        };
        let (idle, _) = enter(1);
        for from in [2, 3, 2, 3, 2, 3, 2] {
            assert_eq!(enter(from).1, None);
        }
        let mut gone = Vec::new();
        for from in [3, 4, 2, 3, 4, 2, 3, 4, 5] {
            gone.extend(enter(from).1);
        }
        assert_eq!(gone.len(), 9);
        assert!(gone.iter().all(|(_, id)| *id != idle.id), "{gone:?}");
    }

    #[test]
    fn one_peer_has_a_third_of_all_streams_at_most_and_whoever_comes_has_its_share() {
        let (mut places, now) = (Places::new(100, 10, 300), Instant::now());
        let mut begin = |from, most: usize| {
            // By tunnels of some tens each.
            let mut held = Vec::new();
            while held.len() < most {
                let (tunnel, _) = enter(&mut places, from, now);
                let begun = (0..40).map_while(|_| tunnel.begin_stream()).take(most - held.len());
                let before = held.len();
                held.extend(begun);
                if held.len() == before {
                    break;
                }
            }
            held
        };
        let greedy = begin(1, 1000);
        assert_eq!(greedy.len(), 100);
        let others: Vec<_> = (2..8).map(|from| begin(from, 1000)).collect();
        let held: Vec<_> = others.iter().map(Vec::len).collect();
        assert!(held.is_sorted_by(|one, next| one >= next) && held[5] >= 10, "{held:?}");
        let late = begin(9, 10);
        assert_eq!(late.len(), 10, "there is room for the share of who comes late");
        drop((greedy, others, late));
        assert_eq!(begin(1, 1000).len(), 100, "what ends is given back");
    }

    #[test]
    fn streams_that_end_after_their_tunnel_are_still_their_peers() {
        let (mut places, now) = (Places::new(100, 10, 30), Instant::now());
        let (tunnel, _) = enter(&mut places, 1, now);
        let held: Vec<_> = (0..10).map_while(|_| tunnel.begin_stream()).collect();
        assert_eq!(held.len(), 10);
        assert!(places.leave(&tunnel).is_some());
        for from in 2..20 {
            let (other, _) = enter(&mut places, from, now);
            assert!(places.leave(&other).is_some());
        }
        let (again, _) = enter(&mut places, 1, now);
        assert!(again.begin_stream().is_none());
        drop(held);
        assert!(again.begin_stream().is_some());
    }

    proptest! {
        #[test]
        fn no_peer_has_more_than_its_share_and_nobody_more_than_all(
            steps in proptest::collection::vec((0..5_u8, 0..6_u8, 0..40_usize), 1..200),
        ) {
            let (mut places, mut now) = (Places::new(12, 4, 40), Instant::now());
            let mut known: Vec<Rc<ConnectionUsage>> = Vec::new();
            for (what, from, which) in steps {
                now += Duration::from_millis(1);
                let at = which % known.len().max(1);
                match what {
                    0 if !known.is_empty() => drop(places.leave(&known.swap_remove(at))),
                    1 if !known.is_empty() => known[at].moved(now),
                    2 if !known.is_empty() => drop(known[at].begin_stream()),
                    _ => {
                        let (entered, gone) = enter(&mut places, from, now);
                        if let Some((bound, id)) = gone {
                            let went = known.iter().position(|usage| usage.id == id).unwrap();
                            let went = known.swap_remove(went);
                            let held = |of| known.iter().filter(|usage| usage.peer == of).count();
                            // Nobody has more than who lost one, and none of its own stood before it.
                            let lost = went.peer;
                            let most = (0..6).map(peer).map(|of| held(of) + usize::from(of == peer(from))).max();
                            let had = held(lost) + 1 + usize::from(lost == peer(from));
                            prop_assert!(bound == Bound::Share || most.is_none_or(|most| most <= had));
                            prop_assert!(bound == Bound::Full || lost == peer(from));
                            let first = known
                                .iter()
                                .filter(|usage| usage.peer == lost)
                                .map(|usage| usage.standing(now))
                                .min();
                            prop_assert!(first.is_none_or(|first| went.standing(now) <= first));
                        }
                        known.push(entered);
                    }
                }
                prop_assert_eq!(places.count, known.len());
                prop_assert!(known.len() <= 12);
                for n in 0..6 {
                    prop_assert!(known.iter().filter(|usage| usage.peer == peer(n)).count() <= 4);
                }
            }
        }
    }
}
