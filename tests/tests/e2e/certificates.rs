//! Certificates: what they say of a workload.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

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
