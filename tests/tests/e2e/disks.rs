//! Disks that are full, of control and of an agent.

use sealane_lab::isolated;
use sealane_tests::{Mesh, Metrics, PATIENCE, Running, Site, eventually, testapp};

const DATA: &str = "/var/lib/sealane";

fn problem(site: &Site, socket: &str) -> Option<String> {
    let status = site.sealane(&["status", "--socket", &format!("/run/sealane/{socket}")]).stdout;
    status.lines().find(|line| line.contains("cannot be written")).map(ToOwned::to_owned)
}

/// Tells by a process's metrics whether its disk can be written: control's port for these is 9465, agents have 9464.
fn is_writable(site: &Site, port: u16, name: &str) -> bool {
    let url = format!("http://127.0.0.1:{port}/metrics");
    Metrics::parse(&site.command("curl", &["-sS", &url]).ok().stdout).sum(name, &[]) == 1.0
}

/// Gives the host a small disk of its own.
fn mount(site: &Site) {
    let _ = site.sh(&format!("mkdir -p {DATA} && mount -t tmpfs -o size=16m tmpfs {DATA}"));
}

fn fill(site: &Site) {
    let filled = site.command("sh", &["-c", &format!("cat /dev/zero > {DATA}/fill")]);
    assert!(filled.stderr.contains("No space left"), "{filled}");
}

/// Starts a workload that listens.
fn start(site: &Site, flags: &[&str], name: &str) -> Running {
    let program = testapp();
    let flags = [&["--network", "shop", "--name", name][..], flags].concat();
    let mut started = site.run(&flags, &[program.to_str().unwrap(), "http", "8080", name]);
    started.wait_for("listening");
    started
}

/// Starts an instance of `api` and a workload of no service.
fn begin(site: &Site) -> [Running; 2] {
    [start(site, &["--service", "api", "--port", "8080"], "api-2"), start(site, &[], "lone")]
}

#[test]
fn an_agent_starts_on_a_full_disk_with_all_that_ran_also_after_a_reboot_without_control() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2);
    mount(mesh.site(2));
    let mut mesh = mesh.up();
    mesh.create_shop();
    let _other = [mesh.site(1).serve("api", "api-1"), start(mesh.site(1), &[], "web")];
    let running = begin(mesh.site(2));
    mesh.await_instances("api", 2);
    fill(mesh.site(2));

    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    let said = eventually(PATIENCE, "status says why", || problem(mesh.site(2), "agent.sock"));
    assert!(said.contains(DATA) && said.contains("make space"), "{said}");
    assert!(
        !mesh.site(2).problems().contains("not on disk"),
        "the number of the start has room in its place"
    );
    assert_eq!(mesh.site(2).curl_as("lone", "http://api-1:8080/").ok().stdout, "api-1");
    assert_eq!(mesh.site(1).curl_as("web", "http://api-2:8080/").ok().stdout, "api-2");
    drop(running);
    mesh.site(2).await_gone("lone");
    let running = begin(mesh.site(2));
    eventually(PATIENCE, "host 1 knows it", || (mesh.site(1).instances("api") == 2).then_some(()));

    mesh.control.kill9();
    drop(running);
    // Records of what starts have room, the states of networks may take it before.
    let _ = mesh.site(2).sh(&format!("truncate -s -32K {DATA}/fill"));
    mesh.site_mut(2).power_off();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    let _running = begin(mesh.site(2));
    eventually(PATIENCE, "host 1 knows it", || (mesh.site(1).instances("api") == 2).then_some(()));
    assert_eq!(mesh.site(1).curl_as("web", "http://api-2:8080/").ok().stdout, "api-2");
    assert_eq!(mesh.site(2).curl_as("lone", "http://api-1:8080/").ok().stdout, "api-1");

    let _ = mesh.site(2).sh(&format!("rm {DATA}/fill"));
    mesh.control.start();
    mesh.await_control();
    mesh.await_instances("api", 2);
    eventually(PATIENCE, "nothing is wrong any more", || {
        problem(mesh.site(2), "agent.sock").is_none().then_some(())
    });
}

#[test]
fn an_agent_starts_on_a_read_only_disk_and_says_what_a_reboot_may_do() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2);
    mount(mesh.site(2));
    let mut mesh = mesh.up();
    mesh.create_shop();
    let _other = [mesh.site(1).serve("api", "api-1"), start(mesh.site(1), &[], "web")];
    let _running = begin(mesh.site(2));
    mesh.await_instances("api", 2);
    let _ = mesh.site(2).sh(&format!("mount -o remount,ro {DATA}"));
    for _ in 0..2 {
        mesh.site_mut(2).agent.kill9();
        mesh.site_mut(2).agent.start();
        mesh.site_mut(2).await_ready();
    }
    let said = eventually(PATIENCE, "status says why", || problem(mesh.site(2), "agent.sock"));
    assert!(said.contains(DATA) && said.contains("mount its file system to be written"), "{said}");
    let said = mesh.site(2).problems();
    assert!(said.contains("the number of this agent's start is not on disk"), "{said}");
    mesh.await_instances("api", 2);
    assert_eq!(mesh.site(2).curl_as("lone", "http://api-1:8080/").ok().stdout, "api-1");
    assert_eq!(mesh.site(1).curl_as("web", "http://api-2:8080/").ok().stdout, "api-2");

    let _ = mesh.site(2).sh(&format!("mount -o remount,rw {DATA}"));
    eventually(PATIENCE, "nothing is wrong any more", || {
        let said = mesh.site(2).problems();
        (!said.contains("not on disk") && !said.contains(DATA)).then_some(())
    });
}

#[test]
fn a_full_disk_is_a_problem_of_status_and_of_metrics_while_it_is_full() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2);
    mesh.sites().for_each(mount);
    let mesh = mesh.up();
    mesh.create_shop();
    let _running = mesh.site(2).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let watched = [
        (1, "control.sock", 9465, "sealane_control_store_writable"),
        (2, "agent.sock", 9464, "sealane_data_directory_writable"),
    ];
    for (number, socket, port, series) in watched {
        let site = mesh.site(number);
        assert!(problem(site, socket).is_none() && is_writable(site, port, series));
        fill(site);
        let said = eventually(PATIENCE, "status says that the disk is full", || problem(site, socket));
        assert!(said.contains(DATA) && said.contains("make space"), "{said}");
        assert!(!is_writable(site, port, series));
    }
    let refused = mesh.site(2).sealane(&["run", "--network", "shop", "--name", "late", "--", "true"]);
    assert!(refused.stderr.contains("No space left") && refused.code() == 125, "{refused}");
    for (number, socket, port, series) in watched {
        let site = mesh.site(number);
        let _ = site.command("rm", &[&format!("{DATA}/fill")]).ok();
        eventually(PATIENCE, "nothing is wrong any more", || problem(site, socket).is_none().then_some(()));
        assert!(is_writable(site, port, series));
    }
    let _ = mesh.sealane(&["network", "create", "more", "--subnet", "10.43.0.0/16"]).ok();
    let _ = mesh.site(2).sealane(&["run", "--network", "shop", "--name", "late", "--", "true"]).ok();
}

#[test]
fn a_full_run_directory_is_a_problem_of_status_and_what_runs_goes_on() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    let mount = "mkdir -p /run/sealane && mount -t tmpfs -o size=4m tmpfs /run/sealane";
    let _ = mesh.site(1).command("sh", &["-ec", mount]).ok();
    let mesh = mesh.up();
    mesh.create_shop();
    let _running = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let site = mesh.site(1);
    let filled = site.command("sh", &["-c", "cat /dev/zero > /run/sealane/fill"]);
    assert!(filled.stderr.contains("No space left"), "{filled}");
    let said = eventually(PATIENCE, "status says so", || problem(site, "agent.sock"));
    assert!(said.contains("/run/sealane") && said.contains("make space"), "{said}");
    assert!(!is_writable(site, 9464, "sealane_data_directory_writable"));
    let refused = site.sealane(&["run", "--network", "shop", "--name", "late", "--", "true"]);
    assert!(refused.stderr.contains("No space left") && refused.code() == 125, "{refused}");
    let _ = site.command("rm", &["/run/sealane/fill"]).ok();
    eventually(PATIENCE, "nothing is wrong any more", || problem(site, "agent.sock").is_none().then_some(()));
    assert_eq!(site.curl("http://api:8080/").ok().stdout, "api-1");
}
