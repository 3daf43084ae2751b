//! An address comes back with another Ethernet address.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

#[test]
fn an_address_that_changed_its_mac_is_reachable_for_warm_clients_within_two_seconds() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(3);
    let plain = ["--network", "shop", "--no-sidecar", "--name"];
    let sleeper = ["sleep", "1000"];
    let address = "10.42.200.7";
    let run = |site: usize, flags: &[&str]| {
        let flags = [&plain, flags, &["--ip", address]].concat();
        let (start, name) = (|| mesh.site(site).run(&flags, &sleeper), flags[4]);
        let mut running = start();
        eventually(PATIENCE, "the workload is there", || {
            if !running.runs() {
                // Its words are read to their end: what ended may have been heard before what it said.
                let refused = std::mem::replace(&mut running, start()).wait();
                assert!(refused.stderr.contains("in use"), "{refused}");
            }
            // One that control is about to refuse is there for a moment, too.
            mesh.site(site).workload(name).filter(|view| view["ready"] == true)
        });
        running
    };
    let mut last = run(1, &["first"]);
    let clients = [(1, "near"), (2, "far"), (3, "third")].map(|(site, name)| {
        let mut ping = mesh.site(site).run(&[&plain[..], &[name]].concat(), &["ping", "-i", "0.02", address]);
        ping.wait_for("bytes from");
        ping
    });
    let next: [(usize, &[&str]); 3] = [
        (1, &["second", "--mac", "02:00:5e:00:53:07"]),
        (2, &["third-host", "--mac", "02:00:5e:00:53:08"]),
        (1, &["back"]),
    ];
    for (site, flags) in next {
        last.kill9();
        last = run(site, flags);
        let back = Instant::now();
        for client in &clients {
            let replies = || client.stdout().matches("bytes from").count();
            let before = replies();
            eventually(PATIENCE, "the address answers", || (replies() > before + 2).then_some(()));
        }
        println!("reachable {:?} after {flags:?} was there on host-{site}", back.elapsed());
        assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    }
}

#[test]
fn a_workload_moves_with_its_name_and_address_and_one_that_stays_is_left_alone() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let flags = ["--network", "shop", "--name", "mover", "--ip", "10.42.200.7"];
    for number in [1, 2, 1] {
        let mut mover = mesh.site(number).run(&flags, &["sh", "-c", "echo here; exec sleep 1000"]);
        mover.wait_for("here");
        let node = mesh.site(number).workload("mover").unwrap()["node"].clone();
        assert_eq!(node, mesh.site(number).host.name());
        mover.kill9();
    }
    let mut mover = mesh.site(1).run(&flags, &["sh", "-c", "echo here; exec sleep 1000"]);
    mover.wait_for("here");
    let second = mesh.site(2).run(&flags, &["true"]).wait();
    assert_eq!(second.code(), 125);
    assert!(second.stderr.contains("workload name mover in network shop is in use on"), "{second}");
    assert!(mover.runs());
}
