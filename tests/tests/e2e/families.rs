//! Hosts of IPv4, of IPv6 and of both in one mesh.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

/// Names of the VXLAN devices of the network on a host.
fn devices(mesh: &Mesh, number: usize) -> String {
    let names =
        "nsenter --net=/run/sealane/netns/net-shop ip -o link show type vxlan | cut -d: -f2 | cut -d@ -f1";
    mesh.site(number).sh(names).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn await_calls(mesh: &Mesh, from: usize, instances: &[&str]) {
    let mut load = mesh.site(from).load(&format!("caller-{from}"), &["http://api:8080/"]);
    instances.iter().for_each(|instance| load.await_answer(instance));
    let _ = load.stop();
}

#[track_caller]
fn await_place(mesh: &Mesh, number: usize, first: &str, other: Option<&str>) {
    eventually(PATIENCE, "control knows where the host is", || {
        let node = &mesh.json(&["node", "ls"])[number - 1];
        let is_there = node["underlay"] == first && node["underlay_other"].as_str() == other;
        (is_there && node["connected"] == true).then_some(())
    });
}

/// Host 4 shares a family with some hosts of the mesh, not with all of the network.
#[track_caller]
fn refuse_a_host_of_ipv4_alone(mesh: &mut Mesh) {
    mesh.join(4);
    mesh.site_mut(4).await_ready();
    let refused = mesh.site(4).shop(&["true"]).wait();
    let said = "underlay address 192.0.2.14 of node host-4 is of IPv4, and node host-3 is at 2001:db8::13";
    let line = "with --underlay 192.0.2.14 --underlay and an IPv6 address of it";
    assert!(
        !refused.status.success() && refused.stderr.contains(said) && refused.stderr.contains(line),
        "{refused}"
    );
}

#[test]
fn hosts_of_ipv6_share_a_network_with_hosts_of_both_families_which_use_ipv4_among_themselves() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(4);
    for number in 1..=3 {
        let _ = mesh.site(number).sh(&format!("ip addr add 2001:db8::1{number}/64 dev eth0 nodad"));
    }
    mesh.control.start();
    mesh.await_control();
    let places: [&[&str]; 3] = [
        // Control has addresses of both.
        &["--control", "192.0.2.11:7443,[2001:db8::11]:7443"],
        &["--underlay", "eth0"],
        &["--underlay", "2001:db8::/32"],
    ];
    for (number, flags) in (1..).zip(places) {
        let token = mesh.token();
        mesh.restart_agent(number, &[&["--token", &token], flags].concat());
        mesh.site_mut(number).await_ready();
    }
    await_place(&mesh, 1, "192.0.2.11", Some("2001:db8::11"));
    await_place(&mesh, 2, "192.0.2.12", Some("2001:db8::12"));
    await_place(&mesh, 3, "2001:db8::13", None);

    mesh.create_shop();
    let mut servers =
        Vec::from([1, 2].map(|number| mesh.site(number).serve("api", &format!("api-{number}"))));
    mesh.site(1).await_instances("api", 2);
    assert_eq!(devices(&mesh, 1), "vxlan0", "IPv4 suffices");
    servers.push(mesh.site(3).serve("api", "api-3"));
    for number in 1..=3 {
        mesh.site(number).await_instances("api", 3);
        await_calls(&mesh, number, &["api-1", "api-2", "api-3"]);
    }
    assert_eq!([1, 2, 3].map(|number| devices(&mesh, number)), ["vxlan0 vxlan1", "vxlan0 vxlan1", "vxlan0"]);
    eventually(PATIENCE, "each host hears each other one", || {
        let nodes = [1, 2, 3].map(|number| mesh.site(number).json(&["node", "ls"]));
        let others = nodes.iter().flat_map(|nodes| nodes.as_array().unwrap());
        let reached = others.filter(|node| node["reach"] == "reachable" && !node["channel_since"].is_null());
        (reached.count() == 6).then_some(())
    });

    refuse_a_host_of_ipv4_alone(&mut mesh);

    // Another choice takes effect while workloads run: host 3 has IPv4 as well.
    let sidecars = mesh.site(3).processes("proxy");
    mesh.site_mut(3).agent.kill9();
    mesh.restart_agent(3, &["--underlay", "2001:db8::/32", "--underlay", "eth0"]);
    await_place(&mesh, 3, "2001:db8::13", Some("192.0.2.13"));
    for number in 1..=3 {
        await_calls(&mesh, number, &["api-1", "api-2", "api-3"]);
    }
    eventually(PATIENCE, "hosts of both families use IPv4", || {
        let devices = [1, 2, 3].map(|number| devices(&mesh, number));
        (devices == ["vxlan0", "vxlan0", "vxlan0 vxlan1"]).then_some(())
    });
    let now = mesh.site(3).processes("proxy");
    assert!(sidecars.iter().all(|sidecar| now.contains(sidecar)), "{sidecars:?} {now:?}");
    for number in 1..=3 {
        eventually(PATIENCE, "all is well", || (mesh.site(number).problems() == "[]").then_some(()));
    }
}
