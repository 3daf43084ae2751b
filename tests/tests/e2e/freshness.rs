//! Time until the rest of the mesh knows.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::names::A;
use sealane_tests::{Mesh, PATIENCE, eventually};

/// Factor by which a figure may be exceeded on a machine that does much else.
const SLACK: u32 = 3;

#[test]
fn a_new_instance_is_called_from_another_host_within_a_second_of_its_start() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let _first = mesh.site(2).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let mut load = mesh.site(2).load("web", &["http://api:8080/", "--pause-ms", "2"]);
    let mut slowest = Duration::ZERO;
    for number in 2..=6 {
        let started = Instant::now();
        let _instance = mesh.site(1).serve("api", &format!("api-{number}"));
        load.await_answer(&format!("api-{number}"));
        slowest = slowest.max(started.elapsed());
    }
    println!("a new instance was called after at most {slowest:?}");
    assert!(slowest < Duration::from_secs(1) * SLACK, "{slowest:?}");
    let _ = load.stop().ok();
}

#[test]
fn an_instance_that_was_killed_costs_no_request_and_is_gone_from_names_and_lists_within_200_ms() {
    if !isolated() {
        return;
    }
    let (mesh, mut servers) = Mesh::serving(3, 3);
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    assert_eq!(load.program().ask("api-3.shop", A).addresses.len(), 1);

    servers[2].kill9();
    let killed = Instant::now();
    eventually(PATIENCE, "the name is gone", || {
        (load.program().ask("api-3.shop", A).code == 3).then_some(())
    });
    let name_gone = killed.elapsed();
    mesh.site(2).await_instances("api", 2);
    let list_gone = killed.elapsed();
    println!("gone from names after {name_gone:?}, from lists after {list_gone:?}");
    load.await_further(300);
    let _ = load.stop().ok();
    let slowest = name_gone.max(list_gone);
    assert!(slowest < Duration::from_millis(200) * SLACK, "{slowest:?}");
}

#[test]
fn idle_sidecars_are_small() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let idle = resident(&mesh);
    let program = sealane_tests::testapp();
    let flags = ["--network", "shop", "--name", "web"];
    let requests = [program.to_str().unwrap(), "load", "http://api:8080/", "--requests", "1000"];
    let mut shell = mesh.site(2).run(
        &flags,
        &["sh", "-c", "\"$@\"; echo done; cat", "sh"].into_iter().chain(requests).collect::<Vec<_>>(),
    );
    shell.wait_for("done");
    let used = resident(&mesh);
    println!("resident KiB of sidecars: new and idle {idle:?}, after 1,000 requests {used:?}");
    assert!(!idle.is_empty() && idle.iter().all(|kib| *kib < 8 * 1024), "{idle:?}");
    // Of what was used, code that all sidecars share is a part.
    assert!(used.iter().all(|kib| *kib < 16 * 1024), "{used:?}");
}

/// Resident KiB of every sidecar.
fn resident(mesh: &Mesh) -> Vec<u64> {
    let pids = mesh.sites().flat_map(|site| site.processes("proxy"));
    pids.map(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    })
    .collect()
}
