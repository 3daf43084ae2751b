//! Configurations for tests.

use sealane_proto::resource::{Egress, Network, NetworkContent, NetworkSnapshot, Service, Workload};
use sealane_proto::sidecar::Config;
use sealane_proto::types::{Generation, MacAddr, Vni};

pub(crate) fn service(name: &str, vip: &str, ports: &[&str]) -> Service {
    let ports = ports.iter().map(|port| port.parse().unwrap()).collect();
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

pub(crate) fn workload(name: &str, address: &str, service: Option<&str>, ports: &[&str]) -> Workload {
    Workload {
        name: name.parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: "host-1".parse().unwrap(),
        address: address.parse().unwrap(),
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        service: service.map(|service| service.parse().unwrap()),
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    }
}

pub(crate) fn config(own: Workload, services: Vec<Service>, workloads: Vec<Workload>) -> Config {
    let network = Network {
        name: "shop".parse().unwrap(),
        hosts: Default::default(),
        subnet: "10.42.0.0/16".parse().unwrap(),
        vni: Vni::try_from(0x10_0000_u32).unwrap(),
        mtu: None,
        egress: Egress::Allow,
        subnet6: None,
        mtls: None,
    };
    let generation = Generation { epoch: 1, revision: 1 };
    let content = NetworkContent { services: services.into(), workloads: workloads.into(), ..network.into() };
    let network = NetworkSnapshot::new(generation, content);
    Config {
        sequence: 1,
        trust_domain: "sealane".parse().unwrap(),
        workload: own,
        network: network.into(),
        portion: None,
    }
}
