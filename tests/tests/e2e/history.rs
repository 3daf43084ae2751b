//! The history: who has changed what, and the way back.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh};
use serde_json::Value;
use tempfile::TempDir;

const BACKUP: &str = "/var/lib/backup";

fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: sealane.dev/v1\nkind: Service\nmetadata: {{name: {name}, network: shop}}\nspec:\n  ports:\n  - port: {port}\n"
    )
}

fn network(hosts: u8) -> String {
    format!(
        "---\napiVersion: sealane.dev/v1\nkind: Network\nmetadata: {{name: shop}}\nspec:\n  subnets: [10.42.0.0/{hosts}]\n  mtls: strict\n"
    )
}

fn apply(mesh: &Mesh, folder: &TempDir, documents: &[String]) {
    let path = folder.path().join("shop.yaml");
    std::fs::write(&path, documents.concat()).unwrap();
    let _ = mesh.sealane(&["apply", "-f", path.to_str().unwrap()]).ok();
}

/// Entries as words, oldest first, and the newest revision.
fn history(mesh: &Mesh, arguments: &[&str]) -> (Vec<String>, u64) {
    let entries = mesh.json(&[&["history"], arguments].concat());
    let entries = entries.as_array().unwrap();
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let words = entries.iter().rev().map(|entry| {
        let verb = entry["actor"]["verb"].as_str().unwrap_or_default();
        format!("{} {} {} {verb}", word(entry, "kind"), word(entry, "name"), word(entry, "deed"))
            .trim_end()
            .to_owned()
    });
    (words.collect(), entries.first().map_or(0, |entry| entry["revision"].as_u64().unwrap()))
}

fn documents(mesh: &Mesh) -> [Value; 2] {
    ["network", "service"].map(|kind| mesh.json(&["get", kind]))
}

#[track_caller]
fn check(said: &Finished, code: i32, words: &[&str]) {
    assert_eq!(said.code(), code, "{said}");
    for word in words {
        assert!(said.stdout.contains(word) || said.stderr.contains(word), "{word:?} is not in {said}");
    }
}

#[test]
fn a_wrong_apply_is_found_in_the_history_and_undone_also_after_a_restart_and_a_restoration() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(1);
    let folder = TempDir::new().unwrap();
    apply(&mesh, &folder, &[network(16), service("api", 8080), service("store", 6379)]);
    let (told, good) = history(&mesh, &["-n", "shop"]);
    assert_eq!(
        told,
        ["Network shop created apply", "Service api created apply", "Service store created apply"]
    );
    let joined = history(&mesh, &["host"]).0;
    assert!(joined.len() == 1 && joined[0].ends_with("joined"), "{joined:?}");
    let then = documents(&mesh);

    // Somebody changes one service, deletes another and makes a third one.
    apply(&mesh, &folder, &[service("api", 9090), service("new", 80)]);
    let _ = mesh.sealane(&["delete", "service", "store.shop"]).ok();
    check(
        &mesh.sealane(&["history", "service", "store.shop"]),
        0,
        &["root", "deleted (delete)", "service store.shop"],
    );
    let entry = &mesh.json(&["history", "service", "api.shop", "--limit", "1"])[0];
    assert_eq!((&entry["actor"]["uid"], &entry["actor"]["kind"]), (&0.into(), &"operator".into()));
    assert_eq!(entry["before"], then[1][0], "as `get -o json` shows it");

    mesh.control.kill9();
    mesh.control.start();
    mesh.await_control();
    let at = good.to_string();
    let differs = mesh.sealane(&["diff", "--at", &at]);
    check(
        &differs,
        1,
        &["-  - port: 9090", "+  - port: 8080", "+++ revision", "--- service new in network shop"],
    );
    let one = mesh.sealane(&["diff", "--at", &at, "service", "new.shop"]);
    check(&one, 1, &["-kind: Service"]);
    assert!(!one.stdout.contains("8080"), "{one}");
    let dry = mesh.sealane(&["rollback", "--to", &at, "--dry-run"]);
    check(
        &dry,
        0,
        &["service store in network shop created (dry run)", "service new in network shop deleted"],
    );
    assert_ne!(documents(&mesh), then, "nothing but a look");
    let back = mesh.sealane(&["rollback", "--to", &at, "--wait"]);
    check(&back, 0, &["service api in network shop configured", "service store in network shop created"]);
    assert_eq!(documents(&mesh), then);
    check(&mesh.sealane(&["diff", "--at", &at]), 0, &[]);
    check(&mesh.sealane(&["rollback", "--to", &at]), 0, &["already"]);
    let verb = format!("rollback --to {at}");
    let (told, newest) = history(&mesh, &["service", "-n", "shop", "--limit", "3"]);
    assert!(told.iter().all(|entry| entry.ends_with(&verb)), "{told:?}");
    let unknown = (newest + 1_000).to_string();
    check(&mesh.sealane(&["diff", "--at", &unknown]), 2, &["there is no revision", "take one from 0 to"]);

    lose_and_restore(&mut mesh);
    let kept = history(&mesh, &["service", "-n", "shop", "--limit", "3"]).0;
    assert_eq!(kept, told, "it came with the backup");
    check(&mesh.sealane(&["rollback", "--to", &at]), 0, &["already"]);
    assert_eq!(documents(&mesh), then);
}

/// Takes a backup, changes something, and lets control come back from the backup.
fn lose_and_restore(mesh: &mut Mesh) {
    let _ = mesh.sealane(&["backup", BACKUP]).ok();
    let _ = mesh.sealane(&["delete", "service", "api.shop"]).ok();
    mesh.control.kill9();
    let _ = mesh.sealane(&["restore", BACKUP, "--force"]).ok();
    mesh.control.start();
    mesh.await_control();
}

#[test]
fn what_cannot_go_back_is_named_and_then_nothing_changes() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(1);
    let folder = TempDir::new().unwrap();

    let empty = history(&mesh, &[]).1.to_string();
    apply(&mesh, &folder, &[network(16), service("api", 8080)]);
    let small = history(&mesh, &["-n", "shop"]).1.to_string();
    apply(&mesh, &folder, &[network(15), service("api", 9090)]);
    let now = documents(&mesh);
    let grown = mesh.sealane(&["rollback", "--to", &small]);
    check(
        &grown,
        1,
        &["network shop: spec.subnets: network shop has subnet 10.42.0.0/15", "nothing was changed"],
    );
    assert_eq!(documents(&mesh), now);
    check(&mesh.sealane(&["diff", "--at", &small]), 2, &["+  - port: 8080", "spec.subnets"]);

    let _server = mesh.site(1).serve("web", "web-1");
    let used = mesh.sealane(&["rollback", "--to", &empty]);
    check(&used, 1, &["network shop is in use: 1 workload is attached", "end it first"]);
    assert_eq!(documents(&mesh), now);
}
