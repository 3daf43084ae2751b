//! Hosts that die or are cut off leave the names and the balancing of the others, each as it sees them, and come back.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_sys::Process;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, testapp};

/// Returns a host's view of another one.
fn reach(from: &Site, node: &str) -> String {
    let nodes = from.json(&["node", "ls"]);
    let of = nodes.as_array().unwrap().iter().find(|view| view["name"] == node).unwrap();
    of["reach"].as_str().unwrap_or_default().to_owned()
}

fn await_reach(from: &Site, node: &str, wanted: &str) {
    let what = format!("{} sees {node} as {wanted}", from.host.name());
    eventually(PATIENCE, &what, || (reach(from, node) == wanted).then_some(()));
}

/// Three hosts with an instance of `api` each, which see each other.
fn three_hosts() -> (Mesh, Vec<Running>) {
    let (mesh, servers) = Mesh::serving(3, 3);
    let mesh = mesh.permissive();
    for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        await_reach(mesh.site(from), &format!("host-{to}"), "reachable");
    }
    (mesh, servers)
}

/// Waits until a host sees so many ready instances; answers how long that took from `began` on.
fn await_instances(site: &Site, ready: u64, began: Instant) -> Duration {
    site.await_instances("api", ready);
    began.elapsed()
}

/// A workload without a sidecar that only sleeps.
pub(crate) fn plain(site: &Site) -> Running {
    let flags = ["--network", "shop", "--no-sidecar", "--name", "plain"];
    let program = testapp();
    let mut plain = site.run(&flags, &[program.to_str().unwrap(), "http", "9999", "plain"]);
    plain.wait_for("listening");
    plain
}

/// Calls the service from a workload again and again: all succeed, and nobody else than these answers.
pub(crate) fn all_are_answered_by(site: &Site, workload: &str, instances: &[&str]) {
    for _ in 0..20 {
        let answer = site.curl_as(workload, "http://api:8080/").ok().stdout;
        assert!(instances.contains(&answer.as_str()), "{workload} is answered by {answer}");
    }
}

/// Longest time after which a host that is cut off is known to others: a second, and what a machine does meanwhile.
const KNOWN: Duration = Duration::from_secs(4);

#[test]
fn a_host_whose_cable_is_pulled_leaves_the_others_names_and_service_addresses_and_comes_back() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = three_hosts();
    let (one, two) = (mesh.site(1), mesh.site(2));
    let (_plain, mut load) = (plain(two), two.load("web", &["http://api:8080/"]));
    load.await_answer("api-3");

    let cut = Instant::now();
    mesh.site(3).host.cut().unwrap();
    let took = await_instances(two, 2, cut);
    let elsewhere = await_instances(one, 2, cut);
    println!("known dead by host-2 after {took:?}, by host-1 after {elsewhere:?}");
    assert!(took < KNOWN && elsewhere < KNOWN);
    assert_eq!(reach(two, "host-3"), "unreachable");
    let problems = two.problems();
    assert!(problems.contains("node host-3 (192.0.2.13) cannot be reached from this host"), "{problems}");
    for workload in ["plain", "web"] {
        all_are_answered_by(two, workload, &["api-1", "api-2"]);
    }
    let endpoints = two.sealane(&["service", "endpoints", "api.shop", "--socket", "/run/sealane/agent.sock"]);
    assert!(endpoints.stdout.contains("its node host-3 cannot be reached from this host"), "{endpoints}");
    assert_eq!(two.metrics().sum("sealane_agent_peer_reachable", &[("peer", "host-3")]), 0.0);
    // Cut off, the host is alone, and its own instance serves it.
    let three = mesh.site(3);
    three.await_instances("api", 1);
    assert!(three.problems().contains("reaches none of the 2 hosts"), "{}", three.problems());
    let services = mesh.json(&["service", "ls"]);
    assert_eq!(services[0]["instances"], 3, "nobody is removed");
    the_control_host_shows_what_it_sees(&mesh);

    let healed = Instant::now();
    mesh.site(3).host.heal().unwrap();
    println!("back after {:?}", await_instances(two, 3, healed));
    three.await_instances("api", 3);
    load.await_answer("api-3");
    let _ = load.stop();
}

/// Verbs on the control host show its own agent's view of a host that it cannot reach.
fn the_control_host_shows_what_it_sees(mesh: &Mesh) {
    let nodes = mesh.sealane(&["node", "ls"]).ok().stdout;
    let of = |node: &str| nodes.lines().find(|line| line.starts_with(node)).unwrap().to_owned();
    assert!(of("host-3").contains("unreachable") && !of("host-2").contains("unreachable"), "{nodes}");
    let sheet = |node: &str| mesh.json(&["node", "inspect", node]);
    assert_eq!(sheet("host-3")["reach"], "unreachable");
    let near = sheet("host-2");
    assert_eq!((&near["reach"], near["connected"].as_bool()), (&"reachable".into(), Some(true)));
    assert!(near["rtt_micros"].as_u64().is_some() && near["channel_since"].is_string(), "{near}");
    let endpoints = mesh.json(&["service", "endpoints", "api.shop"]);
    let away = endpoints.as_array().unwrap().iter().find(|view| view["name"] == "api-3").unwrap();
    assert_eq!((&away["ready"], &away["ready6"]), (&false.into(), &false.into()), "{away}");
    let problem = away["problem"].as_str().unwrap();
    assert!(problem.contains("its node host-3 cannot be reached from this host"), "{problem}");
    assert_eq!(mesh.json(&["service", "inspect", "api.shop"])["ready"], 2);
}

#[test]
fn a_port_that_is_closed_in_one_direction_is_seen_at_both_ends() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = three_hosts();
    let three = mesh.site(3);
    let rules = "add table ip closed; add chain ip closed c { type filter hook input priority -400; }; \
                 add rule ip closed c udp dport 4789 drop";
    let began = Instant::now();
    let _ = three.command("nft", &[rules]).ok();
    let took = await_instances(mesh.site(2), 2, began);
    println!("a closed port is known after {took:?}");
    assert!(took < KNOWN);
    await_reach(three, "host-1", "unreachable");
    await_reach(three, "host-2", "unreachable");
    assert_eq!(reach(mesh.site(1), "host-2"), "reachable", "the others see each other");
    let _ = three.command("nft", &["delete table ip closed"]).ok();
    for site in mesh.sites() {
        site.await_instances("api", 3);
    }
}

#[test]
fn a_host_all_of_whose_processes_were_killed_stays_reachable() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = three_hosts();
    mesh.site_mut(3).agent.kill9();
    for verb in ["keep", "proxy"] {
        for pid in mesh.site(3).processes(verb) {
            Process::open(pid).unwrap().kill().unwrap();
        }
    }
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(3) {
        let reach = reach(mesh.site(2), "host-3");
        assert!(["reachable", "suspect"].contains(&reach.as_str()), "{reach} after {:?}", killed.elapsed());
    }
    mesh.site_mut(3).agent.start();
    mesh.site_mut(3).await_ready();
    await_reach(mesh.site(3), "host-2", "reachable");
}

#[test]
fn a_host_that_died_while_an_agent_was_down_is_known_soon_after_it_is_back() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = three_hosts();
    mesh.site_mut(2).agent.kill9();
    mesh.site(3).host.cut().unwrap();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    let two = mesh.site(2);
    let took = await_instances(two, 2, Instant::now());
    println!("known dead {took:?} after the agent was ready");
    assert!(took < KNOWN);
    assert_eq!(reach(two, "host-3"), "unreachable");
    mesh.site(3).host.heal().unwrap();
    await_instances(two, 3, Instant::now());
}

#[test]
fn an_agent_that_was_stopped_for_a_while_accuses_nobody_and_nobody_accuses_its_host() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = three_hosts();
    let changes = || -> Vec<f64> {
        let of = |site: &Site| site.metrics().sum("sealane_agent_peer_reach_changes_total", &[]);
        mesh.sites().map(of).collect()
    };
    let (two, before) = (mesh.site(2), changes());
    let signal = |signal: &str| {
        for pid in two.processes("agent") {
            let _ = two.command("kill", &[signal, &pid.to_string()]).ok();
        }
    };
    signal("-STOP");
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(8) {
        let reach = reach(mesh.site(1), "host-2");
        assert!(["reachable", "suspect"].contains(&reach.as_str()), "{reach} after {:?}", stopped.elapsed());
    }
    signal("-CONT");
    eventually(PATIENCE, "the channels stand again", || {
        let connected = |site: &Site| site.metrics().sum("sealane_agent_peer_connected", &[]);
        mesh.sites().all(|site| connected(site) == 2.0).then_some(())
    });
    assert_eq!(changes(), before);
}

#[test]
fn the_last_instances_of_a_service_stay_when_their_host_cannot_be_reached() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(3);
    let _server = mesh.site(3).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let two = mesh.site(2);
    let _web = plain(two);
    two.await_instances("api", 1);
    await_reach(two, "host-3", "reachable");
    mesh.site(3).host.cut().unwrap();
    await_reach(two, "host-3", "unreachable");
    eventually(PATIENCE, "status names the service", || {
        two.problems().contains("no instance that can be reached from here").then_some(())
    });
    assert_eq!(two.instances("api"), 1, "it is called all the same");
    mesh.site(3).host.heal().unwrap();
    await_reach(two, "host-3", "reachable");
    eventually(PATIENCE, "status is well again", || {
        (!two.problems().contains("can be reached")).then_some(())
    });
}

#[test]
fn what_somebody_breaks_of_the_device_accuses_nobody_and_clean_leaves_nothing_of_it() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = three_hosts();
    let two = mesh.site(2);
    let net = "--net=/run/sealane/netns/echo";
    for line in ["bridge fdb flush dev vxlan0", "ip link set vxlan0 down", "ip link del vxlan0"] {
        let drift = || two.metrics().sum("sealane_kernel_drift_total", &[]);
        let before = drift();
        let _ = two.command("nsenter", &[net, "sh", "-c", line]).ok();
        eventually(PATIENCE, line, || (drift() > before).then_some(()));
        await_reach(two, "host-1", "reachable");
        assert_eq!(two.instances("api"), 3, "{line}");
    }
    let _ = mesh.site_mut(3).agent.terminate();
    let _ = mesh.site(3).sealane(&["clean", "--yes"]).ok();
    let left = mesh.site(3).command("sh", &["-c", "ls /run/sealane; nft list tables"]);
    assert!(!left.stdout.contains("netns") && !left.stdout.contains("sealane-tunnels"), "{left}");
}
