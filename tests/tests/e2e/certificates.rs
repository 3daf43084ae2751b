//! Certificates: what they say, and that nobody notices their renewal.

use std::time::{SystemTime, UNIX_EPOCH};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

fn renewals(mesh: &Mesh, number: usize) -> f64 {
    let labels = [("kind", "workload"), ("result", "renewed")];
    mesh.site(number).metrics().sum("sealane_certificate_renewals_total", &labels)
}

fn leaf(mesh: &Mesh, number: usize, workload: &str) -> serde_json::Value {
    mesh.site(number).json(&["identity", workload])["chain"][0].clone()
}

#[test]
fn certificates_are_renewed_under_load_and_no_request_or_connection_notices() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2).control_flags(&["--certificate-lifetime", "20s"]).up();
    mesh.create_shop();
    let _server = mesh.site(1).serve("api", "api-1");
    let redis = ["redis-server", "--save", "", "--protected-mode", "no", "--bind", "0.0.0.0"];
    let mut redis = mesh.site(1).run(&["--network", "shop", "--service", "redis", "--port", "6379"], &redis);
    redis.wait_for("Ready to accept connections");
    mesh.await_instances("api", 1);
    mesh.await_instances("redis", 1);
    let load = mesh.site(2).load("web", &["http://api:8080/", "--concurrency", "4"]);
    // One connection for all commands; it has a number of its own.
    let mut connection = mesh.site(2).shop(&["redis-cli", "-h", "redis"]);
    connection.say("CLIENT ID\n");
    let before = leaf(&mesh, 1, "api-1");

    // Three workloads' certificates: more than one whole life of each.
    for number in [1, 2] {
        let what = format!("host-{number} has renewed again and again");
        let enough = renewals(&mesh, number) + if number == 1 { 12.0 } else { 6.0 };
        eventually(PATIENCE * 2, &what, || (renewals(&mesh, number) >= enough).then_some(()));
    }
    let after = leaf(&mesh, 1, "api-1");
    assert_ne!(after["serial"], before["serial"]);
    assert!(after["not_before"].as_str() > before["not_after"].as_str(), "{before} {after}");
    let serial = |leaf: &serde_json::Value| leaf["serial"].as_str().unwrap()[..16].to_owned();
    assert_eq!(serial(&after), serial(&before), "one host's serial numbers begin alike");
    load.await_further(100);
    let _ = load.stop().ok();
    connection.say("CLIENT ID\n");
    let said = connection.wait().ok().stdout;
    let ids: Vec<&str> = said.split_whitespace().collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "the connection broke: {said}");
    let failed = [("kind", "workload"), ("result", "failed")];
    assert_eq!(mesh.site(1).metrics().sum("sealane_certificate_renewals_total", &failed), 0.0);
}

#[test]
fn an_instance_that_waits_for_control_as_its_certificate_has_ended_says_when_that_was() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(1).control_flags(&["--certificate-lifetime", "20s"]).up();
    mesh.create_shop();
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    mesh.control.kill9();
    let id = [("identity", "spiffe://sealane/net/shop/svc/api"), ("workload", "api-1")];
    eventually(PATIENCE * 2, "the certificate has ended", || {
        let ends = mesh.site(1).metrics().sum("sealane_certificate_expiry_timestamp_seconds", &id);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        (ends < now).then_some(())
    });
    let flags = ["--network", "shop", "--service", "api", "--port", "8080", "--name", "api-2"];
    let late = mesh.site(1).run(&flags, &["echo", "began"]);
    let words =
        "for a new certificate of service api for workload shop/api-2 (the one on this host ended at 2";
    eventually(PATIENCE, "it says what it waits for", || late.stderr().contains(words).then_some(()));
    mesh.control.start();
    assert_eq!(late.wait().ok().stdout, "began\n");
}

#[test]
fn a_workload_and_its_host_show_the_same_identity_with_its_runway() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let _server = mesh.site(1).serve("api", "api-1");
    let _client = mesh.site(1).load("web", &["http://api:8080/"]);
    let _bare =
        mesh.site(1).run(&["--network", "shop", "--no-sidecar", "--name", "bare"], &["sleep", "1000"]);
    eventually(PATIENCE, "the one without sidecar is there", || mesh.site(1).workload("bare").map(drop));
    let shown = mesh.site(1).json(&["identity", "api-1"]);
    assert_eq!(shown["spiffe_id"], "spiffe://sealane/net/shop/svc/api");
    let web = mesh.site(1).json(&["identity", "web"]);
    assert_eq!(web["spiffe_id"], "spiffe://sealane/net/shop/wl/web");
    let chain = shown["chain"].as_array().unwrap();
    assert_eq!(
        (chain.len(), &chain[0]["authority"], &chain[1]["authority"]),
        (2, &false.into(), &true.into())
    );
    assert!(chain.iter().all(|certificate| certificate["key_algorithm"] == "ECDSA P-256"), "{shown}");
    let instant = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let renewed = instant(&shown["renewed_from"]);
    assert!(
        instant(&chain[0]["not_before"]) < renewed && renewed < instant(&chain[0]["not_after"]),
        "{shown}"
    );

    let expiry = mesh.site(1).metrics();
    let id = [("identity", "spiffe://sealane/net/shop/svc/api"), ("workload", "api-1")];
    let end = expiry.sum("sealane_certificate_expiry_timestamp_seconds", &id);
    let date = format!("@{end}");
    let end = mesh.site(1).command("date", &["-u", "-d", &date, "+%Y-%m-%dT%H:%M:%SZ"]).ok();
    assert_eq!(end.stdout.trim(), chain[0]["not_after"]);

    let without = mesh.site(1).sealane(&["identity", "bare"]);
    assert!(without.code() == 1 && without.stderr.contains("has no sidecar"), "{without}");
    let unknown = mesh.site(1).sealane(&["identity", "nobody"]);
    assert!(unknown.code() == 1 && unknown.stderr.contains("no workload nobody on host host-1"), "{unknown}");
    mesh.control.kill9();
    eventually(PATIENCE, "it says that control is away", || {
        let sheet = mesh.site(1).sealane(&["identity", "api-1"]).ok().stdout;
        (sheet.contains("control is away") && sheet.contains("good until it ends in")).then_some(())
    });
}
