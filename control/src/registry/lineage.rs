//! Signs that the store is an earlier copy: it was put back, and does not know what hosts were told since.

use std::collections::BTreeMap;

use sealane_proto::resource::Voucher;
use sealane_proto::types::{Generation, NetworkName, NodeName};

use super::{DesiredState, Registry};
use crate::core::{Outdone, Timestamp};

/// The newest states that a host was told, with the vouchers for them.
pub(crate) type Held = BTreeMap<NetworkName, (Generation, Voucher)>;

impl Registry {
    /// Finds a state that a control plane of this mesh has told the host and that this store does not know.
    ///
    /// Of what is told here nobody can know before it comes: the first time, a host has what stood in the store at the start, or
    /// something older. Later, no network's state is newer than what is published of it.
    pub(crate) fn outdone(&self, node: &NodeName, held: &Held) -> Option<Outdone> {
        let (directory, began) = (self.directory(), self.began);
        let own = directory.generation;
        let first = !self.agents().met.contains(node);
        let is_news = |network: &NetworkName, of: Generation| {
            let published = directory.networks.get(network).map(|known| known.generation.revision);
            let since = first && own.epoch == began.epoch && of.revision > began.revision;
            of.epoch != own.epoch || since || published.is_some_and(|published| of.revision > published)
        };
        let mut news = held.iter().filter(|(network, (of, voucher))| {
            is_news(network, *of) && directory.notary.vouches(network, *of, *voucher)
        });
        // The store itself knows which lifetimes it follows.
        let from = if own.epoch == began.epoch { began } else { own };
        news.next().map(|(_, (heard, _))| Outdone { node: node.clone(), heard: *heard, from })
    }

    /// Notes that a new lifetime has begun for that reason.
    pub(crate) fn note_outdone(&self, outdone: Outdone, now: Timestamp) {
        self.agents().outdone = Some((outdone, now));
    }

    /// The host that has shown that the store was an earlier copy, and when.
    pub(crate) fn last_outdone(&self) -> Option<(Outdone, Timestamp)> {
        self.agents().outdone.clone()
    }
}

/// Returns the newest revision of these that is newer than a store's own, with that.
pub(super) fn ahead(own: Generation, applied: &BTreeMap<NetworkName, Generation>) -> Option<(u64, u64)> {
    let of_epoch = applied.values().filter(|known| known.epoch == own.epoch);
    let newest = of_epoch.map(|known| known.revision).max().filter(|newest| *newest > own.revision);
    newest.map(|newest| (newest, own.revision))
}

impl DesiredState {
    /// The networks that the host has at the generation of what is published, with another content: this store tells otherwise what
    /// an earlier control plane has told.
    pub(crate) fn contradicts<'a>(&'a self, held: &'a Held) -> impl Iterator<Item = &'a NetworkName> {
        held.iter().filter_map(|(network, (generation, voucher))| {
            let published = self.networks.get(network)?;
            let other = published.generation == *generation && published.voucher.digest != voucher.digest;
            other.then_some(network)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::IntGauge;
    use sealane_proto::resource::{Digest, Node};

    use super::*;
    use crate::ca::Notary;
    use crate::core::{Change, NodeRecord, State, model};
    use crate::registry::{Arrival, Claimant, Directory};

    fn host() -> NodeName {
        "host-1".parse().unwrap()
    }

    fn at(epoch: u64, revision: u64) -> Generation {
        Generation { epoch, revision }
    }

    /// A control plane that has begun at `began` with one network that is so since revision 4, and that network's name.
    fn control(began: Generation) -> (Arc<Registry>, NetworkName) {
        let mut state = State::default();
        let node = Node { name: host(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
        let created = model::decide(&state, &model::Step::CreateNetwork(0, 0));
        created.iter().for_each(|change| state.apply(change));
        let network = state.networks.keys().next().unwrap().clone();
        state.stamp(state.networks.keys().cloned().collect::<Vec<_>>().iter(), 4);
        let directory = Directory::first(&state, began, &Arc::new(Notary::of(b"key")));
        let connected = IntGauge::new("connected", "Connected.").unwrap();
        (Registry::new(directory, connected, Timestamp::default()), network)
    }

    /// A state of a network that a control plane with this key has told.
    fn told(network: &NetworkName, generation: Generation, key: &[u8]) -> Held {
        let voucher = Notary::of(key).vouch(network, generation, Digest::default());
        [(network.clone(), (generation, voucher))].into()
    }

    fn meet(registry: &Arc<Registry>) {
        let claimant = Claimant { peer: "192.0.2.1:40001".parse().unwrap(), instance: None };
        let arrival = Arrival { version: "0.1.0".to_owned(), claimant, now: Timestamp::default() };
        drop(registry.open(host(), arrival, &BTreeMap::new()));
    }

    #[test]
    fn a_host_that_comes_first_with_something_newer_than_the_store_was_at_the_start_outdoes_it() {
        let (registry, network) = control(at(1, 9));
        let outdone = |generation| registry.outdone(&host(), &told(&network, generation, b"key"));
        assert_eq!(outdone(at(1, 4)), None);
        assert_eq!(outdone(at(1, 5)).unwrap().heard, at(1, 5), "the network was otherwise then");
        let gone: NetworkName = "gone".parse().unwrap();
        let of_gone = |generation| registry.outdone(&host(), &told(&gone, generation, b"key"));
        assert_eq!(of_gone(at(1, 9)), None, "it may have been removed before the start");
        assert_eq!(of_gone(at(1, 10)).unwrap().heard, at(1, 10));
        let expected = Outdone { node: host(), heard: at(1, 10), from: at(1, 9) };
        assert_eq!(outdone(at(1, 10)), Some(expected));
        assert_eq!(outdone(at(2, 3)).unwrap().heard, at(2, 3), "a lifetime that the store does not know");
    }

    #[test]
    fn a_host_that_was_met_may_have_all_that_is_published_and_no_more() {
        let (registry, network) = control(at(1, 2));
        let outdone = |generation| registry.outdone(&host(), &told(&network, generation, b"key")).is_some();
        assert!(outdone(at(1, 4)), "it has not been told that here");
        meet(&registry);
        assert!(!outdone(at(1, 4)));
        assert!(outdone(at(1, 5)));
    }

    #[test]
    fn words_that_no_control_plane_of_the_mesh_has_said_say_nothing() {
        let (registry, network) = control(at(1, 9));
        assert_eq!(registry.outdone(&host(), &told(&network, at(1, 10), b"another mesh")), None);
        let (_, (_, voucher)) = told(&network, at(1, 9), b"key").pop_first().unwrap();
        let later = [(network.clone(), (at(1, 10), voucher))].into();
        assert_eq!(registry.outdone(&host(), &later), None, "vouched for an earlier state");
        let other = [("other".parse().unwrap(), (at(1, 10), voucher))].into();
        assert_eq!(registry.outdone(&host(), &other), None, "and for another network");
    }

    #[test]
    fn in_a_lifetime_that_began_since_what_was_published_before_is_not_compared_by_its_number() {
        let (registry, network) = control(at(1, 9));
        let next = at(7, 10);
        let directory = Directory { generation: next, ..(*registry.directory()).clone() };
        registry.publish(directory);
        let outdone = registry.outdone(&host(), &told(&network, at(1, 12), b"key")).unwrap();
        assert_eq!(outdone, Outdone { node: host(), heard: at(1, 12), from: next });
    }

    #[test]
    fn a_network_that_is_otherwise_at_the_same_generation_contradicts() {
        let (registry, network) = control(at(1, 9));
        let stream = {
            let claimant = Claimant { peer: "192.0.2.1:40001".parse().unwrap(), instance: None };
            let arrival = Arrival { version: "0.1.0".to_owned(), claimant, now: Timestamp::default() };
            registry.open(host(), arrival, &BTreeMap::new())
        };
        let directory = registry.directory();
        let published = directory.networks.get(&network).unwrap();
        let desired =
            DesiredState { networks: directory.networks.clone(), ..stream.desired.borrow().clone() };
        let contradicts = |held: &Held| desired.contradicts(held).cloned().collect::<Vec<_>>();
        let same = [(network.clone(), (published.generation, published.voucher))].into();
        assert_eq!(contradicts(&same), []);
        assert_eq!(
            contradicts(&told(&network, published.generation, b"key")),
            std::slice::from_ref(&network)
        );
        assert_eq!(contradicts(&told(&network, at(1, 3), b"key")), [], "older, and the way leads on");
    }
}
