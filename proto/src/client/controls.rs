//! Control planes as a host knows them: which there are, which one leads, and which one is asked who does. Pure.

use crate::resource::ControlAddr;
use crate::wire::v1;

/// Control planes as a host knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Addresses that the host was started with.
    given: Vec<ControlAddr>,
    /// Addresses that control planes have told.
    told: Vec<ControlAddr>,
    /// Address of the one that leads.
    leader: Option<ControlAddr>,
    /// Term of that leader; a later one has a larger number.
    term: u64,
    /// Address of the one that this host had its last stream with.
    with: Option<ControlAddr>,
    /// True if that shares its store with others; `None` before the first stream.
    shared: Option<bool>,
}

impl Controls {
    /// Number of control planes that a host keeps in mind.
    pub(crate) const MOST: usize = 32;

    /// Knows the control planes of the command line, and those that were told before.
    #[must_use]
    pub fn new(given: Vec<ControlAddr>, told: Vec<ControlAddr>) -> Self {
        Self { given, told, ..Self::default() }
    }

    /// Returns the addresses that control planes have told.
    #[must_use]
    pub fn told(&self) -> &[ControlAddr] {
        &self.told
    }

    /// All addresses: first those that were told, since these are in the order in which they are worth trying.
    pub(super) fn addresses(&self) -> Vec<ControlAddr> {
        let others = self.given.iter().filter(|given| !self.told.contains(given));
        self.told.iter().chain(others).cloned().collect()
    }

    /// Returns the control plane that leads in a later term than this one.
    pub(super) fn later(&self, term: u64) -> Option<&ControlAddr> {
        self.leader.as_ref().filter(|_| self.term > term)
    }

    /// The control plane at this address has welcomed this host. What it says counts, whatever others have said before.
    pub(super) fn welcome(&mut self, address: &ControlAddr, (term, told): (u64, &[String])) {
        let leader = (term != 0).then(|| address.clone());
        let told = read(told);
        *self = Self {
            given: std::mem::take(&mut self.given),
            told,
            leader,
            term,
            with: Some(address.clone()),
            shared: Some(term != 0),
        };
    }

    /// Takes in the word of another control plane; false if that is no news.
    pub(crate) fn hear(&mut self, v1::Controls { addresses, leader, term, .. }: &v1::Controls) -> bool {
        // It is cut off from the store, or late.
        if *term < self.term {
            return false;
        }
        let told = read(addresses);
        let leader = leader.parse().ok().or_else(|| self.leader.clone().filter(|_| *term == self.term));
        let is_news = (self.term, &self.leader, &self.told) != (*term, &leader, &told);
        (self.term, self.leader, self.told) = (*term, leader, told);
        is_news
    }

    /// Returns the control plane that is asked who leads, at the `turn`th try; none where there is no use in it.
    pub(super) fn asked(&self, turn: usize) -> Option<ControlAddr> {
        let mut addresses = self.addresses();
        if !self.shared.unwrap_or(addresses.len() > 1) {
            return None;
        }
        if addresses.len() > 1 {
            addresses.retain(|address| Some(address) != self.with.as_ref());
        }
        let number = addresses.len().max(1);
        addresses.into_iter().nth(turn % number)
    }

    /// Returns true if it is worth asking the control plane at this address, as far as is known.
    pub(super) fn may_ask(&self, address: &ControlAddr) -> bool {
        let addresses = self.addresses();
        let is_other = self.with.as_ref() != Some(address) || addresses.len() == 1;
        self.shared != Some(false) && is_other && addresses.contains(address)
    }
}

/// Reads addresses; what is none is left out.
fn read(told: &[String]) -> Vec<ControlAddr> {
    let mut addresses: Vec<ControlAddr> = vec![];
    for address in told.iter().filter_map(|text| text.parse().ok()) {
        if addresses.len() < Controls::MOST && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> ControlAddr {
        format!("192.0.2.{number}:7443").parse().unwrap()
    }

    fn texts(numbers: &[u8]) -> Vec<String> {
        numbers.iter().map(|&number| address(number).to_string()).collect()
    }

    fn word(numbers: &[u8], leader: u8, term: u64) -> v1::Controls {
        let leader = address(leader).to_string();
        v1::Controls { addresses: texts(numbers), leader, term, leads: false }
    }

    fn asked(controls: &Controls) -> Vec<ControlAddr> {
        let mut asked: Vec<_> = (0..4).filter_map(|turn| controls.asked(turn)).collect();
        asked.dedup();
        asked
    }

    #[test]
    fn whoever_welcomes_a_host_tells_which_control_planes_there_are() {
        let mut controls = Controls::new(vec![address(1)], vec![]);
        assert_eq!((asked(&controls), controls.addresses()), (vec![], vec![address(1)]));
        controls.welcome(&address(1), (7, &texts(&[1, 2, 3])));
        assert_eq!(controls.addresses(), [1, 2, 3].map(address));
        assert_eq!(asked(&controls), [address(2), address(3), address(2), address(3)]);
        assert!(
            controls.may_ask(&address(2)) && !controls.may_ask(&address(1)),
            "it would vanish with the stream"
        );
        controls.welcome(&address(9), (0, &[]));
        assert_eq!(
            (asked(&controls), controls.addresses()),
            (vec![], vec![address(1)]),
            "it has the store alone"
        );
    }

    #[test]
    fn a_later_leader_is_news_and_an_earlier_one_is_none() {
        let mut controls =
            Controls::new(vec![address(1)], texts(&[2]).iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(asked(&controls).len(), 4, "several are known before the first stream");
        controls.welcome(&address(1), (7, &texts(&[1, 2])));
        assert!(!controls.hear(&word(&[1, 2], 1, 7)));
        assert!(controls.hear(&word(&[1, 2, 3], 1, 7)), "there is one more");
        assert_eq!(controls.later(7), None);
        assert!(!controls.hear(&word(&[1], 3, 6)) && controls.addresses().len() == 3);
        assert!(controls.hear(&word(&[2, 3, 1], 2, 9)));
        assert_eq!((controls.later(7), controls.later(9)), (Some(&address(2)), None));
        let nobody = v1::Controls { leader: String::new(), ..word(&[2, 3, 1], 2, 9) };
        assert!(!controls.hear(&nobody), "it does not know who leads");
    }

    #[test]
    fn what_is_no_address_is_left_out_and_there_is_a_limit() {
        let mut many: Vec<String> = (0..99).map(|number| format!("control-{number}:7443")).collect();
        many.insert(1, "no address".to_owned());
        many.insert(2, many[0].clone());
        let read = read(&many);
        assert_eq!((read.len(), read[1].to_string()), (Controls::MOST, "control-1:7443".to_owned()));
    }
}
