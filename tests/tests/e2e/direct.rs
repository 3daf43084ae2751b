//! A peer that passes its sidecar.

use std::fs;

use sealane_lab::isolated;
use sealane_tests::{Mesh, Site, testapp};

/// Connects from a workload without a sidecar and returns the outcome.
fn connect(site: &Site, target: &str) -> String {
    let program = testapp();
    let command = [program.to_str().unwrap(), "connect", target];
    let said = site.run(&["--network", "shop", "--no-sidecar"], &command).wait().ok();
    said.stdout.trim().to_owned()
}

#[test]
fn the_sidecars_own_ports_refuse_whoever_was_not_redirected_to_them() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let mesh = mesh.permissive();
    let address = mesh.site(1).workload("api-1").unwrap()["address"].as_str().unwrap().to_owned();
    let sidecar = mesh.site(1).processes("proxy")[0];
    assert!(connect(mesh.site(2), &format!("{address}:8080")).starts_with("answered HTTP/1.1 200"));

    let before = processor_ticks(sidecar);
    for port in [15001, 15006] {
        assert_eq!(connect(mesh.site(2), &format!("{address}:{port}")), "refused", "{port}");
        // The workload itself, by its own address and by loopback.
        for own in [&address, "127.0.0.1"] {
            let target = format!("{own}:{port}");
            let said = mesh.site(1).exec("api-1", &[testapp().to_str().unwrap(), "connect", &target]).ok();
            let said = said.stdout.trim().to_owned();
            assert!(["refused", "reset", "closed"].contains(&said.as_str()), "{target}: {said}");
        }
    }
    let spent = processor_ticks(sidecar) - before;
    assert!(spent < 50, "the sidecar was busy for {spent} ticks: does it call itself?");

    let unknown = connect(mesh.site(2), &format!("{address}:15008"));
    assert!(["reset", "closed", "alert"].contains(&unknown.as_str()), "{unknown}");
    assert!(connect(mesh.site(2), &format!("{address}:8080")).starts_with("answered HTTP/1.1 200"));
}

/// Processor time of a process in clock ticks, fields 14 and 15 of its stat.
fn processor_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = &stat[stat.rfind(')').unwrap() + 2..];
    after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
