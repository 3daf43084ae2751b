//! Routes of the Gateway API as documents: applied, shown with their status, refused, rolled back, kept.

use std::path::PathBuf;

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh};
use serde_json::{Value, json};
use tempfile::TempDir;

const SHOP: &str = "\
apiVersion: sealane.dev/v1
kind: Network
metadata: {name: shop}
spec: {subnets: [10.42.0.0/16]}
---
apiVersion: sealane.dev/v1
kind: Service
metadata: {name: api, network: shop}
spec: {ports: [{port: 8080, protocol: http}]}
";

const ROUTE: &str = r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split.v1, namespace: shop}
spec:
  parentRefs:
  - {group: "", kind: Service, name: api}
  rules:
  - backendRefs: [{name: api-v2, port: 8080}]
"#;

/// The service that the route sends to.
const BACKEND: &str = "\
apiVersion: sealane.dev/v1
kind: Service
metadata: {name: api-v2, network: shop}
spec: {ports: [{port: 8080, protocol: http}]}
";

fn file(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn apply(mesh: &Mesh, folder: &TempDir, text: &str) -> Finished {
    let path = file(folder, "applied.yaml", text);
    mesh.sealane(&["apply", "-f", path.to_str().unwrap()])
}

#[track_caller]
fn check(said: &Finished, code: i32, stdout: &[&str], stderr: &[&str]) {
    assert_eq!(said.code(), code, "{said}");
    for (words, text) in [(stdout, &said.stdout), (stderr, &said.stderr)] {
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {said}");
        }
    }
}

/// The route as control tells of it.
fn route(mesh: &Mesh) -> Value {
    mesh.json(&["get", "httproute", "split.v1", "--network", "shop"])
}

/// Statuses and reasons of both conditions of the route's parent.
fn conditions(route: &Value) -> Vec<String> {
    let conditions = route["status"]["parents"][0]["conditions"].as_array().unwrap();
    let word = |condition: &Value, field: &str| condition[field].as_str().unwrap().to_owned();
    let word = |condition| {
        format!("{} {} {}", word(condition, "type"), word(condition, "status"), word(condition, "reason"))
    };
    conditions.iter().map(word).collect()
}

#[test]
fn a_route_is_kept_with_its_status_whatever_becomes_of_control_and_rolled_back() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(1);
    let folder = TempDir::new().unwrap();
    check(&mesh.sealane(&["get", "httproute"]), 0, &[], &["no such routes yet"]);
    check(
        &apply(&mesh, &folder, &format!("{ROUTE}---\n{SHOP}")),
        0,
        &["httproute split.v1 in network shop created"],
        &[],
    );
    let missing = ["Accepted True Accepted", "ResolvedRefs False BackendNotFound"];
    assert_eq!(conditions(&route(&mesh)), missing);
    let before = mesh.json(&["history"])[0]["revision"].as_u64().unwrap();

    // The backend comes: status follows without a word about the route.
    check(&apply(&mesh, &folder, BACKEND), 0, &["created"], &[]);
    let good = ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"];
    assert_eq!(conditions(&route(&mesh)), good);
    check(&mesh.sealane(&["get", "httproute"]), 0, &["ACCEPTED", "split.v1", "Service api", "yes"], &[]);
    mesh.control.kill9();
    mesh.control.start();
    mesh.await_control();
    let kept = route(&mesh);
    assert_eq!(
        (conditions(&kept), &kept["metadata"]["generation"]),
        (good.map(str::to_owned).to_vec(), &json!(1))
    );

    // What is shown can be applied again, and other text is another generation.
    let shown = mesh.sealane(&["get", "httproute", "-o", "yaml"]).ok().stdout;
    assert!(shown.contains("status:") && shown.contains("observedGeneration: 1"), "{shown}");
    check(&apply(&mesh, &folder, &shown), 0, &["httproute split.v1 in network shop unchanged"], &[]);
    let path = file(&folder, "route.yaml", ROUTE.replace("8080}]", "8080, weight: 3}]"));
    let path = path.to_str().unwrap();
    check(&mesh.sealane(&["diff", "-f", path]), 1, &["-      weight: 1", "+      weight: 3"], &[]);
    check(&mesh.sealane(&["apply", "-f", path, "--dry-run"]), 0, &["configured (dry run)"], &[]);
    check(
        &mesh.sealane(&["apply", "-f", path, "--wait"]),
        0,
        &["httproute split.v1 in network shop configured"],
        &[],
    );
    check(&mesh.sealane(&["diff", "-f", path]), 0, &[], &[]);
    assert_eq!(route(&mesh)["metadata"]["generation"], 2);

    let newest = mesh.json(&["history", "httproute"]);
    assert_eq!(newest.as_array().unwrap().len(), 2, "{newest}");
    check(
        &mesh.sealane(&["delete", "httproute", "split.v1"]),
        2,
        &[],
        &["of which network?", "--network NETWORK"],
    );
    check(&mesh.sealane(&["delete", "httproute", "split.v1", "--network", "shop"]), 0, &["deleted"], &[]);
    check(&mesh.sealane(&["get", "httproute", "split.v1", "--network", "shop"]), 1, &[], &["split.v1"]);
    check(&mesh.sealane(&["rollback", "--to", &before.to_string()]), 0, &["split.v1"], &[]);
    assert_eq!(conditions(&route(&mesh)), missing, "the backend is gone with its document");
    check(&mesh.sealane(&["network", "rm", "shop"]), 0, &[], &[]);
    assert_eq!(mesh.json(&["get", "httproute"]), json!([]));
}

#[test]
fn documents_of_a_cluster_are_taken_and_what_has_no_effect_is_refused_with_its_place() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(1);
    let folder = TempDir::new().unwrap();
    check(&apply(&mesh, &folder, SHOP), 0, &["created"], &[]);
    let exported = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": [{
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "HTTPRoute",
        "metadata": {
            "name": "split", "namespace": "shop", "uid": "1", "resourceVersion": "7", "generation": 4,
            "creationTimestamp": "2024-01-01T00:00:00Z", "managedFields": [{ "manager": "kubectl" }],
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept" },
        },
        "spec": { "parentRefs": [{ "name": "edge" }] },
        "status": { "parents": [] },
    }] });
    check(
        &apply(&mesh, &folder, &exported.to_string()),
        0,
        &["httproute split in network shop created"],
        &[],
    );
    let route = mesh.json(&["get", "httproute", "split"]);
    assert_eq!(route["apiVersion"], "gateway.networking.k8s.io/v1");
    assert_eq!(route["metadata"]["annotations"], json!({ "note": "kept" }));
    assert_eq!((&route["metadata"]["generation"], &route["metadata"]["uid"]), (&json!(1), &Value::Null));
    assert_eq!(conditions(&route)[0], "Accepted False NoMatchingParent");
    for (from, to, expected) in [
        ("namespace: shop", "namespace: office", "metadata.namespace: there is no network office"),
        ("namespace: shop", "labels: {}", "field `namespace` is missing"),
        ("rules:", "rulez:", "spec: unknown field `rulez`; did you mean `rules`?"),
        (
            "port: 8080",
            "weight: 1",
            "spec.rules[0].backendRefs[0].port: the port of Service api-v2 is missing",
        ),
        ("kind: HTTPRoute", "kind: TCPRoute", "is of the Gateway API, of which HTTPRoute and GRPCRoute"),
        ("k8s.io/v1", "k8s.io/v2", "is of the Gateway API, of which HTTPRoute and GRPCRoute"),
        ("spec:", "spec:\n  useDefaultGateways: All", "unknown field `useDefaultGateways`"),
        (
            "- backendRefs",
            "- matches: [{path: {value: v1}}]\n    backendRefs",
            "spec.rules[0].matches[0].path.value: \"v1\" must begin",
        ),
    ] {
        let said = apply(&mesh, &folder, &ROUTE.replacen(from, to, 1));
        check(&said, 1, &[], &[expected]);
    }
    assert_eq!(mesh.json(&["get", "httproute"]).as_array().unwrap().len(), 1, "nothing of that was kept");
}
