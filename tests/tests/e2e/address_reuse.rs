//! An address comes back with another Ethernet address.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, eventually};

#[test]
fn an_address_that_changed_its_mac_is_reachable_for_warm_clients_within_two_seconds() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let plain = ["--network", "shop", "--no-sidecar", "--name"];
    let sleeper = ["sleep", "1000"];
    let first = |flags: &[&str]| mesh.site(1).run(&[&plain, flags].concat(), &sleeper);
    let mut old = first(&["old"]);
    let address = eventually(PATIENCE, "the workload is there", || {
        Some(mesh.site(1).workload("old")?["address"].as_str()?.to_owned())
    });
    let mut clients: Vec<Running> = Vec::new();
    for (site, name) in [(1, "near"), (2, "far")] {
        let mut ping =
            mesh.site(site).run(&[&plain[..], &[name]].concat(), &["ping", "-i", "0.02", &address]);
        ping.wait_for("bytes from");
        clients.push(ping);
    }
    old.kill9();
    let mut new = first(&["new", "--ip", &address, "--mac", "02:00:5e:00:53:07"]);
    eventually(PATIENCE, "the address is used again", || {
        assert!(new.runs(), "{}", new.stderr());
        let workload = mesh.site(1).workload("new")?;
        assert_eq!(workload["mac"], "02:00:5e:00:53:07");
        Some(())
    });
    let back = Instant::now();
    for client in &clients {
        let replies = || client.stdout().matches("bytes from").count();
        let before = replies();
        eventually(PATIENCE, "the address answers", || (replies() > before + 2).then_some(()));
    }
    println!("reachable {:?} after the address was used again", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}
