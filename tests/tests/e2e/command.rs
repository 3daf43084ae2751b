//! `run` and `exec` as if there were no Sealane.

use nix::sys::signal::Signal;
use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, eventually, sealane};

#[test]
fn a_commands_status_is_its_own_and_what_cannot_start_says_so_by_125_to_127() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let table: [(&[&str], i32); 5] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["/nonexistent/program"], 127),
        (&["/etc/passwd"], 126),
    ];
    for (command, code) in table {
        let ended = site.shop(command).wait();
        assert_eq!(ended.code(), code, "{ended}");
    }
    let unknown = site.run(&["--network", "nowhere"], &["true"]).wait();
    assert_eq!(unknown.code(), 125, "{unknown}");
    assert!(unknown.stderr.contains("nowhere"), "{unknown}");
    let exec = site.exec("nobody", &["true"]);
    assert_eq!(exec.code(), 125, "{exec}");
    assert!(exec.stderr.contains("nobody"), "{exec}");
    eventually(PATIENCE, "nothing of them stays", || {
        site.json(&["workload", "ls"]).as_array().unwrap().is_empty().then_some(())
    });
    eventually(PATIENCE, "nor their sidecars", || site.processes("proxy").is_empty().then_some(()));
}

#[test]
fn a_run_that_comes_to_nothing_leaves_no_service_behind() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let of_service = ["--network", "shop", "--service", "gone", "--port", "8080"];
    for (command, code) in [(["/nonexistent/program"], 127), (["/etc/passwd"], 126), (["true"], 0)] {
        let ended = site.run(&of_service, &command).wait();
        assert_eq!(ended.code(), code, "{ended}");
    }
    eventually(PATIENCE, "nothing of them stays", || {
        let listed = [site.json(&["workload", "ls"]), site.json(&["service", "ls"])];
        listed.iter().all(|list| list.as_array().is_some_and(Vec::is_empty)).then_some(())
    });
    assert_eq!(site.problems(), "[]");
    let mut server = site.serve("kept", "kept-1");
    mesh.await_instances("kept", 1);
    server.kill9();
    eventually(PATIENCE, "one that worked is missed", || {
        site.problems().contains("service shop/kept has no instance").then_some(())
    });
}

#[test]
fn a_verb_about_this_host_completes_the_names_that_it_takes() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 2);
    let site = mesh.site(1);
    let _plain = site.run(&["--network", "shop", "--name", "plain", "--no-sidecar"], &["sleep", "infinity"]);
    eventually(PATIENCE, "it is there", || site.workload("plain"));
    let _ = site.command("ip", &["netns", "add", "legacy"]).ok();
    let _ = site.sealane(&["attach", "/run/netns/legacy", "--network", "shop", "--name", "legacy"]).ok();
    let names = |words: &[&str]| {
        let listed = site.sealane(&[&["__complete", "--", "sealane"], words, &[""]].concat()).ok().stdout;
        listed.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&["exec"]), ["api-1", "legacy", "plain"]);
    assert_eq!(names(&["dns", "query", "api", "--from"]), ["api-1", "legacy", "plain"]);
    assert_eq!(names(&["sidecar", "restart"]), ["api-1", "legacy"]);
    assert_eq!(names(&["detach"]), ["legacy"]);
    assert_eq!(names(&["workload", "inspect"]), ["api-1", "api-2", "legacy", "plain"]);
    assert_eq!(names(&["node", "undrain"]), [""; 0]);
    assert_eq!(names(&["service", "rm"]), [""; 0], "one with instances stays");
}

#[test]
fn exec_enters_the_namespace_that_run_made() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let mut first =
        site.run(&["--network", "shop", "--name", "first"], &["sh", "-c", "readlink /proc/self/ns/net; cat"]);
    first.wait_for("net:[");
    let seen = site.exec("first", &["readlink", "/proc/self/ns/net"]).ok();
    assert_eq!(seen.stdout.trim(), first.stdout().trim());
    let address = site.workload("first").unwrap()["address"].as_str().unwrap().to_owned();
    let addresses = site.exec("first", &["ip", "-4", "-br", "address", "show", "scope", "global"]).ok();
    assert!(addresses.stdout.contains(&address), "{addresses}");
    let resolv = site.exec("first", &["cat", "/etc/resolv.conf"]).ok().stdout;
    assert!(resolv.starts_with("nameserver "), "{resolv}");
    let host = site.command("cat", &["/etc/resolv.conf"]).stdout;
    assert_ne!(resolv, host);
    let status = site.exec("first", &["sh", "-c", "exit 9"]);
    assert_eq!(status.code(), 9, "{status}");

    first.signal(Signal::SIGTERM);
    let _ = first.wait();
    site.await_gone("first");
    assert_eq!(site.exec("first", &["true"]).code(), 125);
}

#[test]
fn ctrl_c_on_the_terminal_reaches_the_command_itself() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let inner = r#"trap "echo interrupted; exit 7" INT; echo waiting; while :; do sleep 0.05; done"#;
    // `exec`: a shell that stayed in between would die of the signal itself.
    let line = format!("exec '{}' run --network shop --name typed -- sh -c '{inner}'", sealane().display());
    let mut script = mesh.site(1).host.command("script");
    script.args(["-qec", &line, "/dev/null"]);
    let mut terminal = Running::start(script);
    terminal.wait_for("waiting\r\n");
    terminal.say("\u{3}");
    terminal.wait_for("interrupted");
    let ended = terminal.wait();
    assert_eq!(ended.code(), 7, "{ended}");
    mesh.site(1).await_gone("typed");
}
