//! Admission of hosts to the mesh.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, eventually, testapp};

/// Tries to join as the second host.
fn join(mesh: &Mesh, token: &str) -> Finished {
    mesh.site(2).sealane(&["agent", "--control", "192.0.2.11:7443", "--token", token])
}

/// Files, sockets and folders with something in them that Sealane has on the second host.
fn traces(mesh: &Mesh) -> String {
    let find = "find /run/sealane /var/lib/sealane ! -type d 2>/dev/null";
    mesh.site(2).command("sh", &["-c", find]).stdout
}

/// `token` with another last character in one of its parts: 1 is the id, 2 the secret.
fn altered(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let first = if parts[part].starts_with('a') { 'b' } else { 'a' };
    parts[part].replace_range(..1, &first.to_string());
    parts.join(".")
}

#[test]
fn a_token_that_is_not_good_is_refused_in_words_and_leaves_nothing() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(2).up_to(0);
    let short = mesh.sealane(&["token", "create", "--ttl", "1s", "-o", "json"]).json();
    let (short, made) = (short["token"].as_str().unwrap().to_owned(), Instant::now());
    let good = mesh.token();

    let folders = ["--data-dir", "/var/lib/foreign", "--run-dir", "/run/foreign"];
    let sealane = sealane_tests::sealane();
    let mut foreign = mesh.site(2).host.command(sealane.to_str().unwrap());
    foreign.args(["control", "--listen", "127.0.0.1:7443"]).args(folders);
    let _foreign = sealane_tests::Running::start(foreign);
    let strange = eventually(PATIENCE, "the other control answers", || {
        let made = mesh.site(2).sealane(&["token", "create", "--run-dir", "/run/foreign"]);
        made.status.success().then(|| made.stdout.lines().last().unwrap().to_owned())
    });

    // Expiry is counted in whole seconds.
    eventually(PATIENCE, "the token has expired", || (made.elapsed() > Duration::from_secs(2)).then_some(()));
    let table = [
        (short, "expired"),
        (altered(&good, 1), "token"),
        (altered(&good, 2), "token"),
        (strange, "token"),
        ("nonsense".to_owned(), "malformed"),
        (String::new(), "token"),
    ];
    for (token, word) in table {
        let refused = join(&mesh, &token);
        assert!(matches!(refused.code(), 1 | 2), "{refused}");
        assert!(refused.stderr.contains(word), "{word:?} is not in {refused}");
        assert_eq!(traces(&mesh), "", "{refused}");
    }
    assert_eq!(mesh.json(&["node", "ls"]).as_array().unwrap().len(), 0);

    mesh.join(2);
    mesh.site_mut(2).await_ready();
}

#[test]
fn a_name_that_another_host_has_is_refused() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(1);
    let token = mesh.token();
    let folders = ["--data-dir", "/var/lib/second", "--run-dir", "/run/second", "--metrics-port", "9466"];
    let join = ["agent", "--control", "192.0.2.11:7443", "--token", &token, "--name", "host-1"];
    let refused = mesh.site(1).sealane(&[&join[..], &folders].concat());
    assert_eq!(refused.code(), 1, "{refused}");
    assert!(refused.stderr.contains("host-1") && refused.stderr.contains("--name"), "{refused}");
    mesh.site_mut(1).agent.assert_runs();
}

#[test]
fn a_workload_name_is_the_first_ones_and_the_second_hears_whose_it_is() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let load = mesh.site(1).load("web", &["http://api:8080/"]);
    let flags = ["--network", "shop", "--service", "api", "--port", "8080", "--name", "api-1"];
    let program = testapp();
    let second = mesh.site(2).run(&flags, &[program.to_str().unwrap(), "http", "8080", "second"]).wait();
    assert_eq!(second.code(), 125, "{second}");
    assert!(second.stderr.contains("api-1") && second.stderr.contains("host-1"), "{second}");
    load.await_further(100);
    let report = load.stop().ok();
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["api-1"]);
    mesh.await_instances("api", 1);
}
