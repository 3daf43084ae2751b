//! Control planes that share an etcd: one leads, and another one follows it.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealane_lab::isolated;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::admin_client::AdminClient;
use sealane_proto::wire::v1::fellows_client::FellowsClient;
use sealane_proto::wire::v1::lookout_client::LookoutClient;
use sealane_proto::wire::v1::read_client::ReadClient;
use sealane_tests::{Mesh, PATIENCE, Running, eventually};

use crate::identity::Intruder;

/// Waits until the control plane of a host leads; returns the time that took.
fn await_leader(mesh: &Mesh, number: usize) -> Duration {
    let began = Instant::now();
    eventually(PATIENCE, "another control plane leads", || {
        (mesh.site(number).control_status()?["role"] == "control").then_some(())
    });
    began.elapsed()
}

/// Waits until one of these hosts' control planes leads; returns its host.
fn await_any_leader(mesh: &Mesh, hosts: &[usize]) -> usize {
    eventually(PATIENCE, "another control plane leads", || {
        let metrics = |host: usize| mesh.site(host).sh("curl -sS http://127.0.0.1:9465/metrics");
        hosts.iter().copied().find(|host| metrics(*host).contains("sealane_control_leading 1"))
    })
}

/// Waits until the control plane of a host, which leads, sees every host connected.
fn await_hosts(mesh: &Mesh, number: usize, hosts: u64) {
    eventually(PATIENCE, "every host has come", || {
        let status = mesh.site(number).control_status()?;
        (status["nodes_connected"] == hosts).then_some(())
    });
}

/// Waits until the agent of a host has kept the address of another control plane.
fn await_knowledge(mesh: &Mesh, host: usize, control: usize) {
    let look =
        format!("grep -q 192.0.2.{}:7443 /var/lib/sealane/node/controls && echo yes || true", 10 + control);
    eventually(PATIENCE, "the agent knows of the control plane", || {
        (mesh.site(host).sh(&look) == "yes\n").then_some(())
    });
}

/// Creates a network by the control plane of a host.
fn create(mesh: &Mesh, number: usize, name: &str, subnet: &str) -> bool {
    let socket = ["--socket", "/run/sealane/control.sock"];
    let create = [&["network", "create", name, "--subnet", subnet], &socket[..]].concat();
    mesh.site(number).sealane(&create).status.success()
}

/// Returns the names of all networks, as the control plane of a host knows them.
fn networks(mesh: &Mesh, number: usize) -> Vec<String> {
    let list = ["network", "ls", "-o", "json", "--socket", "/run/sealane/control.sock"];
    let views = mesh.site(number).sealane(&list).json();
    views.as_array().unwrap().iter().map(|view| view["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn when_the_leader_dies_under_load_no_call_fails_and_no_change_is_lost() {
    if !isolated() {
        return;
    }
    let (mut mesh, _etcd) = Mesh::sharing(3);
    mesh.create_shop();
    let _servers = [1, 2].map(|number| mesh.site(number).serve("api", &format!("api-{number}")));
    mesh.await_instances("api", 2);
    let load = mesh.site(3).load("web", &["http://api:8080/"]);
    assert!(create(&mesh, 1, "last", "10.50.0.0/16"));

    mesh.control.kill9();
    let began = Instant::now();
    let meanwhile = ["network", "create", "meanwhile", "--subnet", "10.53.0.0/16"];
    let meanwhile = mesh.site(2).sealane(&meanwhile);
    let is_done = meanwhile.status.success();
    assert!(is_done || meanwhile.stderr.contains("was lost"), "who leads now does it: {meanwhile}");
    await_leader(&mesh, 2);
    let took = began.elapsed();
    assert!(create(&mesh, 2, "next", "10.52.0.0/16"), "the first change after it is taken");
    await_hosts(&mesh, 2, 3);
    assert!(took < Duration::from_secs(20), "{took:?}");
    let mut known = networks(&mesh, 2);
    known.retain(|name| name != "meanwhile" || is_done);
    let expected: &[&str] =
        if is_done { &["last", "meanwhile", "next", "shop"] } else { &["last", "next", "shop"] };
    assert_eq!(known, expected);
    load.await_further(200);

    mesh.control.start();
    eventually(PATIENCE, "the former leader stands by", || {
        (mesh.site(1).control_status()?["role"] == "standby").then_some(())
    });
    // One that ends in order gives its place up.
    mesh.others[0].terminate();
    await_leader(&mesh, 1);
    await_hosts(&mesh, 1, 3);
    let mut known = networks(&mesh, 1);
    known.retain(|name| name != "meanwhile" || is_done);
    assert_eq!(known, expected);
    load.await_further(200);
    let _ = load.stop().ok();
}

#[test]
fn a_leader_that_froze_writes_nothing_after_its_time() {
    if !isolated() {
        return;
    }
    let (mesh, _etcd) = Mesh::sharing(3);
    let frozen = Pid::from_raw(mesh.control.pid().cast_signed());
    kill(frozen, Signal::SIGSTOP).unwrap();
    // It waits in the socket's queue, and is the first thing that the control plane reads when it thaws.
    let create = ["network", "create", "late", "--subnet", "10.60.0.0/16"];
    let late = mesh.site(1).begin(sealane_tests::sealane().to_str().unwrap(), &create);
    await_leader(&mesh, 2);
    assert!(self::create(&mesh, 2, "new", "10.60.0.0/16"));
    kill(frozen, Signal::SIGCONT).unwrap();
    let late = late.wait();
    assert!(!late.status.success(), "{late}");
    eventually(PATIENCE, "the former leader stands by", || {
        (mesh.site(1).control_status()?["role"] == "standby").then_some(())
    });
    assert_eq!(networks(&mesh, 2), ["new"]);
    await_hosts(&mesh, 2, 3);
    let metrics = mesh.site(1).sh("curl -sS http://127.0.0.1:9465/metrics");
    assert!(metrics.contains("sealane_control_leading 0"), "{metrics}");
}

#[test]
fn without_etcd_nobody_leads_calls_go_on_and_all_is_as_before_when_it_is_back() {
    if !isolated() {
        return;
    }
    let (mesh, etcd) = Mesh::sharing(3);
    mesh.create_shop();
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let load = mesh.site(3).load("web", &["http://api:8080/"]);
    etcd.signal(Signal::SIGSTOP);
    eventually(PATIENCE, "both say that nobody leads", || {
        let said = [1, 2].map(|number| mesh.site(number).control_status());
        let leaderless = |status: &Option<serde_json::Value>| {
            let problems = status.as_ref().map(|status| status["problems"].to_string());
            problems.is_some_and(|problems| problems.contains("no control plane is known to lead"))
        };
        said.iter().all(leaderless).then_some(())
    });
    assert_eq!((networks(&mesh, 1), networks(&mesh, 2)), (vec!["shop".to_owned()], vec!["shop".to_owned()]));
    assert!(!create(&mesh, 1, "no", "10.61.0.0/16"));
    load.await_further(200);
    etcd.signal(Signal::SIGCONT);
    let leader = eventually(PATIENCE, "one leads again", || {
        [1, 2].into_iter().find(|&number| {
            mesh.site(number).control_status().is_some_and(|status| status["role"] == "control")
        })
    });
    assert!(create(&mesh, leader, "again", "10.62.0.0/16"));
    await_hosts(&mesh, leader, 3);
    assert_eq!(networks(&mesh, leader), ["again", "shop"]);
    let _ = load.stop().ok();
}

#[test]
fn hosts_learn_of_control_planes_and_go_to_another_one_within_two_seconds() {
    if !isolated() {
        return;
    }
    let (mut mesh, _etcds) = Mesh::sharing_three(4);
    for (host, control) in [(1, 2), (1, 3), (4, 2), (4, 3)] {
        await_knowledge(&mesh, host, control);
    }
    mesh.create_shop();
    let _server = mesh.site(4).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let load = mesh.site(3).load("web", &["http://api:8080/"]);

    mesh.control.kill9();
    let began = Instant::now();
    let leader = await_any_leader(&mesh, &[2, 3]);
    let elected = began.elapsed();
    await_hosts(&mesh, leader, 4);
    let moved = began.elapsed() - elected;
    println!("elected after {elected:?}, hosts there {moved:?} later");
    assert!(moved < Duration::from_secs(2), "{moved:?}");
    assert!(create(&mesh, leader, "next", "10.52.0.0/16"));

    // Its agent was told of the first control plane alone, which is not there.
    mesh.site_mut(4).agent.kill9();
    mesh.site_mut(4).agent.start();
    mesh.site_mut(4).await_ready();
    await_hosts(&mesh, leader, 4);
    load.await_further(200);
    let _ = load.stop().ok();
}

#[test]
fn hosts_leave_a_control_plane_that_froze_as_soon_as_another_one_leads() {
    if !isolated() {
        return;
    }
    let (mesh, _etcds) = Mesh::sharing_three(3);
    for (host, control) in [(1, 3), (2, 3), (3, 3)] {
        await_knowledge(&mesh, host, control);
    }
    let frozen = Pid::from_raw(mesh.control.pid().cast_signed());
    kill(frozen, Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    let leader = await_any_leader(&mesh, &[2, 3]);
    let elected = began.elapsed();
    await_hosts(&mesh, leader, 3);
    let moved = began.elapsed() - elected;
    println!("elected after {elected:?}, hosts there {moved:?} later");
    assert!(moved < Duration::from_secs(2), "{moved:?}");
    kill(frozen, Signal::SIGCONT).unwrap();
}

/// Returns the control planes as the one of a host sees them: address, role, and what is wrong.
fn controls(mesh: &Mesh, number: usize) -> Vec<(String, String, String)> {
    let list = ["control", "ls", "-o", "json", "--socket", "/run/sealane/control.sock"];
    let listed: serde_json::Value = serde_json::from_str(&mesh.site(number).sealane(&list).stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let views = listed.as_array().unwrap().iter();
    views.map(|view| (text(&view["address"]), text(&view["role"]), text(&view["problem"]))).collect()
}

/// Waits until the control plane of a host says of another one that it has a role, and something in these words.
fn await_view(mesh: &Mesh, number: usize, other: usize, (role, problem): (&str, &str)) {
    let address = format!("192.0.2.{}:7443", 10 + other);
    eventually(PATIENCE, &format!("host-{number} says of {address}: {role}, {problem}"), || {
        let views = controls(mesh, number);
        let view = views.iter().find(|(other, _, _)| *other == address)?;
        (view.1 == role && view.2.contains(problem) && problem.is_empty() == view.2.is_empty()).then_some(())
    });
}

/// Cuts a host off from the others' members of etcd, or heals that.
fn cut_off(mesh: &Mesh, number: usize, cut: bool) {
    let script = if cut {
        "nft -f - <<'E'
         table inet cut {
           chain in { type filter hook input priority 0; iifname != lo tcp dport { 2379, 2380 } drop; iifname != lo tcp sport { 2379, 2380 } drop; }
           chain out { type filter hook output priority 0; oifname != lo tcp dport { 2379, 2380 } drop; oifname != lo tcp sport { 2379, 2380 } drop; }
         }
E"
    } else {
        "nft delete table inet cut"
    };
    mesh.site(number).sh(script);
}

#[test]
fn on_any_control_host_people_see_the_mesh_and_change_it() {
    if !isolated() {
        return;
    }
    let (mesh, _etcd) = Mesh::sharing(3);
    assert!(create(&mesh, 2, "shop", "10.42.0.0/16"), "a standby passes it on");
    assert_eq!((networks(&mesh, 1), networks(&mesh, 2)), (vec!["shop".to_owned()], vec!["shop".to_owned()]));
    let list = ["node", "ls", "-o", "json", "--socket", "/run/sealane/control.sock"];
    let nodes = mesh.site(2).sealane(&list).json();
    assert!(nodes.as_array().unwrap().iter().all(|node| node["connected"] == true), "{nodes}");
    let history = mesh.json(&["history", "network", "shop"]);
    assert!(history[0]["actor"]["user"] == "root", "{history}");
    for number in [1, 2] {
        await_view(&mesh, number, 1, ("leader", ""));
        await_view(&mesh, number, 2, ("standby", ""));
    }
    eventually(PATIENCE, "the standby has what the leader has", || {
        let list = ["control", "ls", "-o", "json", "--socket", "/run/sealane/control.sock"];
        let views = mesh.site(1).sealane(&list).json();
        let (one, other) = (&views[0]["generation"], &views[1]["generation"]);
        (one.is_string() && one == other).then_some(())
    });
    let refused = mesh.site(2).sealane(&["control", "rm", "192.0.2.11:7443"]);
    assert!(refused.stderr.contains("control plane 192.0.2.11:7443 runs; end it first"), "{refused}");
}

#[test]
fn a_control_plane_that_is_lost_or_cut_off_from_etcd_is_named() {
    if !isolated() {
        return;
    }
    let (mut mesh, _etcds) = Mesh::sharing_three(3);
    await_view(&mesh, 1, 3, ("standby", ""));
    mesh.others[1].kill9();
    await_view(&mesh, 1, 3, ("lost", "gives no sign of life"));
    await_view(&mesh, 2, 3, ("lost", "gives no sign of life"));
    let problems = mesh.site(1).control_status().unwrap()["problems"].to_string();
    assert!(problems.contains("control plane 192.0.2.13:7443 gives no sign of life"), "{problems}");
    let _ = mesh.sealane(&["control", "rm", "192.0.2.13:7443"]).ok();
    eventually(PATIENCE, "it is off the roll", || (controls(&mesh, 2).len() == 2).then_some(()));

    mesh.others[1].start();
    await_view(&mesh, 1, 3, ("standby", ""));
    cut_off(&mesh, 3, true);
    await_view(&mesh, 1, 3, ("standby", "does not reach the store"));
    let problems = mesh.site(3).control_status().unwrap()["problems"].to_string();
    assert!(problems.contains("192.0.2.13:7443 does not reach the store"), "{problems}");
    assert!(!problems.contains("no control plane is known to lead"), "{problems}");
    assert!(create(&mesh, 3, "passed-on", "10.43.0.0/16"), "others tell it who leads");
    assert_eq!(networks(&mesh, 3), ["passed-on"]);
    cut_off(&mesh, 3, false);
    await_view(&mesh, 1, 3, ("standby", ""));
    // The member of etcd that was cut off makes the others elect anew.
    eventually(PATIENCE, "the store takes changes", || {
        create(&mesh, 1, "shop", "10.42.0.0/16").then_some(())
    });
    mesh.others[1].terminate();
    await_view(&mesh, 1, 3, ("stopped", ""));
}

/// Creates networks one after another by the control plane of a host, for as long as this is held.
struct Writer {
    running: Running,
}

impl Writer {
    fn start(mesh: &Mesh, number: usize) -> Self {
        let script = format!(
            "for i in $(seq 0 5000); do
               {} network create net-$i --subnet 10.$((60 + i / 250)).$((i % 250)).0/24 --socket /run/sealane/control.sock \
                 >/dev/null 2>&1 && echo net-$i.
             done",
            sealane_tests::sealane().display()
        );
        Self { running: mesh.site(number).begin("bash", &["-c", &script]) }
    }

    /// Returns the names of the networks of which it was said that they are there.
    fn acknowledged(&self) -> Vec<String> {
        let said = self.running.stdout();
        said.lines().filter_map(|line| line.strip_suffix('.')).map(ToOwned::to_owned).collect()
    }

    /// Waits until some more are.
    fn await_further(&self) {
        let before = self.acknowledged().len();
        eventually(PATIENCE, "changes are taken", || (self.acknowledged().len() > before + 3).then_some(()));
    }
}

/// Waits until so many hosts are at a leader other than this one; returns its host.
fn await_moved(mesh: &Mesh, from: usize, hosts: u64) -> usize {
    let began = Instant::now();
    let others: Vec<usize> = (1..=3).filter(|number| *number != from).collect();
    let leader = await_any_leader(mesh, &others);
    let elected = began.elapsed();
    await_hosts(mesh, leader, hosts);
    let moved = began.elapsed() - elected;
    assert!(moved < Duration::from_secs(2), "elected after {elected:?}, hosts there {moved:?} later");
    leader
}

#[test]
fn whatever_fails_of_three_no_acknowledged_change_is_lost_and_calls_go_on() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut etcds) = Mesh::sharing_three(4);
    for host in 1..=4 {
        await_knowledge(&mesh, host, 2);
        await_knowledge(&mesh, host, 3);
    }
    mesh.create_shop();
    let _server = mesh.site(4).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let load = mesh.site(4).load("web", &["http://api:8080/"]);
    let writer = Writer::start(&mesh, 3);
    writer.await_further();

    mesh.control.kill9();
    let leader = await_moved(&mesh, 1, 4);
    writer.await_further();
    mesh.control.start();
    await_view(&mesh, leader, 1, ("standby", ""));

    // Each of etcd's members once, so that its leader is among them.
    for number in 1..=3 {
        etcds[number - 1].kill9();
        writer.await_further();
        etcds[number - 1] = mesh.site(number).etcd_of_three(number);
        writer.await_further();
    }

    let leader = await_any_leader(&mesh, &[1, 2, 3]);
    await_hosts(&mesh, leader, 4);
    cut_off(&mesh, leader, true);
    let next = await_moved(&mesh, leader, 4);
    assert!(create(&mesh, next, "meanwhile", "10.99.0.0/16"));
    cut_off(&mesh, leader, false);
    await_view(&mesh, next, leader, ("standby", ""));
    writer.await_further();
    load.await_further(200);

    let acknowledged = writer.acknowledged();
    drop(writer);
    let there = networks(&mesh, next);
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(name)).collect();
    println!("{} changes acknowledged", acknowledged.len());
    assert!(lost.is_empty() && there.contains(&"meanwhile".to_owned()), "lost: {lost:?}");
    let report = load.stop();
    println!("slowest call {} ms", report.max_ms);
    let _ = report.ok();
}

#[test]
fn when_the_leaders_host_vanishes_the_others_go_to_the_next_one() {
    if !isolated() {
        return;
    }
    let (mesh, _etcds) = Mesh::sharing_three(4);
    for host in 2..=4 {
        await_knowledge(&mesh, host, 2);
        await_knowledge(&mesh, host, 3);
    }
    mesh.site(1).host.cut().unwrap();
    let _next = await_moved(&mesh, 1, 3);
    mesh.site(1).host.heal().unwrap();
}

#[test]
fn a_host_hears_who_leads_and_is_served_nothing_that_is_for_control_planes_and_people() {
    if !isolated() {
        return;
    }
    let (mesh, _etcd) = Mesh::sharing(3);
    let token = mesh.token();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hears = |intruder: &Intruder, number: usize| {
        runtime.block_on(async {
            let channel = intruder.channel(&format!("192.0.2.{}:7443", 10 + number)).await;
            let mut lookout = LookoutClient::new(channel);
            let mut words = lookout.watch(v1::WatchControlsRequest {}).await?.into_inner();
            Ok::<_, tonic::Status>(words.message().await?.unwrap_or_default().leader)
        })
    };
    let intruder = runtime.block_on(Intruder::join(&token, "intruder"));
    for number in [1, 2] {
        assert_eq!(hears(&intruder, number).unwrap(), "192.0.2.11:7443");
        runtime.block_on(async {
            let channel = intruder.channel(&format!("192.0.2.{}:7443", 10 + number)).await;
            let mut admin = AdminClient::new(channel.clone());
            let created = admin.create_token(v1::CreateTokenRequest::default()).await.map(drop);
            let standing =
                FellowsClient::new(channel.clone()).standing(v1::StandingRequest {}).await.map(drop);
            let listed = ReadClient::new(channel).list_nodes(v1::ListNodesRequest {}).await.map(drop);
            for refused in [created, standing, listed] {
                assert_eq!(refused.unwrap_err().code(), tonic::Code::Unimplemented);
            }
        });
    }
    let _ = mesh.sealane(&["node", "rm", "intruder"]).ok();
    for number in [1, 2] {
        eventually(PATIENCE, "a removed host hears nothing", || {
            hears(&intruder, number).is_err().then_some(())
        });
    }
}

/// Returns the problems that the control plane of a host names, in one text.
fn problems(mesh: &Mesh, number: usize) -> String {
    mesh.site(number).control_status().map(|status| status["problems"].to_string()).unwrap_or_default()
}

#[test]
fn no_mesh_is_made_of_an_etcd_that_comes_back_empty_and_a_backup_brings_the_mesh_back() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut etcd) = Mesh::sharing(3);
    mesh.create_shop();
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let load = mesh.site(3).load("web", &["http://api:8080/"]);
    let etcd_at = "192.0.2.13:2379";
    let restore = |mesh: &Mesh, more: &[&str]| {
        let flags = ["restore", "/tmp/copy", "--store", "etcd", "--etcd", "http://192.0.2.13:2379"];
        let flags = [&flags[..], &["--key-file", "/var/lib/mesh.key"], more].concat();
        mesh.site(2).sealane(&flags)
    };

    etcd.kill9();
    mesh.site(3).sh("rm -rf /var/lib/etcd");
    etcd = mesh.site(3).etcd(etcd_at);
    for number in [1, 2] {
        eventually(PATIENCE, "both say that the mesh is not in etcd any more", || {
            problems(&mesh, number)
                .contains("the mesh of this control plane is not in etcd any more")
                .then_some(())
        });
        let refused = mesh.site(number).sealane(&["network", "create", "no", "--subnet", "10.61.0.0/16"]);
        assert!(refused.stderr.contains("not in etcd any more"), "{refused}");
        assert_eq!(networks(&mesh, number), ["shop"]);
        let _ = mesh.site(number).sealane(&["backup", "/tmp/copy"]).ok();
    }
    let refused = restore(&mesh, &[]);
    assert!(refused.stderr.contains("is in use by another"), "{refused}");

    // Who starts anew knows that there was a mesh, and has nothing of it.
    mesh.others[0].terminate();
    let anew = mesh.site(2).sealane(&[
        "control",
        "--listen",
        "192.0.2.12:7443",
        "--store",
        "etcd",
        "--etcd",
        "http://192.0.2.13:2379",
        "--key-file",
        "/var/lib/mesh.key",
    ]);
    assert!(anew.stderr.contains("not in etcd any more"), "{anew}");

    let _ = restore(&mesh, &[]).ok();
    let leader = await_any_leader(&mesh, &[1]);
    await_hosts(&mesh, leader, 3);
    assert!(create(&mesh, 1, "next", "10.52.0.0/16"));
    mesh.others[0].start();
    await_view(&mesh, 1, 2, ("standby", ""));
    mesh.await_instances("api", 1);
    load.await_further(200);
    let _ = load.stop().ok();
    drop(etcd);
}
