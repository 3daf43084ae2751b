//! Everything is killed in turn.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

#[test]
fn ten_thousand_requests_outlive_an_instance_control_and_an_agent() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut servers) = Mesh::serving(3, 3);
    let load = mesh.site(2).load("web", &["http://api:8080/", "--concurrency", "8"]);
    load.await_further(1000);

    servers[2].kill9();
    load.await_further(1000);
    servers[2] = mesh.site(3).serve("api", "api-4");
    load.await_further(1000);

    mesh.control.kill9();
    load.await_further(2000);
    mesh.control.start();
    mesh.await_control();
    load.await_further(1000);

    mesh.site_mut(2).agent.kill9();
    load.await_further(2000);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    mesh.site_mut(1).agent.kill9();
    load.await_further(1000);
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    load.await_further(1000);
    mesh.await_instances("api", 3);

    let report = load.stop().ok();
    println!("{} requests, the slowest took {} ms: {:?}", report.requests, report.max_ms, report.answers);
    assert!(report.requests >= 10_000);
}

#[test]
fn workloads_that_start_and_end_all_at_once_are_all_there_and_all_gone() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let program = sealane_tests::testapp();
    let command = [program.to_str().unwrap(), "http", "8080", "x"];
    let flags = ["--network", "shop", "--service", "api", "--port", "8080"];
    let mut servers: Vec<_> = (0..20).map(|n| mesh.site(1 + n % 2).run(&flags, &command)).collect();
    servers.iter_mut().for_each(|server| server.wait_for("listening"));
    mesh.await_instances("api", 20);
    let load = mesh.site(1).load("web", &["http://api:8080/", "--concurrency", "8", "--pause-ms", "1"]);
    load.await_further(500);
    let _ = load.stop().ok();
    // So many ends within a few milliseconds may use up a request's retries: calls are asked for afterwards.
    servers.truncate(1);
    mesh.await_instances("api", 1);
    let load = mesh.site(1).load("later", &["http://api:8080/"]);
    load.await_further(500);
    let _ = load.stop().ok();
    drop(servers);
    mesh.await_instances("api", 0);
    let left = || mesh.sites().map(|site| site.processes("proxy").len()).sum::<usize>();
    eventually(PATIENCE, "every sidecar ends", || (left() == 0).then_some(()));
    let names = |site: &sealane_tests::Site| site.command("ls", &["/run/sealane/netns"]).stdout;
    let workloads = || mesh.sites().map(|site| names(site).matches("api-").count()).sum::<usize>();
    eventually(PATIENCE, "every namespace ends", || (workloads() == 0).then_some(()));
}

#[test]
fn an_agent_killed_at_any_moment_leaves_nothing_that_its_successor_does_not_know_or_end() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 1);
    let load = mesh.site(1).load("web", &["http://api:8080/", "--pause-ms", "2"]);
    let program = sealane_tests::testapp();
    let command = [program.to_str().unwrap(), "http", "8080", "x"];
    let mut servers = Vec::new();
    for round in 0..12_u32 {
        let name = format!("x-{round}");
        let flags = ["--network", "shop", "--service", "api", "--port", "8080", "--name", &name];
        servers.push(mesh.site(2).run(&flags, &command));
        if round % 3 == 2 {
            servers.swap_remove(0);
        }
        let (started, moment) = (Instant::now(), Duration::from_millis(u64::from(round) * 17));
        eventually(PATIENCE, "the moment is there", || (started.elapsed() >= moment).then_some(()));
        mesh.site_mut(2).agent.kill9();
        mesh.site_mut(2).agent.start();
        mesh.site_mut(2).await_ready();
    }
    servers.retain_mut(|server| server.runs());
    let known = || {
        mesh.site(2)
            .json(&["workload", "ls"])
            .as_array()
            .unwrap()
            .iter()
            .filter(|w| w["node"] == "host-2")
            .count()
    };
    eventually(PATIENCE, "exactly those that run are known", || (known() == servers.len()).then_some(()));
    println!("{} of 12 were started", servers.len());
    mesh.await_instances("api", servers.len() as u64 + 1);
    // One after another: a request that meets none but instances that die in the same moment may fail.
    while let Some(server) = servers.pop() {
        drop(server);
        mesh.await_instances("api", servers.len() as u64 + 1);
    }
    let site = mesh.site(2);
    eventually(PATIENCE, "no sidecar is left", || site.processes("proxy").is_empty().then_some(()));
    eventually(PATIENCE, "no workload's namespace is left", || {
        (!site.command("ls", &["/run/sealane/netns"]).stdout.contains("x-")).then_some(())
    });
    let _ = load.stop().ok();
}
