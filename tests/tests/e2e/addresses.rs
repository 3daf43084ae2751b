//! Hosts that come with each other's underlay addresses.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

/// Gives the host this address beneath, in place of what it had.
fn give(mesh: &Mesh, number: usize, address: &str) {
    let script = format!(
        "ip addr flush dev eth0; ip addr add {address}/24 dev eth0; ip route replace default via 192.0.2.1"
    );
    let _ = mesh.site(number).command("sh", &["-ec", &script]).ok();
}

fn await_places(mesh: &Mesh, places: [&str; 3]) {
    eventually(PATIENCE, "control knows where the hosts are", || {
        let nodes = mesh.json(&["node", "ls"]);
        let is_there = |(node, place): (&serde_json::Value, &str)| {
            node["underlay"] == place && node["connected"] == true
        };
        nodes.as_array()?.iter().zip(places).all(is_there).then_some(())
    });
}

fn await_calls(mesh: &Mesh, from: usize, instances: &[&str]) {
    let mut load = mesh.site(from).load(&format!("caller-{from}"), &["http://api:8080/"]);
    instances.iter().for_each(|instance| load.await_answer(instance));
    let _ = load.stop();
}

#[test]
fn two_hosts_that_swap_their_addresses_are_both_reached_again() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(3, 3);
    for number in [2, 3] {
        mesh.site_mut(number).agent.kill9();
        give(&mesh, number, &format!("192.0.2.{}", 100 + number));
    }
    for (number, address) in [(2, "192.0.2.13"), (3, "192.0.2.12")] {
        give(&mesh, number, address);
        mesh.restart_agent(number, &["--underlay", address]);
    }
    await_places(&mesh, ["192.0.2.11", "192.0.2.13", "192.0.2.12"]);
    for from in [1, 2, 3] {
        await_calls(&mesh, from, &["api-1", "api-2", "api-3"]);
    }
    let status = mesh.sealane(&["status"]);
    assert!(!status.stdout.contains("unreachable"), "{status}");
}

#[test]
fn a_host_whose_address_another_one_has_is_sent_nothing_and_told_so_until_it_comes_with_its_own() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(3, 3);
    let mac = mesh.site(1).workload("api-3").unwrap()["mac"].as_str().unwrap().to_owned();
    let rows = |mesh: &Mesh| {
        let show = ["--net=/run/sealane/netns/net-shop", "bridge", "fdb", "show"];
        let all = mesh.site(1).command("nsenter", &show).ok().stdout;
        all.lines().filter(|row| row.contains(&mac)).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert!(rows(&mesh).iter().any(|row| row.contains("dst 192.0.2.13")), "{:?}", rows(&mesh));
    mesh.site_mut(3).agent.kill9();
    give(&mesh, 3, "192.0.2.53");
    mesh.site_mut(2).agent.kill9();
    give(&mesh, 2, "192.0.2.13");
    mesh.restart_agent(2, &["--underlay", "192.0.2.13"]);

    eventually(PATIENCE, "control says who has whose address", || {
        let status = mesh.sealane(&["status"]);
        let told = "node host-3 is unreachable: node host-2 came with its underlay address 192.0.2.13";
        (status.status.code() == Some(1) && status.stdout.contains(told)).then_some(())
    });
    await_calls(&mesh, 1, &["api-1", "api-2"]);
    assert_eq!(rows(&mesh), [""; 0], "what is for host-3 would go to host-2");
    mesh.site(1).await_instances("api", 2);

    mesh.restart_agent(3, &["--underlay", "192.0.2.13"]);
    eventually(PATIENCE, "the host is told who has its address", || {
        let status = mesh.site(3).sealane(&["status", "--socket", "/run/sealane/agent.sock"]);
        status.stdout.contains("node host-2 came with underlay address 192.0.2.13").then_some(())
    });
    mesh.site_mut(3).agent.kill9();
    mesh.restart_agent(3, &["--underlay", "auto"]);
    await_places(&mesh, ["192.0.2.11", "192.0.2.13", "192.0.2.53"]);
    await_calls(&mesh, 2, &["api-1", "api-2", "api-3"]);
}
