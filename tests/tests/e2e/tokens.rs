//! Tokens: how many hosts they let in, for how long, and that they can be taken back.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Running, eventually};
use serde_json::Value;

/// A token with these flags, and its id.
fn create(mesh: &Mesh, flags: &[&str]) -> (String, String) {
    let created = mesh.sealane(&[&["token", "create"], flags].concat()).ok();
    let token = created.stdout.lines().last().unwrap().to_owned();
    let id = token.split('.').nth(1).unwrap().to_owned();
    (token, id)
}

fn listed(mesh: &Mesh, id: &str) -> Value {
    let tokens = mesh.json(&["token", "ls"]);
    tokens.as_array().unwrap().iter().find(|token| token["id"] == id).cloned().unwrap()
}

/// The command line of an agent `name` with folders and ports of its own, so that many fit on a host.
fn agent<'a>(name: &'a str, token: &'a str, folders: &'a [String; 2], port: &'a str) -> Vec<&'a str> {
    let [data, run] = folders;
    let who = ["agent", "--control", "192.0.2.11:7443", "--token", token, "--name", name];
    let place = ["--data-dir", data, "--run-dir", run, "--metrics-port", port];
    [&who[..], &place[..]].concat()
}

fn join(mesh: &Mesh, number: usize, name: &str, token: &str) -> Finished {
    let folders = [format!("/var/lib/{name}"), format!("/run/{name}")];
    mesh.site(number).sealane(&agent(name, token, &folders, "9470"))
}

fn refusals(mesh: &Mesh, result: &str) -> f64 {
    let text = mesh.site(1).command("curl", &["-sS", "http://127.0.0.1:9465/metrics"]).ok().stdout;
    sealane_tests::Metrics::parse(&text).sum("sealane_control_joins_total", &[("result", result)])
}

#[test]
fn a_token_is_listed_without_its_secret_and_taken_back_by_its_id() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(2).up_to(0);
    let (token, id) = create(&mesh, &["--uses", "3", "--ttl", "1h"]);
    let (good, other) = create(&mesh, &[]);
    let before = listed(&mesh, &id);
    assert_eq!(
        (&before["state"], &before["uses_left"], &before["used"]),
        (&"good".into(), &3.into(), &0.into())
    );
    assert_eq!(listed(&mesh, &other)["uses_left"], 1);
    let (_, many) = create(&mesh, &["--uses", "unlimited"]);
    assert_eq!(listed(&mesh, &many)["uses_left"], Value::Null);
    let secret = token.split('.').nth(2).unwrap();
    for format in ["table", "json", "yaml"] {
        let shown = mesh.sealane(&["token", "ls", "-o", format]).ok().stdout;
        assert!(shown.contains(&id) && !shown.contains(secret), "{shown}");
    }

    let _ = mesh.sealane(&["token", "revoke", &id]).ok();
    let _ = mesh.sealane(&["token", "revoke", &token]).ok();
    assert_eq!(listed(&mesh, &id)["state"], "revoked");
    let unknown = mesh.sealane(&["token", "revoke", "nonenone"]);
    assert!(unknown.code() == 1 && unknown.stderr.contains("there is no token nonenone"), "{unknown}");

    mesh.control.kill9();
    mesh.control.start();
    mesh.await_control();
    let refused = join(&mesh, 2, "late", &token);
    assert!(refused.code() == 1 && refused.stderr.contains(&format!("token {id} was revoked")), "{refused}");
    assert_eq!(refusals(&mesh, "token_revoked"), 1.0);
    let (named, _) = create(&mesh, &["--node", "host-9"]);
    let refused = join(&mesh, 2, "late", &named);
    assert!(refused.stderr.contains("is for node host-9, not late"), "{refused}");

    let folders = [("/var/lib/good".to_owned()), "/run/good".to_owned()];
    let mut command = mesh.site(2).host.command(sealane_tests::sealane().to_str().unwrap());
    command.args(agent("good", &good, &folders, "9470"));
    let mut joined = Running::start(command);
    eventually(PATIENCE, "the other token lets a host in", || {
        assert!(joined.runs());
        (listed(&mesh, &other)["used"] == 1).then_some(())
    });
}

#[test]
fn a_token_lets_in_as_many_hosts_as_it_was_made_for_however_many_come_at_once_and_control_dies() {
    if !isolated() {
        return;
    }
    const COME: usize = 8;
    const USES: usize = 3;
    let mut mesh = Mesh::hosts(1).up_to(0);
    let (token, id) = create(&mesh, &["--uses", &USES.to_string()]);
    let sealane = sealane_tests::sealane();
    let mut agents: Vec<Running> = (0..COME)
        .map(|number| {
            let (name, port) = (format!("late-{number}"), format!("{}", 9470 + number));
            let folders = [format!("/var/lib/{name}"), format!("/run/{name}")];
            let mut command = mesh.site(1).host.command(sealane.to_str().unwrap());
            command.args(agent(&name, &token, &folders, &port));
            // A host of its own as far as control can tell.
            let underlay = format!("192.0.2.{}", 100 + number);
            let _ = mesh.site(1).command("ip", &["address", "add", &underlay, "dev", "lo"]).ok();
            command.args(["--underlay", &underlay]);
            Running::start(command)
        })
        .collect();
    // Whatever control has answered by now, it knows when it is back; whom it has not answered, tries again.
    mesh.control.kill9();
    mesh.control.start();
    mesh.await_control();
    eventually(PATIENCE, "the token is used up", || (listed(&mesh, &id)["state"] == "used up").then_some(()));
    let refused = eventually(PATIENCE, "the others are refused", || {
        let ended: Vec<usize> = (0..COME).filter(|&number| !agents[number].runs()).collect();
        (ended.len() == COME - USES).then_some(ended)
    });
    for number in refused.into_iter().rev() {
        let refused = agents.remove(number).wait();
        assert!(refused.stderr.contains(&format!("token {id} is used up")), "{refused}");
    }
    let nodes = mesh.json(&["node", "ls"]);
    assert_eq!(nodes.as_array().unwrap().len(), USES, "{nodes}");
    assert_eq!(listed(&mesh, &id)["used"], USES);
}
