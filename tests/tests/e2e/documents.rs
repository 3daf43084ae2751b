//! Documents: applied, compared, changed, deleted; and what is said about bad ones.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, Running, sealane};
use serde_json::json;
use tempfile::TempDir;

const SHOP: &str = "\
apiVersion: sealane.dev/v1
kind: Service
metadata: {name: api, network: shop}
spec:
  ports:
  - {name: web, port: 8080, protocol: http}
---
apiVersion: sealane.dev/v1
kind: Service
metadata: {name: store, network: shop}
spec:
  ports:
  - port: 6379
---
apiVersion: sealane.dev/v1
kind: Network
metadata: {name: shop}
spec:
  subnets: [10.42.0.0/16]
";

/// A file that every host of the lab sees.
fn file(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
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

#[test]
fn a_shop_is_applied_called_changed_and_deleted_and_survives_control() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(2);
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "shop.yaml", SHOP);
    let shop = path.to_str().unwrap();
    let apply = |mesh: &Mesh, more: &[&str]| mesh.sealane(&[&["apply", "-f", shop], more].concat());

    let dry = apply(&mesh, &["--dry-run"]);
    check(&dry, 0, &["network shop created (dry run)"], &[]);
    check(&mesh.sealane(&["diff", "-f", shop]), 1, &["+++", "+kind: Network"], &[]);
    assert_eq!(mesh.json(&["get", "network"]), json!([]));
    let created = apply(&mesh, &["--wait"]);
    check(&created, 0, &["service api in network shop created", "network shop created"], &[]);
    mesh.control.kill9();
    mesh.control.start();
    mesh.await_control();
    check(&mesh.sealane(&["diff", "-f", shop]), 0, &[], &[]);
    assert_eq!(mesh.json(&["get", "service"]).as_array().unwrap().len(), 2);
    mesh.await_connected();

    // A declared service has its name and address before its first instance.
    let vip = mesh.json(&["service", "ls"])[0]["vip"].as_str().unwrap().to_owned();
    let named = mesh.site(2).shop(&["getent", "ahostsv4", "api"]).wait().ok();
    assert!(named.stdout.contains(&vip), "{named}");
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let call = || mesh.site(2).curl("http://api:8080/");
    assert_eq!(call().ok().stdout, "api-1");
    let other = ["--network", "shop", "--service", "api", "--port", "9090"];
    check(
        &mesh.site(2).run(&other, &["true"]).wait(),
        125,
        &[],
        &["9090", "api", "not declared", "web=8080/http"],
    );

    let more = file(&folder, "more.yaml", SHOP.replace("6379", "6380"));
    let more = more.to_str().unwrap();
    check(&mesh.sealane(&["diff", "-f", more]), 1, &["-  - port: 6379", "+  - port: 6380"], &[]);
    let changed = mesh.sealane(&["apply", "-f", more, "--wait"]);
    check(
        &changed,
        0,
        &["network shop unchanged", "store in network shop configured", "api in network shop unchanged"],
        &[],
    );
    assert_eq!(call().ok().stdout, "api-1");

    let written = mesh.sealane(&["get", "service", "-o", "yaml"]).ok();
    let again = file(&folder, "again.yaml", &written.stdout);
    let same = mesh.sealane(&["apply", "-f", again.to_str().unwrap()]);
    assert_eq!(same.stdout.matches("unchanged").count(), 2, "{written}\n{same}");

    delete(&mesh, more);
    assert_eq!(call().ok().stdout, "api-1");
}

#[test]
fn apply_wait_names_the_hosts_that_are_behind_when_the_time_is_over() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(2);
    let folder = TempDir::new().unwrap();
    let shop = file(&folder, "shop.yaml", SHOP);
    let _ = mesh.sealane(&["apply", "-f", shop.to_str().unwrap(), "--wait"]).ok();
    let _workloads = [1, 2].map(|number| {
        let mut workload = mesh.site(number).shop(&["sh", "-c", "echo began; exec sleep infinity"]);
        workload.wait_for("began");
        workload
    });
    let agent = Pid::from_raw(mesh.site(2).agent.pid().cast_signed());
    kill(agent, Signal::SIGSTOP).unwrap();
    let more = file(&folder, "more.yaml", SHOP.replace("6379", "6380"));
    let apply =
        |timeout| mesh.sealane(&["apply", "-f", more.to_str().unwrap(), "--wait", "--timeout", timeout]);
    let late = apply("2s");
    check(
        &late,
        1,
        &["store in network shop configured"],
        &["after 2s not every host works by it: host-2\n"],
    );
    let behind = |mesh: &Mesh| -> Vec<(String, usize)> {
        let nodes = mesh.json(&["node", "ls"]);
        let nodes = nodes.as_array().unwrap().iter();
        nodes.map(|node| (node["name"].to_string(), node["behind"].as_array().map_or(0, Vec::len))).collect()
    };
    assert_eq!(behind(&mesh), [("\"host-1\"".to_owned(), 0), ("\"host-2\"".to_owned(), 1)]);
    kill(agent, Signal::SIGCONT).unwrap();
    check(&apply("60s"), 0, &["store in network shop unchanged"], &[]);
    assert!(behind(&mesh).iter().all(|(_, networks)| *networks == 0));
}

/// Deletes by document: an object in use stays; a service goes on with its instances, and without any it is gone.
#[track_caller]
fn delete(mesh: &Mesh, file: &str) {
    check(&mesh.sealane(&["delete", "-f", file]), 1, &[], &["more.yaml", "in use", "api-1"]);
    let delete = |service| mesh.sealane(&["delete", "service", service, "--network", "shop"]);
    check(&delete("api"), 0, &["service api in network shop deleted", "api-1 on host-1"], &[]);
    check(&delete("store"), 0, &["deleted"], &[]);
    check(&delete("store"), 1, &[], &["there is no service store"]);
}

#[test]
fn bad_documents_are_refused_with_their_place_and_change_nothing() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1).up_to(0);
    let folder = TempDir::new().unwrap();
    let _ = mesh.sealane(&["apply", "-f", file(&folder, "shop.yaml", SHOP).to_str().unwrap()]).ok();
    let before = (mesh.json(&["get", "network"]), mesh.json(&["get", "service"]));

    let empty = folder.path().join("folder");
    std::fs::create_dir(&empty).unwrap();
    let large = file(&folder, "large.yaml", vec![b'#'; 10 << 20]);
    let table: [(PathBuf, &[&str]); 13] = [
        ("/nonexistent/shop.yaml".into(), &["/nonexistent/shop.yaml", "no such file"]),
        (empty, &["no documents", "ends in .yaml"]),
        (file(&folder, "empty.yaml", ""), &["no documents in"]),
        (file(&folder, "comment.yaml", "# nothing\n---\n"), &["no documents in"]),
        (file(&folder, "binary.yaml", b"\x7fELF\xff\xfe"), &["binary.yaml is no text", "byte 4"]),
        (file(&folder, "zero.yaml", b"a: \0"), &["zero.yaml is no text"]),
        (large, &["larger than 4 MiB"]),
        (
            file(&folder, "subnet.yaml", SHOP.replace("10.42.0.0/16", "10.43.0.0/16")),
            &["subnet.yaml:15", "cannot be changed"],
        ),
        (
            file(&folder, "port.yaml", SHOP.replace("6379", "0")),
            &["port.yaml:13:11: spec.ports[0].port", "1 to 65535"],
        ),
        (
            file(&folder, "field.yaml", SHOP.replace("subnets", "subnet")),
            &["field.yaml:19:3", "did you mean `subnets`"],
        ),
        (
            file(&folder, "nowhere.yaml", SHOP.replace("network: shop", "network: nowhere")),
            &["no network nowhere"],
        ),
        (file(&folder, "twice.yaml", format!("{SHOP}---\n{SHOP}")), &["network shop is there twice"]),
        (
            file(&folder, "long.yaml", SHOP.replace("name: api", &format!("name: {}", "x".repeat(64)))),
            &["1 to 63 characters"],
        ),
    ];
    for (path, said) in &table {
        for verb in ["apply", "diff"] {
            let refused = mesh.sealane(&[verb, "-f", path.to_str().unwrap()]);
            check(&refused, if verb == "diff" { 2 } else { 1 }, &[], &["error: "]);
            check(&refused, refused.code(), &[], said);
        }
    }
    check(&mesh.sealane(&["apply", "-f", "-"]), 1, &[], &["no documents in standard input"]);
    let closed = format!("'{}' apply -f - <&-", sealane().display());
    check(&mesh.site(1).command("sh", &["-c", &closed]), 1, &[], &["standard input"]);
    check(&mesh.sealane(&["get", "network", "nowhere"]), 1, &[], &["no network nowhere"]);
    check(&mesh.sealane(&["get", "service", "--network", "nowhere"]), 1, &[], &["no network nowhere"]);
    check(&mesh.sealane(&["get", "service", "web"]), 1, &[], &["service web"]);
    check(&mesh.sealane(&["delete", "service", "api"]), 2, &[], &["`sealane delete service api.NETWORK`"]);
    let twice = mesh.sealane(&["delete", "service", "api.shop", "--network", "office"]);
    check(&twice, 2, &[], &["leave one of them out"]);
    check(&mesh.sealane(&["get", "service", "api.shop"]), 0, &["api"], &[]);
    check(&mesh.sealane(&["delete", "service", "api.shop", "--dry-run"]), 0, &["api"], &[]);
    check(&mesh.sealane(&["delete", "network", "Shop"]), 2, &[], &["lower-case"]);
    assert_eq!((mesh.json(&["get", "network"]), mesh.json(&["get", "service"])), before);
}

#[test]
fn the_examples_of_the_documentation_are_taken_together_and_each_alone() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(2);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
    let all = mesh.sealane(&["apply", "-f", folder, "--wait"]);
    check(&all, 0, &["network shop created", "service db in network orders created"], &[]);
    check(&mesh.sealane(&["diff", "-f", folder]), 0, &[], &[]);
    check(&mesh.sealane(&["delete", "-f", folder]), 0, &[], &[]);
    let examples: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(examples.len() >= 7, "{examples:?}");
    for example in examples {
        let path = example.to_str().unwrap();
        let applied = mesh.sealane(&["apply", "-f", path]);
        check(&applied, 0, &["created"], &[]);
        assert!(!applied.stdout.contains("unchanged"), "{path} is whole: {applied}");
        check(&mesh.sealane(&["delete", "-f", path]), 0, &[], &[]);
    }
}

#[test]
fn the_schema_agrees_with_a_validator_of_its_own() {
    let folder = TempDir::new().unwrap();
    let schema = Running::start({
        let mut command = Command::new(sealane());
        command.arg("schema");
        command
    });
    let schema = schema.wait().ok();
    std::fs::write(folder.path().join("schema.json"), &schema.stdout).unwrap();
    let documents: Vec<&str> = SHOP.split("---\n").collect();
    let good = json!({"apiVersion": "sealane.dev/v1", "kind": "Network", "metadata": {"name": "shop"}, "spec": {"subnets": ["10.42.0.0/16"], "mtu": 1400}});
    assert_eq!(documents.len(), 3);
    let port = |port: serde_json::Value| json!({"apiVersion": "sealane.dev/v1", "kind": "Service", "metadata": {"name": "api", "network": "shop"}, "spec": {"ports": [port]}});
    let table = [
        (good.clone(), true),
        (port(json!({"port": 80, "protocol": "http", "name": "web"})), true),
        (port(json!({"port": 0})), false),
        (port(json!({"port": "80"})), false),
        (port(json!({"port": 80, "protocol": "htp"})), false),
        (port(json!({"port": 80, "other": 1})), false),
        (json!({"kind": "Network"}), false),
        (
            json!({"apiVersion": "sealane.dev/v1", "kind": "Network", "metadata": {"name": "Shop"}, "spec": {"subnets": ["10.42.0.0/16"]}}),
            false,
        ),
        (
            json!({"apiVersion": "sealane.dev/v1", "kind": "Network", "metadata": {"name": "shop"}, "spec": {"subnets": []}}),
            false,
        ),
    ];
    for (at, (document, valid)) in table.iter().enumerate() {
        let path = file(&folder, &format!("document-{at}.json"), document.to_string());
        let mut validator = Command::new("/usr/bin/jsonschema");
        validator.arg("-i").arg(&path).arg(folder.path().join("schema.json"));
        let said = Running::start(validator).wait();
        assert_eq!(said.status.success(), *valid, "{document}: {said}");
    }
}

#[test]
fn bash_completes_verbs_and_the_manual_is_clean() {
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        Running::start(command).wait()
    };
    let script = format!(
        "source <('{0}' completions bash); COMP_WORDS=(sealane app); COMP_CWORD=1; _sealane sealane app sealane; \
         echo \"${{COMPREPLY[@]}}\"; COMP_WORDS=(sealane network cr); COMP_CWORD=2; _sealane sealane cr network; \
         echo \"${{COMPREPLY[@]}}\"",
        sealane().display()
    );
    let completed = run("bash", &["-c", &script]).ok();
    assert_eq!(completed.stdout, "apply\ncreate\n", "{completed}");
    for shell in ["zsh", "fish"] {
        assert!(run(sealane().to_str().unwrap(), &["completions", shell]).ok().stdout.contains("apply"));
    }
    let temporary = TempDir::new().unwrap();
    let folder = temporary.path().join("pages");
    let _ = run(sealane().to_str().unwrap(), &["man", "--out", folder.to_str().unwrap()]).ok();
    let pages: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    assert!(pages.iter().any(|page| page.ends_with("sealane-apply.1")), "{pages:?}");
    for page in &pages {
        let said = run("mandoc", &["-T", "lint", "-W", "error", page]);
        assert!(said.status.success(), "{said}");
    }
    let shown = run("mandoc", &["-T", "utf8", folder.join("sealane-apply.1").to_str().unwrap()]).ok();
    assert!(shown.stdout.contains("Create or update objects from YAML or JSON files"), "{shown}");
}
