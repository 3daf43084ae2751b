//! Resources for tests: the network `shop` (10.42.0.0/16), of which each test says what matters to it.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests fail by panicking")]

use sealane_proto::resource::{Block, Network, NetworkSnapshot, Service, Workload};
use sealane_proto::types::{Aliases, Generation, MacAddr, Vni};

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
    NetworkSnapshot::new(Generation { epoch: 1, revision: 1 }, network.into())
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

/// Numbers by chance, the same for the same seed.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Those of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, less than `limit`.
    pub fn below(&mut self, limit: u8) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from((self.0 >> 33) % u64::from(limit.max(1))).unwrap_or(0)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u8) -> bool {
        self.below(times) == 0
    }

    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        of.iter().copied().filter(|_| self.one_in(2)).collect()
    }
}

/// A network of up to six services and so many workloads. Names and most addresses are the same each time, all else is by chance.
#[must_use]
pub fn random_network(chance: &mut Chance, most: u8) -> NetworkSnapshot {
    const PORTS: [&str; 4] = ["web=80/http", "81", "53/udp", "sql=5432/tcp"];
    let mut network = snapshot();
    network.blocks = vec![block(None, "10.42.255.0/24"), block(Some("host-1"), "10.42.0.0/24")];
    for name in (0..6).filter(|_| !chance.one_in(3)).collect::<Vec<u8>>() {
        // Each has two addresses that are no other's.
        let vip = format!("10.42.255.{}", 2 * name + chance.below(2));
        let mut service = service(&format!("s{name}"), &vip, chance.some(&PORTS).into_iter());
        service.declared = chance.one_in(2);
        if chance.one_in(4) {
            service.external.instances =
                vec!["192.0.2.50".parse().unwrap(), "192.0.2.51:80".parse().unwrap()];
        }
        network.services.push(service);
    }
    for number in (0..most).filter(|_| !chance.one_in(4)).collect::<Vec<u8>>() {
        let address = format!("10.42.{}.{number}", if chance.one_in(9) { 1 } else { 0 });
        let of = chance.below(9);
        // Some are called as services or each other are.
        let name = if number < 3 { format!("s{number}") } else { format!("w{number:03}") };
        network.workloads.push(Workload {
            service: (of < 7).then(|| format!("s{of}").parse().unwrap()),
            ports: chance.some(&PORTS).iter().map(|port| port.parse().unwrap()).collect(),
            ready: !chance.one_in(4),
            ready6: !chance.one_in(4),
            weight: u32::from(1 + chance.below(3)).try_into().unwrap(),
            aliases: random_aliases(chance),
            ..workload(&name, &address)
        });
    }
    network
}

/// None for most; the names are also those of services and workloads.
fn random_aliases(chance: &mut Chance) -> Aliases {
    if !chance.one_in(3) {
        return Aliases::default();
    }
    let other =
        |chance: &mut Chance| chance.one_in(3).then(|| format!("x{}", chance.below(4)).parse().unwrap());
    let (called, group) = (other(chance), other(chance));
    Aliases::parse(chance.some(&["s1", "s5", "w004", "x0", "x1"]))
        .unwrap()
        .with_called(called)
        .with_group(group)
}
