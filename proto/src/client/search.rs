//! Search for the control plane that leads: each address in turn, and at once the one that another control plane has named. Pure.

use crate::resource::ControlAddr;

/// Number of times in a row that one control plane may send an agent to another one before it waits.
const HOPS: usize = 3;

/// Addresses of control planes, and which of them is next.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Place of the next one.
    next: usize,
    /// Number of addresses that are worth trying before a pause.
    left: usize,
    /// Address of the control plane that leads, as another one has said.
    named: Option<ControlAddr>,
    hops: usize,
}

impl Search {
    /// Returns the next of these addresses, or the one that was named; none when there are none.
    pub(super) fn next(&mut self, addresses: &[ControlAddr]) -> Option<ControlAddr> {
        if let Some(named) = self.named.take() {
            return Some(named);
        }
        if self.left == 0 {
            self.left = addresses.len();
        }
        self.left = self.left.saturating_sub(1);
        let next = addresses.get(self.next % addresses.len().max(1)).cloned();
        self.next += 1;
        next
    }

    /// A stream has lasted: every other address of so many is worth trying at once.
    pub(super) fn begin(&mut self, addresses: usize) {
        self.hops = 0;
        self.left = addresses.saturating_sub(1);
    }

    /// A later leader is heard of: it is next, whoever has named others before.
    pub(super) fn follow(&mut self, leader: ControlAddr) {
        (self.hops, self.named) = (0, Some(leader));
    }

    /// Takes in where the control plane is that leads.
    pub(super) fn hear(&mut self, leader: Option<ControlAddr>) {
        self.hops = if leader.is_some() { self.hops + 1 } else { 0 };
        self.named = leader.filter(|_| self.hops <= HOPS);
    }

    /// Returns true if the next address is worth trying at once: not all were tried since the last pause.
    pub(super) fn goes_on(&self) -> bool {
        self.named.is_some() || self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> ControlAddr {
        format!("192.0.2.{number}:7443").parse().unwrap()
    }

    #[test]
    fn all_are_tried_between_two_pauses_and_after_a_stream_every_other_one() {
        let (mut search, addresses) = (Search::default(), [1, 2, 3].map(address));
        let tried = |search: &mut Search| (search.next(&addresses).unwrap(), search.goes_on());
        let round = [(address(1), true), (address(2), true), (address(3), false)];
        assert_eq!([(); 3].map(|()| tried(&mut search)), round);
        assert_eq!(tried(&mut search), (address(1), true));
        search.begin(3);
        assert!(search.goes_on());
        assert_eq!([(); 2].map(|()| tried(&mut search)), [(address(2), true), (address(3), false)]);
        let mut alone = Search::default();
        assert_eq!((alone.next(&[address(1)]), alone.goes_on()), (Some(address(1)), false));
        alone.begin(1);
        assert!(!alone.goes_on());
    }

    #[test]
    fn who_is_named_is_next_and_who_is_sent_in_circles_waits() {
        let (mut search, addresses) = (Search::default(), [1, 2].map(address));
        assert_eq!(search.next(&addresses), Some(address(1)));
        search.hear(Some(address(9)));
        assert!(search.goes_on());
        assert_eq!(search.next(&addresses), Some(address(9)));
        search.hear(None);
        assert_eq!(search.next(&addresses), Some(address(2)));
        for _ in 0..HOPS {
            search.hear(Some(address(9)));
            assert_eq!(search.next(&addresses), Some(address(9)));
        }
        search.hear(Some(address(9)));
        assert!(!search.goes_on());
        search.follow(address(8));
        assert!(search.goes_on());
        assert_eq!([(); 2].map(|()| search.next(&addresses)), [Some(address(8)), Some(address(1))]);
    }
}
