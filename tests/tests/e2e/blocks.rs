//! Addresses of networks: blocks that grow and come back, and networks that grow.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, eventually};

/// Addresses come back after 10 s, rest for a minute, and are looked for every 5 s.
const ROUND: Duration = Duration::from_secs(120);

/// Starts a workload of network `tiny` without a sidecar; `None` when it has no address for one.
fn try_start(mesh: &Mesh, site: usize, name: &str) -> Option<Running> {
    let flags = ["--network", "tiny", "--no-sidecar", "--name", name];
    let mut running = mesh.site(site).run(&flags, &["sh", "-c", "echo here; exec sleep 1000"]);
    let began = Instant::now();
    while running.runs() {
        if running.stdout().contains("here") {
            return Some(running);
        }
        assert!(began.elapsed() < ROUND, "{name}: {}", running.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = running.wait();
    assert!(refused.stderr.contains("network tiny") && refused.stderr.contains("network grow"), "{refused}");
    None
}

fn start(mesh: &Mesh, site: usize, name: &str) -> Running {
    eventually(ROUND, &format!("{name} has an address"), || try_start(mesh, site, name))
}

/// The addresses of the network's workloads, each of which is another.
fn addresses(mesh: &Mesh) -> BTreeSet<String> {
    let workloads = mesh.json(&["workload", "ls", "--network", "tiny"]);
    let all: Vec<String> = workloads
        .as_array()
        .unwrap()
        .iter()
        .map(|workload| workload["address"].as_str().unwrap().to_owned())
        .collect();
    let distinct: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    distinct
}

#[test]
fn addresses_of_a_small_network_go_to_the_hosts_that_need_them_whoever_is_killed_meanwhile() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(3);
    let _ = mesh.sealane(&["network", "create", "tiny", "--subnet", "10.61.0.0/28"]).ok();
    // 13 addresses: one on each of two hosts, and the rest on the third.
    let mut kept = [start(&mesh, 1, "kept-1"), start(&mesh, 2, "kept-2")];
    let mut wave: Vec<Running> = (0..9).map(|number| start(&mesh, 3, &format!("a-{number}"))).collect();
    assert_eq!(addresses(&mesh).len(), 11);
    for (number, running) in wave.iter_mut().enumerate() {
        running.kill9();
        if number == 4 {
            // While what has ended is given back.
            mesh.site_mut(3).agent.kill9();
        }
    }
    mesh.site_mut(3).agent.start();
    mesh.site_mut(3).await_ready();
    let began = Instant::now();
    let _wave: Vec<Running> = (0..9).map(|number| start(&mesh, 1, &format!("b-{number}"))).collect();
    println!("host-1 has nine addresses after {:?}", began.elapsed());
    let addresses = addresses(&mesh);
    assert_eq!(addresses.len(), 11);
    for address in addresses.iter().take(3) {
        let _ = mesh.site(2).exec("kept-2", &["ping", "-c", "1", "-W", "5", address]).ok();
    }
    kept.iter_mut().for_each(|running| assert!(running.runs()));
}

#[test]
fn a_burst_of_starts_waits_for_few_leases() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let began = Instant::now();
    let run = |number: usize| {
        let name = format!("w-{number}");
        let flags = ["--network", "shop", "--no-sidecar", "--name", &name];
        mesh.site(1).run(&flags, &["sh", "-c", "echo here; exec sleep 1000"])
    };
    let mut all: Vec<Running> = (0..50).map(run).collect();
    all.iter_mut().for_each(|running| running.wait_for("here"));
    println!("50 workloads after {:?}", began.elapsed());
    let network = mesh.json(&["network", "inspect", "shop"]);
    let blocks = network["blocks"].as_array().unwrap();
    assert!((3..=5).contains(&blocks.len()), "{blocks:?}");
    drop(all);
    eventually(ROUND, "what is not needed comes back", || {
        let network = mesh.json(&["network", "inspect", "shop"]);
        (network["blocks"].as_array()?.len() == 1).then_some(())
    });
}

/// The length of the prefix of a workload's address.
fn prefix(mesh: &Mesh, site: usize, workload: &str) -> String {
    let shown = mesh.site(site).exec(workload, &["ip", "-4", "-o", "addr", "show", "eth0"]).ok().stdout;
    let words: Vec<&str> = shown.split_whitespace().filter(|word| word.contains('/')).collect();
    words.iter().map(|word| word.split('/').nth(1).unwrap()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_network_grows_under_traffic_and_no_call_fails() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(2);
    let _ = mesh
        .sealane(&["network", "create", "shop", "--subnet", "10.42.0.0/26", "--subnet", "fd42::/64"])
        .ok();
    let _ = mesh.sealane(&["network", "create", "office", "--subnet", "10.43.0.0/16"]).ok();
    let _servers = [mesh.site(1).serve("api", "api-1"), mesh.site(2).serve("api", "api-2")];
    mesh.await_instances("api", 2);
    let loads = [1, 2].map(|site| mesh.site(site).load(&format!("caller-{site}"), &["http://api:8080/"]));
    let plain = ["--network", "shop", "--no-sidecar", "--name"];
    let _target = mesh.site(1).run(&[&plain[..], &["target"]].concat(), &["sleep", "1000"]).entered();
    let target = eventually(PATIENCE, "there is a target", || mesh.site(1).workload("target"));
    let target = target["address"].as_str().unwrap().to_owned();
    let pinger = ["ping", "-i", "0.02", "-W", "1", &target];
    let mut ping = mesh.site(2).run(&[&plain[..], &["pinger"]].concat(), &pinger);
    ping.wait_for("bytes from");

    for (subnet, words) in [
        ("10.42.0.0/27", "does not contain"),
        ("10.42.0.0/15", "would overlap 10.43.0.0/16 of network office"),
        ("10.0.0.0/9", "would have the gateway 10.0.0.1"),
    ] {
        let refused = mesh.sealane(&["network", "grow", "shop", "--subnet", subnet]);
        assert!(refused.code() == 1 && refused.stderr.contains(words), "{refused}");
    }
    loads.iter().for_each(|load| load.await_further(200));
    let grown = mesh.sealane(&["network", "grow", "shop", "--subnet", "10.42.0.0/16"]).ok();
    assert!(
        grown.stderr.contains("network shop has subnet 10.42.0.0/16 from now on, on every host"),
        "{grown}"
    );
    for (site, workload) in [(1, "api-1"), (2, "api-2"), (1, "target"), (2, "pinger")] {
        assert_eq!(prefix(&mesh, site, workload), "16", "{workload}");
    }
    loads.iter().for_each(|load| load.await_further(200));

    // Beyond what it had: by name, by its address, by a service, and what its address is called.
    let flags =
        ["--network", "shop", "--service", "far", "--port", "8080", "--name", "far-1", "--ip", "10.42.9.9"];
    let testapp = sealane_tests::testapp();
    let mut far = mesh.site(2).run(&flags, &[testapp.to_str().unwrap(), "http", "8080", "far-1"]);
    far.wait_for("listening");
    mesh.await_instances("far", 1);
    mesh.site(1).await_instances("far", 1);
    let answer = mesh.site(1).curl_as("caller-1", "http://far:8080/").ok();
    assert!(answer.stdout.contains("far-1"), "{answer}");
    let _ = mesh.site(1).exec("target", &["ping", "-c", "1", "-W", "5", "10.42.9.9"]).ok();
    let called = mesh.site(1).exec("target", &["dig", "+short", "-x", "10.42.9.9"]).ok();
    assert!(called.stdout.contains("far-1.shop"), "{called}");

    for load in loads {
        let _ = load.stop().ok();
    }
    ping.signal(Signal::SIGINT);
    let pinged = ping.wait();
    // None in a hundred.
    let kept = [", 0% packet loss", ", 0."].iter().any(|words| pinged.stdout.contains(words));
    assert!(kept, "{pinged}");
    eventually(PATIENCE, "nothing is wrong", || {
        [1, 2].iter().all(|&site| mesh.site(site).problems() == "[]").then_some(())
    });
}
