//! Disks that are full, of control and of an agent.

use sealane_lab::isolated;
use sealane_tests::{Mesh, Metrics, PATIENCE, Site, eventually};

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

#[test]
fn a_full_disk_is_a_problem_of_status_and_of_metrics_while_it_is_full() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2);
    for site in mesh.sites() {
        let mount = format!("mkdir -p {DATA} && mount -t tmpfs -o size=16m tmpfs {DATA}");
        let _ = site.command("sh", &["-ec", &mount]).ok();
    }
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
        let filled = site.command("sh", &["-c", &format!("cat /dev/zero > {DATA}/fill")]);
        assert!(filled.stderr.contains("No space left"), "{filled}");
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
