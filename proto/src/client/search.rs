//! Search for the control plane that leads: each address in turn, and at once the one that another control plane has named. Pure.

use crate::resource::ControlAddr;

/// Number of times in a row that one control plane may send an agent to another one before it waits.
const HOPS: usize = 3;

/// Addresses of control planes, and which of them is next.
#[derive(Debug)]
pub(super) struct Search {
    addresses: Vec<ControlAddr>,
    /// Place of the next one.
    next: usize,
    /// Number of addresses that are worth trying before a pause.
    left: usize,
    /// Address of the control plane that leads, as another one has said.
    named: Option<ControlAddr>,
    hops: usize,
}

impl Search {
    /// Begins with the first of these.
    pub(super) fn new(addresses: Vec<ControlAddr>) -> Self {
        Self { addresses, next: 0, left: 0, named: None, hops: 0 }
    }

    /// Returns the next address; none when there are none.
    pub(super) fn next(&mut self) -> Option<ControlAddr> {
        if let Some(named) = self.named.take() {
            return Some(named);
        }
        if self.left == 0 {
            self.left = self.addresses.len();
        }
        self.left = self.left.saturating_sub(1);
        let next = self.addresses.get(self.next % self.addresses.len().max(1)).cloned();
        self.next += 1;
        next
    }

    /// A stream has lasted: every other address is worth trying at once.
    pub(super) fn begin(&mut self) {
        self.hops = 0;
        self.left = self.addresses.len().saturating_sub(1);
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

    fn search(numbers: &[u8]) -> Search {
        Search::new(numbers.iter().map(|&number| address(number)).collect())
    }

    #[test]
    fn all_are_tried_between_two_pauses_and_after_a_stream_every_other_one() {
        let mut search = search(&[1, 2, 3]);
        let tried = |search: &mut Search| (search.next().unwrap(), search.goes_on());
        let round = [(address(1), true), (address(2), true), (address(3), false)];
        assert_eq!([(); 3].map(|()| tried(&mut search)), round);
        assert_eq!(tried(&mut search), (address(1), true));
        search.begin();
        assert!(search.goes_on());
        assert_eq!([(); 2].map(|()| tried(&mut search)), [(address(2), true), (address(3), false)]);
        let mut alone = super::tests::search(&[1]);
        assert_eq!(tried(&mut alone), (address(1), false));
        alone.begin();
        assert!(!alone.goes_on());
    }

    #[test]
    fn who_is_named_is_next_and_who_is_sent_in_circles_waits() {
        let mut search = search(&[1, 2]);
        assert_eq!(search.next(), Some(address(1)));
        search.hear(Some(address(9)));
        assert!(search.goes_on());
        assert_eq!(search.next(), Some(address(9)));
        search.hear(None);
        assert_eq!(search.next(), Some(address(2)));
        for _ in 0..HOPS {
            search.hear(Some(address(9)));
            assert_eq!(search.next(), Some(address(9)));
        }
        search.hear(Some(address(9)));
        assert!(!search.goes_on());
        assert_eq!(search.next(), Some(address(1)));
    }
}
