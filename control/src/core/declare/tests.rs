use sealane_proto::document::DocumentId;
use sealane_proto::resource::{Block, Node, Workload};
use sealane_proto::types::ServicePort;

use super::*;
use crate::core::{NodeRecord, Report, Withdraw, WithdrawRefusal, Withdrawn};

const NOW: Timestamp = Timestamp::from_unix(0);

fn network(name: &str, subnet: &str, rest: &str) -> Document {
    Document::from_json(&format!(
        r#"{{"apiVersion":"sealane.dev/v1","kind":"Network","metadata":{{"name":"{name}"}},"spec":{{"subnets":["{subnet}"]{rest}}}}}"#
    ))
    .unwrap()
}

fn service(name: &str, ports: &[(u16, &str)]) -> Document {
    let ports: Vec<String> = ports
        .iter()
        .map(|(port, protocol)| format!(r#"{{"port":{port},"protocol":"{protocol}"}}"#))
        .collect();
    Document::from_json(&format!(
        r#"{{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{{"name":"{name}","network":"shop"}},"spec":{{"ports":[{}]}}}}"#,
        ports.join(",")
    ))
    .unwrap()
}

/// Applies documents; returns the outcome of each.
fn apply(state: &mut State, documents: &[Document]) -> Vec<String> {
    let decision = Apply { documents: documents.to_vec(), dry_run: false }.decide(state, NOW).unwrap();
    decision.changes.iter().for_each(|change| state.apply(change));
    let said = |result: Result<Effect, DocumentRefusal>| match result {
        Ok(effect) => format!("{effect:?}").to_lowercase(),
        Err(refusal) => refusal.to_string(),
    };
    decision.outcome.into_iter().map(said).collect()
}

fn withdraw(state: &mut State, documents: &[Document]) -> Vec<Result<Withdrawn, WithdrawRefusal>> {
    let documents: Vec<DocumentId> = documents.iter().map(Document::id).collect();
    let decision =
        Withdraw { documents, dry_run: false, ignore_not_found: false }.decide(state, NOW).unwrap();
    decision.changes.iter().for_each(|change| state.apply(change));
    decision.outcome
}

/// Reports instances of `api`; what is refused is said.
fn report(state: &mut State, instances: &[(&str, &str)]) -> Vec<String> {
    let node: NodeName = "host-1".parse().unwrap();
    if !state.nodes.contains_key(&node) {
        let record = Node { name: node.clone(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        state.apply(&Change::put(NodeRecord::new(record, [1; 32], NOW)));
        let block = Block { node: Some(node.clone()), range: "10.42.0.0/24".parse().unwrap() };
        state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    }
    let workloads = instances.iter().enumerate().map(|(at, (name, port))| instance(&node, at, name, port));
    let decision =
        Report { node: node.clone(), workloads: workloads.collect(), editions: Default::default() }
            .decide(state, NOW)
            .unwrap();
    decision.changes.iter().for_each(|change| state.apply(change));
    decision.outcome.refused.into_iter().map(|refused| refused.reason.to_string()).collect()
}

fn instance(node: &NodeName, at: usize, name: &str, port: &str) -> Workload {
    Workload {
        name: name.parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: node.clone(),
        address: format!("10.42.0.{}", at + 2).parse().unwrap(),
        mac: format!("02:00:00:00:00:{at:02x}").parse().unwrap(),
        service: Some("api".parse().unwrap()),
        ports: vec![port.parse().unwrap()],
        sidecar: true,
        ready: true,
        ready6: true,
        weight: sealane_proto::types::Weight::default(),
        aliases: Default::default(),
        finding: Default::default(),
    }
}

fn ports(state: &State) -> Vec<String> {
    let service = &state.networks[&"shop".parse().unwrap()].services[&"api".parse().unwrap()];
    service.ports.iter().map(ToString::to_string).collect()
}

#[test]
fn documents_are_applied_in_any_order_and_again_without_effect() {
    let mut state = State::default();
    let documents = [service("api", &[(8080, "http")]), network("shop", "10.42.0.0/16", "")];
    assert_eq!(apply(&mut state, &documents), ["created", "created"]);
    let before = state.clone();
    assert_eq!(apply(&mut state, &documents), ["unchanged", "unchanged"]);
    assert_eq!(state, before);
    let snapshot = state.snapshot(&"shop".parse().unwrap(), 1).unwrap();
    let written: Vec<Document> = snapshot.documents().collect();
    assert_eq!(apply(&mut state, &written), ["unchanged", "unchanged"]);
    let changed = [network("shop", "10.42.0.0/16", r#","egress":"deny""#), service("api", &[(8081, "auto")])];
    assert_eq!(apply(&mut state, &changed), ["configured", "configured"]);
    assert_eq!(apply(&mut state, &changed), ["unchanged", "unchanged"]);
    assert_eq!(ports(&state), ["8081"]);
}

#[test]
fn one_refusal_keeps_everything_as_it_was() {
    let mut state = State::default();
    apply(&mut state, &[network("shop", "10.42.0.0/16", "")]);
    let before = state.clone();
    let table = [
        (network("shop", "10.43.0.0/16", ""), "cannot be changed to 10.43.0.0/16"),
        (
            network("shop", "10.42.0.0/16", r#","mtu":1400"#),
            "network shop follows the MTU of the underlay, and a fixed one cannot be set later",
        ),
        (network("localhost", "10.44.0.0/16", ""), "network name localhost is reserved"),
        (network("blog", "10.50.0.0/16", ""), "another document is about network blog"),
    ];
    for (document, expected) in table {
        let said = apply(&mut state, &[network("blog", "10.50.0.0/16", ""), document]);
        assert_eq!(said[0], "created");
        assert!(said[1].contains(expected), "{said:?}");
        assert_eq!(state, before);
    }
    state.networks.clear();
    let said = apply(&mut state, &[service("api", &[(80, "auto")])]);
    assert!(said[0].contains("there is no network shop; add a document"), "{said:?}");
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let documents = vec![network("shop", "10.42.0.0/16", ""), service("api", &[(80, "auto")])];
    let decision = Apply { documents, dry_run: true }.decide(&State::default(), NOW).unwrap();
    assert_eq!(decision.outcome, [Ok(Effect::Created), Ok(Effect::Created)]);
    assert!(decision.changes.is_empty());
}

#[test]
fn instances_offer_what_is_declared_and_nothing_else() {
    let mut state = State::default();
    let shop = network("shop", "10.42.0.0/16", "");
    apply(&mut state, &[shop, service("api", &[(8080, "http"), (9090, "auto")])]);
    let refused = report(&mut state, &[("a", "8080"), ("b", "8081"), ("c", "8080/tcp"), ("d", "9090/tcp")]);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("port 8081 of service api in network shop is not declared"), "{refused:?}");
    assert!(refused[0].contains("8080/http, 9090"), "{refused:?}");
    assert!(refused[1].contains("speaks http already, not tcp"), "{refused:?}");
    assert_eq!(ports(&state), ["8080/http", "9090"]);
}

#[test]
fn a_port_that_is_declared_no_longer_is_left_by_calls_and_keeps_its_instance() {
    let mut state = State::default();
    let shop = network("shop", "10.42.0.0/16", "");
    apply(&mut state, &[shop]);
    assert!(report(&mut state, &[("a", "8080/http"), ("b", "9090")]).is_empty());
    assert_eq!(apply(&mut state, &[service("api", &[(8080, "auto")])]), ["created"]);
    assert_eq!(ports(&state), ["8080"]);
    assert!(report(&mut state, &[("a", "8080/http"), ("b", "9090")]).is_empty());
    let said = apply(&mut state, &[service("api", &[(8080, "tcp")])]);
    assert!(said[0].contains("its instance a on host-1 speaks http there"), "{said:?}");

    let api = [service("api", &[(8080, "auto")])];
    assert_eq!(withdraw(&mut state, &api), [Ok(Withdrawn::Kept("a on host-1, b on host-1".into()))]);
    assert_eq!(ports(&state), ["8080/http", "9090"]);
    let refused = withdraw(&mut state, &api)[0].clone().unwrap_err().to_string();
    assert!(refused.contains("has no document") && refused.contains("a on host-1"), "{refused}");
    assert!(report(&mut state, &[]).is_empty());
    assert_eq!(withdraw(&mut state, &api), [Ok(Withdrawn::Deleted)]);
    assert!(matches!(withdraw(&mut state, &api)[0], Err(WithdrawRefusal::NotFound(_))));
}

#[test]
fn a_network_goes_with_its_services_and_stays_while_it_is_used() {
    let mut state = State::default();
    let documents = [network("shop", "10.42.0.0/16", ""), service("api", &[(80, "auto")])];
    apply(&mut state, &documents);
    assert!(report(&mut state, &[("a", "80")]).is_empty());
    let before = state.clone();
    let outcome = withdraw(&mut state, &documents);
    assert!(matches!(outcome[0], Err(WithdrawRefusal::Network(_))), "{outcome:?}");
    assert_eq!(state, before);
    assert!(report(&mut state, &[]).is_empty());
    assert_eq!(withdraw(&mut state, &documents), [Ok(Withdrawn::Deleted), Ok(Withdrawn::Deleted)]);
    assert!(state.networks.is_empty());
}

#[test]
fn a_new_network_is_strict_and_one_that_is_there_keeps_its_mode_until_a_document_names_another() {
    let mut state = State::default();
    let mode = |state: &State| state.networks[&"shop".parse().unwrap()].network.mtls;
    let shop = |rest: &str| [network("shop", "10.42.0.0/16", rest)];
    assert_eq!(apply(&mut state, &shop("")), ["created"]);
    assert_eq!(mode(&state), Some(Mtls::Strict));
    assert_eq!(apply(&mut state, &shop(r#","mtls":"permissive""#)), ["configured"]);
    assert_eq!(apply(&mut state, &shop("")), ["unchanged"]);
    assert_eq!(mode(&state), Some(Mtls::Permissive));

    // One from before there was a choice.
    let mut old = state.clone();
    let mut before = old.networks[&"shop".parse().unwrap()].network.clone();
    before.mtls = None;
    old.apply(&Change::put(NetworkRecord { network: before, changed: 0 }));
    assert_eq!(apply(&mut old, &shop("")), ["unchanged"]);
    assert_eq!(apply(&mut old, &shop(r#","mtls":"permissive""#)), ["configured"], "now somebody has chosen");
}

#[test]
fn a_documents_modes_are_the_services_and_an_instance_cannot_ask_for_others() {
    let mut state = State::default();
    apply(&mut state, &[network("shop", "10.42.0.0/16", "")]);
    let document = |spec: &str| {
        Document::from_json(&format!(
            r#"{{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{{"name":"api","network":"shop"}},"spec":{{{spec}}}}}"#
        ))
        .unwrap()
    };
    let ports = r#""ports":[{"port":80,"mtls":"strict"},{"port":81}]"#;
    assert_eq!(apply(&mut state, &[document(ports)]), ["created"]);
    let permissive = format!(r#"{ports},"mtls":"permissive""#);
    assert_eq!(apply(&mut state, &[document(&permissive)]), ["configured"]);
    assert_eq!(apply(&mut state, &[document(&permissive)]), ["unchanged"]);
    let known = &state.networks[&"shop".parse().unwrap()];
    let modes = |port: &str| {
        let port: ServicePort = port.parse().unwrap();
        known.services[&"api".parse().unwrap()].port_mtls_in(&known.network, port.key())
    };
    assert_eq!((modes("80"), modes("81"), modes("82")), (Mtls::Strict, Mtls::Permissive, Mtls::Permissive));

    let ask = |state: &State, port: &str, mtls| {
        let node: NodeName = "host-1".parse().unwrap();
        let workload = Workload {
            ports: vec![ServicePort { mtls, ..port.parse().unwrap() }],
            ..instance(&node, 0, "api-1", port)
        };
        let decision = Report { node, workloads: vec![workload], editions: Default::default() }
            .decide(state, NOW)
            .unwrap();
        decision.outcome.refused.into_iter().map(|refused| refused.reason.to_string()).next()
    };
    report(&mut state, &[]);
    assert_eq!(ask(&state, "80", None), None);
    assert_eq!(ask(&state, "80", Some(Mtls::Strict)), None);
    let refused = ask(&state, "80", Some(Mtls::Permissive)).unwrap();
    assert!(refused.starts_with("port 80 of service api in network shop is strict by"), "{refused}");
}
