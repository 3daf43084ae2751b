//! Hosts carry what names them: networks, services and tokens.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

#[test]
fn a_host_that_a_network_or_a_service_is_not_for_is_refused_in_words_and_control_says_who_carries_what() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(2);
    let _ = mesh.sealane(&["network", "create", "pay", "--subnet", "10.60.0.0/16", "--hosts", "host-1"]).ok();
    assert_eq!(mesh.json(&["network", "inspect", "pay"])["hosts"], serde_json::json!(["host-1"]));
    let _ = mesh.site(1).sealane(&["run", "--network", "pay", "--", "true"]).ok();
    let refused = mesh.site(2).sealane(&["run", "--network", "pay", "--", "true"]);
    assert_eq!(refused.code(), 125, "{refused}");
    assert!(refused.stderr.contains("network pay is for host-1, not for node host-2"), "{refused}");

    let document = mesh.sealane(&["get", "network", "pay", "-o", "yaml"]).ok().stdout;
    assert!(document.contains("hosts:") && document.contains("- host-1"), "{document}");
    let metrics = mesh.site(1).command("curl", &["-sS", "http://127.0.0.1:9465/metrics"]).ok().stdout;
    assert_eq!(sealane_tests::Metrics::parse(&metrics).sum("sealane_control_first_carries_total", &[]), 1.0);
}

#[test]
fn the_token_that_a_removed_host_came_by_is_named_and_lets_nobody_in() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(2).up_to(0);
    mesh.create_shop();
    let _ = mesh.sealane(&["network", "create", "pay", "--subnet", "10.60.0.0/16"]).ok();
    let flags = ["token", "create", "--uses", "unlimited", "--networks", "shop"];
    let token = mesh.sealane(&flags).ok().stdout.lines().last().unwrap().to_owned();
    let id = token.split('.').nth(1).unwrap().to_owned();
    mesh.join_by(2, &token);
    mesh.site_mut(2).await_ready();
    let _ = mesh.site(2).sealane(&["run", "--network", "shop", "--", "true"]).ok();
    let refused = mesh.site(2).sealane(&["run", "--network", "pay", "--", "true"]);
    assert!(refused.stderr.contains("joined by a token for network shop, not for network pay"), "{refused}");
    let node = mesh.json(&["node", "inspect", "host-2"]);
    assert_eq!((&node["token"], &node["allowed"]), (&id.as_str().into(), &serde_json::json!(["shop"])));

    let removed = mesh.sealane(&["node", "rm", "host-2", "--force"]).ok();
    assert!(removed.stderr.contains(&format!("token {id} that it joined by is revoked")), "{removed}");
    eventually(PATIENCE, "the token is revoked", || {
        let tokens = mesh.json(&["token", "ls"]);
        let token = tokens.as_array().unwrap().iter().find(|token| token["id"] == id.as_str())?.clone();
        (token["state"] == "revoked").then_some(())
    });
    let folders = ["--data-dir", "/var/lib/thief", "--run-dir", "/run/thief", "--metrics-port", "9470"];
    let join = ["agent", "--control", "192.0.2.11:7443", "--token", &token, "--name", "thief"];
    let refused = mesh.site(1).sealane(&[&join[..], &folders].concat());
    assert!(refused.stderr.contains(&format!("token {id} was revoked")), "{refused}");
}
