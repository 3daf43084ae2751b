//! Addresses of its network that matter to a sidecar, and the portion of the network that it is told because of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use sealane_fabric::transition::{service, workload};
use sealane_proto::resource::{NetworkChange, NetworkContent, Route, Service, Workload};
use sealane_proto::types::{ServiceName, WorkloadName};

use crate::host::HostNetwork;
use crate::host::Step;

/// Number of addresses that a scope may have. A sidecar with more is told the whole network.
pub(super) const MOST: usize = 2048;

/// The addresses that matter to a sidecar. Its portion of the network is what is there, and the instances of the services there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope(BTreeSet<Ipv4Addr>);

impl Scope {
    /// A scope of these addresses; `None` when there are too many.
    pub(super) fn of(addresses: BTreeSet<Ipv4Addr>) -> Option<Self> {
        (addresses.len() <= MOST).then_some(Self(addresses))
    }

    /// The addresses themselves.
    pub(super) fn addresses(&self) -> &BTreeSet<Ipv4Addr> {
        &self.0
    }

    /// The same with the services that routes of those in it send to, and so on; `None` when there are too many addresses. It costs
    /// nothing in a network without routes.
    pub(super) fn with_backends(&self, network: &NetworkContent) -> Option<Self> {
        let mut wider = self.clone();
        loop {
            let more: Vec<Ipv4Addr> =
                wider.backends(network).filter(|address| !wider.0.contains(address)).collect();
            if more.is_empty() {
                return Self::of(wider.0);
            }
            wider.0.extend(more);
        }
    }

    /// The addresses of the services that routes of those in the scope send to.
    fn backends<'a>(&'a self, network: &'a NetworkContent) -> impl Iterator<Item = Ipv4Addr> + 'a {
        let own = &network.network.name;
        let documents = self.routes(network).filter_map(|route| route.document.as_ref());
        documents.flat_map(move |document| {
            let backends = document.backends().into_iter();
            let named = backends.filter_map(move |backend| backend.service(document.network(), own).ok());
            named.filter_map(move |(name, _)| Some(service(network, &name)?.vip.to_ipv4()))
        })
    }

    /// The routes that attach to services in the scope.
    pub(super) fn routes<'a>(&'a self, network: &'a NetworkContent) -> impl Iterator<Item = &'a Route> {
        let own = &network.network.name;
        network.routes.iter().filter(move |route| {
            let services = route.document.iter().flat_map(|document| document.services_in(own));
            services.filter_map(|name| service(network, &name)).any(|service| self.has(service))
        })
    }

    /// Returns true if the portion of a network has other routes than that of another one, or lacks the backend of one.
    fn is_routed_otherwise(&self, before: &NetworkContent, after: &NetworkContent) -> bool {
        if before.routes.is_empty() && after.routes.is_empty() {
            return false;
        }
        self.routes(before).ne(self.routes(after))
            || self.backends(after).any(|address| !self.0.contains(&address))
    }

    /// The portion of the network, whole.
    pub(super) fn content(&self, network: &NetworkContent) -> NetworkContent {
        let services: Vec<Service> =
            network.services.iter().filter(|service| self.has(service)).cloned().collect();
        let names: BTreeSet<&ServiceName> = services.iter().map(|service| &service.name).collect();
        let holds = |workload: &&Workload| {
            self.0.contains(&workload.address.to_ipv4())
                || workload.service.as_ref().is_some_and(|name| names.contains(name))
        };
        NetworkContent {
            workloads: network.workloads.iter().filter(holds).cloned().collect(),
            services: services.into(),
            revoked: network.revoked.clone(),
            routes: self.routes(network).cloned().collect(),
            ..network.network.clone().into()
        }
    }

    /// The change of the portion between two states of the network; `None` when it is to be told whole.
    pub(super) fn change(&self, before: &HostNetwork, after: &HostNetwork) -> Option<NetworkChange> {
        if before.content == after.content {
            return Some(NetworkChange::default());
        }
        let (old, new) = (&before.snapshot, &after.snapshot);
        if self.is_routed_otherwise(old, new) {
            return None;
        }
        let steps = after.steps.since(before.content);
        let along = steps.and_then(|steps| self.change_along(steps, old, new));
        along.or_else(|| NetworkChange::between(&self.content(old), &self.content(new)))
    }

    /// The same by what has changed in the network alone; `None` when the portion has a service more or less.
    fn change_along(
        &self,
        steps: &[Step],
        old: &NetworkContent,
        new: &NetworkContent,
    ) -> Option<NetworkChange> {
        let mut change = NetworkChange::default();
        let names = steps.iter().flat_map(|step| step.change.service_names()).collect::<BTreeSet<_>>();
        for name in names {
            match (self.service(old, name), self.service(new, name)) {
                (None, None) => {}
                (Some(before), Some(after)) if before == after => {}
                (Some(_), Some(after)) => change.services.push(after.clone()),
                (Some(_), None) | (None, Some(_)) => return None,
            }
        }
        let names = steps.iter().flat_map(|step| step.change.workload_names()).collect::<BTreeSet<_>>();
        for name in names {
            match (self.workload(old, name), self.workload(new, name)) {
                (None, None) => {}
                (Some(_), None) => change.workloads_gone.push(name.clone()),
                (before, Some(after)) if before == Some(after) => {}
                (_, Some(after)) => change.workloads.push(after.clone()),
            }
        }
        Some(change)
    }

    /// Adds addresses; returns what the portion has more for that.
    pub(super) fn widen(&mut self, addresses: &BTreeSet<Ipv4Addr>, network: &HostNetwork) -> NetworkChange {
        self.0.extend(addresses);
        let (services, workloads) = at(addresses, network);
        NetworkChange {
            services: services.into_iter().cloned().collect(),
            workloads: workloads.into_values().cloned().collect(),
            ..NetworkChange::default()
        }
    }

    /// Removes addresses; returns what the portion has no more.
    pub(super) fn narrow(&mut self, addresses: &BTreeSet<Ipv4Addr>, network: &HostNetwork) -> NetworkChange {
        self.0.retain(|address| !addresses.contains(address));
        let (services, workloads) = at(addresses, network);
        let gone = workloads.into_iter().filter(|(_, workload)| !self.holds(&network.snapshot, workload));
        NetworkChange {
            services_gone: services.into_iter().map(|service| service.name.clone()).collect(),
            workloads_gone: gone.map(|(name, _)| name.clone()).collect(),
            ..NetworkChange::default()
        }
    }

    fn has(&self, service: &Service) -> bool {
        self.0.contains(&service.vip.to_ipv4())
    }

    /// Returns true if the workload of this network is in the portion.
    pub(super) fn holds(&self, network: &NetworkContent, workload: &Workload) -> bool {
        let of_service = |name| self.service(network, name).is_some();
        self.0.contains(&workload.address.to_ipv4()) || workload.service.as_ref().is_some_and(of_service)
    }

    fn service<'a>(&self, network: &'a NetworkContent, name: &ServiceName) -> Option<&'a Service> {
        service(network, name).filter(|service| self.has(service))
    }

    fn workload<'a>(&self, network: &'a NetworkContent, name: &WorkloadName) -> Option<&'a Workload> {
        workload(network, name).filter(|workload| self.holds(network, workload))
    }
}

/// The services at these addresses, and the workloads there and behind these services.
fn at<'a>(
    addresses: &BTreeSet<Ipv4Addr>,
    network: &'a HostNetwork,
) -> (Vec<&'a Service>, BTreeMap<&'a WorkloadName, &'a Workload>) {
    let content = &network.snapshot.content;
    let is_there = |service: &&Service| addresses.contains(&service.vip.to_ipv4());
    let services: Vec<&Service> = content.services.iter().filter(is_there).collect();
    let instances = services.iter().flat_map(|service| network.instances.names(&service.name));
    let instances = instances.filter_map(|name| workload(content, name));
    // Services have addresses of their own: where all are services', no workload is looked for.
    let direct = (services.len() < addresses.len()).then(|| content.workloads.iter());
    let direct = direct.into_iter().flatten();
    let direct = direct.filter(|workload| addresses.contains(&workload.address.to_ipv4()));
    let workloads = instances.chain(direct).map(|workload| (&workload.name, workload)).collect();
    (services, workloads)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealane_proto::resource::NetworkSnapshot;

    use super::*;
    use crate::testing::{Chance, block, random_network};

    /// A portion as a sidecar comes to have it: by name.
    #[derive(Debug, Default, PartialEq)]
    struct Held {
        services: BTreeMap<ServiceName, Service>,
        workloads: BTreeMap<WorkloadName, Workload>,
    }

    impl Held {
        fn of(content: &NetworkContent) -> Self {
            let NetworkContent { services, workloads, .. } = content.clone();
            Self {
                services: services.iter().map(|service| (service.name.clone(), service.clone())).collect(),
                workloads: workloads
                    .iter()
                    .map(|workload| (workload.name.clone(), workload.clone()))
                    .collect(),
            }
        }

        fn follow(&mut self, change: NetworkChange) {
            let NetworkChange { services, services_gone, workloads, workloads_gone } = change;
            services_gone.iter().for_each(|name| drop(self.services.remove(name)));
            workloads_gone.iter().for_each(|name| drop(self.workloads.remove(name)));
            self.services.extend(services.into_iter().map(|service| (service.name.clone(), service)));
            self.workloads.extend(workloads.into_iter().map(|workload| (workload.name.clone(), workload)));
        }
    }

    /// Some addresses of services and of workloads, and where nothing is.
    fn some(chance: &mut Chance) -> BTreeSet<Ipv4Addr> {
        let count = chance.below(4);
        let address = |_| match chance.below(3) {
            0 => Ipv4Addr::new(10, 42, 255, chance.below(12)),
            1 => Ipv4Addr::new(10, 42, 0, chance.below(40)),
            _ => Ipv4Addr::new(10, 42, 1, chance.below(40)),
        };
        (0..count).map(address).collect()
    }

    /// The next state: all else than before, or nearly the same.
    fn next(chance: &mut Chance, before: &NetworkSnapshot) -> NetworkSnapshot {
        let mut other = random_network(chance, 40);
        if chance.one_in(3) {
            return other;
        }
        let mut next = before.clone();
        if let (Some(one), Some(at)) = (other.workloads.pop(), next.workloads.len().checked_sub(1)) {
            let at = usize::from(chance.below(40)) % (at + 1);
            next.workloads[at].service = one.service;
            next.workloads[at].ready = one.ready;
        }
        if chance.one_in(4) {
            next.services = other.content.services;
        }
        if chance.one_in(5) {
            next.blocks.push(block(Some("host-2"), "10.42.9.0/24"));
        }
        next
    }

    #[test]
    fn whatever_is_asked_and_changes_a_sidecar_has_what_its_agent_has_at_its_addresses() {
        for seed in 0..40 {
            let mut chance = Chance::of(seed);
            let mut network = Arc::new(HostNetwork::new(0, Arc::new(random_network(&mut chance, 40)), None));
            let (mut scope, mut held) = (Scope::default(), Held::default());
            for sequence in 1..120 {
                let mut after = network.clone();
                for _ in 0..chance.below(4) {
                    let snapshot = Arc::new(next(&mut chance, &after.snapshot));
                    after = Arc::new(HostNetwork::new(after.sequence + sequence, snapshot, Some(&after)));
                }
                match scope.change(&network, &after) {
                    Some(change) => held.follow(change),
                    None => held = Held::of(&scope.content(&after.snapshot)),
                }
                network = after;
                assert_eq!(held, Held::of(&scope.content(&network.snapshot)), "seed {seed}, {sequence}");
                let unused = some(&mut chance);
                held.follow(scope.narrow(&unused, &network));
                assert_eq!(held, Held::of(&scope.content(&network.snapshot)), "seed {seed}, {sequence}");
                let wanted = some(&mut chance);
                held.follow(scope.widen(&wanted, &network));
                assert_eq!(held, Held::of(&scope.content(&network.snapshot)), "seed {seed}, {sequence}");
            }
        }
    }

    #[test]
    fn what_happens_elsewhere_is_no_change() {
        let mut chance = Chance::of(3);
        let first = HostNetwork::new(1, Arc::new(random_network(&mut chance, 40)), None);
        let (scope, mut other) = (Scope::default(), (*first.snapshot).clone());
        other.workloads[0].ready ^= true;
        let second = HostNetwork::new(2, Arc::new(other.clone()), Some(&first));
        assert_eq!(scope.change(&first, &second), Some(NetworkChange::default()));
        // A host has come: all hosts' networks have it, no sidecar needs to know.
        other.blocks.push(block(Some("host-2"), "10.42.9.0/24"));
        let third = HostNetwork::new(3, Arc::new(other.clone()), Some(&second));
        assert_eq!(scope.change(&first, &third), Some(NetworkChange::default()));
        other.network.mtu = Some("1400".parse().unwrap());
        let fourth = HostNetwork::new(4, Arc::new(other), Some(&third));
        assert_eq!(scope.change(&third, &fourth), None);
    }
}
