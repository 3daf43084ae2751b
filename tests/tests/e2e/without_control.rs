//! Hosts go on without control: after a reboot, with an agent that starts again, with few addresses.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, testapp};

/// Begins the workload without waiting for it.
fn begin(site: &Site, flags: &[&str], name: &str) -> Running {
    let program = testapp();
    let all = [&["--network", "shop", "--name", name][..], flags].concat();
    site.run(&all, &[program.to_str().unwrap(), "http", "8080", name])
}

const API: [&str; 4] = ["--service", "api", "--port", "8080"];

#[test]
fn a_host_that_is_rebooted_without_control_starts_again_what_it_ran() {
    if !isolated() {
        return;
    }
    let (mesh, mut servers) = Mesh::serving(3, 2);
    let mut mesh = mesh.permissive();
    let plain = [&API[..], &["--no-sidecar"]].concat();
    let begin_all =
        |site: &Site| [begin(site, &API, "api-2"), begin(site, &plain, "plain"), begin(site, &[], "lone")];
    let mut client = begin(mesh.site(3), &[], "client");
    client.wait_for("listening");
    drop(servers.pop());
    mesh.await_instances("api", 1);
    let started = begin_all(mesh.site(2));
    mesh.await_instances("api", 3);
    eventually(PATIENCE, "all is known on host 3", || mesh.site(3).workload("lone").map(drop));
    mesh.control.kill9();
    drop(started);
    mesh.site_mut(2).power_off();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();

    let mut started = begin_all(mesh.site(2));
    for each in &mut started {
        each.wait_for("listening");
    }
    for host in [1, 2, 3] {
        eventually(PATIENCE, "all instances are known", || {
            (mesh.site(host).instances("api") == 3).then_some(())
        });
    }
    for name in ["api-2", "plain"] {
        assert_eq!(mesh.site(3).curl_as("client", &format!("http://{name}:8080/")).ok().stdout, name);
    }
    let before: Vec<_> = started.iter().map(Running::pid).collect();
    mesh.control.start();
    mesh.await_control();
    mesh.await_instances("api", 3);
    assert!(started.iter_mut().all(Running::runs), "{before:?}");
}

#[test]
fn what_is_begun_while_an_agent_starts_again_without_control_starts_as_soon_as_that_knows_its_networks() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    mesh.control.kill9();
    mesh.site_mut(2).agent.kill9();
    let mut started = begin(mesh.site(2), &API, "api-3");
    mesh.site_mut(2).agent.start();
    started.wait_for("listening");
    eventually(PATIENCE, "host 1 knows it", || (mesh.site(1).instances("api") == 3).then_some(()));
}

#[test]
fn without_control_an_instance_starts_more_often_than_its_host_has_addresses() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(2);
    let _ = mesh.sealane(&["network", "create", "shop", "--subnet", "10.42.0.0/24"]).ok();
    let mut instance = mesh.site(2).serve("api", "api-1");
    mesh.await_instances("api", 1);
    mesh.control.kill9();
    // Its first block has four addresses.
    for _ in 0..6 {
        instance.kill9();
        mesh.site(2).await_gone("api-1");
        instance = mesh.site(2).serve("api", "api-1");
        eventually(PATIENCE, "it is ready", || (mesh.site(2).instances("api") == 1).then_some(()));
    }
    let mut stranger = begin(mesh.site(2), &["--no-sidecar"], "stranger");
    let said = eventually(PATIENCE, "it says what it waits for", || {
        let said = stranger.stderr();
        said.contains("waiting for").then_some(said)
    });
    assert!(said.contains("further addresses of network shop") && said.contains("rest for 60 s"), "{said}");
    mesh.control.start();
    stranger.wait_for("listening");
}

/// Begins a workload `twin` that answers with `body`.
fn twin(site: &Site, body: &str) -> Running {
    let program = testapp();
    let flags = ["--network", "shop", "--no-sidecar", "--name", "twin"];
    let mut twin = site.run(&flags, &[program.to_str().unwrap(), "http", "8080", body]);
    twin.wait_for("listening");
    twin
}

#[test]
fn a_name_that_two_hosts_give_without_control_is_one_workloads_everywhere_else_and_named_on_both() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(3, 3);
    let mut mesh = mesh.permissive();
    let _client = crate::liveness::plain(mesh.site(3));
    mesh.control.kill9();
    mesh.site(2).host.cut().unwrap();
    let mut twins = [twin(mesh.site(1), "twin-1"), twin(mesh.site(2), "twin-2")];
    mesh.site(2).host.heal().unwrap();
    let said = |site: &Site, words: &str| site.problems().contains(words);
    for (host, words) in [
        (1, "twin is on host-2, too, and the other hosts go by this host's"),
        (2, "twin is on host-1, too, and the other hosts go by that one"),
    ] {
        eventually(PATIENCE, "both hosts name it", || said(mesh.site(host), words).then_some(()));
    }
    let node = |mesh: &Mesh, host| mesh.site(host).workload("twin").map(|twin| twin["node"].clone());
    assert_eq!([1, 2, 3].map(|host| node(&mesh, host).unwrap()), ["host-1", "host-2", "host-1"]);
    for _ in 0..10 {
        assert_eq!(mesh.site(3).curl_as("plain", "http://twin:8080/").ok().stdout, "twin-1");
    }

    mesh.control.start();
    mesh.await_control();
    let refused = "workload name twin in network shop is in use on host-";
    let loser = eventually(PATIENCE, "control accepts one of the two", || {
        [1, 2].into_iter().find(|host| said(mesh.site(*host), refused))
    });
    let winner = 3 - loser;
    eventually(PATIENCE, "all others go by that one, and nobody names it any more", || {
        let owner = Some(serde_json::Value::from(format!("host-{winner}")));
        let agree = [winner, 3].iter().all(|host| node(&mesh, *host) == owner);
        (agree && ![1, 2].iter().any(|host| said(mesh.site(*host), "twin is on"))).then_some(())
    });
    let body = format!("twin-{winner}");
    assert_eq!(mesh.site(3).curl_as("plain", "http://twin:8080/").ok().stdout, body);
    assert!(twins.iter_mut().all(Running::runs), "nobody is ended");
    twins[loser - 1].kill9();
    for site in mesh.sites() {
        eventually(PATIENCE, "nothing is wrong any more", || (site.problems() == "[]").then_some(()));
    }
}
