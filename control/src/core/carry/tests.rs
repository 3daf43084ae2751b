use sealane_proto::resource::{Egress, Node, Service, Workload};
use sealane_proto::types::{MacAddr, OverlayIp};

use super::*;
use crate::core::room::AHEAD;
use crate::core::{CreateNetwork, NodeRecord, Rest, model};

const NOW: Timestamp = Timestamp::from_unix(0);

fn state(subnet: &str) -> State {
    let mut state = State::default();
    for (name, last) in [("host-1", 1), ("host-2", 2)] {
        let underlay = format!("192.0.2.{last}").parse().unwrap();
        let node = Node { name: name.parse().unwrap(), underlay, mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [last; 32], NOW)));
    }
    let name = "shop".parse().unwrap();
    let create = CreateNetwork {
        name,
        hosts: Default::default(),
        subnet: subnet.parse().unwrap(),
        mtu: None,
        egress: Egress::Allow,
        subnet6: None,
        mtls: None,
    };
    create.decide(&state, NOW).unwrap().changes.iter().for_each(|change| state.apply(change));
    state
}

fn carry(state: &mut State, node: &str, blocks_held: usize) -> Result<Vec<String>, CarryRefusal> {
    let (node, network) = (node.parse().unwrap(), "shop".parse().unwrap());
    let carried = model::run(state, CarryNetwork { node, network, blocks_held }, NOW)?;
    Ok(carried.blocks.iter().map(|block| block.range.to_string()).collect())
}

#[test]
fn a_block_is_leased_only_beyond_those_the_host_knows() {
    let mut state = state("10.42.0.0/16");
    assert_eq!(carry(&mut state, "host-1", 0).unwrap(), ["10.42.0.0/24"]);
    assert_eq!(carry(&mut state, "host-1", 0).unwrap(), ["10.42.0.0/24"]);
    assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.1.0/24"]);
    assert_eq!(carry(&mut state, "host-1", 1).unwrap(), ["10.42.0.0/24", "10.42.2.0/24"]);
}

#[test]
fn exhaustion_names_the_network_and_its_use() {
    let mut state = state("10.42.0.0/26");
    carry(&mut state, "host-1", 0).unwrap();
    let services: Vec<_> = (1..4).map(|index| format!("10.42.0.{}/28", index * 16)).collect();
    for range in services {
        let block = Block { node: None, range: range.parse().unwrap() };
        state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    }
    let error = carry(&mut state, "host-2", 0).unwrap_err().to_string();
    assert!(error.contains("network shop (10.42.0.0/26)"), "{error}");
    assert!(error.contains("4 of 4 blocks") && error.contains("0 addresses are used"), "{error}");
}

#[test]
fn whatever_a_host_says_that_it_holds_it_gets_few_blocks_ahead_of_what_it_uses() {
    let mut state = state("10.42.0.0/20");
    let greedy = |state: &mut State| {
        let granted = (0..100).take_while(|_| carry(state, "host-1", usize::MAX).is_ok());
        let _ = granted.count();
        state.networks[&"shop".parse().unwrap()].blocks.len()
    };
    assert_eq!(greedy(&mut state), AHEAD);
    let error = carry(&mut state, "host-1", usize::MAX).unwrap_err().to_string();
    assert!(error.contains("node host-1 holds 4 blocks of network shop, of whose 256 addresses"), "{error}");
    assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.1.0/26"]);
    // Half of two blocks are used: they are paid for.
    for last in 2..66_u8 {
        let address = OverlayIp::from(std::net::Ipv4Addr::new(10, 42, 0, last));
        state.apply(&Change::put_in(&"shop".parse().unwrap(), workload(address)));
    }
    assert_eq!(greedy(&mut state), AHEAD + 2 + 1);
}

#[test]
fn the_last_blocks_are_kept_for_hosts_that_have_none() {
    let mut state = state("10.42.0.0/26");
    for held in 0..3 {
        carry(&mut state, "host-1", held).unwrap();
    }
    let error = carry(&mut state, "host-1", 3).unwrap_err().to_string();
    assert!(error.contains("the last free block of network shop is kept"), "{error}");
    assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.0.48/28"]);
}

#[test]
fn the_last_blocks_are_counted_in_words() {
    // Eight blocks, of which one host has six and uses two.
    let mut state = state("10.42.0.0/25");
    for held in 0..3 {
        carry(&mut state, "host-1", held).unwrap();
    }
    (2..19).for_each(|last| put_workload(&mut state, last));
    for held in 3..6 {
        carry(&mut state, "host-1", held).unwrap();
    }
    let node = Node { name: "host-3".parse().unwrap(), underlay: "192.0.2.3".parse().unwrap(), mtu: None };
    state.apply(&Change::put(NodeRecord::new(node, [3; 32], NOW)));
    let error = carry(&mut state, "host-1", 6).unwrap_err().to_string();
    assert!(error.contains("the last 2 free blocks of network shop are kept"), "{error}");
    assert!(error.contains("and node host-1 holds 6"), "{error}");
}

fn put_workload(state: &mut State, last: u8) {
    let address = OverlayIp::from(std::net::Ipv4Addr::new(10, 42, 0, last));
    state.apply(&Change::put_in(&"shop".parse().unwrap(), workload(address)));
}

#[test]
fn exhaustion_counts_what_rests_and_what_is_used() {
    let mut state = state("10.42.0.0/26");
    let shop = "shop".parse().unwrap();
    carry(&mut state, "host-1", 0).unwrap();
    put_workload(&mut state, 2);
    let service = Service {
        name: "api".parse().unwrap(),
        hosts: Default::default(),
        vip: "10.42.0.20".parse().unwrap(),
        ports: vec![],
        declared: true,
        mtls: None,
        external: Default::default(),
    };
    state.apply(&Change::put_in(&shop, service));
    for range in ["10.42.0.16/28", "10.42.0.32/28", "10.42.0.48/28", "10.42.0.3/32"] {
        let rest = Rest { range: range.parse().unwrap(), after: 0, since: NOW };
        state.apply(&Change::put_in(&shop, rest));
    }
    let error = carry(&mut state, "host-2", 0).unwrap_err().to_string();
    assert!(error.contains("1 of 4 blocks are held") && error.contains("2 addresses are used"), "{error}");
    assert!(error.contains(", 3 rest until every host knows"), "{error}");
}

fn workload(address: OverlayIp) -> Workload {
    let last = address.to_ipv4().octets()[3];
    Workload {
        name: format!("w-{last}").parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: "host-1".parse().unwrap(),
        address,
        mac: MacAddr::new([2, 0, 0, 0, 0, last]),
        service: None,
        ports: vec![],
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
    }
}

#[test]
fn unknown_networks_and_hosts_are_named() {
    let mut state = state("10.42.0.0/16");
    assert!(carry(&mut state, "host-9", 0).unwrap_err().to_string().contains("node host-9"));
    let network = "shpo".parse().unwrap();
    let near = CarryNetwork { node: "host-1".parse().unwrap(), network, blocks_held: 0 };
    let error = near.decide(&state, NOW).unwrap_err().to_string();
    assert!(error.contains("no network shpo (did you mean shop?); create it"), "{error}");
    state.networks.clear();
    assert!(carry(&mut state, "host-1", 0).unwrap_err().to_string().contains("no network shop; create it"));
}
