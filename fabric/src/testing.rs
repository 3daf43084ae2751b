//! Resources for tests: the network `shop` (10.42.0.0/16), of which each test says what matters to it.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests fail by panicking")]

use sealane_proto::resource::{Block, Network, NetworkSnapshot, Service, Workload};
use sealane_proto::types::{Generation, MacAddr, Vni};

/// The network with nothing in it.
#[must_use]
pub fn snapshot() -> NetworkSnapshot {
    let network = Network {
        name: "shop".parse().unwrap(),
        hosts: Default::default(),
        subnet: "10.42.0.0/16".parse().unwrap(),
        vni: Vni::FIRST,
        mtu: None,
        egress: Default::default(),
        subnet6: None,
        mtls: None,
    };
    NetworkSnapshot { generation: Generation { epoch: 1, revision: 1 }, content: network.into() }
}

/// A block of addresses of `node`, or of services.
#[must_use]
pub fn block(node: Option<&str>, range: &str) -> Block {
    Block { node: node.map(|node| node.parse().unwrap()), range: range.parse().unwrap() }
}

/// A service with these ports.
#[must_use]
pub fn service<'a>(name: &str, vip: &str, ports: impl Iterator<Item = &'a str>) -> Service {
    let ports = ports.map(|port| port.parse().unwrap()).collect();
    Service {
        name: name.parse().unwrap(),
        hosts: Default::default(),
        vip: vip.parse().unwrap(),
        ports,
        declared: false,
        mtls: None,
        external: Default::default(),
    }
}

/// A ready workload of no service, with a sidecar, on `host-1`; its MAC address ends as its IP address does.
#[must_use]
pub fn workload(name: &str, address: &str) -> Workload {
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let [a, b, c, d] = address.octets();
    Workload {
        name: name.parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: "host-1".parse().unwrap(),
        address: address.into(),
        mac: MacAddr::new([2, 0, a, b, c, d]),
        service: None,
        ports: vec![],
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    }
}
