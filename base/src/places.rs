//! A bounded number of places, shared fairly among those who take them. Pure.
//!
//! A newcomer who finds all of them taken gets the place of the one that has been silent for longest, of the source that has
//! most; where all of those are being served, that of the one that has been for longest, if its source still has no less
//! than the newcomer's then. A source may be bounded by itself as well; its newcomers then take its own places.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// Names a place for as long as it is taken.
pub type Ticket = u64;

/// The places.
#[derive(Debug)]
pub struct Places {
    total: usize,
    per_source: usize,
    taken: BTreeMap<Ticket, Place>,
    next: Ticket,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    source: IpAddr,
    since: Instant,
    busy: bool,
}

/// Admission of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A place was free.
    Free(Ticket),
    /// The second one has to go first; its place is given already.
    InPlaceOf(Ticket, Ticket),
    /// All places that could be given are busy.
    Full,
}

/// Maps an address to its source: an IPv4 address, or the /64 that one customer has at least.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl Places {
    /// So many places, of which one source gets at most `per_source`.
    #[must_use]
    pub fn new(total: usize, per_source: usize) -> Self {
        Self { total, per_source, taken: BTreeMap::new(), next: 0 }
    }

    /// Asks for a place for somebody from `address`.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> Taken {
        let source = source_of(address);
        let held = |source: IpAddr| self.taken.values().filter(|place| place.source == source).count();
        if held(source) >= self.per_source {
            return self.replace(source, source, false, now);
        }
        if self.taken.len() < self.total {
            return Taken::Free(self.give(source, now));
        }
        // The newcomer counts as well: who has most gives way, be it its own source.
        let sources = self.taken.values().map(|place| place.source);
        let most = sources.max_by_key(|&other| (held(other) + usize::from(other == source), other == source));
        let Some(most) = most else { return Taken::Full };
        let outnumbers = held(most) > held(source) + 1;
        self.replace(most, source, outnumbers, now)
    }

    /// Notes that a holder said something, and is being served (`busy`) or waits again.
    pub fn touch(&mut self, ticket: Ticket, busy: bool, now: Instant) {
        if let Some(place) = self.taken.get_mut(&ticket) {
            (place.since, place.busy) = (now, busy);
        }
    }

    /// Gives a place back; one that is not taken any more is no error.
    pub fn leave(&mut self, ticket: Ticket) {
        self.taken.remove(&ticket);
    }

    /// Returns the number of places that are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Returns true if no place is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Gives the place of the one of `from` that has been silent for longest; where all are being served, that of the one
    /// that has been for longest, if `busy` ones give way too.
    fn replace(&mut self, from: IpAddr, source: IpAddr, busy: bool, now: Instant) -> Taken {
        let yielding = self.taken.iter().filter(|(_, place)| place.source == from && (busy || !place.busy));
        let oldest = yielding.min_by_key(|(_, place)| (place.busy, place.since)).map(|(ticket, _)| *ticket);
        let Some(oldest) = oldest else { return Taken::Full };
        self.taken.remove(&oldest);
        Taken::InPlaceOf(self.give(source, now), oldest)
    }

    fn give(&mut self, source: IpAddr, now: Instant) -> Ticket {
        self.next += 1;
        self.taken.insert(self.next, Place { source, since: now, busy: false });
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn seconds(start: Instant, count: u64) -> Instant {
        start + Duration::from_secs(count)
    }

    #[test]
    fn one_source_cannot_keep_another_out() {
        let (start, mut places) = (Instant::now(), Places::new(3, 3));
        let greedy: Vec<Taken> = (0..3).map(|n| places.take(ip(1), seconds(start, n))).collect();
        assert_eq!(greedy, [1, 2, 3].map(Taken::Free));
        // It said something lately: another of its own goes.
        places.touch(1, false, seconds(start, 10));
        assert_eq!(places.take(ip(2), seconds(start, 11)), Taken::InPlaceOf(4, 2));
        // Nor does a further one of its own push out who has one.
        assert_eq!(places.take(ip(1), seconds(start, 12)), Taken::InPlaceOf(5, 3));
        assert_eq!(places.len(), 3);
    }

    #[test]
    fn who_is_being_served_gives_way_to_who_has_less() {
        let (start, mut places) = (Instant::now(), Places::new(4, 2));
        for (ticket, last) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            assert_eq!(places.take(ip(last), start), Taken::Free(ticket));
            places.touch(ticket, true, seconds(start, ticket));
        }
        let Taken::InPlaceOf(5, oldest @ (1 | 3)) = places.take(ip(3), seconds(start, 9)) else { panic!() };
        places.touch(5, true, seconds(start, 9));
        // One and one and two: with a second one, the newcomer would have as many.
        assert_eq!(places.take(ip(3), seconds(start, 9)), Taken::Full);
        let first = if oldest == 1 { 3 } else { 1 };
        assert_eq!(places.take(ip(4), seconds(start, 9)), Taken::InPlaceOf(6, first));
    }

    #[test]
    fn who_is_being_served_keeps_the_place() {
        let (start, mut places) = (Instant::now(), Places::new(2, 2));
        for last in [1, 3] {
            let _ = places.take(ip(last), start);
        }
        places.touch(1, true, start);
        places.touch(2, true, start);
        assert_eq!(places.take(ip(2), start), Taken::Full);
        places.touch(2, false, start);
        assert_eq!(places.take(ip(2), start), Taken::InPlaceOf(3, 2));
        places.leave(1);
        places.leave(1);
        assert_eq!(places.take(ip(2), start), Taken::Free(4));
    }

    #[test]
    fn a_share_of_ones_own_is_kept_within() {
        let (start, mut places) = (Instant::now(), Places::new(10, 2));
        assert_eq!(places.take(ip(1), start), Taken::Free(1));
        assert_eq!(places.take(ip(1), seconds(start, 1)), Taken::Free(2));
        assert_eq!(places.take(ip(1), seconds(start, 2)), Taken::InPlaceOf(3, 1));
        assert_eq!(places.take(ip(2), seconds(start, 2)), Taken::Free(4));
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_eq!(source("::ffff:192.0.2.1"), ip(1));
    }
}
