mod bounds;

use std::collections::BTreeSet;

use sealane_proto::resource::{Network, NetworkContent};
use sealane_proto::types::{Generation, MacAddr};

use super::*;
use crate::core::{CarryNetwork, CreateNetwork, RemoveNode, RemoveService, Report, model};

const NOW: Timestamp = Timestamp::from_unix(10_000);
/// The lifetime of the store that was lost.
const LOST: u64 = 7;

fn run<C: Command>(state: &mut State, command: C) -> C::Outcome {
    model::run(state, command, NOW).unwrap()
}

fn join(state: &mut State, number: u8) {
    let node = Node {
        name: format!("host-{number}").parse().unwrap(),
        underlay: format!("192.0.2.{number}").parse().unwrap(),
        mtu: None,
    };
    state.apply(&Change::put(NodeRecord::new(node, [number; 32], NOW)));
}

fn create(state: &mut State, name: &str, subnet: &str) {
    let (name, subnet) = (name.parse().unwrap(), subnet.parse().unwrap());
    run(
        state,
        CreateNetwork {
            name,
            hosts: Default::default(),
            subnet,
            mtu: None,
            egress: sealane_proto::resource::Egress::Allow,
            subnet6: None,
            mtls: None,
        },
    );
}

fn carry(state: &mut State, node: &str, network: &str) -> String {
    let (node, network) = (node.parse().unwrap(), network.parse().unwrap());
    let carried = run(state, CarryNetwork { node, network, blocks_held: 0 });
    carried.blocks[0].range.to_string()
}

/// `host-N` runs these workloads, each `name address service`.
fn report(state: &mut State, number: u8, network: &str, workloads: &[&str]) {
    let workload = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        let address: std::net::Ipv4Addr = words[1].parse().unwrap();
        Workload {
            name: words[0].parse().unwrap(),
            network: network.parse().unwrap(),
            node: format!("host-{number}").parse().unwrap(),
            address: address.into(),
            mac: MacAddr::new([
                2,
                0,
                address.octets()[0],
                address.octets()[1],
                address.octets()[2],
                address.octets()[3],
            ]),
            service: Some(words[2].parse().unwrap()),
            ports: vec!["80".parse().unwrap()],
            sidecar: true,
            ready: true,
            ready6: true,
            weight: Default::default(),
            aliases: Default::default(),
            finding: Default::default(),
        }
    };
    let workloads = workloads.iter().map(workload).collect();
    let reported = run(
        state,
        Report { node: format!("host-{number}").parse().unwrap(), workloads, editions: Default::default() },
    );
    assert_eq!(reported.refused, []);
}

/// As the hosts have it at this revision of the lost store.
fn seen(state: &State, network: &str, revision: u64) -> NetworkSnapshot {
    let snapshot = state.snapshot(&network.parse().unwrap(), LOST).unwrap();
    NetworkSnapshot { generation: Generation { epoch: LOST, revision }, ..snapshot }
}

fn restored(state: &State) -> State {
    let from = Generation { epoch: LOST, revision: 10 };
    let recovery = Recovery::new(from, Timestamp::from_unix(9_000), Timestamp::from_unix(9_500), state);
    State { recovery: Some(recovery), ..state.clone() }
}

fn recall(state: &mut State, node: &str, networks: &[NetworkSnapshot]) -> Vec<String> {
    let recalled = run(state, Recall { node: node.parse().unwrap(), networks: networks.to_vec() });
    let networks: BTreeSet<String> = recalled.iter().map(|taken| taken.network.to_string()).collect();
    networks.into_iter().collect()
}

/// The backup: `shop` on two hosts.
fn backup() -> State {
    let mut state = State::default();
    join(&mut state, 1);
    join(&mut state, 2);
    create(&mut state, "shop", "10.42.0.0/16");
    assert_eq!(carry(&mut state, "host-1", "shop"), "10.42.0.0/28");
    report(&mut state, 1, "shop", &["api-1 10.42.0.2 api"]);
    state
}

#[test]
fn one_host_tells_all_that_happened_in_its_networks_since_the_backup() {
    let backup = backup();
    let mut lost = backup.clone();
    // A host joins, blocks are leased, services come, workloads come and go, a network is made.
    join(&mut lost, 3);
    carry(&mut lost, "host-2", "shop");
    assert_eq!(carry(&mut lost, "host-3", "shop"), "10.42.0.32/28");
    report(&mut lost, 2, "shop", &["db-1 10.42.0.18 db"]);
    report(&mut lost, 3, "shop", &["api-3 10.42.0.34 api"]);
    report(&mut lost, 1, "shop", &["api-4 10.42.0.4 api"]);
    create(&mut lost, "new", "10.43.0.0/16");
    carry(&mut lost, "host-1", "new");

    let mut state = restored(&backup);
    let told = [seen(&lost, "shop", 20), seen(&lost, "new", 21)];
    assert_eq!(recall(&mut state, "host-1", &told), ["new", "shop"]);
    for network in ["shop", "new"] {
        let (has, had) = (seen(&state, network, 1), seen(&lost, network, 1));
        assert_eq!(has.content, had.content);
    }
    let third = &state.nodes[&"host-3".parse().unwrap()];
    assert!(!third.is_admitted() && state.nodes[&"host-1".parse().unwrap()].is_admitted());
    assert!(recall(&mut state, "host-2", &told).is_empty(), "it is here already");
}

#[test]
fn a_host_that_has_reported_knows_best_what_it_runs() {
    let backup = backup();
    let mut lost = backup.clone();
    carry(&mut lost, "host-2", "shop");
    report(&mut lost, 2, "shop", &["db-1 10.42.0.18 db"]);
    let mut state = restored(&backup);
    report(&mut state, 1, "shop", &["api-9 10.42.0.9 api"]);
    report(&mut lost, 1, "shop", &["api-1 10.42.0.2 api", "api-2 10.42.0.3 api"]);
    recall(&mut state, "host-2", &[seen(&lost, "shop", 20)]);
    let shop = &state.networks[&"shop".parse().unwrap()];
    let names: Vec<&str> = shop.workloads.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["api-9", "db-1"]);
}

#[test]
fn what_is_older_than_the_backup_or_of_another_mesh_says_nothing() {
    let backup = backup();
    let mut other = backup.clone();
    report(&mut other, 1, "shop", &[]);
    create(&mut other, "gone", "10.43.0.0/16");
    let foreign = |revision| NetworkSnapshot {
        generation: Generation { epoch: 99, revision },
        ..seen(&other, "shop", revision)
    };
    let mut state = restored(&backup);
    for told in [foreign(20), seen(&other, "shop", 10), seen(&other, "gone", 10)] {
        assert!(recall(&mut state, "host-1", &[told]).is_empty());
    }
    assert_eq!(state, restored(&backup));
    let mut never = backup.clone();
    assert!(recall(&mut never, "host-1", &[seen(&other, "gone", 20)]).is_empty(), "not restored");
    let late = Recall { node: "host-1".parse().unwrap(), networks: vec![seen(&other, "gone", 20)] };
    let late = late.decide(&state, Timestamp::from_unix(9_500 + 24 * 3_600)).unwrap();
    assert_eq!(late.changes, [], "the time is over");
}

#[test]
fn what_contradicts_the_store_is_left_out() {
    let backup = backup();
    let mut lost = backup.clone();
    create(&mut lost, "new", "10.43.0.0/16");
    carry(&mut lost, "host-1", "new");
    carry(&mut lost, "host-2", "shop");
    let mut state = restored(&backup);
    // Since the restoration somebody else has the subnet, and the block.
    create(&mut state, "other", "10.43.0.0/16");
    let block = Block { node: Some("host-1".parse().unwrap()), range: "10.42.0.16/28".parse().unwrap() };
    state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    let before = state.networks.clone();
    let mut wrong = seen(&lost, "shop", 20);
    wrong.network.subnet = "10.99.0.0/16".parse().unwrap();
    assert!(recall(&mut state, "host-2", &[seen(&lost, "new", 20), wrong]).is_empty());
    assert!(recall(&mut state, "host-2", &[seen(&lost, "shop", 20)]).is_empty());
    assert_eq!(state.networks, before);
}

#[test]
fn a_block_of_a_host_that_is_not_back_yet_is_leased_to_nobody() {
    let backup = backup();
    let mut lost = backup.clone();
    assert_eq!(carry(&mut lost, "host-2", "shop"), "10.42.0.16/28");
    let mut state = restored(&backup);
    join(&mut state, 4);
    assert_eq!(carry(&mut state, "host-4", "shop"), "10.42.128.0/28");
    recall(&mut state, "host-2", &[seen(&lost, "shop", 20)]);
    assert_eq!(carry(&mut state, "host-2", "shop"), "10.42.0.16/28", "it has its own again");
}

#[test]
fn a_host_by_hearsay_that_is_removed_stays_so_whoever_tells_of_it() {
    let backup = backup();
    let mut lost = backup.clone();
    join(&mut lost, 3);
    carry(&mut lost, "host-2", "shop");
    carry(&mut lost, "host-3", "shop");
    report(&mut lost, 3, "shop", &["api-3 10.42.0.34 api"]);
    let mut state = restored(&backup);
    recall(&mut state, "host-1", &[seen(&lost, "shop", 20)]);
    let name: NodeName = "host-3".parse().unwrap();
    let remove = || RemoveNode { name: name.clone(), connected: false, force: false };
    assert_eq!(run(&mut state, remove()).serials, None, "nobody knows its key");
    assert!(state.removed.is_empty());
    let shop = |state: &State| state.networks[&"shop".parse().unwrap()].clone();
    assert!(shop(&state).workloads.keys().all(|name| name.as_str() != "api-3"));

    report(&mut lost, 3, "shop", &["api-3 10.42.0.34 api", "api-4 10.42.0.35 api"]);
    recall(&mut state, "host-2", &[seen(&lost, "shop", 30)]);
    assert!(!state.nodes.contains_key(&name));
    assert!(!shop(&state).carried_by(&name) && shop(&state).workloads_of(&name).count() == 0);
}

#[test]
fn nobody_shuts_out_what_others_have_to_tell() {
    let backup = backup();
    let mut lost = backup.clone();
    carry(&mut lost, "host-2", "shop");
    report(&mut lost, 1, "shop", &["api-1 10.42.0.2 api", "v-1 10.42.0.3 v"]);
    let mut state = restored(&backup);
    let mut empty = seen(&lost, "shop", 1 << 62);
    empty.content = NetworkContent {
        nodes: vec![],
        blocks: vec![],
        services: Default::default(),
        workloads: Default::default(),
        ..empty.content
    };
    assert_eq!(recall(&mut state, "host-2", &[empty]), [""; 0]);
    let shop = |state: &State| state.networks[&"shop".parse().unwrap()].clone();
    assert_eq!(shop(&state).workloads.len(), 1, "what is known of others stays");
    assert_eq!(recall(&mut state, "host-1", &[seen(&lost, "shop", 20)]), ["shop"]);
    let names: Vec<String> = shop(&state).workloads.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["api-1", "v-1"]);
    assert!(shop(&state).services.contains_key(&"v".parse().unwrap()));
}

#[test]
fn a_service_is_brought_back_where_it_takes_nobodys_place() {
    let backup = backup();
    let known = seen(&backup, "shop", 20).services[0].clone();
    let (taken, free) = (known.vip.to_string(), "10.42.255.77");
    for (name, vip, comes) in [
        ("web", free, true),
        ("web", &taken, false),
        ("api", free, false),
        ("web", "10.42.0.9", false),
        ("web", "10.42.7.9", false),
        ("web", "10.42.255.255", false),
        ("web", "10.99.255.77", false),
    ] {
        let mut state = restored(&backup);
        let mut told = seen(&backup, "shop", 20);
        let (name, vip) = (name.parse().unwrap(), vip.parse().unwrap());
        told.content.services = [Service { name, vip, ..known.clone() }].into();
        let said = run(&mut state, Recall { node: "host-2".parse().unwrap(), networks: vec![told.clone()] });
        let service = &told.services[0];
        let there = state.networks[&"shop".parse().unwrap()].services.get(&service.name) == Some(service);
        assert_eq!(there, comes, "{service:?}");
        let words = format!("service web at {}", service.vip);
        assert_eq!(said.iter().any(|taken| taken.what == words), comes, "{said:?}");
    }
}

#[test]
fn what_is_known_of_a_host_stays_beside_what_another_one_tells_of_it() {
    let backup = backup();
    let mut lost = backup.clone();
    carry(&mut lost, "host-2", "shop");
    report(&mut lost, 1, "shop", &["v-1 10.42.0.3 v"]);
    let mut state = restored(&backup);
    assert_eq!(recall(&mut state, "host-2", &[seen(&lost, "shop", 20)]), ["shop"]);
    let shop = &state.networks[&"shop".parse().unwrap()];
    let names: Vec<String> = shop.workloads.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["api-1", "v-1"]);
}

/// Tells of one more block in the words of `teller`; answers whether it is taken.
fn takes_block(state: &State, teller: &str, holder: &str, range: &str) -> bool {
    let mut state = state.clone();
    let mut told = seen(&state, "shop", 20);
    let range = range.parse().unwrap();
    told.content.blocks = vec![Block { node: Some(holder.parse().unwrap()), range }];
    recall(&mut state, teller, &[told]);
    state.networks[&"shop".parse().unwrap()].blocks.contains_key(&range)
}

#[test]
fn a_block_is_brought_back_that_is_one_of_the_networks_and_nobody_elses() {
    let mut backup = backup();
    report(&mut backup, 1, "shop", &["api-1 10.42.0.2 api", "far-1 10.42.7.5 api"]);
    let state = restored(&backup);
    for (holder, range, comes) in [
        ("host-2", "10.42.9.0/24", true),
        ("host-2", "10.42.9.0/25", true),
        ("host-2", "10.42.9.7/32", true),
        ("host-2", "10.42.9.7/24", false),
        ("host-2", "10.43.9.0/24", false),
        ("host-2", "10.42.0.0/24", false),
        ("host-2", "10.42.0.4/32", false),
        ("host-2", "10.42.7.0/24", false),
        ("host-1", "10.42.7.0/24", true),
    ] {
        assert_eq!(takes_block(&state, holder, holder, range), comes, "{holder} {range}");
    }
}

#[test]
fn the_last_quarter_of_a_networks_addresses_is_for_hosts_that_have_none() {
    let mut state = State::default();
    (1..4).for_each(|number| join(&mut state, number));
    create(&mut state, "shop", "10.42.0.0/26");
    carry(&mut state, "host-1", "shop");
    carry(&mut state, "host-2", "shop");
    let mut state = restored(&state);
    assert!(takes_block(&state, "host-1", "host-1", "10.42.0.32/27"));
    let third = Block { node: Some("host-1".parse().unwrap()), range: "10.42.0.32/27".parse().unwrap() };
    state.apply(&Change::put_in(&"shop".parse().unwrap(), third));
    assert!(!takes_block(&state, "host-1", "host-1", "10.42.0.16/28"));
    assert!(takes_block(&state, "host-3", "host-3", "10.42.0.16/28"));
}

#[test]
fn a_host_is_believed_about_itself_and_others_until_they_speak() {
    let mut state = restored(&backup());
    assert!(takes_block(&state, "host-2", "host-1", "10.42.9.0/24"));
    report(&mut state, 1, "shop", &["api-1 10.42.0.2 api"]);
    assert!(!takes_block(&state, "host-2", "host-1", "10.42.9.0/24"), "it has spoken");
    assert!(takes_block(&state, "host-1", "host-1", "10.42.9.0/24"));
    let mut record = state.nodes[&"host-2".parse().unwrap()].clone();
    record.networks.insert("office".parse().unwrap());
    state.apply(&Change::put(record));
    assert!(!takes_block(&state, "host-1", "host-2", "10.42.9.0/24"), "it may not carry the network");
}

#[test]
fn what_could_not_be_created_is_not_brought_back() {
    let backup = backup();
    let mut lost = backup.clone();
    create(&mut lost, "new", "10.43.0.0/16");
    carry(&mut lost, "host-1", "new");
    let told = seen(&lost, "new", 20);
    let network = |change: fn(&mut Network)| {
        let mut told = told.clone();
        change(&mut told.network);
        told
    };
    let cases = [
        network(|network| network.name = "localhost".parse().unwrap()),
        network(|network| network.subnet = "192.0.2.0/24".parse().unwrap()),
        network(|network| {
            network.mtu = sealane_proto::types::Mtu::try_from(600).ok();
            network.subnet6 = "fd42::/64".parse().ok();
        }),
        network(|network| network.vni = sealane_proto::types::Vni::try_from(7).unwrap()),
    ];
    for case in cases {
        let mut state = restored(&backup);
        assert_eq!(recall(&mut state, "host-1", std::slice::from_ref(&case)), [""; 0], "{:?}", case.network);
    }
    let mut state = restored(&backup);
    assert_eq!(recall(&mut state, "host-1", &[told]), ["new"]);
}

#[test]
fn nobody_tells_all_addresses_away_nor_hosts_into_networks() {
    let backup = backup();
    let mut lost = backup.clone();
    for third in 0..=255_u8 {
        let range = format!("10.42.{third}.0/24").parse().unwrap();
        let block = Block { node: Some("host-2".parse().unwrap()), range };
        lost.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    }
    let mut told = seen(&lost, "shop", 20);
    told.nodes.push(Node {
        name: "host-9".parse().unwrap(),
        underlay: "10.42.7.7".parse().unwrap(),
        mtu: None,
    });
    let mut state = restored(&backup);
    recall(&mut state, "host-2", &[told]);
    let shop = &state.networks[&"shop".parse().unwrap()];
    assert!(shop.blocks.len() <= 193, "{}", shop.blocks.len());
    assert!(!state.nodes.contains_key(&"host-9".parse().unwrap()), "it would be at a workload's address");
}

#[test]
fn a_service_that_was_removed_since_does_not_come_back_to_an_address_that_rests() {
    let lost = backup();
    let (network, name) = ("shop".parse().unwrap(), "api".parse().unwrap());
    let mut state = restored(&lost);
    let vip = state.networks[&network].services[&name].vip;
    report(&mut state, 1, "shop", &[]);
    // It may have gone with its last instance.
    let _ = model::run(&mut state, RemoveService { network, name }, NOW);
    recall(&mut state, "host-2", &[seen(&lost, "shop", 20)]);
    let shop = &state.networks[&"shop".parse().unwrap()];
    assert!(shop.resting_at(vip).is_some() && shop.services.is_empty(), "{:?}", shop.services);
}

#[test]
fn a_network_that_has_grown_since_the_backup_is_that_large_again() {
    let backup = backup();
    let subnet = |state: &State| state.networks[&"shop".parse().unwrap()].network.subnet.to_string();
    let grow = |state: &mut State, subnet: &str| {
        let (name, subnet) = ("shop".parse().unwrap(), subnet.parse().unwrap());
        run(state, crate::core::GrowNetwork { name, subnet });
    };
    let mut lost = backup.clone();
    grow(&mut lost, "10.42.0.0/15");
    let mut state = restored(&backup);
    assert_eq!(recall(&mut state, "host-1", &[seen(&lost, "shop", 20)]), ["shop"]);
    assert_eq!(subnet(&state), "10.42.0.0/15");
    // A host that has not heard of it tells of what it knows.
    let mut late = backup.clone();
    report(&mut late, 1, "shop", &["api-1 10.42.0.2 api", "api-2 10.42.0.3 api"]);
    assert_eq!(recall(&mut state, "host-1", &[seen(&late, "shop", 19)]), ["shop"]);
    assert_eq!(subnet(&state), "10.42.0.0/15");
    // Where it would be in somebody's way, nothing of it is taken.
    let mut state = restored(&backup);
    create(&mut state, "office", "10.43.0.0/16");
    assert_eq!(recall(&mut state, "host-1", &[seen(&lost, "shop", 20)]), [""; 0]);
    assert_eq!(subnet(&state), "10.42.0.0/16");
}

#[test]
fn what_a_host_has_given_back_since_the_backup_is_not_its_own_again() {
    let mut backup = backup();
    let shop: NetworkName = "shop".parse().unwrap();
    for (range, number) in [("10.42.4.0/24", 1), ("10.42.5.0/24", 1), ("10.42.6.0/24", 2)] {
        let node = Some(format!("host-{number}").parse().unwrap());
        backup.apply(&Change::put_in(&shop, Block { node, range: range.parse().unwrap() }));
    }
    let mut lost = backup.clone();
    let give = |state: &mut State, range: &str, left: &[&str]| {
        state.apply(&Change::remove_in::<Block>(&shop, range.parse().unwrap()));
        for left in left {
            let block = Block { node: Some("host-1".parse().unwrap()), range: left.parse().unwrap() };
            state.apply(&Change::put_in(&shop, block));
        }
    };
    give(&mut lost, "10.42.4.0/24", &[]);
    give(&mut lost, "10.42.5.0/24", &["10.42.5.0/26", "10.42.5.128/25"]);
    give(&mut lost, "10.42.6.0/24", &[]);
    let mut state = restored(&backup);
    recall(&mut state, "host-1", &[seen(&lost, "shop", 20)]);
    let blocks = &state.networks[&shop].blocks;
    let own = |node: &str| {
        let node = node.parse().unwrap();
        blocks.index().of(&node).map(|range| range.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(own("host-1"), ["10.42.0.0/28", "10.42.5.0/26", "10.42.5.128/25"]);
    assert_eq!(own("host-2"), ["10.42.6.0/24"], "of others a host says nothing");
}
