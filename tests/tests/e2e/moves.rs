//! Hosts whose underlay addresses change while they run.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, eventually, sealane};

/// Gives the host this address beneath in place of what it had, as a DHCP client does.
pub(crate) fn give(mesh: &Mesh, number: usize, address: &str) {
    let renew =
        "ip -4 addr flush dev eth0; ip addr add $NEW/24 dev eth0; ip route replace default via 192.0.2.1";
    mesh.site(number).sh(&renew.replace("$NEW", address));
}

/// Waits until control knows the hosts at these addresses; returns the time that it took.
#[track_caller]
pub(crate) fn await_places(mesh: &Mesh, places: &[&str]) -> Duration {
    let since = Instant::now();
    eventually(PATIENCE, "control knows where the hosts are", || {
        let nodes = mesh.json(&["node", "ls"]);
        let is_there = |(node, place): (&serde_json::Value, &&str)| {
            node["underlay"] == **place && node["connected"] == true
        };
        nodes.as_array()?.iter().zip(places).all(is_there).then_some(())
    });
    since.elapsed()
}

/// Waits until calls from a host reach these instances.
#[track_caller]
fn await_calls(mesh: &Mesh, from: usize, instances: &[&str]) {
    let mut load = mesh.site(from).load(&format!("caller-{from}"), &["http://api:8080/"]);
    instances.iter().for_each(|instance| load.await_answer(instance));
    let _ = load.stop();
}

fn in_shop(mesh: &Mesh, number: usize, command: &[&str]) -> String {
    let all = [&["--net=/run/sealane/netns/net-shop"], command].concat();
    mesh.site(number).command("nsenter", &all).ok().stdout
}

/// Waits until a host sends what is for an instance to this address; returns the time that it took.
#[track_caller]
pub(crate) fn await_row(mesh: &Mesh, on: usize, instance: &str, address: &str) -> Duration {
    let mac = mesh.site(on).workload(instance).unwrap()["mac"].as_str().unwrap().to_owned();
    let since = Instant::now();
    eventually(PATIENCE, &format!("{instance} is sent to at {address}"), || {
        let rows = in_shop(mesh, on, &["bridge", "fdb", "show", "dev", "vxlan0"]);
        rows.lines()
            .any(|row| row.starts_with(&mac) && row.contains(&format!("dst {address} ")))
            .then_some(())
    });
    since.elapsed()
}

fn device(mesh: &Mesh, number: usize) -> String {
    in_shop(mesh, number, &["sh", "-c", "ip -o link show vxlan0 | cut -d: -f1"])
}

#[test]
fn a_host_whose_address_changes_is_reached_at_the_new_one_and_nothing_on_it_starts_again() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 2);
    let sidecars = mesh.site(2).processes("proxy");
    let tunnel = device(&mesh, 2);
    let outward = mesh.site(1).load("outward", &["http://api:8080/"]);
    let inward = mesh.site(2).load("inward", &["http://api:8080/"]);
    outward.await_further(100);

    give(&mesh, 2, "192.0.2.52");
    let (row, known) =
        (await_row(&mesh, 1, "api-2", "192.0.2.52"), await_places(&mesh, &["192.0.2.11", "192.0.2.52"]));
    println!("the other host sends to the new address after {row:?}, control shows it {known:?} later");
    for load in [&outward, &inward] {
        load.await_further(300);
    }
    for load in [outward, inward] {
        let report = load.stop().ok();
        println!("slowest of {} calls: {} ms", report.requests, report.max_ms);
    }
    await_calls(&mesh, 1, &["api-1", "api-2"]);
    assert_eq!(device(&mesh, 2), tunnel, "the tunnel's device is another one");
    let now = mesh.site(2).processes("proxy");
    assert!(sidecars.iter().all(|sidecar| now.contains(sidecar)), "{sidecars:?} {now:?}");
    assert_eq!(mesh.site(2).problems(), "[]");
    let metrics = mesh.site(1).command("curl", &["-sS", "http://192.0.2.52:9464/live"]);
    assert!(metrics.status.success(), "{metrics}");
    let drifted = mesh.site(2).metrics().sum("sealane_kernel_drift_total", &[]);
    assert!(drifted < 0.5, "a move is nobody's doing: {drifted}");
}

#[test]
fn two_hosts_that_swap_their_addresses_while_they_run_are_both_reached_again() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(3, 3);
    for number in [2, 3] {
        mesh.site(number).sh("ip -4 addr flush dev eth0");
    }
    give(&mesh, 2, "192.0.2.13");
    give(&mesh, 3, "192.0.2.12");
    let known = await_places(&mesh, &["192.0.2.11", "192.0.2.13", "192.0.2.12"]);
    let rows = [await_row(&mesh, 1, "api-2", "192.0.2.13"), await_row(&mesh, 2, "api-3", "192.0.2.12")];
    println!("control knows both after {known:?}, rows follow {rows:?} later");
    for from in [1, 2, 3] {
        await_calls(&mesh, from, &["api-1", "api-2", "api-3"]);
    }
    let status = mesh.sealane(&["status"]);
    assert!(!status.stdout.contains("unreachable"), "{status}");
}

#[test]
fn an_interface_or_a_prefix_is_remembered_and_its_new_address_followed() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    for number in [1, 2] {
        mesh.site(number).sh(&format!("ip addr add 198.51.100.{}/24 dev eth0", number + 10));
        mesh.site_mut(number).agent.kill9();
        let choice = ["198.51.100.0/24", "eth0"][number - 1];
        mesh.restart_agent(number, &["--underlay", choice]);
    }
    // Of several addresses of the interface, it keeps the one that it has.
    await_places(&mesh, &["198.51.100.11", "192.0.2.12"]);
    mesh.site_mut(2).agent.kill9();
    mesh.restart_agent(2, &["--underlay", "198.51.100.0/24"]);
    await_places(&mesh, &["198.51.100.11", "198.51.100.12"]);
    await_calls(&mesh, 1, &["api-1", "api-2"]);

    // Without the flag, the choice is what it was: another address within it is taken up, also while no agent runs.
    mesh.site(2).sh("ip addr del 198.51.100.12/24 dev eth0; ip addr add 198.51.100.52/24 dev eth0");
    await_places(&mesh, &["198.51.100.11", "198.51.100.52"]);
    mesh.site_mut(2).agent.kill9();
    mesh.site(2).sh("ip addr del 198.51.100.52/24 dev eth0; ip addr add 198.51.100.62/24 dev eth0");
    mesh.restart_agent(2, &[]);
    await_places(&mesh, &["198.51.100.11", "198.51.100.62"]);
    await_calls(&mesh, 1, &["api-1", "api-2"]);

    // One that goes and comes back is the same one.
    mesh.site(2).sh("ip addr del 198.51.100.62/24 dev eth0");
    eventually(PATIENCE, "the agent says that its address is gone", || {
        mesh.site(2).problems().contains("198.51.100.62").then_some(())
    });
    mesh.site(2).sh("ip addr add 198.51.100.62/24 dev eth0");
    eventually(PATIENCE, "all is well again", || (mesh.site(2).problems() == "[]").then_some(()));
    await_calls(&mesh, 1, &["api-1", "api-2"]);

    // Whoever names one that is not there is told what is.
    for (choice, said) in [
        ("203.0.113.0/24", "no address of this host that others can send to lies in 203.0.113.0/24"),
        ("eth7", "this host has no interface eth7"),
        ("lo", "interface lo of this host has no address that others can send to"),
    ] {
        mesh.site_mut(2).agent.kill9();
        let refused = mesh.site(2).sealane(&["agent", "--control", "192.0.2.11:7443", "--underlay", choice]);
        assert!(refused.code() == 1 && refused.stderr.contains(said), "{refused}");
        mesh.restart_agent(2, &[]);
        mesh.site_mut(2).await_ready();
    }
}

#[test]
fn an_address_that_moves_to_another_device_is_the_same_host() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 2);
    mesh.site(2).sh(
        "ip link add bridge0 type bridge; ip link set bridge0 up; ip link set eth0 master bridge0; ip -4 addr flush dev eth0; \
         ip addr add 192.0.2.12/24 dev bridge0; ip route replace default via 192.0.2.1",
    );
    await_places(&mesh, &["192.0.2.11", "192.0.2.12"]);
    for from in [1, 2] {
        await_calls(&mesh, from, &["api-1", "api-2"]);
    }
    eventually(PATIENCE, "all is well", || (mesh.site(2).problems() == "[]").then_some(()));
}

#[test]
fn hosts_of_ipv6_follow_their_addresses_and_one_without_is_refused_as_it_joins() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(3);
    for number in 1..=2 {
        mesh.site(number).sh(&format!("ip addr add 2001:db8::1{number}/64 dev eth0 nodad"));
    }
    mesh.control.start();
    mesh.await_control();
    for number in 1..=2 {
        let token = mesh.token();
        mesh.restart_agent(number, &["--token", &token, "--underlay", "2001:db8::/32"]);
        mesh.site_mut(number).await_ready();
    }
    mesh.create_shop();
    let _servers = [mesh.site(1).serve("api", "api-1"), mesh.site(2).serve("api", "api-2")];
    mesh.site(1).await_instances("api", 2);
    await_calls(&mesh, 1, &["api-1", "api-2"]);
    let tunnel = device(&mesh, 2);
    mesh.site(2).sh("ip addr del 2001:db8::12/64 dev eth0; ip addr add 2001:db8::52/64 dev eth0 nodad");
    let row = await_row(&mesh, 1, "api-2", "2001:db8::52");
    println!("the other host sends to the new address after {row:?}");
    await_places(&mesh, &["2001:db8::11", "2001:db8::52"]);
    for from in [1, 2] {
        await_calls(&mesh, from, &["api-1", "api-2"]);
    }
    assert_eq!(device(&mesh, 2), tunnel, "the tunnel's device is another one");

    let token = mesh.token();
    let join = |flags: &[&str]| {
        let arguments = ["agent", "--control", "192.0.2.11:7443", "--token", &token];
        mesh.site(3).sealane(&[&arguments, flags].concat())
    };
    let refused = join(&[]);
    let said = "underlay address 192.0.2.13 of node host-3 is of IPv4, and all other hosts of the mesh are at addresses of IPv6 alone";
    let line = "join with --underlay 192.0.2.13 --underlay and an IPv6 address of host-3";
    assert!(
        refused.code() == 1 && refused.stderr.contains(said) && refused.stderr.contains(line),
        "{refused}"
    );
    let refused = join(&["--underlay", "192.0.2.13", "--underlay", "192.0.2.0/24"]);
    assert!(refused.code() == 1 && refused.stderr.contains("no address of this host"), "{refused}");
}

#[test]
fn a_host_that_is_alone_on_loopback_becomes_one_of_several_while_its_workloads_run() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(2);
    let up = |mesh: &Mesh, flags: &[&str]| {
        let mut up = mesh.site(1).host.command(sealane().to_str().unwrap());
        up.arg("up").args(flags);
        let mut up = Running::start(up);
        eventually(PATIENCE, "the host is ready", || {
            assert!(up.runs(), "{}", up.stderr());
            mesh.site(1).http("/ready").is_some_and(|(status, _)| status == 200).then_some(())
        });
        up
    };
    let mut alone = up(&mesh, &[]);
    mesh.create_shop();
    let mut server = mesh.site(1).serve("api", "api-1");
    mesh.site(1).await_instances("api", 1);
    assert_eq!(mesh.json(&["node", "ls"])[0]["underlay"], "127.0.0.1");
    let sidecars = mesh.site(1).processes("proxy");

    alone.kill9();
    let _up = up(&mesh, &["--listen", "0.0.0.0:7443"]);
    await_places(&mesh, &["192.0.2.11"]);
    mesh.join(2);
    mesh.site_mut(2).await_ready();
    await_calls(&mesh, 2, &["api-1"]);
    assert!(server.runs(), "it was disturbed");
    assert_eq!(mesh.site(1).processes("proxy"), sidecars);
}

#[test]
fn an_agent_looks_controls_name_up_again_when_it_moves() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let name = |address: &str| format!("echo {address} control.example > /run/hosts");
    mesh.site(2).sh(&format!("{}; mount --bind /run/hosts /etc/hosts", name("192.0.2.11")));
    mesh.site_mut(2).agent.kill9();
    mesh.restart_agent(2, &["--control", "control.example:7443"]);
    await_places(&mesh, &["192.0.2.11", "192.0.2.12"]);

    give(&mesh, 1, "192.0.2.61");
    mesh.site(2).sh(&name("192.0.2.61"));
    mesh.site_mut(1).agent.kill9();
    mesh.restart_agent(1, &["--control", "192.0.2.61:7443"]);
    await_places(&mesh, &["192.0.2.61", "192.0.2.12"]);
    await_calls(&mesh, 2, &["api-1", "api-2"]);
}
