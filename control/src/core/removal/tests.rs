use sealane_proto::resource::{Edition, Node, Workload};
use sealane_proto::token::TokenSecret;
use sealane_proto::types::{MacAddr, NetworkName, NodeName};

use std::collections::BTreeSet;

use super::*;
use crate::core::{
    Affected, CarryNetwork, CreateNetwork, CreateToken, JoinNode, RemoveNetwork, RemoveService, model,
};

const NOW: Timestamp = Timestamp::from_unix(1_000);

fn apply<C: Command>(state: &mut State, command: C) -> Result<C::Outcome, C::Refusal> {
    model::run(state, command, NOW)
}

fn workload(node: &str, name: &str, address: &str, ports: &[&str]) -> Workload {
    let address: sealane_proto::types::OverlayIp = address.parse().unwrap();
    let [.., third, last] = address.to_ipv4().octets();
    Workload {
        name: name.parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: node.parse().unwrap(),
        address,
        mac: MacAddr::new([2, 0, 0, 0, third, last]),
        service: Some("api".parse().unwrap()),
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    }
}

fn create(state: &mut State, name: &NetworkName) {
    let create = CreateNetwork {
        name: name.clone(),
        hosts: Default::default(),
        subnet: "10.42.0.0/16".parse().unwrap(),
        mtu: None,
        egress: Default::default(),
        subnet6: None,
        mtls: None,
    };
    apply(state, create).unwrap();
}

/// Two hosts; the second has an instance in its block and one at an address of its own choice.
fn state() -> State {
    let mut state = State::default();
    let name = "shop".parse().unwrap();
    create(&mut state, &name);
    for (node, last) in [("host-1", 1), ("host-2", 2)] {
        let underlay = format!("192.0.2.{last}").parse().unwrap();
        let node = Node { name: node.parse().unwrap(), underlay, mtu: None };
        let name = node.name.clone();
        state.apply(&Change::put(NodeRecord::new(node, [last; 32], NOW)));
        apply(&mut state, CarryNetwork { node: name, network: "shop".parse().unwrap(), blocks_held: 0 })
            .unwrap();
    }
    let first = vec![workload("host-1", "api-1", "10.42.0.2", &["80"])];
    let second = vec![
        workload("host-2", "api-2", "10.42.0.18", &["80", "90"]),
        workload("host-2", "api-3", "10.42.9.9", &["80"]),
    ];
    for (node, workloads) in [("host-1", first), ("host-2", second)] {
        let reported = apply(
            &mut state,
            Report { node: node.parse().unwrap(), workloads, editions: Default::default() },
        )
        .unwrap();
        assert!(reported.refused.is_empty(), "{reported:?}");
    }
    state
}

fn remove(connected: bool, force: bool) -> RemoveNode {
    RemoveNode { name: "host-2".parse().unwrap(), connected, force }
}

#[test]
fn a_host_leaves_nothing_but_its_rest_and_its_revocation() {
    let mut state = state();
    apply(&mut state, remove(false, false)).unwrap();
    let shop = &state.networks[&"shop".parse().unwrap()];
    assert_eq!(shop.workloads.keys().map(ToString::to_string).collect::<Vec<_>>(), ["api-1"]);
    let ports = &shop.services[&"api".parse().unwrap()].ports;
    assert_eq!(ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["80"]);
    assert!(!shop.carried_by(&"host-2".parse().unwrap()));
    let resting: Vec<String> = shop.resting.keys().map(ToString::to_string).collect();
    assert_eq!(resting, ["10.42.0.16/28", "10.42.9.9/32"]);
    let snapshot = state.snapshot(&"shop".parse().unwrap(), 1).unwrap();
    assert_eq!(snapshot.revoked, [SerialPrefix::of_key(&[2; 32])]);
    assert!(snapshot.nodes.iter().all(|node| node.name.as_str() == "host-1"));
}

#[test]
fn a_removed_host_is_revoked_in_every_network_those_made_again_under_an_old_name_included() {
    let mut state = state();
    let (shop, pay): (NetworkName, NetworkName) = ("shop".parse().unwrap(), "pay".parse().unwrap());
    // The host has had certificates of it, and there is nobody left in it.
    for node in ["host-1", "host-2"] {
        apply(
            &mut state,
            Report { node: node.parse().unwrap(), workloads: vec![], editions: Default::default() },
        )
        .unwrap();
    }
    apply(&mut state, RemoveNetwork(shop.clone())).unwrap();
    create(&mut state, &shop);
    let mut affected = Affected::default();
    let decision = remove(false, false).decide(&state, NOW).unwrap();
    decision.changes.iter().for_each(|change| state.affects(change, &mut affected));
    decision.changes.iter().for_each(|change| state.apply(change));
    assert!(affected.networks.contains_key(&shop), "its hosts hear of it");
    create(&mut state, &pay);
    for network in [shop, pay] {
        assert_eq!(state.snapshot(&network, 1).unwrap().revoked, [SerialPrefix::of_key(&[2; 32])]);
    }
}

#[test]
fn the_token_that_a_removed_host_came_by_admits_nobody_else() {
    let mut state = state();
    let token = |id: &str, uses| CreateToken {
        id: id.into(),
        hash: TokenSecret::new([7; 20]).hash(),
        ttl: Duration::from_secs(3_600),
        uses,
        node: None,
        networks: BTreeSet::new(),
    };
    apply(&mut state, token("manymany", None)).unwrap();
    apply(&mut state, token("oneonone", Some(1))).unwrap();
    let join = |token: &str, number: u8| JoinNode {
        token: token.into(),
        secret: TokenSecret::new([7; 20]),
        node: Node {
            name: format!("host-{number}").parse().unwrap(),
            underlay: format!("192.0.2.{number}").parse().unwrap(),
            mtu: None,
        },
        key: [number; 32],
        gone: None,
    };
    apply(&mut state, join("manymany", 3)).unwrap();
    apply(&mut state, join("oneonone", 4)).unwrap();
    let remove = |number: u8| RemoveNode {
        name: format!("host-{number}").parse().unwrap(),
        connected: false,
        force: false,
    };
    assert_eq!(apply(&mut state, remove(4)).unwrap().token, None, "it was used up");
    assert_eq!(apply(&mut state, remove(3)).unwrap().token.as_deref(), Some("manymany"));
    assert_eq!(apply(&mut state, remove(2)).unwrap().token, None, "nobody knows which it was");
    let refusal = apply(&mut state, join("manymany", 9)).unwrap_err();
    assert_eq!(refusal.reason(), "token_revoked");
}

#[test]
fn a_block_at_rest_is_neither_leased_nor_taken_from() {
    let mut state = state();
    apply(&mut state, remove(false, false)).unwrap();
    let (node, network): (NodeName, NetworkName) = ("host-1".parse().unwrap(), "shop".parse().unwrap());
    let carry = CarryNetwork { node: node.clone(), network, blocks_held: 1 };
    let carried = apply(&mut state, carry).unwrap();
    assert_eq!(carried.blocks[1].range.to_string(), "10.42.0.32/28", "not 10.42.0.16/28");
    for address in ["10.42.0.23", "10.42.9.9"] {
        let workloads = vec![workload("host-1", "new", address, &["80"])];
        let reported =
            apply(&mut state, Report { node: node.clone(), workloads, editions: Default::default() })
                .unwrap();
        assert!(reported.refused[0].reason.to_string().contains("rests"), "{reported:?}");
    }
}

#[test]
fn a_host_that_works_is_removed_by_force_alone() {
    let mut state = state();
    let error = apply(&mut state, remove(true, false)).unwrap_err().to_string();
    assert!(error.contains("runs 2 workloads, such as shop/api-2, shop/api-3"), "{error}");
    assert!(error.contains("--force") && error.contains("node drain host-2"), "{error}");
    apply(&mut state, remove(true, true)).unwrap();
    let error = apply(&mut state, remove(true, true)).unwrap_err().to_string();
    assert_eq!(error, "there is no node host-2; see `sealane node ls`");
}

#[test]
fn a_removed_host_is_forgotten_after_its_certificates_have_ended() {
    let mut state = state();
    apply(&mut state, remove(false, false)).unwrap();
    let purge = PurgeRemoved { longest_lifetime: Duration::from_secs(3_600) };
    let mut purged = |seconds: u64| {
        let changes = purge.decide(&state, NOW.after(Duration::from_secs(seconds))).unwrap().changes;
        changes.iter().for_each(|change| state.apply(change));
        let snapshot = state.snapshot(&"shop".parse().unwrap(), 1).unwrap();
        (snapshot.revoked.len(), state.removed.len())
    };
    assert_eq!(purged(3_600), (1, 1));
    assert_eq!(purged(3_601), (0, 0));
}

#[test]
fn a_drained_hosts_instances_are_not_ready_to_anybody() {
    let mut state = state();
    let drain = |drained| DrainNode { name: "host-2".parse().unwrap(), drained };
    let ready = |state: &State| {
        let snapshot = state.snapshot(&"shop".parse().unwrap(), 1).unwrap();
        let ready = snapshot.workloads.iter().filter(|workload| workload.ready);
        (ready.map(|workload| workload.name.to_string()).collect::<Vec<_>>(), snapshot.drained.len())
    };
    apply(&mut state, drain(true)).unwrap();
    assert_eq!(drain(true).decide(&state, NOW).unwrap().changes, []);
    assert_eq!(ready(&state), (vec!["api-1".to_owned()], 1));
    apply(&mut state, drain(false)).unwrap();
    assert_eq!(ready(&state).0.len(), 3);
}

#[test]
fn a_service_with_instances_stays_and_a_removed_ones_address_rests() {
    let mut state = state();
    let remove = || RemoveService { network: "shop".parse().unwrap(), name: "api".parse().unwrap() };
    let error = apply(&mut state, remove()).unwrap_err().to_string();
    assert!(error.contains("has 3 instances, such as api-1 on host-1"), "{error}");
    for node in ["host-1", "host-2"] {
        apply(
            &mut state,
            Report { node: node.parse().unwrap(), workloads: vec![], editions: Default::default() },
        )
        .unwrap();
    }
    let vip = |state: &State| state.networks[&"shop".parse().unwrap()].services[&"api".parse().unwrap()].vip;
    let before = vip(&state);
    apply(&mut state, remove()).unwrap();
    assert!(apply(&mut state, remove()).unwrap_err().to_string().contains("there is no service api"));
    let workloads = vec![workload("host-1", "api-1", "10.42.0.2", &["80"])];
    apply(&mut state, Report { node: "host-1".parse().unwrap(), workloads, editions: Default::default() })
        .unwrap();
    assert_ne!(vip(&state), before);
}

#[test]
fn who_gets_the_name_of_a_removed_host_is_newer_than_all_who_had_it() {
    let mut state = state();
    let (shop, node): (NetworkName, NodeName) = ("shop".parse().unwrap(), "host-2".parse().unwrap());
    let editions = [(shop.clone(), Edition { incarnation: 700, revision: 4 })].into();
    apply(&mut state, Report { node: node.clone(), workloads: vec![], editions }).unwrap();
    let mut known = Edition { incarnation: 700, revision: 4 };
    for key in 3..6 {
        apply(&mut state, remove(false, true)).unwrap();
        // It says something to other hosts alone, and goes again.
        let (id, secret) = (format!("token00{key}"), TokenSecret::new([key; 20]));
        let create = CreateToken {
            id: id.clone(),
            hash: secret.hash(),
            ttl: Duration::from_secs(3_600),
            uses: None,
            node: None,
            networks: BTreeSet::new(),
        };
        apply(&mut state, create).unwrap();
        let host = Node { name: node.clone(), underlay: "192.0.2.2".parse().unwrap(), mtu: None };
        let join = JoinNode { token: id, secret, node: host, key: [key; 32], gone: None };
        apply(&mut state, join).unwrap();
        let told = state.networks[&shop].told[&node].edition;
        assert!(told > known, "{told:?} {known:?}");
        known = Edition { incarnation: told.incarnation, revision: 9 };
    }
}
