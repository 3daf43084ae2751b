use sealane_proto::document::Document;
use sealane_proto::resource::{Node, Workload};
use sealane_proto::types::MacAddr;

use super::*;
use crate::core::{Apply, NodeRecord, RemoveNode, RemoveService, Report, Withdraw, model};

const NOW: Timestamp = Timestamp::from_unix(0);

fn run<C: Command>(state: &mut State, command: C) -> C::Outcome {
    model::run(state, command, NOW).unwrap()
}

fn network(name: &str, subnet: &str, egress: &str) -> Document {
    Document::from_json(&format!(
        r#"{{"apiVersion":"sealane.dev/v1","kind":"Network","metadata":{{"name":"{name}"}},"spec":{{"subnets":["{subnet}"],"egress":"{egress}"}}}}"#
    ))
    .unwrap()
}

fn service(network: &str, name: &str, external: &[&str]) -> ServiceDocument {
    let external: Vec<String> = external.iter().map(|at| format!(r#""{at}""#)).collect();
    let document = Document::from_json(&format!(
        r#"{{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{{"name":"{name}","network":"{network}"}},"spec":{{"ports":[{{"port":5432}}],"external":[{}]}}}}"#,
        external.join(",")
    ));
    let Document::Service(service) = document.unwrap() else { panic!("{name}") };
    service
}

/// Networks `shop` and `closed`, hosts `host-1` and `host-2`; the second may carry another network alone.
fn state() -> State {
    let mut state = State::default();
    for (name, last) in [("host-1", 1), ("host-2", 2)] {
        let underlay = format!("192.0.2.{last}").parse().unwrap();
        let node = Node { name: name.parse().unwrap(), underlay, mtu: None };
        let mut record = NodeRecord::new(node, [last; 32], NOW);
        if last == 2 {
            record.networks.insert("office".parse().unwrap());
        }
        state.apply(&Change::put(record));
    }
    let documents = vec![network("shop", "10.42.0.0/16", "allow"), network("closed", "10.43.0.0/16", "deny")];
    said(run(&mut state, Apply { documents, dry_run: false }), &["created", "created"]);
    state
}

#[track_caller]
fn said(outcome: Vec<Result<Effect, DocumentRefusal>>, expected: &[&str]) {
    let said = outcome.into_iter().map(|result| match result {
        Ok(effect) => format!("{effect:?}").to_lowercase(),
        Err(refusal) => refusal.to_string(),
    });
    let said: Vec<String> = said.collect();
    let same =
        said.len() == expected.len() && said.iter().zip(expected).all(|(said, part)| said.contains(part));
    assert!(same, "{said:?} is not {expected:?}");
}

fn apply(state: &mut State, document: Document, expected: &str) {
    said(run(state, Apply { documents: vec![document], dry_run: false }), &[expected]);
}

fn register(state: &mut State, node: &str, documents: Vec<ServiceDocument>, expected: &[&str]) {
    let command = Register { node: node.parse().unwrap(), documents, partial: false };
    let before = run(state, command.clone());
    let decision = command.decide(state, NOW).unwrap();
    assert!(decision.changes.is_empty(), "{:?} is not level-triggered", decision.changes);
    said(before, expected);
}

fn names(state: &State) -> Vec<&str> {
    state.networks.values().flat_map(|network| network.services.keys()).map(ServiceName::as_str).collect()
}

#[test]
fn external_instances_are_outside_every_network_and_reached_by_a_way_out() {
    let mut state = state();
    let table = [
        (service("shop", "db", &["192.0.2.50:5432"]), "created"),
        (service("shop", "db", &["192.0.2.50:5432"]), "unchanged"),
        (service("shop", "db", &["192.0.2.51", "192.0.2.50:5432"]), "configured"),
        (service("shop", "web", &["10.42.7.9"]), "inside network shop"),
        (service("shop", "web", &["10.43.7.9"]), "inside network closed"),
        (service("closed", "web", &["192.0.2.50"]), "lets nothing out"),
    ];
    for (document, expected) in table {
        apply(&mut state, Document::Service(document), expected);
    }
    let shop: NetworkName = "shop".parse().unwrap();
    let db = &state.networks[&shop].services[&"db".parse::<ServiceName>().unwrap()];
    assert_eq!(
        db.external.instances.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.0.2.50:5432", "192.0.2.51"]
    );
    apply(&mut state, network("shop", "10.42.0.0/16", "deny"), "service db has external instances");
}

#[test]
fn a_host_speaks_for_its_own_services_alone() {
    let mut state = state();
    apply(&mut state, Document::Service(service("shop", "declared", &["192.0.2.60"])), "created");
    let all = vec![
        service("shop", "db", &["192.0.2.50"]),
        service("shop", "declared", &["192.0.2.50"]),
        service("none", "db", &["192.0.2.50"]),
        service("shop", "inside", &[]),
        service("shop", "db", &["192.0.2.51"]),
        service("closed", "db", &["192.0.2.51"]),
    ];
    let expected = [
        "created",
        "by a document",
        "no network none",
        "spec.external is missing",
        "another document",
        "lets nothing out",
    ];
    register(&mut state, "host-1", all.clone(), &expected);
    register(&mut state, "host-2", all[..1].to_vec(), &["joined by a token for network office"]);
    // What was there before stays while it is refused; what is not spoken of any more goes, unless there may be more.
    let partial = Register { node: "host-1".parse().unwrap(), documents: vec![], partial: true };
    let _ = run(&mut state, partial);
    assert_eq!(names(&state), ["db", "declared"]);
    register(&mut state, "host-1", vec![], &[]);
    assert_eq!(names(&state), ["declared"]);
}

#[test]
fn a_document_takes_a_service_over_and_a_removed_host_takes_its_own_along() {
    let mut state = state();
    register(&mut state, "host-1", vec![service("shop", "db", &["192.0.2.50"])], &["created"]);
    let declared = Document::Service(service("shop", "db", &["192.0.2.50"]));
    apply(&mut state, declared.clone(), "configured");
    register(&mut state, "host-1", vec![service("shop", "db", &["192.0.2.51"])], &["by a document"]);
    let _ =
        run(&mut state, Withdraw { documents: vec![declared.id()], dry_run: false, ignore_not_found: false });
    register(&mut state, "host-1", vec![service("shop", "db", &["192.0.2.51"])], &["created"]);
    let remove = RemoveNode { name: "host-1".parse().unwrap(), connected: false, force: false };
    let _ = run(&mut state, remove);
    assert!(names(&state).is_empty());
}

#[test]
fn a_service_with_external_instances_ends_where_it_was_made() {
    let mut state = state();
    register(&mut state, "host-1", vec![service("shop", "db", &["192.0.2.50"])], &["created"]);
    apply(&mut state, Document::Service(service("shop", "declared", &["192.0.2.60"])), "created");
    for (name, fix) in [
        ("db", "by node host-1; hint: `sealane service deregister db.shop` there"),
        ("declared", "1 external instance; hint: `sealane delete service declared.shop`"),
    ] {
        let remove = RemoveService { network: "shop".parse().unwrap(), name: name.parse().unwrap() };
        let refused = model::run(&mut state, remove, NOW).unwrap_err().to_string();
        assert!(refused.contains(fix), "{refused}");
    }
    for ignore_not_found in [true, false] {
        let documents = vec![Document::Service(service("shop", "db", &["192.0.2.50"])).id()];
        let told = run(&mut state, Withdraw { documents, dry_run: false, ignore_not_found });
        let refused = told[0].as_ref().unwrap_err().to_string();
        assert!(
            refused.contains("by node host-1; hint: `sealane service deregister db.shop` there"),
            "{refused}"
        );
    }
    assert_eq!(names(&state), ["db", "declared"]);
}

#[test]
fn a_service_of_instances_is_no_host_s_to_register() {
    let mut state = state();
    let shop: NetworkName = "shop".parse().unwrap();
    let carry =
        crate::core::CarryNetwork { node: "host-1".parse().unwrap(), network: shop.clone(), blocks_held: 0 };
    let block = run(&mut state, carry).blocks[0].range;
    let workload = Workload {
        name: "api-1".parse().unwrap(),
        network: shop,
        node: "host-1".parse().unwrap(),
        address: block.hosts().nth(5).unwrap().into(),
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        service: Some("api".parse().unwrap()),
        ports: vec!["5432".parse().unwrap()],
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    };
    let reported = run(
        &mut state,
        Report { node: "host-1".parse().unwrap(), workloads: vec![workload], editions: Default::default() },
    );
    assert!(reported.refused.is_empty(), "{:?}", reported.refused);
    register(&mut state, "host-1", vec![service("shop", "api", &["192.0.2.50"])], &["by its instances"]);
}

#[test]
fn a_host_registers_a_thousand_services_at_most() {
    let mut state = state();
    let documents = vec![service("shop", "db", &["192.0.2.50:5432"]); 1_001];
    let outcome = run(&mut state, Register { node: "host-1".parse().unwrap(), documents, partial: false });
    assert!(outcome[0].is_ok() && matches!(outcome[999], Err(DocumentRefusal::Twice(_))));
    assert!(matches!(outcome[1_000], Err(DocumentRefusal::External(ExternalRefusal::TooMany))));
}

#[test]
fn a_host_may_say_its_own_services_again_and_nobody_elses() {
    let mut state = state();
    let node = Node { name: "host-3".parse().unwrap(), underlay: "192.0.2.3".parse().unwrap(), mtu: None };
    state.apply(&Change::put(NodeRecord::new(node, [3; 32], NOW)));
    let db = || vec![service("shop", "db", &["192.0.2.50:5432"])];
    register(&mut state, "host-1", db(), &["created"]);
    register(&mut state, "host-1", db(), &["unchanged"]);
    register(&mut state, "host-3", db(), &["registered by node host-1"]);
}
