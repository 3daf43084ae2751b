//! Host that is alone, its cleaning, and the demo.

use std::process::Command;
use std::time::Instant;

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Running, eventually, sealane};

/// Lists everything of Sealane that can be seen on the first host.
fn traces(mesh: &Mesh) -> String {
    let look = "ls -d /run/sealane /var/lib/sealane 2>/dev/null; grep sealane /proc/self/mountinfo; \
                nft list tables | grep sealane; ip -br link | grep -v -e '^lo ' -e '^eth0'; ls /run/netns 2>/dev/null";
    let site = mesh.site(1);
    let seen = site.command("sh", &["-c", look]).stdout;
    let processes = ["agent", "control", "up", "keep", "proxy"].map(|verb| (verb, site.processes(verb)));
    let left: Vec<_> = processes.iter().filter(|(_, pids)| !pids.is_empty()).collect();
    if left.is_empty() { seen } else { format!("{seen}{left:?}") }
}

#[track_caller]
fn assert_gone(mesh: &Mesh, before: &str, cleaned: &Finished) {
    let started = Instant::now();
    let gone = || traces(mesh) == before;
    while !gone() {
        assert!(started.elapsed() < PATIENCE, "{}\nis left after {cleaned}", traces(mesh));
    }
}

#[test]
fn one_host_is_a_mesh_by_one_command_and_clean_leaves_no_trace() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    let before = traces(&mesh);
    let mut up = mesh.site(1).host.command(sealane().to_str().unwrap());
    up.arg("up");
    let mut up = Running::start(up);
    eventually(PATIENCE, "the host is ready", || {
        assert!(up.runs(), "{}", up.stderr());
        mesh.site(1).http("/ready").is_some_and(|(status, _)| status == 200).then_some(())
    });
    mesh.create_shop();
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let answer = mesh.site(1).curl("http://api:8080/").ok();
    assert_eq!(answer.stdout, "api-1");
    let flags = ["--network", "shop", "--name", "mute", "--service", "mute", "--port", "81", "--port", "82"];
    let _mute = mesh.site(1).run(&flags, &["sleep", "infinity"]);
    // Control's socket answers first; what keeps a workload, its host knows.
    eventually(PATIENCE, "the port is named at which nothing listens", || {
        let mute = mesh.site(1).workload("mute")?;
        mute["problem"].as_str()?.contains("81").then_some(())
    });

    let cleaned = mesh.sealane(&["clean", "--yes"]).ok();
    assert_gone(&mesh, &before, &cleaned);
    let again = mesh.sealane(&["clean", "--yes"]);
    assert!(again.status.success(), "{again}");
}

#[test]
fn a_host_whose_processes_were_all_killed_is_cleaned_as_well() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    let before = traces(&mesh);
    let mut mesh = mesh.up_to(1);
    mesh.create_shop();
    let mut server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    mesh.site(1).kill9_keep();
    mesh.site_mut(1).agent.kill9();
    mesh.control.kill9();
    server.kill9();
    let cleaned = mesh.sealane(&["clean", "--yes"]).ok();
    assert_gone(&mesh, &before, &cleaned);
}

#[test]
fn folders_of_any_name_are_cleaned_as_long_as_nothing_else_is_in_them() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    let before = traces(&mesh);
    let program = sealane();
    let line = |words: &[&str]| -> Vec<String> {
        let own = ["SEALANE_RUN_DIR=/run/r1", "SEALANE_DATA_DIR=/run/d1", program.to_str().unwrap()];
        own.iter().chain(words).map(ToString::to_string).collect()
    };
    let sealane = |words: &[&str]| {
        let line = line(words);
        mesh.site(1).command("env", &line.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut up = mesh.site(1).host.command("env");
    up.args(line(&["up"]));
    let mut up = Running::start(up);
    eventually(PATIENCE, "the host is ready", || {
        assert!(up.runs(), "{}", up.stderr());
        mesh.site(1).http("/ready").is_some_and(|(status, _)| status == 200).then_some(())
    });
    let _ = sealane(&["network", "create", "shop", "--subnet", "10.42.0.0/16"]).ok();
    let mut web = mesh.site(1).host.command("env");
    web.args(line(&["run", "--network", "shop", "--", "sh", "-c", "echo began; exec sleep infinity"]));
    let mut web = Running::start(web);
    web.wait_for("began");
    let _ = sealane(&["backup", "/run/d1/of-mine"]).ok();

    let refused = sealane(&["clean", "--yes"]);
    assert!(refused.code() == 2 && refused.stderr.contains("there is of-mine in it"), "{refused}");
    assert!(up.runs(), "nothing was touched");
    let _ = mesh.site(1).command("rm", &["/run/d1/of-mine"]).ok();
    let cleaned = sealane(&["clean", "--yes"]).ok();
    assert_gone(&mesh, &before, &cleaned);
    let left = mesh.site(1).command("ls", &["-d", "/run/r1", "/run/d1"]);
    assert_eq!(left.stdout, "", "{left}");
    assert!(sealane(&["clean", "--yes"]).status.success());
}

#[test]
fn the_demo_shows_what_it_claims() {
    // In a network namespace of its own it does not meet a demo that runs on this machine.
    if !isolated() {
        return;
    }
    let mut demo = Command::new(sealane());
    demo.args(["demo", "--once"]);
    let shown = Running::start(demo).wait();
    assert!(shown.status.success(), "{shown}");
}
