//! Cores of control, and a network to work on.

use std::fmt::Debug;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use prost::Message as _;
use sealane_control::core::{Change, Command as _, NetworkRecord, NodeRecord, Report, State, Timestamp};
use sealane_fabric::overlay::plan;
use sealane_fabric::overlay::planned::Planned;
use sealane_fabric::services::ServiceTables;
use sealane_fabric::transition::{Instances, Transition};
use sealane_proto::resource::{
    Block, Egress, Network, NetworkChange, NetworkContent, NetworkSnapshot, Node, Service, Workload,
};
use sealane_proto::types::{Generation, MacAddr, Vni};
use sealane_proto::wire::v1;

use crate::Work;

/// Instances of each service of [`network`].
const INSTANCES: u16 = 20;
/// Number of its services.
const SERVICES: u8 = 50;

/// Report of a host with 100 workloads, one of which has changed: decision and changes.
pub(crate) fn report() -> Work {
    let NetworkContent { network, services, workloads, .. } = network();
    let (name, of_host) = (network.name.clone(), workloads[0].node.clone());
    let mut state = State::default();
    let node = Node { name: of_host.clone(), underlay: parsed("192.0.2.1"), mtu: None };
    let record = NodeRecord {
        node,
        key: [1; 32],
        joined: Timestamp::default(),
        drained: false,
        token: None,
        networks: Default::default(),
        displaced: None,
        echoes: true,
        placed: Default::default(),
    };
    let block = |node, range| Change::put_in(&name, Block { node, range: parsed(range) });
    let mut changes = vec![
        Change::put(record),
        Change::put(NetworkRecord { network, changed: 1 }),
        block(Some(of_host.clone()), "10.42.0.0/24"),
        block(None, "10.42.255.0/24"),
    ];
    changes.extend(services.iter().cloned().map(|service| Change::put_in(&name, service)));
    changes.iter().for_each(|change| state.apply(change));
    let reports = [true, false].map(|ready| {
        let mut workloads: Vec<Workload> = workloads.iter().take(100).cloned().collect();
        workloads[50].ready = ready;
        Report { node: of_host.clone(), workloads, editions: Default::default() }
    });
    let mut turns = reports.into_iter().cycle();
    Box::new(move || {
        let decided = turns.next().map(|report| report.decide(&state, Timestamp::default()));
        if let Some(Ok(decision)) = decided {
            assert!(!decision.changes.is_empty(), "a report changes something: {:?}", decision.outcome);
            decision.changes.iter().for_each(|change| state.apply(change));
        }
    })
}

/// Snapshot of 1000 workloads as the bytes that a host gets.
pub(crate) fn snapshot() -> Work {
    let generation = Generation { epoch: 1, revision: 1 };
    let snapshot = NetworkSnapshot::new(generation, network());
    Box::new(move || {
        black_box(v1::NetworkState::from(black_box(&snapshot)).encode_to_vec());
    })
}

/// A network of 50 services with 20 instances each.
pub(crate) fn network() -> NetworkContent {
    let network = Network {
        name: parsed("shop"),
        hosts: Default::default(),
        subnet: parsed("10.42.0.0/16"),
        vni: Vni::try_from(0x10_0000_u32).expect("a VNI"),
        mtu: None,
        egress: Egress::Allow,
        subnet6: None,
        mtls: None,
    };
    let mut services: Vec<_> = (1..=SERVICES).map(service).collect();
    services.sort_by(|one, next| one.name.cmp(&next.name));
    let workloads = (0..u16::from(SERVICES) * INSTANCES).map(workload).collect();
    NetworkContent { services: services.into(), workloads, ..network.into() }
}

/// A network of which one endpoint is ready in turn, and not ready.
pub(crate) struct ChangingNetwork {
    states: [NetworkSnapshot; 2],
    /// The changes that lead to each of the states.
    changes: [NetworkChange; 2],
    instances: [Instances; 2],
    newest: usize,
}

impl ChangingNetwork {
    /// One of so many endpoints, ten to a service.
    pub(crate) fn of(endpoints: u32) -> Self {
        let mut services: Vec<_> = (0..endpoints.div_ceil(10)).map(large_service).collect();
        services.sort_by(|one, next| one.name.cmp(&next.name));
        let workloads = (0..endpoints).map(large_workload).collect();
        let content = NetworkContent { services: services.into(), workloads, ..network().network.into() };
        let ready = NetworkSnapshot::new(Generation { epoch: 1, revision: 1 }, content);
        let mut other = ready.clone();
        let changed = Workload { ready: false, ..ready.workloads[endpoints as usize / 2].clone() };
        other.workloads.set_by(|known| known.name.cmp(&changed.name), Some(changed.clone()));
        let states = [ready, other];
        let between = |before: usize, after: usize| NetworkChange::between(&states[before], &states[after]);
        let changes = [between(1, 0), between(0, 1)].map(Option::unwrap_or_default);
        let instances = [0, 1].map(|at| Instances::in_network(&states[at]));
        Self { states, changes, instances, newest: 0 }
    }

    /// The newest state.
    pub(crate) fn state(&self) -> &NetworkSnapshot {
        &self.states[self.newest]
    }

    /// The next change.
    pub(crate) fn change(&mut self) -> Transition<'_> {
        let before = self.newest;
        self.newest = 1 - before;
        Transition {
            before: &self.states[before],
            after: &self.states[self.newest],
            change: &self.changes[self.newest],
            instances: &self.instances[self.newest],
        }
    }
}

/// Service tables of the kernel after one of so many endpoints has changed.
pub(crate) fn changed_tables(endpoints: u32) -> Work {
    let mut network = ChangingNetwork::of(endpoints);
    let mut tables = ServiceTables::build(network.state());
    Box::new(move || tables = tables.follow(black_box(network.change())))
}

/// Rows of the kernel as one of so many endpoints comes and goes.
pub(crate) fn changed_rows(endpoints: u32) -> Work {
    let (with, here) = (on_hosts(endpoints), (parsed("elsewhere"), parsed("192.0.2.2")));
    let (gone, mut without) = (with.workloads[endpoints as usize / 2].clone(), with.clone());
    without.workloads.set_by(|known| known.name.cmp(&gone.name), None);
    let mut states = [Arc::new(with), Arc::new(without)];
    let mut planned = Planned::new(states[0].clone(), (&here.0, here.1), &[], 1450);
    Box::new(move || {
        states.swap(0, 1);
        planned.follow(black_box(states[0].clone()), (&here.0, here.1), &[], 1450);
    })
}

/// Rows of the kernel for so many endpoints.
pub(crate) fn rows(endpoints: u32) -> Work {
    let (snapshot, here) = (on_hosts(endpoints), (parsed("elsewhere"), parsed("192.0.2.2")));
    Box::new(move || {
        black_box(plan::desired(black_box(&snapshot), (&here.0, here.1), &[], 1450));
    })
}

/// So many endpoints, a hundred to a host.
fn on_hosts(endpoints: u32) -> NetworkSnapshot {
    let mut snapshot = ChangingNetwork::of(endpoints).state().clone();
    let node =
        |host| Node { name: parsed(&format!("host-{host}")), underlay: parsed("192.0.2.1"), mtu: None };
    snapshot.nodes = (0..endpoints.div_ceil(100)).map(node).collect();
    snapshot
}

fn large_workload(number: u32) -> Workload {
    let [a, b, c, d] = number.to_be_bytes();
    Workload {
        name: parsed(&format!("instance-{number:06}")),
        node: parsed(&format!("host-{}", number / 100)),
        address: Ipv4Addr::from_bits(0x0a00_0002 + number).into(),
        mac: MacAddr::new([2, 0, a, b, c, d]),
        service: Some(parsed(&format!("service-{}", number / 10))),
        ..workload(0)
    }
}

fn large_service(number: u32) -> Service {
    Service {
        name: parsed(&format!("service-{number}")),
        vip: Ipv4Addr::from_bits(0x0aff_0000 + number).into(),
        ..service(1)
    }
}

fn service(number: u8) -> Service {
    Service {
        name: parsed(&format!("service-{number}")),
        hosts: Default::default(),
        vip: Ipv4Addr::new(10, 42, 255, number).into(),
        ports: vec![parsed("8080/http")],
        declared: true,
        mtls: None,
        external: Default::default(),
    }
}

/// Names sort as numbers do; 100 of them are on a host.
fn workload(number: u16) -> Workload {
    let (host, [high, low]) = (number / 100, (number % 100 + 2).to_be_bytes());
    let address = Ipv4Addr::new(10, 42, u8::try_from(host).unwrap_or(u8::MAX).max(high), low);
    let [.., a, b] = number.to_be_bytes();
    Workload {
        name: parsed(&format!("instance-{number:04}")),
        network: parsed("shop"),
        node: parsed(&format!("host-{host}")),
        address: address.into(),
        mac: MacAddr::new([2, 0, 0, 0, a, b]),
        service: Some(parsed(&format!("service-{}", number / INSTANCES + 1))),
        ports: vec![parsed("8080/http")],
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    }
}

/// Value that a text stands for.
pub(crate) fn parsed<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect(text)
}
