//! Mutual TLS asked for: who is let in, who is told what, and who was never asked to choose.

use std::path::Path;

use sealane_lab::isolated;
use sealane_proto::client::unix_channel;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::admin_client::AdminClient;
use sealane_tests::{Finished, Mesh, PATIENCE, Site, eventually, testapp};

/// Fetches a page by `curl`; returns the status and the body.
fn get(site: &Site, flags: &[&str], url: &str) -> (String, Finished) {
    let flags = [&["--network", "shop"], flags].concat();
    let curl = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", url];
    let said = site.run(&flags, &curl).wait();
    let status = said.stdout.rsplit('\n').next().unwrap_or_default().to_owned();
    (status, said)
}

fn address(site: &Site, name: &str) -> String {
    site.workload(name).unwrap()["address"].as_str().unwrap().to_owned()
}

#[test]
fn a_new_network_takes_calls_by_mutual_tls_alone_and_tells_plain_callers_why() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 1);
    assert_eq!(mesh.json(&["network", "inspect", "shop"])["mtls"], "strict");
    let identity = mesh.site(1).json(&["identity", "api-1"]);
    assert_eq!((&identity["mtls"], &identity["ports"][0]["mtls"]), (&"strict".into(), &"strict".into()));
    assert_eq!(mesh.json(&["service", "inspect", "api"])["mtls"], "strict");

    let by_address = format!("http://{}:8080/", address(mesh.site(1), "api-1"));
    for url in ["http://api:8080/", &by_address] {
        assert_eq!(get(mesh.site(2), &[], url).0, "200", "{url}");
        let (status, said) = get(mesh.site(2), &["--no-sidecar"], url);
        assert_eq!(status, "403", "{said}");
        let words = "api takes calls to port 8080 by mutual TLS alone (mtls: strict)";
        assert!(said.stdout.contains(words), "{said}");
        assert!(said.stderr.contains("network shop is strict (mtls)"), "{said}");
    }
    let refused =
        |reason: &str| mesh.site(1).metrics().sum("sealane_connections_refused_total", &[("reason", reason)]);
    assert_eq!(refused("plain"), 2.0);

    // From the moment that somebody chooses otherwise, and told apart from the others.
    let said = mesh.sealane(&["network", "set", "shop", "--mtls", "permissive"]).ok();
    assert!(said.stderr.contains("network shop is permissive from now on, on every host"), "{said}");
    eventually(PATIENCE, "a plain call is served", || {
        (get(mesh.site(2), &["--no-sidecar"], "http://api:8080/").0 == "200").then_some(())
    });
    let served = |tls: &str| {
        let labels = [("direction", "inbound"), ("destination_service", "api"), ("tls", tls)];
        mesh.site(1).metrics().sum("sealane_requests_total", &labels)
    };
    eventually(PATIENCE, "both kinds are counted", || {
        (served("true") == 2.0 && served("false") >= 1.0).then_some(())
    });

    // A host that does not hear of it goes on as before, which is said.
    mesh.site_mut(1).agent.kill9();
    eventually(PATIENCE, "control misses the host", || {
        (mesh.json(&["node", "inspect", "host-1"])["state"] != "connected").then_some(())
    });
    let said = mesh.sealane(&["network", "set", "shop", "--mtls", "strict"]).ok();
    let words = "network shop is strict at every host but host-1, which has not taken it in yet";
    assert!(said.stderr.contains(words) && said.stderr.contains("go on as before"), "{said}");
}

#[test]
fn only_offered_ports_are_reachable_in_a_strict_network_and_the_callers_sidecar_says_so() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let script = "testapp http 9999 hidden & exec testapp http 8080 api";
    let script = script.replace("testapp", testapp().to_str().unwrap());
    let flags = ["--network", "shop", "--service", "api", "--port", "8080", "--name", "api-1"];
    let _server = mesh.site(1).run(&flags, &["sh", "-c", &script]);
    let mut lone = mesh.site(1).run(
        &["--network", "shop", "--name", "lone"],
        &[testapp().to_str().unwrap(), "http", "8080", "lone"],
    );
    lone.wait_for("listening");
    mesh.await_instances("api", 1);
    let hidden = format!("http://{}:9999/", address(mesh.site(1), "api-1"));
    let lone = format!("http://{}:8080/", address(mesh.site(1), "lone"));
    for (url, whose, port) in [(&hidden, "api", "9999"), (&lone, "lone", "8080")] {
        let (status, said) = get(mesh.site(2), &[], url);
        assert_eq!(status, "403", "{said}");
        assert!(said.stdout.contains(&format!("{whose} does not let calls to port {port} pass")), "{said}");
        let (status, said) = get(mesh.site(2), &["--no-sidecar"], url);
        assert_eq!(status, "403", "{said}");
        assert!(said.stdout.contains(&format!("{whose} does not offer port {port}")), "{said}");
    }
    let _ = mesh.sealane(&["network", "set", "shop", "--mtls", "permissive"]).ok();
    eventually(PATIENCE, "any port is reachable again", || {
        (get(mesh.site(2), &[], &hidden).1.stdout.starts_with("hidden")).then_some(())
    });
    assert!(get(mesh.site(2), &["--no-sidecar"], &lone).1.stdout.starts_with("lone"));
}

#[test]
fn a_port_says_otherwise_than_its_network_by_flag_and_a_document_has_the_last_word() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let program = testapp();
    let serve = [program.to_str().unwrap(), "http", "8080", "open"];
    let open = ["--network", "shop", "--service", "open", "--port", "8080", "--mtls", "permissive"];
    let mut server = mesh.site(1).run(&open, &serve);
    server.wait_for("listening");
    mesh.await_instances("open", 1);
    let plainly = || get(mesh.site(2), &["--no-sidecar"], "http://open:8080/").0;
    assert_eq!(plainly(), "200");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("open.yaml");
    let document = "apiVersion: sealane.dev/v1\nkind: Service\nmetadata: {name: open, network: shop}\n\
                    spec: {ports: [{port: 8080, mtls: strict}]}\n";
    std::fs::write(&path, document).unwrap();
    let _ = mesh.sealane(&["apply", "--wait", "-f", path.to_str().unwrap()]).ok();
    assert_eq!(plainly(), "403");
    let said = mesh.sealane(&["get", "service", "open", "-o", "yaml"]).ok();
    assert!(said.stdout.contains("mtls: strict"), "{said}");
    let refused = mesh.site(2).run(&open, &serve).wait();
    assert_eq!(refused.code(), 125, "{refused}");
    let words =
        "port 8080 of service open in network shop is strict by the service's document, not permissive";
    assert!(refused.stderr.contains(words), "{refused}");
}

#[test]
fn a_service_without_ports_has_an_identity_and_names_and_is_counted_by_its_name() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let flags = ["--network", "shop", "--service", "worker", "--name", "worker-1"];
    let calls = "for n in 1 2 3; do curl -sS http://api:8080/; done; echo called; exec sleep infinity";
    let mut worker = mesh.site(2).run(&flags, &["sh", "-c", calls]);
    worker.wait_for("called");
    mesh.await_instances("worker", 1);
    let identity = mesh.site(2).json(&["identity", "worker-1"]);
    assert_eq!(identity["spiffe_id"], "spiffe://sealane/net/shop/svc/worker");
    let labels = [("direction", "inbound"), ("source_service", "worker"), ("tls", "true")];
    eventually(PATIENCE, "its calls are counted under its service's name", || {
        (mesh.site(1).metrics().sum("sealane_requests_total", &labels) == 3.0).then_some(())
    });
    let named = mesh.site(1).shop(&["getent", "ahostsv4", "tasks.worker"]).wait().ok();
    assert!(named.stdout.contains(&address(mesh.site(2), "worker-1")), "{named}");
    let called = mesh.site(1).curl("http://worker:80/");
    assert!([7, 56].contains(&called.code()), "refused at once: {called}");
    let sheet = mesh.sealane(&["service", "inspect", "worker"]).ok();
    assert!(sheet.stdout.contains("1 of 1"), "{sheet}");
    eventually(PATIENCE, "nothing is wrong", || (mesh.sealane(&["status"]).code() == 0).then_some(()));
}

/// Creates `shop` as a client from before there was a choice does: it says nothing of it.
fn create_as_before(mesh: &Mesh) {
    let socket = format!("/proc/{}/root/run/sealane/control.sock", mesh.control.pid());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = unix_channel(Path::new(&socket)).await.unwrap();
        let request = v1::CreateNetworkRequest {
            name: "shop".into(),
            subnet: "10.42.0.0/16".into(),
            ..v1::CreateNetworkRequest::default()
        };
        AdminClient::new(channel).create_network(request).await.unwrap();
    });
}

#[test]
fn networks_from_before_there_was_a_choice_stay_permissive_and_status_says_how_to_choose() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(2);
    create_as_before(&mesh);
    let _server = mesh.site(2).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let notes = |status: serde_json::Value| -> Vec<String> {
        let notes = status["notes"].as_array().unwrap().iter();
        notes.map(|note| note.as_str().unwrap().to_owned()).collect()
    };
    let of_control = || notes(mesh.json(&["status"]));
    let of_agent = || notes(mesh.site(2).json(&["status"]));
    let told = of_control();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("network shop is permissive because nobody has chosen"), "{told:?}");
    assert_eq!(of_agent(), told, "an agent tells of the networks that it carries");
    let plain = || get(mesh.site(1), &["--no-sidecar"], "http://api:8080/").0;
    assert_eq!(plain(), "200", "plain calls are served as before");

    // What is applied again as it was written then changes nothing.
    let written = mesh.sealane(&["get", "network", "shop", "-o", "yaml"]).ok().stdout;
    assert!(!written.contains("mtls"), "{written}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.yaml");
    std::fs::write(&path, &written).unwrap();
    let again = mesh.sealane(&["apply", "-f", path.to_str().unwrap()]).ok();
    assert!(again.stdout.contains("network shop unchanged"), "{again}");

    // The way that the sentence names.
    let fix = told[0].split('`').nth(1).unwrap();
    assert_eq!(fix, "sealane network set shop --mtls strict");
    let _ = mesh.sealane(&fix.split(' ').skip(1).collect::<Vec<_>>()).ok();
    assert!(of_control().is_empty());
    eventually(PATIENCE, "plain calls are refused", || (plain() == "403").then_some(()));
    assert!(of_agent().is_empty());
}

/// A store that the first version wrote, with networks `shop` and `blog`.
const FIRST_VERSION: &[u8] = include_bytes!("../../../control/tests/fixtures/control-v1.redb");

#[test]
fn a_store_of_the_first_version_has_permissive_networks_and_its_control_plane_says_so() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(1);
    let host = mesh.site(1).host.clone();
    host.within(|| {
        std::fs::create_dir_all("/var/lib/sealane").unwrap();
        std::fs::write("/var/lib/sealane/control.redb", FIRST_VERSION).unwrap();
    })
    .unwrap();
    mesh.control.start();
    let status = eventually(PATIENCE, "control answers", || {
        // It exits with 1: the hosts of that store are gone.
        let said = mesh.sealane(&["status", "-o", "json"]);
        serde_json::from_str::<serde_json::Value>(&said.stdout).ok()
    });
    let notes: Vec<&str> =
        status["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    for (note, network) in notes.iter().zip(["blog", "shop"]) {
        assert!(note.contains(&format!("`sealane network set {network} --mtls strict`")), "{note}");
        assert_eq!(mesh.json(&["network", "inspect", network])["mtls"], "permissive");
    }
}
