//! Signs that the store is an earlier copy: it was put back, and does not know what hosts were told since.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealane_proto::resource::{Digest, NetworkSnapshot, Voucher};
use sealane_proto::types::{Generation, NetworkName, NodeName};

use super::{DesiredState, Directory, Registry};
use crate::core::{Outdone, Recall, Timestamp};

/// The newest states that a host was told, with the vouchers for them.
pub(crate) type Held = BTreeMap<NetworkName, (Generation, Voucher)>;

/// Number of a network's states that are remembered as told here.
const MOST: usize = 1_024;
/// Number of networks, also of those that are gone.
const NETWORKS: usize = 4_096;

/// States that this control plane has told in the present lifetime, and what stood in the store when it began to.
#[derive(Debug, Default)]
pub(super) struct Told {
    began: Generation,
    runs: BTreeMap<NetworkName, Run>,
}

#[derive(Debug)]
struct Run {
    epoch: u64,
    /// The revision that was there at the beginning: of what is later, all was told here.
    first: u64,
    then: VecDeque<(u64, Digest)>,
    /// The newest revision that is not remembered any more.
    forgotten: u64,
}

impl Told {
    /// Nothing is told yet of what stands in the store.
    pub(super) fn new(directory: &Directory) -> Self {
        let mut told = Self { began: directory.generation, runs: BTreeMap::new() };
        told.begin(directory);
        told
    }

    fn begin(&mut self, directory: &Directory) {
        self.began = directory.generation;
        for (name, published) in &directory.networks {
            let Generation { epoch, revision: first } = published.generation;
            let run = Run { epoch, first, then: VecDeque::new(), forgotten: 0 };
            self.runs.insert(name.clone(), run);
        }
    }

    /// Notes that networks are told anew, or are gone.
    pub(super) fn note(&mut self, directory: &Directory, changed: &BTreeSet<NetworkName>) {
        if directory.generation.epoch != self.began.epoch {
            return self.begin(directory);
        }
        if self.runs.len() + changed.len() > NETWORKS {
            // Of those that are gone, nothing is news that may have been told here.
            self.began = directory.generation;
            self.runs.retain(|name, _| directory.networks.contains_key(name));
        }
        for (name, published) in changed.iter().filter_map(|name| directory.networks.get_key_value(name)) {
            self.tell(name, published.generation, published.voucher.digest);
        }
    }

    fn tell(&mut self, network: &NetworkName, of: Generation, digest: Digest) {
        let Generation { epoch, revision } = of;
        // One that was not there at the beginning had no state up to then that could be held.
        let first = self.began.revision.min(revision.saturating_sub(1));
        let run = || Run { epoch, first, then: VecDeque::new(), forgotten: 0 };
        // One of the lifetime before is of a network that was gone when this one began.
        if self.runs.get(network).is_some_and(|known| known.epoch != epoch) {
            self.runs.remove(network);
        }
        let run = self.runs.entry(network.clone()).or_insert_with(run);
        run.then.push_back((revision, digest));
        if run.then.len() > MOST {
            run.forgotten = run.then.pop_front().map_or(0, |(revision, _)| revision);
        }
    }

    /// Returns true if a control plane that has vouched for this was not this one, and this store does not know it: nobody else tells
    /// anything while it runs.
    fn is_news(&self, network: &NetworkName, of: Generation, digest: Digest) -> bool {
        if of.epoch != self.began.epoch {
            return true;
        }
        match self.runs.get(network).filter(|run| run.epoch == of.epoch) {
            None => of.revision > self.began.revision,
            Some(run) => {
                of.revision > run.first.max(run.forgotten) && !run.then.contains(&(of.revision, digest))
            }
        }
    }
}

impl Registry {
    /// Finds a state that a control plane of this mesh has told the host, or another one, and that this store does not know.
    pub(crate) fn outdone(&self, node: &NodeName, held: &Held) -> Option<Outdone> {
        let notary = self.directory().notary.clone();
        let agents = self.agents();
        let told = &agents.told;
        let mut news = held.iter().filter(|(network, (of, voucher))| {
            told.is_news(network, *of, voucher.digest) && notary.vouches(network, *of, *voucher)
        });
        let heard = news.next().map(|(_, (heard, _))| *heard)?;
        let of = |(name, run): (&NetworkName, &Run)| {
            (name.clone(), Generation { epoch: run.epoch, revision: run.first })
        };
        let known = told.runs.iter().map(of).collect();
        Some(Outdone { node: node.clone(), heard, from: told.began, since: agents.began, known })
    }

    /// Leaves out of what a host recalls the routes of states that no control plane has told so: calls of others go by routes.
    pub(crate) fn doubt(&self, recall: &mut Recall) {
        let notary = self.directory().notary.clone();
        let is_told = |known: &NetworkSnapshot, voucher: Voucher| {
            let (network, of) = (&known.network.name, known.generation);
            voucher.digest == Digest::of(&known.content)
                && notary.vouches(network, of, voucher)
                && self.agents().told.is_news(network, of, voucher.digest)
        };
        for known in recall.networks.iter_mut().filter(|known| !known.content.routes.is_empty()) {
            if !known.voucher.is_some_and(|voucher| is_told(known, voucher)) {
                tracing::warn!(
                    node = %recall.node, network = %known.network.name,
                    "a host recalls routes that no control plane vouches for: they do not come back"
                );
                known.content.routes = [].into();
            }
        }
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
    use sealane_proto::resource::{Digest, Node, Route};
    use sealane_proto::wire::v1;

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

    fn heard(registry: &Registry, held: &Held) -> Option<Generation> {
        registry.outdone(&host(), held).map(|outdone| outdone.heard)
    }

    #[test]
    fn a_host_that_comes_with_something_newer_than_the_store_was_at_the_start_outdoes_it() {
        let (registry, network) = control(at(1, 9));
        let of = |generation| heard(&registry, &told(&network, generation, b"key"));
        assert_eq!(of(at(1, 4)), None);
        assert_eq!(of(at(1, 5)), Some(at(1, 5)), "the network was otherwise then");
        assert_eq!(of(at(1, 10)), Some(at(1, 10)));
        assert_eq!(of(at(2, 3)), Some(at(2, 3)), "a lifetime that the store does not know");
        let gone: NetworkName = "gone".parse().unwrap();
        let of_gone = |generation| heard(&registry, &told(&gone, generation, b"key"));
        assert_eq!(of_gone(at(1, 9)), None, "it may have been removed before the start");
        assert_eq!(of_gone(at(1, 10)), Some(at(1, 10)));
        let outdone = registry.outdone(&host(), &told(&network, at(1, 10), b"key")).unwrap();
        assert_eq!((outdone.from, outdone.known), (at(1, 9), [(network, at(1, 4))].into()));
    }

    /// Tells that the network is so at this generation, with this digest.
    fn tell(registry: &Registry, network: &NetworkName, generation: Generation, digest: Digest) {
        registry.agents().told.tell(network, generation, digest);
    }

    #[test]
    fn whoever_shows_what_this_control_plane_has_told_to_whomever_outdoes_nothing() {
        let (registry, network) = control(at(1, 9));
        tell(&registry, &network, at(1, 11), Digest::default());
        tell(&registry, &network, at(1, 12), Digest::default());
        let of = |generation| heard(&registry, &told(&network, generation, b"key"));
        assert_eq!((of(at(1, 11)), of(at(1, 12))), (None, None));
        assert_eq!(of(at(1, 10)), Some(at(1, 10)), "no state of this number was told here");
        let mut other = Digest::default();
        other.exchange(None, Some(sealane_proto::resource::Row::Drained(&host())));
        let voucher = Notary::of(b"key").vouch(&network, at(1, 11), other);
        let held: Held = [(network.clone(), (at(1, 11), voucher))].into();
        assert_eq!(heard(&registry, &held), Some(at(1, 11)), "another one was told under this number");
        // Nor when the network is gone.
        let mut directory = (*registry.directory()).clone();
        directory.networks.clear();
        directory.generation = at(1, 13);
        registry.publish(directory);
        assert_eq!((of(at(1, 11)), of(at(1, 12)), of(at(1, 14))), (None, None, Some(at(1, 14))));
    }

    #[test]
    fn so_many_states_are_remembered_and_what_is_forgotten_is_no_news() {
        let (registry, network) = control(at(1, 9));
        let last = 10 + MOST as u64 + 5;
        (10..=last).for_each(|revision| tell(&registry, &network, at(1, revision), Digest::default()));
        let of = |revision| heard(&registry, &told(&network, at(1, revision), b"key"));
        assert_eq!((of(10), of(11), of(last)), (None, None, None));
        assert_eq!(of(last + 1), Some(at(1, last + 1)));
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
    fn in_a_lifetime_that_began_since_states_of_the_one_before_are_of_another() {
        let (registry, network) = control(at(1, 9));
        let mut directory = (*registry.directory()).clone();
        directory.generation = at(7, 10);
        registry.publish(directory);
        let outdone = registry.outdone(&host(), &told(&network, at(1, 12), b"key")).unwrap();
        assert_eq!((outdone.heard, outdone.from), (at(1, 12), at(7, 10)));
        // Nor is a network made again news that was gone when the lifetime began.
        let gone: NetworkName = "gone".parse().unwrap();
        registry
            .agents()
            .told
            .runs
            .insert(gone.clone(), Run { epoch: 1, first: 3, then: VecDeque::new(), forgotten: 0 });
        tell(&registry, &gone, at(7, 11), Digest::default());
        assert_eq!(heard(&registry, &told(&gone, at(7, 11), b"key")), None);
    }

    #[test]
    fn routes_come_back_from_what_was_told_alone() {
        let (registry, network) = control(at(1, 9));
        let published = registry.directory().networks[&network].snapshot();
        let mut lost = NetworkSnapshot { generation: at(5, 30), ..published };
        let route = v1::Route { id: "httproute/zz".into(), json: "{}".into(), ..v1::Route::default() };
        lost.content.routes = [Route::try_from(route).unwrap()].into();
        let notary = Notary::of(b"key");
        let digest = Digest::of(&lost.content);
        let good = notary.vouch(&network, lost.generation, digest);
        let routes = |voucher| {
            let mut recall =
                Recall { node: host(), networks: vec![NetworkSnapshot { voucher, ..lost.clone() }] };
            registry.doubt(&mut recall);
            recall.networks[0].routes.len()
        };
        assert_eq!((routes(Some(good)), routes(None)), (1, 0));
        let of_other_content = notary.vouch(&network, lost.generation, Digest::default());
        assert_eq!(routes(Some(of_other_content)), 0);
        assert_eq!(routes(Some(Notary::of(b"other").vouch(&network, lost.generation, digest))), 0);
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
