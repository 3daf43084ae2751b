//! A network as this host goes by it: control's word with the newer words of other hosts and with this host's own workloads. It follows
//! what changes, however large the network is. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use sealane_base::shared_list::SharedList;
use sealane_proto::resource::{NetworkContent, NetworkSnapshot, Route, RouteDocument, Workload};
use sealane_proto::types::{MacAddr, NetworkName, NodeName, OverlayIp, WorkloadName};

use super::{CarriedNetwork, Mesh, owners};

/// A network as this host goes by it, with what it was made of.
#[derive(Debug)]
pub(super) struct Overlaid {
    /// Control's word.
    told: Arc<NetworkSnapshot>,
    /// This host's workloads.
    local: BTreeMap<WorkloadName, Workload>,
    snapshot: Arc<NetworkSnapshot>,
    /// The addresses of all workloads; `None` if the next one is to be made by a look at everything.
    taken: Option<Taken>,
}

/// Addresses of workloads, each of which has its own.
#[derive(Debug, Default)]
struct Taken {
    addresses: HashSet<OverlayIp>,
    macs: HashSet<MacAddr>,
}

impl Taken {
    fn remove(&mut self, workload: &Workload) {
        self.addresses.remove(&workload.address);
        self.macs.remove(&workload.mac);
    }

    /// Adds those of a workload; false if another one has one of them.
    fn insert(&mut self, workload: &Workload) -> bool {
        let is_new = self.addresses.insert(workload.address);
        self.macs.insert(workload.mac) && is_new
    }
}

impl Mesh {
    /// As [`Mesh::overlaid`], by what has changed since the last call: what that returned is shared.
    pub(crate) fn overlay(&mut self, network: &NetworkName) -> Option<Arc<NetworkSnapshot>> {
        let known = self.networks.get_mut(network)?.overlaid.take();
        let next = match known {
            Some(mut known) => {
                self.follow(network, &mut known).or_else(|| self.lay_over(network, Some(&known)))
            }
            None => self.lay_over(network, None),
        }?;
        let snapshot = next.snapshot.clone();
        self.networks.get_mut(network)?.overlaid = Some(next);
        Some(snapshot)
    }

    /// This host's workloads in a network, as others are to see them.
    pub(super) fn local_in(&self, network: &NetworkName, told: &NetworkContent) -> Vec<Workload> {
        let local = self.hosted_in(network).filter(|hosted| !hosted.is_evicted());
        let mut local: Vec<Workload> = local.map(|hosted| hosted.workload.clone()).collect();
        if told.drained.contains(&self.node.name) {
            let instances = local.iter_mut().filter(|own| own.service.is_some());
            instances.for_each(|own| (own.ready, own.ready6) = (false, false));
        }
        local
    }

    /// Makes it anew; the workloads that are as in `before` are shared with that.
    fn lay_over(&self, network: &NetworkName, before: Option<&Overlaid>) -> Option<Overlaid> {
        let told = self.networks.get(network)?.snapshot.clone();
        let (mut snapshot, is_plain) = self.laid_over(network)?;
        if let Some(before) = before {
            snapshot.content.workloads = sharing(&before.snapshot.workloads, &snapshot.workloads);
        }
        let mut taken = Taken::default();
        let is_clear = is_plain && snapshot.workloads.iter().all(|workload| taken.insert(workload));
        let local = self.local_in(network, &told).into_iter().map(|own| (own.name.clone(), own)).collect();
        Some(Overlaid { told, local, snapshot: Arc::new(snapshot), taken: is_clear.then_some(taken) })
    }

    /// Takes in what has changed; `None` where that takes a look at everything.
    fn follow(&self, network: &NetworkName, known: &mut Overlaid) -> Option<Overlaid> {
        let carried = self.networks.get(network)?;
        let mut taken = known.taken.take()?;
        if !self.is_plain(network, carried) {
            return None;
        }
        let told = carried.snapshot.clone();
        let local: BTreeMap<_, _> =
            self.local_in(network, &told).into_iter().map(|own| (own.name.clone(), own)).collect();
        let mut workloads = known.snapshot.workloads.clone();
        let is_elsewhere = |workload: &&Workload| workload.node != self.node.name;
        let pairs = known.told.workloads.differences(&told.workloads, |a, b| a.name.cmp(&b.name));
        let pairs = pairs.map(|(old, new)| (old.filter(is_elsewhere), new.filter(is_elsewhere)));
        let gone = known.local.iter().filter(|(name, _)| !local.contains_key(*name));
        let own = local.iter().map(|(name, new)| (known.local.get(name), Some(new)));
        let own = own.chain(gone.map(|(_, old)| (Some(old), None))).filter(|(old, new)| old != new);
        let pairs: Vec<_> = pairs.chain(own).collect();
        for old in pairs.iter().filter_map(|(old, _)| *old) {
            taken.remove(old);
            workloads.set_by(|known| known.name.cmp(&old.name), None);
        }
        for new in pairs.iter().filter_map(|(_, new)| *new) {
            let other = workloads.set_by(|known| known.name.cmp(&new.name), Some(new.clone()));
            if other.is_some() || !taken.insert(new) {
                return None;
            }
        }
        let NetworkContent { network, blocks, services, revoked, drained, mute, .. } = &told.content;
        let mut snapshot = NetworkSnapshot {
            generation: told.generation,
            voucher: None,
            content: NetworkContent {
                network: network.clone(),
                nodes: carried.placed.nodes.clone(),
                blocks: blocks.clone(),
                services: services.clone(),
                workloads,
                revoked: revoked.clone(),
                drained: drained.clone(),
                reported: None,
                mute: mute.clone(),
                placed: None,
                routes: self.routes_in(&network.name, &told.routes),
            },
        };
        self.leave_out(&mut snapshot);
        Some(Overlaid { told, local, snapshot: Arc::new(snapshot), taken: Some(taken) })
    }

    /// The routes of a network, with those of the other networks here that attach to its services.
    fn routes_in(&self, network: &NetworkName, own: &SharedList<Route>) -> SharedList<Route> {
        let mut routes = own.clone();
        let others = self
            .networks
            .iter()
            .filter(|(name, carried)| *name != network && !carried.snapshot.routes.is_empty());
        for route in others.flat_map(|(_, carried)| carried.snapshot.routes.iter()) {
            let document = route.document.as_ref();
            if document.is_some_and(|document| document.services_in(network).next().is_some()) {
                routes.push(route.clone());
            }
        }
        routes
    }

    /// The other networks to whose services routes of this one attach.
    pub(crate) fn routed_from(&self, network: &NetworkName) -> BTreeSet<NetworkName> {
        let routes =
            self.networks.get(network).into_iter().flat_map(|carried| carried.snapshot.routes.iter());
        let parents = routes.filter_map(|route| route.document.as_ref()).flat_map(RouteDocument::parents);
        let other = parents.filter_map(|parent| parent.namespace.clone()).filter(|other| other != network);
        other.collect()
    }

    /// Returns true if control knows all that other hosts say, and calls reach all of them.
    fn is_plain(&self, network: &NetworkName, carried: &CarriedNetwork) -> bool {
        let (told, words) = (&carried.snapshot.content, self.words.of(network));
        let is_placed = |owner: &NodeName| carried.placed.nodes.iter().any(|known| known.name == *owner);
        let is_member = |owner: &NodeName| owners::is_member(told, owner) || is_placed(owner);
        self.is_whole() && !owners::have_newer(told, &self.node.name, words, is_member)
    }

    /// The network with the newer words of other hosts and this host's own workloads, and whether that is control's word with these
    /// alone: nobody was in the way of another.
    pub(super) fn laid_over(&self, network: &NetworkName) -> Option<(NetworkSnapshot, bool)> {
        let carried = self.networks.get(network)?;
        let told = carried.snapshot.as_ref();
        let mut snapshot = told.clone();
        let local = self.local_in(network, told);
        let placed = &carried.placed.nodes;
        // Who is nowhere at this moment is a member all the same.
        let known: HashSet<_> = told.nodes.iter().map(|node| &node.name).collect();
        snapshot.nodes.extend(placed.iter().filter(|node| !known.contains(&node.name)).cloned());
        snapshot.routes = self.routes_in(network, &told.routes);
        let is_clear = owners::merge(&mut snapshot.content, &self.node.name, local, self.words.of(network));
        snapshot.nodes.clone_from(placed);
        self.leave_out(&mut snapshot);
        self.leave_unreachable(&mut snapshot);
        Some((snapshot, is_clear && self.is_plain(network, carried)))
    }
}

/// The workloads of `now` in a list that shares with the one before what is the same.
fn sharing(before: &SharedList<Workload>, now: &SharedList<Workload>) -> SharedList<Workload> {
    let mut shared = before.clone();
    for (old, new) in before.differences(now, |a, b| a.name.cmp(&b.name)) {
        if let Some(name) = old.or(new).map(|workload| &workload.name) {
            shared.set_by(|known| known.name.cmp(name), new.cloned());
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use sealane_fabric::health::Families;
    use sealane_fabric::seat::Seat;
    use sealane_proto::resource::{Edition, Node, OwnerFacts};

    use super::*;
    use crate::testing::{Chance, block, random_network, workload};

    fn host(number: u8) -> NodeName {
        format!("host-{number}").parse().unwrap()
    }

    fn node(number: u8, last: u8) -> Node {
        Node { name: host(number), underlay: format!("192.0.2.{last}").parse().unwrap(), mtu: None }
    }

    /// Control's next word, with workloads of host-1, which is this one, and of two others.
    fn next_state(chance: &mut Chance, revision: u64) -> NetworkSnapshot {
        let mut shop = random_network(chance, 40);
        shop.generation.revision = revision;
        let moved = if chance.one_in(9) { 9 } else { 3 };
        shop.content.nodes = vec![node(1, 1), node(2, 2), node(3, moved)];
        if chance.one_in(9) {
            shop.content.blocks.push(block(Some("host-2"), "10.42.9.0/24"));
        }
        if chance.one_in(9) {
            shop.content.drained = vec![host(1 + chance.below(3))];
        }
        for workload in shop.content.workloads.iter_mut() {
            workload.node = host(1 + chance.below(3));
            if chance.one_in(60) {
                workload.address = "10.42.0.7".parse().unwrap();
            }
        }
        let edition = Edition { incarnation: 1, revision: u64::from(chance.below(4)) };
        shop.content.reported = Some([(host(2), edition)].into());
        shop
    }

    /// Few changes of control's last word.
    fn small_step(chance: &mut Chance, known: &NetworkSnapshot) -> NetworkSnapshot {
        let (mut next, other) = (known.clone(), random_network(chance, 40));
        next.generation.revision += 1;
        for workload in other.workloads.iter().filter(|_| chance.one_in(12)).collect::<Vec<_>>() {
            let item =
                (!chance.one_in(3)).then(|| Workload { node: host(1 + chance.below(3)), ..workload.clone() });
            next.content.workloads.set_by(|known| known.name.cmp(&workload.name), item);
        }
        next
    }

    fn own(chance: &mut Chance) -> Workload {
        let number = chance.below(40);
        let address = format!("10.42.0.{}", if chance.one_in(3) { number } else { 100 + number });
        Workload { node: host(1), ready: chance.one_in(2), ..workload(&format!("w{number:03}"), &address) }
    }

    /// Something happens to this host.
    fn happen(mesh: &mut Mesh, chance: &mut Chance, now: Instant) {
        let id = mesh.hosted.keys().next().cloned();
        match (chance.below(9), id) {
            (0, _) => {
                let seat = Seat::default();
                mesh.host(crate::attachment::Attachment { workload: own(chance), seat, ending: false });
            }
            (1, Some(id)) => drop(mesh.set_ready(&id, Families { v4: chance.one_in(2), v6: false })),
            (2, Some(id)) => mesh.end(&id),
            (3, Some(id)) => mesh.remove(&id, now),
            (4, _) => {
                let some = BTreeSet::from([host(2 + chance.below(2))]);
                drop(mesh.set_unreachable(if chance.one_in(3) { some } else { BTreeSet::new() }));
            }
            (5, _) => {
                let workloads = vec![Workload { node: host(2), ..own(chance) }];
                let (network, revision) = ("shop".parse().unwrap(), u64::from(chance.below(6)));
                let facts = OwnerFacts { network, incarnation: 1, revision, workloads };
                mesh.hear(host(2), facts, SystemTime::now());
            }
            _ => {}
        }
    }

    #[test]
    fn a_network_that_follows_is_the_one_that_is_made_anew_whatever_has_happened() {
        let shop: NetworkName = "shop".parse().unwrap();
        let (mut followed, now) = (0, Instant::now());
        for seed in 0..8 {
            let mut chance = Chance::of(seed);
            let mut mesh = Mesh::new(node(1, 1), 1);
            mesh.accept(next_state(&mut chance, 1));
            for revision in 2..60 {
                if chance.one_in(2) {
                    let known = mesh.snapshot(&shop).unwrap().clone();
                    let next = match chance.one_in(8) {
                        true => next_state(&mut chance, revision),
                        false => NetworkSnapshot {
                            generation: sealane_proto::types::Generation { revision, ..known.generation },
                            ..small_step(&mut chance, &known)
                        },
                    };
                    mesh.accept(next);
                }
                happen(&mut mesh, &mut chance, now);
                mesh.settle_places(now);
                let expected = mesh.overlaid(&shop).unwrap();
                assert_eq!(*mesh.overlay(&shop).unwrap(), expected, "seed {seed}, revision {revision}");
                followed += usize::from(mesh.networks[&shop].overlaid.as_ref().unwrap().taken.is_some());
            }
        }
        assert!(followed > 30, "{followed} of the states could be followed");
    }

    #[test]
    fn routes_of_other_networks_are_where_they_attach() {
        let (shop, office): (NetworkName, NetworkName) = ("shop".parse().unwrap(), "office".parse().unwrap());
        let mut mesh = Mesh::new(node(1, 1), 1);
        let first = random_network(&mut Chance::of(1), 4);
        mesh.accept(first.clone());
        let text = r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"a","namespace":"office"},
            "spec":{"parentRefs":[{"group":"","kind":"Service","name":"api","namespace":"shop"}]}}"#;
        let document = sealane_proto::document::Document::from_json(text).unwrap();
        let route = Route::new(RouteDocument::of(&document).unwrap(), 7);
        let mut other = first;
        other.network.name = office.clone();
        assert!(mesh.overlay(&shop).unwrap().routes.is_empty());
        for routes in [vec![route], vec![]] {
            other.content.routes = routes.clone().into();
            other.generation.revision += 1;
            mesh.accept(other.clone());
            assert_eq!(mesh.routed_from(&office).contains(&shop), !routes.is_empty());
            assert!(mesh.routed_from(&shop).is_empty());
            for network in [&shop, &office] {
                let told: Vec<Route> = mesh.overlay(network).unwrap().routes.iter().cloned().collect();
                assert_eq!(told, routes, "{network}");
            }
        }
    }
}
