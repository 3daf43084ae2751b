//! The agent, and the keep, are gone for a while.

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;
use sealane_lab::isolated;
use sealane_sys::Process;
use sealane_tests::{LoadReport, Mesh, PATIENCE, Running, eventually, testapp};

/// A ping that runs until it is asked for its count: sent and received.
struct Ping(Running);

impl Ping {
    fn start(mesh: &Mesh, number: usize, target: &str) -> Self {
        let flags = ["--network", "shop", "--name", "pinger"];
        let mut ping = mesh.site(number).run(&flags, &["ping", "-i", "0.02", target]);
        ping.wait_for("bytes from");
        Self(ping)
    }

    fn stop(self) -> (u64, u64) {
        self.0.signal(Signal::SIGINT);
        let said = self.0.wait();
        let summary = said.stdout.lines().find(|line| line.contains("packets transmitted")).unwrap();
        let numbers: Vec<u64> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    }
}

fn dns_load(mesh: &Mesh, number: usize) -> Running {
    let program = testapp();
    let flags = ["--network", "shop", "--name", "asker"];
    let mut asker = mesh.site(number).run(&flags, &[program.to_str().unwrap(), "dns", "api.shop"]);
    asker.wait_for("running");
    asker
}

#[test]
fn nothing_is_lost_without_the_agent_and_its_successor_adopts_what_runs() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let remote = mesh.site(1).workload("api-1").unwrap()["address"].as_str().unwrap().to_owned();
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    let fresh = ["http://api:8080/", "--fresh", "--concurrency", "2", "--pause-ms", "5"];
    let fresh = mesh.site(2).load("fresh", &fresh);
    let ping = Ping::start(&mesh, 2, &remote);
    let names = dns_load(&mesh, 2);
    let sidecars = mesh.site(2).processes("proxy");
    let workload = mesh.site(2).workload("api-2").unwrap();

    mesh.site_mut(2).agent.kill9();
    let gone = Instant::now();
    load.await_further(500);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    println!("the agent was gone for {:?}", gone.elapsed());
    load.await_further(200);

    assert_eq!(mesh.site(2).processes("proxy"), sidecars);
    assert_eq!(mesh.site(2).workload("api-2").unwrap(), workload);
    let answered = names.stdout().lines().count();
    eventually(PATIENCE, "names are answered again", || {
        (names.stdout().lines().count() > answered + 5).then_some(())
    });
    let (sent, received) = ping.stop();
    assert!(sent <= received + 1, "{received} of {sent} pings came back");
    let names = LoadReport::of(&names.wait()).ok();
    println!("the slowest name took {} ms", names.max_ms);
    let (report, fresh) = (load.stop().ok(), fresh.stop().ok());
    println!("the slowest request took {} ms, with a look-up {} ms", report.max_ms, fresh.max_ms);

    let mut started = mesh.site(2).serve("api", "api-3");
    mesh.await_instances("api", 3);
    started.kill9();
    mesh.await_instances("api", 2);
}

#[test]
fn a_lost_keep_is_replaced_and_the_agent_may_still_be_killed_afterwards() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    let names = dns_load(&mesh, 2);
    let held = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let before = held(mesh.site(2).processes("keep")[0]);

    let old = mesh.site(2).processes("keep");
    mesh.site(2).kill9_keep();
    eventually(PATIENCE, "a new keep holds as much as the old one did", || {
        let keeps = mesh.site(2).processes("keep");
        (keeps != old && keeps.len() == 1 && held(keeps[0]) >= before).then_some(())
    });
    load.await_further(200);
    mesh.site_mut(2).agent.kill9();
    load.await_further(200);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    load.await_further(200);
    let _ = LoadReport::of(&names.wait()).ok();
    let _ = load.stop().ok();
}

#[test]
fn keep_and_agent_killed_together_take_up_every_workload_and_its_sidecar() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let load = mesh.site(1).load("web", &["http://api:8080/"]);
    let sidecars = mesh.site(2).processes("proxy");
    mesh.site(2).kill9_keep();
    mesh.site_mut(2).agent.kill9();
    load.await_further(200);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    let later = mesh.site(1).serve("later", "later");
    let call = || {
        let call = mesh.site(2).curl_as("api-2", "http://later:8080/");
        (call.stdout == "later").then_some(())
    };
    eventually(
        PATIENCE,
        "the workload hears of new services, at the addresses that its sidecar serves",
        call,
    );
    load.await_further(200);
    assert_eq!(mesh.site(2).processes("proxy"), sidecars, "the sidecars went on");
    let _ = load.stop().ok();

    for pid in sidecars {
        sealane_sys::Process::open(pid).unwrap().kill().unwrap();
    }
    eventually(PATIENCE, "another sidecar serves", call);
    drop(later);
}

#[test]
fn run_waits_for_an_agent_that_restarts_but_no_longer_than_it_is_told() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    mesh.site_mut(1).agent.kill9();
    let late = mesh.site(1).run(&["--network", "shop", "--timeout", "100ms"], &["true"]).wait();
    assert_eq!(late.code(), 125);
    assert!(late.stderr.contains("could not start within 100ms"), "{late}");
    let run = mesh.site(1).shop(&["echo", "started"]);
    mesh.site_mut(1).agent.start();
    assert_eq!(run.wait().ok().stdout, "started\n");
}

#[test]
fn a_workload_that_ends_while_the_agent_is_gone_is_gone_when_it_returns() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut servers) = Mesh::serving(2, 2);
    let load = mesh.site(1).load("web", &["http://api:8080/"]);
    mesh.site_mut(2).agent.kill9();
    servers[1].kill9();
    load.await_further(200);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    mesh.await_instances("api", 1);
    mesh.site(2).await_gone("api-2");
    eventually(PATIENCE, "its sidecar has ended", || {
        mesh.site(2).processes("proxy").is_empty().then_some(())
    });
    let _ = load.stop().ok();
}

#[test]
fn agents_and_control_that_are_stopped_and_started_in_order_disturb_nothing() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let load = mesh.site(2).load("web", &["http://api:8080/", "--fresh", "--pause-ms", "2"]);
    let sidecars = [1, 2].map(|n| mesh.site(n).processes("proxy"));
    for number in [1, 2] {
        let ended = mesh.site_mut(number).agent.terminate();
        assert!(ended.success(), "{ended}");
        mesh.site_mut(number).agent.start();
        mesh.site_mut(number).await_ready();
        load.await_further(100);
    }
    let ended = mesh.control.terminate();
    assert!(ended.success(), "{ended}");
    load.await_further(100);
    mesh.control.start();
    mesh.await_control();
    mesh.await_connected();
    load.await_further(100);
    assert_eq!([1, 2].map(|n| mesh.site(n).processes("proxy")), sidecars);
    mesh.await_instances("api", 2);
    let _ = load.stop().ok();
}

#[test]
fn after_a_reboot_a_host_is_who_it_was_and_carries_nothing_that_ended_with_it() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut servers) = Mesh::serving(2, 2);
    let load = mesh.site(1).load("web", &["http://api:8080/"]);

    servers.truncate(1);
    mesh.site_mut(2).power_off();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    mesh.await_instances("api", 1);
    servers.push(mesh.site(2).serve("api", "api-3"));
    mesh.await_instances("api", 2);
    mesh.site(1).load("again", &["http://api:8080/"]).await_answer("api-3");
    let nodes = mesh.json(&["node", "ls"]);
    assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes}");
    let _ = load.stop().ok();
}

#[test]
fn an_agent_that_has_just_begun_lists_all_that_it_has() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(1);
    let networks = ["a", "b", "c", "d"];
    let sleepers: Vec<Running> = (1..)
        .zip(networks)
        .map(|(number, network)| {
            let subnet = format!("10.{number}.0.0/16");
            let _ = mesh.sealane(&["network", "create", network, "--subnet", &subnet]).ok();
            let mut sleeper =
                mesh.site(1).run(&["--network", network], &["sh", "-c", "echo here; sleep 1000"]);
            sleeper.wait_for("here");
            sleeper
        })
        .collect();
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    let ask = |what| {
        let words = [what, "ls", "-o", "json", "--socket", "/run/sealane/agent.sock"];
        eventually(PATIENCE, "the agent answers", || {
            let said = mesh.site(1).sealane(&words);
            said.status.success().then(|| said.json().as_array().unwrap().len())
        })
    };
    assert_eq!(
        ["workload", "network", "workload"].map(ask),
        [sleepers.len(), networks.len(), sleepers.len()]
    );
}

#[test]
fn a_workload_that_outlives_a_clean_is_taken_up_where_its_command_is() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let namespace = |mesh: &Mesh| mesh.site(2).exec("api-2", &["readlink", "/proc/self/ns/net"]).ok().stdout;
    let before = namespace(&mesh);
    mesh.site_mut(2).agent.terminate();
    let _ = mesh.site(2).sealane(&["clean", "--yes", "--keep-data"]).ok();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    mesh.await_instances("api", 2);
    assert_eq!(namespace(&mesh), before);
    let call = mesh.site(1).curl("http://api-2:8080/").ok();
    assert_eq!(call.stdout, "api-2");
}

#[test]
fn what_one_agent_has_begun_the_next_one_brings_to_its_end() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    for graceful in [true, false] {
        let runs: Vec<Running> = (0..10).map(|_| mesh.site(1).shop(&["echo", "done"])).collect();
        // Some are being attached, some are asked for, some are not yet.
        eventually(PATIENCE, "the agent has begun", || {
            mesh.site(1).json(&["workload", "ls"]).as_array().unwrap().first().map(drop)
        });
        if graceful {
            mesh.site_mut(1).agent.terminate();
        } else {
            mesh.site_mut(1).agent.kill9();
        }
        mesh.site_mut(1).agent.start();
        for run in runs {
            assert_eq!(run.wait().ok().stdout, "done\n");
        }
    }
    eventually(PATIENCE, "nothing is left", || {
        mesh.site(1).json(&["workload", "ls"]).as_array().unwrap().is_empty().then_some(())
    });
}

#[test]
fn an_agent_that_starts_while_its_address_is_gone_takes_up_names_and_sidecars_and_a_run_says_what_it_waits_for()
 {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 1);
    let _other = mesh.site(2).serve("other", "other");
    let flags = ["--network", "shop", "--name", "sleeper"];
    let sleeper = mesh.site(2).run(&flags, &["sleep", "1000"]).entered();
    mesh.site(2).await_instances("other", 1);
    let known = sleeper.resolve("other");
    let _ = mesh.site(2).command("ip", &["addr", "del", "192.0.2.12/24", "dev", "eth0"]).ok();
    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    assert_eq!(sleeper.resolve("other"), known);
    let call = || {
        let call = mesh.site(2).exec("sleeper", &["curl", "-sS", "--max-time", "20", "http://other:8080/"]);
        assert_eq!(call.ok().stdout, "other");
    };
    call();
    for pid in mesh.site(2).processes("proxy") {
        Process::open(pid).unwrap().kill().unwrap();
    }
    call();
    let problems = mesh.site(2).json(&["status"])["problems"].to_string();
    assert!(problems.contains("network shop cannot be set up") && problems.contains("sleeper"), "{problems}");
    let problem = mesh.site(2).workload("sleeper").unwrap()["problem"].to_string();
    assert!(problem.contains("cannot be set up on this host"), "{problem}");
    let mut late = mesh.site(2).shop(&["true"]);
    late.wait_for("waiting for network shop, which this host cannot set up now");
    let _ = mesh.site(2).command("ip", &["addr", "add", "192.0.2.12/24", "dev", "eth0"]).ok();
    let _ = late.wait().ok();
    mesh.site_mut(2).await_ready();
    mesh.await_instances("other", 1);
    // An agent that has not noticed yet is waited for as well, and it notices at once.
    let _ = mesh.site(2).command("ip", &["addr", "del", "192.0.2.12/24", "dev", "eth0"]).ok();
    let mut early = mesh.site(2).shop(&["true"]);
    early.wait_for("waiting for ");
    eventually(PATIENCE, "the network is named", || {
        let problems = mesh.site(2).json(&["status"])["problems"].to_string();
        problems.contains("network shop cannot be set up").then_some(())
    });
    let _ = mesh.site(2).command("ip", &["addr", "add", "192.0.2.12/24", "dev", "eth0"]).ok();
    let _ = early.wait().ok();
}
