//! A network to ask for.

use sealane_proto::resource::{Egress, Network, NetworkSnapshot, Service, Workload};
use sealane_proto::types::{Generation, MacAddr, Vni};

/// The network `shop`: `api` with two ready instances and one that is not, `stats` for datagrams, `db` with nothing
/// ready, `both` as service and workload, and the workload `tool` of no service.
pub(in crate::dns) fn shop() -> NetworkSnapshot {
    let services = vec![
        service("api", 1, "web=8080"),
        service("both", 4, "80"),
        service("db", 2, "80"),
        service("stats", 3, "8125/udp"),
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
    let network = Network {
        name: "shop".parse().unwrap(),
        subnet: "10.42.0.0/16".parse().unwrap(),
        vni: Vni::FIRST,
        mtu: None,
        egress: Egress::Allow,
        subnet6: None,
    };
    NetworkSnapshot {
        generation: Generation::default(),
        network,
        nodes: vec![],
        blocks: vec![],
        services,
        workloads,
        revoked: vec![],
        drained: vec![],
    }
}

pub(in crate::dns) fn service(name: &str, last: u8, port: &str) -> Service {
    let vip = std::net::Ipv4Addr::new(10, 42, 255, last).into();
    Service { name: name.parse().unwrap(), vip, ports: vec![port.parse().unwrap()], declared: false }
}

pub(in crate::dns) fn workload(name: &str, low: [u8; 2], of: Option<&str>, ready: bool) -> Workload {
    Workload {
        name: name.parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: "n1".parse().unwrap(),
        address: std::net::Ipv4Addr::new(10, 42, low[0], low[1]).into(),
        mac: MacAddr::new([2, 0, 0, 0, low[0], low[1]]),
        service: of.map(|name| name.parse().unwrap()),
        ports: vec![],
        sidecar: true,
        ready,
        weight: sealane_proto::types::Weight::default(),
    }
}
