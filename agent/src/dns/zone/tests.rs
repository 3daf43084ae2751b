//! A network to ask for.

use sealane_fabric::transition::Instances;
use sealane_proto::resource::{NetworkChange, NetworkSnapshot, Service, Workload};

use super::*;
use crate::testing;

/// The network `shop`: `api` with two ready instances and one that is not, `stats` for datagrams, `db` with nothing
/// ready, `both` as service and workload, and the workload `tool` of no service.
pub(in crate::dns) fn shop() -> NetworkSnapshot {
    let services = vec![
        service("api", 1, "web=8080"),
        service("both", 4, "80"),
        service("db", 2, "80"),
        service("stats", 3, "8125/udp"),
        outside("vault", 5, &["192.0.2.50", "192.0.2.51:80", "192.0.2.52:8200"]),
    ];
    let workloads = vec![
        workload("api-1", [0, 2], Some("api"), true),
        workload("api-2", [0, 3], Some("api"), true),
        workload("api-3", [0, 7], Some("api"), false),
        workload("both", [0, 8], Some("both"), true),
        workload("db-1", [0, 5], Some("db"), false),
        workload("stats-1", [0, 4], Some("stats"), true),
        workload("tool", [0, 9], None, false),
    ];
    let offering = |workload: Workload| {
        let of = |service: &&Service| Some(&service.name) == workload.service.as_ref();
        let ports = services.iter().find(of).map_or(vec![], |service| service.ports.clone());
        Workload { ports, ..workload }
    };
    let workloads = workloads.into_iter().map(offering).collect();
    snapshot(services, workloads)
}

pub(in crate::dns) fn snapshot(services: Vec<Service>, workloads: Vec<Workload>) -> NetworkSnapshot {
    let mut snapshot = testing::snapshot();
    (snapshot.services, snapshot.workloads) = (services.into(), workloads.into());
    snapshot
}

pub(in crate::dns) fn service(name: &str, last: u8, port: &str) -> Service {
    testing::service(name, &format!("10.42.255.{last}"), std::iter::once(port))
}

/// A declared service on port 80 with these instances outside every network.
fn outside(name: &str, last: u8, external: &[&str]) -> Service {
    let mut service = Service { declared: true, ..service(name, last, "http=80") };
    service.external.instances = external.iter().map(|place| place.parse().unwrap()).collect();
    service
}

pub(in crate::dns) fn workload(name: &str, [high, low]: [u8; 2], of: Option<&str>, ready: bool) -> Workload {
    Workload {
        service: of.map(|name| name.parse().unwrap()),
        ready,
        ready6: ready,
        ..testing::workload(name, &format!("10.42.{high}.{low}"))
    }
}

#[test]
fn names_that_follow_changes_are_those_of_the_state() {
    let mut chance = testing::Chance::of(7);
    for _ in 0..200 {
        let mut before = testing::random_network(&mut chance, 20);
        let (mut zone, mut instances) = (Zone::build(&before), Instances::in_network(&before));
        for _ in 0..5 {
            let after = testing::random_network(&mut chance, 20);
            let change = NetworkChange::between(&before, &after).unwrap();
            instances = instances.after(&before, &change);
            let transition =
                Transition { before: &before, after: &after, change: &change, instances: &instances };
            zone = zone.follow(transition);
            assert_eq!(zone, Zone::build(&after));
            before = after;
        }
    }
}
