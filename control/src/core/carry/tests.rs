use sealane_proto::resource::{Egress, Node, Service};
use sealane_proto::types::OverlayIp;

use super::*;
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
    assert_eq!(carry(&mut state, "host-1", 0).unwrap(), ["10.42.0.0/28"]);
    assert_eq!(carry(&mut state, "host-1", 0).unwrap(), ["10.42.0.0/28"]);
    assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.0.16/28"]);
    assert_eq!(carry(&mut state, "host-1", 1).unwrap(), ["10.42.0.0/28", "10.42.0.32/28"]);
}

#[test]
fn a_hosts_next_block_is_as_large_as_what_it_has() {
    let mut state = state("10.42.0.0/16");
    let sizes = (0..7).map(|held| {
        let blocks = carry(&mut state, "host-1", held).unwrap();
        let sizes = blocks.iter().map(|block| ipam::size(block.parse().unwrap()));
        sizes.sum::<usize>()
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [16, 32, 64, 128, 256, 512, 1_024]);
    let error = carry(&mut state, "host-1", 7).unwrap_err().to_string();
    assert!(error.contains("node host-1 holds 1022 addresses of network shop, of which"), "{error}");
    assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.4.0/28"]);
}

#[test]
fn a_network_of_65536_addresses_has_4000_hosts() {
    let mut state = state("10.42.0.0/16");
    let shop: NetworkName = "shop".parse().unwrap();
    for number in 3..=4_000_u16 {
        let name: NodeName = format!("host-{number}").parse().unwrap();
        let underlay = format!("192.0.{}.{}", number / 250, 1 + number % 250).parse().unwrap();
        let node = Node { name: name.clone(), underlay, mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [7; 32], NOW)));
        let range = Ipv4Net::new(std::net::Ipv4Addr::from_bits(0x0a2a_0000 + u32::from(number - 1) * 16), 28);
        let block = Block { node: Some(name), range: range.unwrap() };
        state.apply(&Change::put_in(&shop, block));
    }
    for host in ["host-1", "host-2"] {
        carry(&mut state, host, 0).unwrap();
    }
    assert_eq!(state.networks[&shop].blocks.index().hosts().count(), 4_000);
    let more = carry(&mut state, "host-1", 1).unwrap();
    assert_eq!(more.len(), 2, "there are 1,536 left, of which a cell is kept for services");
}

#[test]
fn small_networks_serve_as_many_hosts_as_they_have_addresses() {
    let mut state = state("10.42.0.0/28");
    for number in 3..=14_u8 {
        let name: NodeName = format!("host-{number}").parse().unwrap();
        let underlay = format!("192.0.2.{number}").parse().unwrap();
        state.apply(&Change::put(NodeRecord::new(Node { name, underlay, mtu: None }, [number; 32], NOW)));
    }
    for number in 1..=13_u8 {
        let blocks = carry(&mut state, &format!("host-{number}"), 0).unwrap();
        assert_eq!(blocks, [format!("10.42.0.{}/32", number + 1)]);
    }
    let error = carry(&mut state, "host-14", 0).unwrap_err().to_string();
    assert!(error.contains("network shop (10.42.0.0/28) has no address left: its hosts hold 13"), "{error}");
}

#[test]
fn exhaustion_names_the_network_and_its_use() {
    let mut state = state("10.42.0.0/26");
    carry(&mut state, "host-1", 0).unwrap();
    for range in ["10.42.0.3/32", "10.42.0.4/30", "10.42.0.8/29", "10.42.0.16/28", "10.42.0.32/27"] {
        let block = Block { node: None, range: range.parse().unwrap() };
        state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    }
    let error = carry(&mut state, "host-2", 0).unwrap_err().to_string();
    assert!(error.contains("network shop (10.42.0.0/26)"), "{error}");
    assert!(error.contains("its hosts hold 1 and its services 61, 0 are used"), "{error}");
}

#[test]
fn whatever_a_host_says_that_it_holds_it_gets_few_addresses_ahead_of_what_it_uses() {
    let mut state = state("10.42.0.0/20");
    let greedy = |state: &mut State| {
        let granted = (0..100).take_while(|_| carry(state, "host-1", usize::MAX).is_ok());
        let _ = granted.count();
        room::held(&state.networks[&"shop".parse().unwrap()], &"host-1".parse().unwrap())
    };
    assert_eq!(greedy(&mut state), 62, "of 64, with the network's own and the gateway's");
    let error = carry(&mut state, "host-1", usize::MAX).unwrap_err().to_string();
    assert!(error.contains("holds 62 addresses of network shop, of which its workloads use 0;"), "{error}");
    assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.0.64/28"]);
    (2..12).for_each(|last| put_workload(&mut state, last));
    assert_eq!(greedy(&mut state), 62, "ten more would be less than the smallest block");
    (12..16).for_each(|last| put_workload(&mut state, last));
    (32..64).for_each(|last| put_workload(&mut state, last));
    assert_eq!(greedy(&mut state), 62 + 32 + 16, "of 46 + 64");
}

#[test]
fn nobody_gets_addresses_ahead_of_their_use_when_half_are_taken() {
    let mut state = state("10.42.0.0/26");
    let ahead = |state: &mut State, held: usize| {
        let (node, network) = ("host-1".parse().unwrap(), "shop".parse().unwrap());
        let carry = CarryNetwork { node, network, blocks_held: held };
        model::run(state, LeaseAhead(carry), NOW).map(|carried| carried.blocks.len())
    };
    carry(&mut state, "host-1", 0).unwrap();
    assert_eq!(ahead(&mut state, 0).unwrap(), 1, "it has more than it knows");
    assert_eq!(ahead(&mut state, 1).unwrap(), 2);
    let block = Block { node: Some("host-2".parse().unwrap()), range: "10.42.0.16/28".parse().unwrap() };
    state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    let rest = Rest { range: "10.42.0.32/27".parse().unwrap(), after: 0, since: NOW };
    state.apply(&Change::put_in(&"shop".parse().unwrap(), rest));
    let error = ahead(&mut state, 2).unwrap_err().to_string();
    assert_eq!(error, "half of the addresses of network shop are taken, and node host-1 has free ones");
    assert_eq!(carry(&mut state, "host-1", 2).unwrap().len(), 3);
}

#[test]
fn the_last_addresses_are_kept_for_hosts_that_have_none() {
    let mut state = state("10.42.0.0/28");
    let service = Block { node: None, range: "10.42.0.8/29".parse().unwrap() };
    state.apply(&Change::put_in(&"shop".parse().unwrap(), service));
    (2..6).for_each(|last| put_workload(&mut state, last));
    for held in 0..5 {
        carry(&mut state, "host-1", held).unwrap();
    }
    assert_eq!(room::held(&state.networks[&"shop".parse().unwrap()], &"host-1".parse().unwrap()), 5);
    let error = carry(&mut state, "host-1", 5).unwrap_err().to_string();
    assert!(
        error.contains("the last free address of network shop is kept for hosts and services that have none"),
        "{error}"
    );
    assert!(error.contains("and node host-1 holds 5"), "{error}");
    assert_eq!(carry(&mut state, "host-2", 0).unwrap(), ["10.42.0.7/32"]);
}

#[test]
fn the_last_addresses_are_counted_in_words() {
    let refusal = CarryRefusal::Kept {
        network: "shop".parse().unwrap(),
        subnet: "10.42.0.0/28".parse().unwrap(),
        free: 2,
        node: "host-1".parse().unwrap(),
        held: 6,
    };
    let said = refusal.to_string();
    assert!(said.contains("the last 2 free addresses of network shop are kept"), "{said}");
    assert!(said.contains("`sealane network grow shop --subnet 10.42.0.0/27`"), "{said}");
}

fn put_workload(state: &mut State, last: u8) {
    let address = OverlayIp::from(std::net::Ipv4Addr::new(10, 42, 0, last));
    state.apply(&Change::put_in(&"shop".parse().unwrap(), model::workload(address)));
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
    let ranges = ["10.42.0.3/32", "10.42.0.4/30", "10.42.0.8/29", "10.42.0.16/28", "10.42.0.32/27"];
    for range in ranges {
        let rest = Rest { range: range.parse().unwrap(), after: 0, since: NOW };
        state.apply(&Change::put_in(&shop, rest));
    }
    let error = carry(&mut state, "host-2", 0).unwrap_err().to_string();
    assert!(error.contains("its hosts hold 1 and its services 0") && error.contains("2 are used"), "{error}");
    assert!(error.contains(", 61 rest until every host knows"), "{error}");
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
