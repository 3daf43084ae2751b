//! Hosts tell each other what they own, by a channel of their own.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Site, eventually};

fn await_channels(site: &Site, connected: u64) {
    eventually(PATIENCE, &format!("the channels to {connected} hosts stand"), || {
        (site.json(&["status"])["peers_connected"] == connected).then_some(())
    });
}

/// Returns what is known on a host of the channel to another one, once there is an answer.
fn channel_problem(site: &Site, peer: &str) -> Option<String> {
    let nodes = site.json(&["node", "ls"]);
    let node = nodes.as_array()?.iter().find(|node| node["name"] == peer)?;
    node["channel_problem"].as_str().map(str::to_owned)
}

#[test]
fn without_control_an_instance_that_starts_is_called_from_other_hosts_and_one_that_ends_is_not() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(3, 2);
    let mut load = mesh.site(3).load("web", &["http://api:8080/"]);
    eventually(PATIENCE, "host 3 knows the client", || mesh.site(3).workload("web").map(drop));
    for site in mesh.sites() {
        await_channels(site, 2);
    }
    mesh.control.kill9();
    let third = mesh.site(1).serve("api", "api-3");
    load.await_answer("api-3");
    let ask = |name: &str| mesh.site(3).curl_as("web", &format!("http://{name}:8080/"));
    assert_eq!(ask("api-3").ok().stdout, "api-3");
    assert_eq!(mesh.site(2).instances("api"), 3);
    drop(third);
    for host in [2, 3] {
        eventually(PATIENCE, "its end is known", || (mesh.site(host).instances("api") == 2).then_some(()));
    }
    load.await_further(200);
    mesh.control.start();
    mesh.await_control();
    mesh.await_instances("api", 2);
    let _ = load.stop().ok();
}

#[test]
fn a_port_that_one_host_drops_leaves_the_channel_and_one_that_both_drop_is_named() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 2);
    let (first, second) = (mesh.site(1), mesh.site(2));
    await_channels(first, 1);
    assert!(second.metrics().sum("sealane_agent_peer_bytes_total", &[]) > 0.0);
    let drop_port = |site: &Site| {
        let rules = "add table inet strict; \
                     add chain inet strict in { type filter hook input priority 0; }; \
                     add rule inet strict in tcp dport 7444 drop";
        let _ = site.command("nft", &[rules]).ok();
    };
    drop_port(second);
    let ended = || first.metrics().sum("sealane_agent_peer_ended_total", &[("reason", "silent")]);
    eventually(PATIENCE, "the connection to host 2 is given up", || (ended() >= 1.0).then_some(()));
    await_channels(first, 1);
    await_channels(second, 1);
    drop_port(first);
    for (site, peer, address) in [(first, "host-2", "192.0.2.12"), (second, "host-1", "192.0.2.11")] {
        let problem = eventually(PATIENCE, "the dropped port is named", || {
            let problems = site.json(&["status"])["problems"].to_string();
            problems.contains(&format!("there is no channel to {peer} ({address}:7444")).then_some(problems)
        });
        assert!(problem.contains("a firewall drops TCP to port 7444"), "{problem}");
        assert!(channel_problem(site, peer).is_some());
    }
    for site in [first, second] {
        let _ = site.command("nft", &["delete table inet strict"]).ok();
        await_channels(site, 1);
    }
    assert_eq!(channel_problem(first, "host-2"), None);
}

#[test]
fn a_host_without_the_channel_is_part_of_the_mesh_as_before() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut servers) = Mesh::serving(2, 2);
    await_channels(mesh.site(1), 1);
    // To the others, it is as one of an older version.
    let _ = mesh.site_mut(2).agent.terminate();
    mesh.restart_agent(2, &["--peer-port", "7555"]);
    mesh.site_mut(2).await_ready();
    eventually(PATIENCE, "a host that does not listen is a note", || {
        let notes = mesh.site(1).json(&["status"])["notes"].to_string();
        notes.contains("no channel to host-2 (192.0.2.12:7444: nobody listens there").then_some(())
    });
    eventually(PATIENCE, "nothing is wrong", || (mesh.site(1).problems() == "[]").then_some(()));
    servers.push(mesh.site(2).serve("api", "api-3"));
    mesh.await_instances("api", 3);
    eventually(PATIENCE, "host 1 knows it by control", || (mesh.site(1).instances("api") == 3).then_some(()));
    assert_eq!(mesh.site(1).curl("http://api-3:8080/").ok().stdout, "api-3");
}
