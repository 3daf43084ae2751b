//! The network beneath changes the length of its packets.

use std::time::Duration;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Site, eventually};

/// Time within which packets are shorter on all hosts, far below the pace of longer ones.
const SHORTER: Duration = Duration::from_secs(5);

fn resize(site: &Site, bytes: u32) {
    let _ = site.command("ip", &["link", "set", "eth0", "mtu", &bytes.to_string()]).ok();
}

/// Waits until the interface of a workload has this MTU.
#[track_caller]
fn await_inside(site: &Site, workload: &str, bytes: u32, within: Duration) {
    eventually(within, &format!("{workload} has an MTU of {bytes}"), || {
        let shown = site.exec(workload, &["ip", "-o", "link", "show", "eth0"]).stdout;
        shown.contains(&format!(" mtu {bytes} ")).then_some(())
    });
}

/// Packets that are too long are lost, so nobody waits to send shorter ones, however often they have become longer.
#[test]
fn a_smaller_network_beneath_counts_at_once_and_is_well_when_all_hosts_go_by_it() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(3, 3);
    await_inside(mesh.site(2), "api-2", 1_450, PATIENCE);
    for (low, high) in [(1_350, Some(1_500)), (1_300, Some(1_500)), (1_289, None)] {
        resize(mesh.site(3), low);
        await_inside(mesh.site(2), "api-2", low - 50, SHORTER);
        if let Some(high) = high {
            resize(mesh.site(3), high);
            await_inside(mesh.site(2), "api-2", high - 50, PATIENCE);
        }
    }
    for number in [2, 3] {
        eventually(PATIENCE, "check finds nothing to mend on both ends of the shorter way", || {
            let checked = mesh.site(number).sealane(&["check"]);
            let other = format!("packets of 1289 bytes reach host-{}", 5 - number);
            (checked.status.success() && checked.stdout.contains(&other)).then_some(())
        });
    }
    let underlay = mesh.site(3).findings("underlay");
    assert!(
        underlay[0].0 == "ok" && underlay[0].1.contains("enough for networks without IPv6"),
        "{underlay:?}"
    );
}
