//! Control comes back from a backup while everything runs.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, eventually, testapp};
use serde_json::Value;
use tempfile::TempDir;

const BACKUP: &str = "/var/lib/backup";

/// Returns everything that control knows, without anything that is another in every store.
fn known(mesh: &Mesh) -> Vec<Value> {
    let views = ["network", "service", "workload"].map(|what| {
        let mut views = mesh.json(&[what, "ls"]);
        for view in views.as_array_mut().unwrap() {
            view.as_object_mut().unwrap().remove("generation");
        }
        views
    });
    views.to_vec()
}

/// Returns the blocks of a network with their holders.
fn blocks(mesh: &Mesh, network: &str) -> Vec<(String, String)> {
    let view = mesh.json(&["network", "inspect", network]);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    view["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| (word(&block["node"]), word(&block["range"])))
        .collect()
}

/// Control with two hosts and `shop`, the third host not in it yet.
fn two_of_three() -> Mesh {
    let mesh = Mesh::hosts(3).up_to(2);
    mesh.create_shop();
    mesh
}

/// Starts a server of the service `new` in the network `fresh`.
fn serve_new(mesh: &Mesh, number: usize) -> Running {
    let (program, name) = (testapp(), format!("new-{number}"));
    let flags = ["--network", "fresh", "--service", "new", "--port", "8080", "--name", &name];
    let mut new = mesh.site(number).run(&flags, &[program.to_str().unwrap(), "http", "8080", &name]);
    new.wait_for("listening");
    new
}

#[test]
fn a_restored_control_plane_hears_of_its_hosts_what_happened_since_and_no_request_fails() {
    if !isolated() {
        return;
    }
    let mut mesh = two_of_three();
    let _first = mesh.site(1).serve("api", "api-1");
    let mut load = mesh.site(2).load("web", &["http://api:8080/"]);
    let taken = mesh.sealane(&["backup", BACKUP]).ok();
    assert!(taken.stderr.contains("it holds the authority's key"), "{taken}");
    let mode = mesh.site(1).command("stat", &["-c", "%a", BACKUP]).ok();
    assert_eq!(mode.stdout.trim(), "600");

    // Since then: a host, blocks, a service, workloads, a network.
    mesh.join(3);
    mesh.site_mut(3).await_ready();
    let _ = mesh.sealane(&["network", "create", "fresh", "--subnet", "10.50.0.0/16"]).ok();
    let _third = mesh.site(3).serve("api", "api-3");
    let _late = mesh.site(1).serve("late", "late-1");
    let _new = serve_new(&mesh, 3);
    load.await_answer("api-3");
    let late = mesh.site(3).load("mobile", &["http://late:8080/"]);
    eventually(PATIENCE, "control knows everybody", || {
        let workloads = mesh.json(&["workload", "ls"]);
        let all = workloads.as_array().unwrap();
        (all.len() == 6 && all.iter().filter(|view| view["ready"] == true).count() >= 4).then_some(())
    });
    let (before, leased) = (known(&mesh), blocks(&mesh, "fresh"));

    let running = mesh.sealane(&["restore", BACKUP, "--force"]);
    assert!(!running.status.success() && running.stderr.contains("is in use by another"), "{running}");
    mesh.control.kill9();
    let there = mesh.sealane(&["restore", BACKUP]);
    assert!(!there.status.success() && there.stderr.contains("--force moves it aside"), "{there}");
    let restored = mesh.sealane(&["restore", BACKUP, "--force"]).ok();
    assert!(restored.stderr.contains("before-restore"), "{restored}");
    load.await_further(300);
    mesh.control.start();
    mesh.await_control();
    eventually(PATIENCE, "all three hosts are back", || {
        let nodes = mesh.json(&["node", "ls"]);
        let nodes = nodes.as_array().unwrap();
        (nodes.len() == 3 && nodes.iter().all(|node| node["connected"] == true)).then_some(())
    });
    eventually(PATIENCE, "control knows what it knew", || (known(&mesh) == before).then_some(()));
    load.await_further(300);
    late.await_further(300);

    // What comes now is new to everybody, and gets what is nobody's.
    let _second = serve_new(&mesh, 2);
    let now = blocks(&mesh, "fresh");
    assert!(
        leased.iter().all(|block| now.contains(block)) && now.len() == leased.len() + 1,
        "{leased:?} {now:?}"
    );
    let _fourth = mesh.site(3).serve("api", "api-4");
    load.await_answer("api-4");
    for load in [load, late] {
        let _ = load.stop().ok();
    }
}

#[test]
fn what_is_no_backup_is_refused_by_name_and_changes_nothing() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(1).up_to(0);
    let _ = mesh.sealane(&["backup", BACKUP]).ok();
    mesh.control.kill9();
    let shell = |script: &str| mesh.site(1).command("sh", &["-c", script]).ok();
    let store = || shell("sha256sum /var/lib/sealane/control.redb; ls -a /var/lib/sealane").stdout;
    let before = store();
    let table = [
        ("head -c 100 /var/lib/backup", "it was cut off or changed"),
        ("cat /var/lib/backup; echo", "it was cut off or changed"),
        ("head -c 200 /var/lib/backup; printf X; tail -c +202 /var/lib/backup", "checksum does not match"),
        ("echo hello", "it is no backup of Sealane"),
        ("echo 'sealane backup 7'", "a newer Sealane wrote it"),
        ("true", "it is no backup of Sealane"),
    ];
    for (script, words) in table {
        let _ = shell(&format!("({script}) > /var/lib/other"));
        let refused = mesh.sealane(&["restore", "/var/lib/other", "--force"]);
        let named =
            refused.stderr.contains("/var/lib/other is not restored") && refused.stderr.contains(words);
        assert!(!refused.status.success() && named, "{script}: {refused}");
        assert_eq!(store(), before, "{script}");
    }
    let missing = mesh.sealane(&["restore", "/var/lib/nothing"]);
    assert!(missing.stderr.contains("cannot read /var/lib/nothing"), "{missing}");
    let elsewhere = mesh.sealane(&["restore", BACKUP, "--data-dir", "/var/lib/elsewhere"]).ok();
    assert!(elsewhere.stderr.contains("/var/lib/elsewhere/control.redb is restored"), "{elsewhere}");
}

/// A host on which `new-1` runs in the network `fresh`, of which control knows nothing and somebody else has the VNI.
fn forgotten() -> (Mesh, Running) {
    let mut mesh = Mesh::start(1);
    let _ = mesh.sealane(&["backup", BACKUP]).ok();
    let _ = mesh.sealane(&["network", "create", "fresh", "--subnet", "10.50.0.0/16"]).ok();
    let server = serve_new(&mesh, 1);
    mesh.control.kill9();
    mesh.site_mut(1).agent.kill9();
    let _ = mesh.sealane(&["restore", BACKUP, "--force"]).ok();
    mesh.control.start();
    mesh.await_control();
    // Before the host is back, somebody else has its network's addresses.
    let _ = mesh.sealane(&["network", "create", "other", "--subnet", "10.50.0.0/16"]).ok();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    (mesh, server)
}

#[test]
fn a_network_that_cannot_come_back_goes_on_where_it_is_used_and_the_host_says_so() {
    if !isolated() {
        return;
    }
    let (mesh, mut server) = forgotten();
    eventually(PATIENCE, "the host says that control does not know its network", || {
        let problems = mesh.site(1).problems();
        problems.contains("control knows no network fresh").then_some(())
    });
    let answer = mesh.site(1).curl_as("new-1", "http://127.0.0.1:8080/").ok();
    assert_eq!(answer.stdout, "new-1");
    server.kill9();
    eventually(PATIENCE, "with its last workload the network is gone", || {
        let networks = mesh.site(1).json(&["network", "ls"]);
        networks.as_array().unwrap().iter().all(|network| network["name"] != "fresh").then_some(())
    });
}

#[test]
fn a_network_that_is_created_again_as_the_host_says_takes_in_what_runs_there_by_itself() {
    if !isolated() {
        return;
    }
    let (mesh, _server) = forgotten();
    let line = eventually(PATIENCE, "the host says how the network is created again", || {
        let problems = mesh.site(1).problems();
        let (_, line) = problems.split_once("control takes them in by itself: `sealane ")?;
        Some(line.split_once('`')?.0.to_owned())
    });
    assert_eq!(line, "network create fresh --subnet 10.50.0.0/16");
    let _ = mesh.sealane(&line.split(' ').collect::<Vec<_>>()).ok();
    eventually(PATIENCE, "control knows the workload again, and the host has no problem", || {
        let workloads = mesh.json(&["workload", "ls"]);
        let known = workloads.as_array()?.iter().find(|known| known["name"] == "new-1")?;
        let well = !mesh.site(1).problems().contains("fresh");
        (known["ready"] == true && well).then_some(())
    });
}

#[test]
fn a_restored_control_plane_hears_of_a_workload_before_it_is_asked_for_its_certificate() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let _ = mesh.sealane(&["backup", BACKUP]).ok();
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.site_mut(1).agent.kill9();
    mesh.control.kill9();
    let _ = mesh.sealane(&["restore", BACKUP, "--force"]).ok();
    let _ = mesh.site(1).command("rm", &["/var/lib/sealane/identities/shop.svc.api"]).ok();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    mesh.control.start();
    mesh.await_control();
    eventually(PATIENCE, "the workload has a certificate", || {
        mesh.site(1).sealane(&["identity", "api-1"]).status.success().then_some(())
    });
    let answer = mesh.site(1).curl("http://api:8080/").ok();
    assert_eq!(answer.stdout, "api-1");
}

/// Declares services of the network `shop` with these names.
fn declare(mesh: &Mesh, names: &[&str]) {
    let document = |name: &&str| {
        format!(
            "---\napiVersion: sealane.dev/v1\nkind: Service\nmetadata: {{name: {name}, network: shop}}\n\
             spec:\n  ports: [{{port: 80}}]\n"
        )
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("services.yaml");
    std::fs::write(&path, names.iter().map(document).collect::<String>()).unwrap();
    let _ = mesh.sealane(&["apply", "-f", path.to_str().unwrap(), "--wait"]).ok();
}

/// Returns the names of the services, as control or a host knows them.
fn services(known: &Value) -> Vec<String> {
    let name = |service: &Value| service["service"].as_str().or(service["name"].as_str()).map(str::to_owned);
    known.as_array().unwrap().iter().filter_map(name).collect()
}

#[test]
fn a_store_that_was_put_back_is_what_every_host_goes_by_again() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(3).permissive();
    let _api = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let _bare =
        mesh.site(2).run(&["--network", "shop", "--no-sidecar", "--name", "bare"], &["sleep", "1000"]);
    let plain = |mesh: &Mesh| {
        let curl =
            ["curl", "-s", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://api:8080/"];
        mesh.site(2).exec("bare", &curl).stdout == "200"
    };
    eventually(PATIENCE, "a plain call passes", || plain(&mesh).then_some(()));
    let load = mesh.site(3).load("web", &["http://api:8080/"]);
    load.await_further(10);
    let copy = |mesh: &Mesh, from: &str, to: &str| {
        let _ = mesh.site(1).command("cp", &["--preserve", from, to]).ok();
    };
    let (store, aside) = ("/var/lib/sealane/control.redb", "/var/lib/copy.redb");

    let _ = mesh.control.terminate();
    copy(&mesh, store, aside);
    mesh.control.start();
    mesh.await_control();
    mesh.await_connected();
    declare(&mesh, &["early-1", "early-2", "early-3"]);
    let _ = mesh.sealane(&["node", "drain", "host-3"]).ok();

    let _ = mesh.control.terminate();
    copy(&mesh, aside, store);
    mesh.control.start();
    mesh.await_control();
    eventually(PATIENCE, "control says that its store was an earlier copy", || {
        let status = mesh.sealane(&["status"]).stdout;
        (status.contains("was an earlier copy") && status.contains("a new lifetime has begun")).then_some(())
    });
    mesh.await_connected();
    // As many revisions as before, with other words.
    declare(&mesh, &["late-1", "late-2", "late-3"]);
    let _ = mesh.sealane(&["network", "set", "shop", "--mtls", "strict"]).ok();
    let _ = mesh.sealane(&["node", "drain", "host-2"]).ok();
    let known = services(&mesh.json(&["service", "ls"]));
    assert!(
        ["late-1", "late-2", "late-3"].iter().all(|late| known.iter().any(|name| name == late)),
        "{known:?}"
    );
    for site in mesh.sites() {
        eventually(PATIENCE, "a host knows what control knows", || {
            (services(&site.json(&["service", "ls"])) == known).then_some(())
        });
        eventually(PATIENCE, "and which hosts are drained", || {
            let nodes = site.json(&["node", "ls"]);
            let drained = |name: &str| {
                nodes.as_array().unwrap().iter().any(|node| node["name"] == name && node["drained"] == true)
            };
            (drained("host-2") && !drained("host-3")).then_some(())
        });
    }
    eventually(PATIENCE, "no plain call passes", || (!plain(&mesh)).then_some(()));
    let _ = load.stop().ok();
}
