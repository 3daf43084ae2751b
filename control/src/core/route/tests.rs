//! Routes as documents declare them, and their status.

use sealane_proto::document::{Document, DocumentId};
use serde_json::{Value, json};

use super::*;
use crate::core::{Apply, Services, Withdraw, Withdrawn, model};

const NOW: Timestamp = Timestamp::from_unix(1_000);
const LATER: Timestamp = Timestamp::from_unix(2_000);

impl Services for State {
    fn service(
        &self,
        network: &NetworkName,
        name: &sealane_proto::types::ServiceName,
    ) -> Option<&sealane_proto::resource::Service> {
        self.networks.get(network)?.services.get(name)
    }
}

fn document(value: &Value) -> Document {
    Document::from_json(&value.to_string()).unwrap()
}

fn network(name: &str, subnet: &str) -> Document {
    document(&json!({
        "apiVersion": "sealane.dev/v1", "kind": "Network", "metadata": { "name": name }, "spec": { "subnets": [subnet] },
    }))
}

fn service(name: &str, network: &str, ports: &Value) -> Document {
    document(&json!({
        "apiVersion": "sealane.dev/v1", "kind": "Service", "metadata": { "name": name, "network": network },
        "spec": { "ports": ports },
    }))
}

/// A route of network shop.
fn route(kind: &str, spec: &Value) -> Document {
    document(&json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": { "name": "split", "namespace": "shop" }, "spec": spec,
    }))
}

fn apply(state: &mut State, documents: Vec<Document>, now: Timestamp) -> Result<Vec<Effect>, String> {
    let outcome = model::run(state, Apply { documents, dry_run: false }, now).unwrap();
    outcome.into_iter().map(|effect| effect.map_err(|refusal| refusal.to_string())).collect()
}

/// Networks shop and office; shop has services api and v1 of HTTP, and db of TCP; office has web.
fn state() -> State {
    let mut state = State::default();
    let http = json!([{ "name": "web", "port": 80, "protocol": "http" }, { "port": 90 }]);
    let documents = vec![
        network("shop", "10.42.0.0/16"),
        network("office", "10.43.0.0/16"),
        service("api", "shop", &http),
        service("v1", "shop", &http),
        service("db", "shop", &json!([{ "port": 5432, "protocol": "tcp" }])),
        service("web", "office", &http),
    ];
    apply(&mut state, documents, NOW).unwrap();
    state
}

fn kept(state: &State) -> &Route {
    state.networks[&"shop".parse().unwrap()].routes.values().next().unwrap()
}

#[test]
fn a_route_is_created_once_and_counts_the_changes_of_its_specification() {
    let mut state = state();
    let to = |port: u16| json!({ "rules": [{ "backendRefs": [{ "name": "v1", "port": port }] }] });
    let mut steps = vec![(route("HTTPRoute", &to(80)), NOW, Effect::Created, (1, 1_000))];
    steps.push((route("HTTPRoute", &to(80)), LATER, Effect::Unchanged, (1, 1_000)));
    let mut noted = route("HTTPRoute", &to(80));
    if let Document::HttpRoute(noted) = &mut noted {
        noted.metadata.annotations.insert("note".to_owned(), "x".to_owned());
    }
    steps.push((noted, LATER, Effect::Configured, (1, 1_000)));
    steps.push((route("HTTPRoute", &to(90)), LATER, Effect::Configured, (2, 2_000)));
    for (document, now, effect, expected) in steps {
        assert_eq!(apply(&mut state, vec![document], now), Ok(vec![effect]));
        let route = kept(&state);
        assert_eq!(((route.generation, route.changed), route.created), (expected, 1_000));
    }
    assert_eq!(apply(&mut state, vec![route("GRPCRoute", &json!({}))], NOW), Ok(vec![Effect::Created]));
    let name =
        |kind: fn(NetworkName, _) -> DocumentId| kind("shop".parse().unwrap(), "split".parse().unwrap());
    let documents = vec![name(DocumentId::HttpRoute), name(DocumentId::GrpcRoute)];
    let withdraw = Withdraw { documents, dry_run: false, ignore_not_found: true };
    for expected in [Withdrawn::Deleted, Withdrawn::NotFound] {
        let outcome = model::run(&mut state, withdraw.clone(), NOW).unwrap();
        assert_eq!(outcome, vec![Ok(expected.clone()), Ok(expected)]);
    }
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    let mut state = State::default();
    let refused = apply(&mut state, vec![route("HTTPRoute", &json!({}))], NOW).unwrap_err();
    assert!(refused.contains("metadata.namespace: there is no network shop"), "{refused}");
    apply(&mut state, vec![network("shop", "10.42.0.0/16")], NOW).unwrap();
    let value = "x".repeat(4096);
    let headers: Vec<Value> = (0..16).map(|at| json!({ "name": format!("h{at}"), "value": value })).collect();
    let long = json!({ "rules": [{ "matches": [{ "headers": headers }] }] });
    let refused = apply(&mut state, vec![route("HTTPRoute", &long)], NOW).unwrap_err();
    assert!(
        refused.contains("spec: the document has ") && refused.contains("make several routes"),
        "{refused}"
    );
    let named = |at: usize| {
        let mut route = route("GRPCRoute", &json!({}));
        if let Document::GrpcRoute(route) = &mut route {
            route.metadata.name = format!("route-{at}").parse().unwrap();
        }
        route
    };
    apply(&mut state, (0..ROUTES).map(named).collect(), NOW).unwrap();
    let refused = apply(&mut state, vec![named(ROUTES)], NOW).unwrap_err();
    assert!(refused.contains("network shop has 1000 routes"), "{refused}");
    assert_eq!(apply(&mut state, vec![named(0)], NOW), Ok(vec![Effect::Unchanged]));
}

/// Asserts the status, the reason and words of both conditions of the first parent.
fn told(
    kind: &str,
    parent: &Value,
    rules: &Value,
    accepted: (&str, &str, &str),
    resolved: (&str, &str, &str),
) {
    let mut state = state();
    apply(&mut state, vec![route(kind, &json!({ "parentRefs": [parent], "rules": rules }))], NOW).unwrap();
    let said: Value = serde_json::from_str(&observed(kept(&state), &state)).unwrap();
    assert_eq!(said["metadata"], json!({ "generation": 1, "creationTimestamp": "1970-01-01T00:16:40Z" }));
    let parent = &said["status"]["parents"][0];
    assert_eq!(parent["controllerName"], "sealane.dev/mesh");
    for (at, kind, (status, reason, words)) in [(0, "Accepted", accepted), (1, "ResolvedRefs", resolved)] {
        let condition = &parent["conditions"][at];
        let fields = ["type", "status", "reason"].map(|field| condition[field].as_str().unwrap());
        assert_eq!(fields, [kind, status, reason], "{condition}");
        assert!(condition["message"].as_str().unwrap().contains(words), "{condition}");
        assert_eq!(condition["observedGeneration"], 1);
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:16:40Z");
    }
}

const GOOD: (&str, &str, &str) = ("True", "Accepted", "acts for all callers of service api");
const THERE: (&str, &str, &str) = ("True", "ResolvedRefs", "all backends are there");

fn api() -> Value {
    json!({ "group": "", "kind": "Service", "name": "api" })
}

fn to(backend: &Value) -> Value {
    json!([{ "backendRefs": [backend] }])
}

#[test]
fn parents_are_services_with_ports_that_speak_http() {
    let v1 = to(&json!({ "name": "v1", "port": 80 }));
    let parent = |field: &str, value: Value| {
        let mut parent = api();
        parent[field] = value;
        parent
    };
    told("HTTPRoute", &api(), &v1, GOOD, THERE);
    told("HTTPRoute", &parent("port", json!(90)), &v1, GOOD, THERE);
    told("HTTPRoute", &parent("sectionName", json!("web")), &v1, GOOD, THERE);
    let none = |words| ("False", "NoMatchingParent", words);
    told("HTTPRoute", &parent("port", json!(81)), &v1, none("service api has no port 81"), THERE);
    told(
        "HTTPRoute",
        &parent("sectionName", json!("x")),
        &v1,
        none("service api has no port named x"),
        THERE,
    );
    told(
        "HTTPRoute",
        &parent("name", json!("db")),
        &v1,
        none("service db speaks no HTTP at 5432/tcp"),
        THERE,
    );
    told(
        "HTTPRoute",
        &parent("name", json!("gone")),
        &v1,
        none("there is no service gone in network shop"),
        THERE,
    );
    told(
        "HTTPRoute",
        &parent("name", json!("a.b")),
        &v1,
        none("there is no service a.b in network shop"),
        THERE,
    );
    told(
        "HTTPRoute",
        &json!({ "name": "edge" }),
        &v1,
        none("there is no Gateway edge in network shop"),
        THERE,
    );
    told(
        "GRPCRoute",
        &parent("port", json!(80)),
        &to(&json!({ "name": "v1", "port": 90 })),
        none("speaks no gRPC at"),
        THERE,
    );
}

#[test]
fn parents_in_another_network_are_called_from_there() {
    let v1 = to(&json!({ "name": "v1", "port": 80 }));
    let consumer = json!({ "group": "", "kind": "Service", "name": "web", "namespace": "office" });
    let words = "acts for callers of service web that are workloads of network shop as well as of office";
    let web = to(&json!({ "name": "web", "namespace": "office", "port": 80 }));
    told("HTTPRoute", &consumer, &web, ("True", "Accepted", words), THERE);
    let elsewhere = (
        "False",
        "BackendNotFound",
        "service v1 is in network shop, and calls to the parent stay in network office",
    );
    told("HTTPRoute", &consumer, &v1, ("True", "Accepted", words), elsewhere);
}

#[test]
fn backends_that_are_not_there_are_named() {
    for (backend, reason, words) in [
        (
            json!({ "name": "gone", "port": 80 }),
            "BackendNotFound",
            "there is no service gone in network shop",
        ),
        (json!({ "name": "a.b", "port": 80 }), "BackendNotFound", "there is no service a.b in network shop"),
        (json!({ "name": "v1", "port": 81 }), "BackendNotFound", "service v1 has no port 81"),
        (
            json!({ "name": "db", "port": 5432 }),
            "UnsupportedProtocol",
            "service db speaks no HTTP at port 5432",
        ),
        (
            json!({ "name": "web", "namespace": "office", "port": 80 }),
            "RefNotPermitted",
            "service web is in network office",
        ),
        (
            json!({ "kind": "Pool", "group": "example.com", "name": "a" }),
            "InvalidKind",
            "example.com/Pool a is no Service",
        ),
    ] {
        told("HTTPRoute", &api(), &to(&backend), GOOD, ("False", reason, words));
        let mirror = json!([{ "type": "RequestMirror", "requestMirror": { "backendRef": backend } }]);
        told("HTTPRoute", &api(), &json!([{ "filters": mirror }]), GOOD, ("False", reason, words));
        let own = json!({ "name": "v1", "port": 80, "filters": mirror });
        told("HTTPRoute", &api(), &to(&own), GOOD, ("False", reason, words));
    }
    let grpc = to(&json!({ "name": "v1", "port": 80 }));
    told(
        "GRPCRoute",
        &api(),
        &grpc,
        GOOD,
        ("False", "UnsupportedProtocol", "service v1 speaks no gRPC at port 80"),
    );
    let many: Vec<Value> = (0..5).map(|at| json!({ "name": format!("gone-{at}"), "port": 80 })).collect();
    let words = "there is no service gone-2 in network shop; and 2 more";
    told("HTTPRoute", &api(), &json!([{ "backendRefs": many }]), GOOD, ("False", "BackendNotFound", words));
}
