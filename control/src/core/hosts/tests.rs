use sealane_proto::document::Document;
use sealane_proto::resource::{Node, Workload};
use sealane_proto::token::TokenSecret;
use sealane_proto::types::{MacAddr, OverlayIp};

use super::*;
use crate::core::{Apply, CarryNetwork, Command, CreateToken, JoinNode, RefusedWorkload, Report, model};

const NOW: Timestamp = Timestamp::from_unix(1_000);

fn run<C: Command>(state: &mut State, command: C) -> Result<C::Outcome, C::Refusal> {
    model::run(state, command, NOW)
}

/// Applies a document; what it is refused with.
fn apply(state: &mut State, kind: &str, metadata: &str, spec: &str) -> Option<String> {
    let text = format!(
        r#"{{"apiVersion":"sealane.dev/v1","kind":"{kind}","metadata":{{{metadata}}},"spec":{{{spec}}}}}"#
    );
    let documents = vec![Document::from_json(&text).unwrap()];
    let outcome = run(state, Apply { documents, dry_run: false }).unwrap();
    outcome.into_iter().find_map(Result::err).map(|refusal| refusal.to_string())
}

fn network(state: &mut State, hosts: &str) -> Option<String> {
    apply(state, "Network", r#""name":"pay""#, &format!(r#""subnets":["10.60.0.0/16"],"hosts":[{hosts}]"#))
}

fn service(state: &mut State, hosts: &str) -> Option<String> {
    let spec = format!(r#""ports":[{{"port":80}}],"hosts":[{hosts}]"#);
    apply(state, "Service", r#""name":"ledger","network":"pay""#, &spec)
}

fn join(state: &mut State, number: u8, networks: &[&str]) {
    let id = format!("tokento{number}");
    let token = CreateToken {
        id: id.clone(),
        hash: TokenSecret::new([7; 20]).hash(),
        ttl: std::time::Duration::from_secs(60),
        uses: Some(1),
        node: None,
        networks: networks.iter().map(|name| name.parse().unwrap()).collect(),
    };
    run(state, token).unwrap();
    let node = Node {
        name: format!("host-{number}").parse().unwrap(),
        underlay: format!("192.0.2.{number}").parse().unwrap(),
        mtu: None,
    };
    run(
        state,
        JoinNode { token: id, secret: TokenSecret::new([7; 20]), node, key: [number; 32], gone: None },
    )
    .unwrap();
}

fn carry(state: &mut State, number: u8) -> Result<String, String> {
    let (node, network) = (format!("host-{number}").parse().unwrap(), "pay".parse().unwrap());
    let carried = run(state, CarryNetwork { node, network, blocks_held: 0 });
    carried.map(|carried| carried.blocks[0].range.to_string()).map_err(|refusal| refusal.to_string())
}

/// The host reports one instance of the service, or nothing; the refusals.
fn report(state: &mut State, number: u8, address: Option<&str>) -> Vec<String> {
    let node: NodeName = format!("host-{number}").parse().unwrap();
    let workload = |address: &str| {
        let address: OverlayIp = address.parse().unwrap();
        let [.., third, last] = address.to_ipv4().octets();
        Workload {
            name: format!("ledger-{number}").parse().unwrap(),
            network: "pay".parse().unwrap(),
            node: node.clone(),
            address,
            mac: MacAddr::new([2, 0, 10, 60, third, last]),
            service: Some("ledger".parse().unwrap()),
            ports: vec!["80".parse().unwrap()],
            sidecar: true,
            ready: true,
            ready6: true,
            weight: Default::default(),
            aliases: Default::default(),
            finding: Default::default(),
        }
    };
    let workloads = address.into_iter().map(workload).collect();
    let reported =
        run(state, Report { node: node.clone(), workloads, editions: Default::default() }).unwrap();
    reported.refused.into_iter().map(|RefusedWorkload { reason, .. }| reason.to_string()).collect()
}

fn state() -> State {
    let mut state = State::default();
    assert_eq!(network(&mut state, ""), None);
    for number in 1..=3 {
        join(&mut state, number, &[]);
    }
    state
}

#[test]
fn a_network_is_carried_by_the_hosts_that_its_document_names_and_no_others() {
    let mut state = state();
    assert_eq!(network(&mut state, r#""host-1","host-3""#), None);
    carry(&mut state, 1).unwrap();
    let refusal = carry(&mut state, 2).unwrap_err();
    assert!(refusal.contains("network pay is for host-1, host-3, not for node host-2"), "{refusal}");
    assert!(refusal.contains("name the node in spec.hosts"), "{refusal}");
    assert_eq!(report(&mut state, 2, Some("10.60.9.9")), [refusal], "nor at an address of its own choice");
    assert_eq!(network(&mut state, ""), None);
    carry(&mut state, 2).unwrap();
}

#[test]
fn a_host_that_a_document_leaves_out_gives_its_addresses_back_when_nothing_runs_there() {
    let mut state = state();
    let block = carry(&mut state, 2).unwrap();
    carry(&mut state, 1).unwrap();
    assert_eq!(report(&mut state, 2, Some("10.60.0.2")), [""; 0]);
    let refusal = network(&mut state, r#""host-1""#).unwrap();
    assert!(refusal.contains("node host-2 is not named, but runs ledger-2 in network pay"), "{refusal}");
    report(&mut state, 2, None);
    assert_eq!(network(&mut state, r#""host-1""#), None);
    let pay = &state.networks[&"pay".parse().unwrap()];
    assert!(!pay.carried_by(&"host-2".parse().unwrap()));
    assert_eq!(pay.resting.keys().map(ToString::to_string).collect::<Vec<_>>(), [block]);
    assert!(
        state
            .snapshot(&"pay".parse().unwrap(), 1)
            .unwrap()
            .nodes
            .iter()
            .all(|node| node.name.as_str() == "host-1")
    );
}

#[test]
fn a_services_instances_run_on_the_hosts_that_its_document_names() {
    let mut state = state();
    carry(&mut state, 1).unwrap();
    carry(&mut state, 2).unwrap();
    assert_eq!(report(&mut state, 2, Some("10.60.1.2")), [""; 0]);
    let refusal = service(&mut state, r#""host-1""#).unwrap();
    assert!(refusal.contains("runs ledger-2 of service ledger in network pay"), "{refusal}");
    report(&mut state, 2, None);
    assert_eq!(service(&mut state, r#""host-1""#), None);
    let refused = report(&mut state, 2, Some("10.60.1.2"));
    assert!(
        refused[0].contains("service ledger in network pay is for host-1, not for node host-2"),
        "{refused:?}"
    );
    assert_eq!(report(&mut state, 1, Some("10.60.0.2")), [""; 0]);
}

#[test]
fn a_host_carries_the_networks_that_its_token_was_made_for() {
    let mut state = state();
    let other = r#""subnets":["10.61.0.0/16"]"#;
    assert_eq!(apply(&mut state, "Network", r#""name":"other""#, other), None);
    join(&mut state, 4, &["other"]);
    join(&mut state, 5, &["other", "pay"]);
    let refusal = carry(&mut state, 4).unwrap_err();
    assert!(
        refusal.contains("node host-4 joined by a token for network other, not for network pay"),
        "{refusal}"
    );
    assert_eq!(report(&mut state, 4, Some("10.60.9.9")), [refusal]);
    carry(&mut state, 5).unwrap();
}

#[test]
fn a_host_that_joins_again_by_a_narrower_token_gives_the_rest_back() {
    let mut state = state();
    let other = r#""subnets":["10.61.0.0/16"]"#;
    assert_eq!(apply(&mut state, "Network", r#""name":"other""#, other), None);
    let block = carry(&mut state, 2).unwrap();
    let token = CreateToken {
        id: "narrower".to_owned(),
        hash: TokenSecret::new([7; 20]).hash(),
        ttl: std::time::Duration::from_secs(60),
        uses: Some(1),
        node: None,
        networks: BTreeSet::from(["other".parse().unwrap()]),
    };
    run(&mut state, token).unwrap();
    let node = state.nodes[&"host-2".parse().unwrap()].node.clone();
    let (token, secret) = ("narrower".to_owned(), TokenSecret::new([7; 20]));
    run(&mut state, JoinNode { token, secret, node, key: [2; 32], gone: None }).unwrap();
    let pay = &state.networks[&"pay".parse().unwrap()];
    assert_eq!(pay.resting.keys().map(ToString::to_string).collect::<Vec<_>>(), [block]);
    assert!(!pay.carried_by(&"host-2".parse().unwrap()));
}
