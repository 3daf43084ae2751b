//! Hosts that cannot be reached from here: their instances get no calls of this host's workloads, as long as there are others. Pure.
//!
//! Neither can those to which nothing is sent, as nobody knows where they are. Desired state is as it was, and every other host sees
//! for itself. An instance of no service is its name's only one, and stays.

use std::collections::BTreeSet;

use sealane_proto::resource::{NetworkSnapshot, Service, Workload};
use sealane_proto::types::{NetworkName, NodeName, ServiceName, Weight};

use super::core::HostCore;
use super::mesh::Mesh;

/// Number of services that are named in a sentence.
const NAMED: usize = 8;

impl Mesh {
    /// Takes the hosts that cannot be reached, seen from here; answers the networks in which that is news.
    pub(super) fn set_unreachable(&mut self, hosts: BTreeSet<NodeName>) -> BTreeSet<NetworkName> {
        let known = std::mem::replace(&mut self.unreachable, hosts);
        self.touch_places();
        let news: BTreeSet<&NodeName> = known.symmetric_difference(&self.unreachable).collect();
        let carried = self.carried().into_iter();
        let concerned =
            carried.filter(|(_, snapshot)| snapshot.nodes.iter().any(|node| news.contains(&node.name)));
        concerned.map(|(network, _)| network).collect()
    }

    /// The hosts that cannot be reached: what is under way to them ends, and nobody waits for their word. One that is nowhere for a
    /// moment, as while it swaps places with another one, is none of them.
    pub(super) fn unreachable(&self) -> BTreeSet<NodeName> {
        self.unreachable.union(self.away()).cloned().collect()
    }

    /// Returns true if calls to the host's instances do not reach it.
    fn is_called_in_vain(&self, host: &NodeName) -> bool {
        self.unreachable.contains(host) || self.nowhere().contains(host)
    }

    /// Returns true if calls reach every other host.
    pub(super) fn is_whole(&self) -> bool {
        self.unreachable.is_empty() && self.nowhere().is_empty()
    }

    /// Makes instances on such hosts unready where their service has another one that is ready; the last ones stay.
    pub(super) fn leave_unreachable(&self, snapshot: &mut NetworkSnapshot) {
        if self.is_whole() {
            return;
        }
        let served: BTreeSet<ServiceName> = self.served_elsewhere(snapshot).cloned().collect();
        for workload in snapshot.content.workloads.iter_mut() {
            let away = self.is_called_in_vain(&workload.node);
            if away && workload.service.as_ref().is_some_and(|service| served.contains(service)) {
                (workload.ready, workload.ready6) = (false, false);
            }
        }
    }

    /// The services that an instance within reach serves.
    fn served_elsewhere<'a>(
        &'a self,
        snapshot: &'a NetworkSnapshot,
    ) -> impl Iterator<Item = &'a ServiceName> {
        let serves = |workload: &&Workload| is_called(workload) && !self.is_called_in_vain(&workload.node);
        let inside =
            snapshot.workloads.iter().filter(serves).filter_map(|workload| workload.service.as_ref());
        let outside = |service: &&Service| !service.external.instances.is_empty();
        inside.chain(snapshot.services.iter().filter(outside).map(|service| &service.name))
    }

    /// Names the services of a network none of whose instances can be reached, for a sentence.
    pub(super) fn out_of_reach(&self, snapshot: &NetworkSnapshot) -> Option<String> {
        if self.is_whole() {
            return None;
        }
        let served: BTreeSet<&ServiceName> = self.served_elsewhere(snapshot).collect();
        let called = snapshot.workloads.iter().filter(|workload| is_called(workload));
        let services: BTreeSet<&ServiceName> = called
            .filter_map(|workload| workload.service.as_ref())
            .filter(|name| !served.contains(name))
            .collect();
        let mut names: Vec<&str> = services.iter().take(NAMED).map(|name| name.as_str()).collect();
        let more =
            services.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more"));
        names.extend(more.as_deref());
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl HostCore {
    /// These hosts cannot be reached, seen from here, and all others can.
    pub(crate) fn handle_unreachable(&mut self, hosts: BTreeSet<NodeName>) {
        self.mesh.set_unreachable(hosts).into_iter().for_each(|network| self.handle_change(network));
    }
}

/// Returns true if new calls may go to the workload.
fn is_called(workload: &Workload) -> bool {
    (workload.ready || workload.ready6) && workload.weight != Weight::NONE
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sealane_proto::resource::Node;

    use super::*;
    use crate::testing::{snapshot, workload};

    fn instance(name: &str, address: &str, service: Option<&str>, node: &str) -> Workload {
        let (service, node) = (service.map(|service| service.parse().unwrap()), node.parse().unwrap());
        Workload { service, node, ready: true, ready6: true, ..workload(name, address) }
    }

    fn host(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    /// Host-1 with `api` on hosts 2 and 3, `db` on host 3 alone, and `lone` of no service there.
    fn core() -> HostCore {
        let node = |last: u8| Node {
            name: host(&format!("host-{last}")),
            underlay: format!("192.0.2.{last}").parse().unwrap(),
            mtu: None,
        };
        let mut shop = snapshot();
        shop.content.nodes = (1..=3).map(node).collect();
        shop.content.workloads = [
            instance("api-1", "10.42.2.3", Some("api"), "host-2"),
            instance("api-2", "10.42.3.3", Some("api"), "host-3"),
            instance("db-1", "10.42.3.4", Some("db"), "host-3"),
            instance("lone", "10.42.3.5", None, "host-3"),
        ]
        .into();
        let mut mesh = Mesh::new(node(1), 1);
        mesh.accept(shop);
        HostCore::new(mesh)
    }

    fn ready(core: &HostCore) -> Vec<String> {
        let shop = core.mesh.overlaid(&"shop".parse().unwrap()).unwrap();
        let ready = shop.workloads.iter().filter(|workload| workload.ready || workload.ready6);
        ready.map(|workload| workload.name.to_string()).collect()
    }

    #[test]
    fn instances_on_an_unreachable_host_leave_while_others_are_ready_and_the_last_ones_stay() {
        let mut core = core();
        let all = ready(&core);
        assert_eq!(all, ["api-1", "api-2", "db-1", "lone"]);
        let table: [(&[&str], &[&str], Option<&str>); 5] = [
            (&["host-3"], &["api-1", "db-1", "lone"], Some("db")),
            (&["host-2"], &["api-2", "db-1", "lone"], None),
            (&["host-2", "host-3"], &["api-1", "api-2", "db-1", "lone"], Some("api, db")),
            (&["host-9"], &["api-1", "api-2", "db-1", "lone"], None),
            (&[], &["api-1", "api-2", "db-1", "lone"], None),
        ];
        for (unreachable, expected, stranded) in table {
            core.handle_unreachable(unreachable.iter().map(|name| host(name)).collect());
            assert_eq!(ready(&core), expected, "{unreachable:?}");
            let shop = core.mesh.overlaid(&"shop".parse().unwrap()).unwrap();
            assert_eq!(core.mesh.out_of_reach(&shop).as_deref(), stranded, "{unreachable:?}");
        }
    }

    #[test]
    fn services_beyond_the_first_eight_are_counted_and_an_instance_is_called_at_either_of_its_addresses() {
        let check = |services: u8, expected: &str| {
            let (mut core, mut shop) = (core(), snapshot());
            shop.generation.revision += 1;
            let only = |at: u8| Workload {
                ready: at.is_multiple_of(2),
                ready6: !at.is_multiple_of(2),
                ..instance(
                    &format!("i{at}"),
                    &format!("10.42.3.{}", at + 10),
                    Some(&format!("s{at}")),
                    "host-3",
                )
            };
            shop.content.workloads = (0..services).map(only).collect();
            core.handle_state(shop.clone());
            core.handle_unreachable([host("host-3")].into());
            assert_eq!(core.mesh.out_of_reach(&shop).as_deref(), Some(expected), "{services}");
        };
        check(2, "s0, s1");
        check(8, "s0, s1, s2, s3, s4, s5, s6, s7");
        check(9, "s0, s1, s2, s3, s4, s5, s6, s7, 1 more");
    }

    #[test]
    fn networks_of_a_host_follow_as_it_goes_and_comes_and_no_others() {
        let mut core = core();
        while core.poll_job(Instant::now()).is_some() {}
        core.mesh.set_unreachable(BTreeSet::new());
        assert_eq!(core.mesh.set_unreachable([host("host-9")].into()), BTreeSet::new());
        let shop = BTreeSet::from(["shop".parse().unwrap()]);
        assert_eq!(core.mesh.set_unreachable([host("host-2")].into()), shop);
        assert_eq!(core.mesh.set_unreachable([host("host-2")].into()), BTreeSet::new());
        assert_eq!(core.mesh.set_unreachable(BTreeSet::new()), shop);
        assert!(core.mesh.report().workloads.is_empty(), "control hears nothing of it");
    }

    #[test]
    fn an_address_outside_every_network_serves_as_well_and_one_without_a_weight_does_not() {
        let mut core = core();
        let mut shop = core.mesh.snapshot(&"shop".parse().unwrap()).unwrap().clone();
        shop.generation.revision += 1;
        shop.content.workloads[0].weight = Weight::NONE;
        core.handle_state(shop.clone());
        core.handle_unreachable([host("host-3")].into());
        assert_eq!(ready(&core), ["api-1", "api-2", "db-1", "lone"], "nobody else gets new calls");
        let mut service = crate::testing::service("api", "10.42.9.9", std::iter::empty());
        service.external.instances = vec!["198.51.100.7".parse().unwrap()];
        shop.generation.revision += 1;
        shop.content.services.push(service);
        core.handle_state(shop);
        assert_eq!(ready(&core), ["api-1", "db-1", "lone"]);
    }
}
