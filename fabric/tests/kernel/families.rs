//! Hosts with underlay addresses of both families.

use std::sync::Arc;
use std::time::Duration;

use sealane_fabric::netlink::EchoRequest;
use sealane_fabric::overlay::{EchoPeers, Reason};
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::UnderlayAddrs;
use sealane_sys::NetNs;

use crate::hosts::{Host, Hosts, answers, sh, two_hosts};

const BOTH: [&str; 2] = ["192.0.2.1,2001:db8::1", "192.0.2.2,2001:db8::2"];

/// Two hosts that could use both families, with a workload each.
async fn of_both_families() -> (Hosts, NetNs, NetNs) {
    let mut hosts = two_hosts();
    for (ns, last) in [(&hosts.a.ns, 1), (&hosts.b.ns, 2)] {
        sh(ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.under0.disable_ipv6=0");
        sh(ns, &format!("ip addr add 2001:db8::{last}/64 dev under0 nodad"));
    }
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    let server = hosts.b.attach(&network, "server", 20, 20).await;
    (hosts, client, server)
}

/// Tells both hosts where they are, as control does.
async fn place(hosts: &Hosts, places: [&str; 2]) {
    let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
    for ((host, place), at) in [&hosts.a, &hosts.b].into_iter().zip(places).zip(0..) {
        let place: UnderlayAddrs = place.parse().unwrap();
        host.overlay.relocate(place).await.unwrap();
        snapshot.nodes[at].underlay = place;
    }
    let snapshot = Arc::new(snapshot);
    for host in [&hosts.a, &hosts.b] {
        host.ensure(&snapshot, Reason::Change).await.unwrap();
        assert_eq!(host.ensure(&snapshot, Reason::Audit).await.unwrap().total(), 0, "{}", host.node);
    }
}

/// The VXLAN devices of a host, with the addresses that they send from.
fn devices(hosts: &Hosts, host: &Host) -> Vec<String> {
    let shown = host.in_network(&hosts.network, "ip -d -o link show type vxlan");
    let mut devices: Vec<String> = shown
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let local = words.iter().position(|word| *word == "local").map_or("", |at| words[at + 1]);
            format!("{} {local}", words[1].split(['@', ':']).next().unwrap_or_default())
        })
        .collect();
    devices.sort();
    devices
}

fn reach_each_other(client: &NetNs, server: &NetNs) -> bool {
    answers(client, "10.42.0.20", 20.0) && answers(server, "10.42.0.10", 20.0)
}

#[tokio::test]
async fn a_second_device_is_there_only_while_another_host_is_reached_by_the_other_family_alone() {
    let (hosts, client, server) = of_both_families().await;
    place(&hosts, BOTH).await;
    assert!(reach_each_other(&client, &server));
    assert_eq!(devices(&hosts, &hosts.a), ["vxlan0 192.0.2.1"], "IPv4 suffices");

    place(&hosts, [BOTH[0], "2001:db8::2"]).await;
    assert!(reach_each_other(&client, &server));
    assert_eq!(devices(&hosts, &hosts.a), ["vxlan0 192.0.2.1", "vxlan1 2001:db8::1"]);
    assert_eq!(devices(&hosts, &hosts.b), ["vxlan0 2001:db8::2"]);
    let rows = hosts.a.in_network(&hosts.network, "bridge fdb show dev vxlan1 | grep 02:00:00:00:00:14");
    assert!(rows.contains("dst 2001:db8::2") && rows.contains("master br0"), "{rows}");

    // The main families differ, and both have both: IPv4.
    place(&hosts, [BOTH[0], "2001:db8::2,192.0.2.2"]).await;
    assert!(reach_each_other(&client, &server));
    assert_eq!(devices(&hosts, &hosts.a), ["vxlan0 192.0.2.1"]);
    assert_eq!(devices(&hosts, &hosts.b), ["vxlan0 2001:db8::2", "vxlan1 192.0.2.2"]);

    // The main family becomes the other one.
    place(&hosts, [BOTH[0], "192.0.2.2,2001:db8::2"]).await;
    assert!(reach_each_other(&client, &server));
    assert_eq!(devices(&hosts, &hosts.b), ["vxlan0 192.0.2.2"]);
    place(&hosts, ["2001:db8::1,192.0.2.1", "2001:db8::2"]).await;
    assert!(reach_each_other(&client, &server));
    assert_eq!(devices(&hosts, &hosts.a), ["vxlan0 2001:db8::1"]);
}

#[tokio::test]
async fn what_somebody_does_to_the_second_device_is_mended_and_strangers_stay_out() {
    let (hosts, client, server) = of_both_families().await;
    place(&hosts, [BOTH[0], "2001:db8::2"]).await;
    let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
    snapshot.nodes[0].underlay = BOTH[0].parse().unwrap();
    snapshot.nodes[1].underlay = "2001:db8::2".parse().unwrap();
    let snapshot = Arc::new(snapshot);
    for line in [
        "ip link del vxlan1",
        "ip link set vxlan1 nomaster",
        "ip link set vxlan1 type bridge_slave isolated off flood on",
        "bridge fdb del 02:00:00:00:00:14 dev vxlan1 dst 2001:db8::2",
        "bridge fdb del 02:00:00:00:00:14 dev vxlan1 master",
        "ip link add vxlan9 type dummy; ip link del vxlan9; ip link set vxlan1 down",
    ] {
        hosts.a.in_network(&hosts.network, line);
        assert!(hosts.a.ensure(&snapshot, Reason::Audit).await.unwrap().total() > 0, "{line}");
        assert!(reach_each_other(&client, &server), "{line}");
        assert_eq!(hosts.a.ensure(&snapshot, Reason::Audit).await.unwrap().total(), 0, "{line}");
    }
    // By IPv4, host b is a stranger there.
    let gate = sh(&hosts.a.ns, "nft list ruleset");
    assert!(gate.contains("2001:db8::2") && !gate.contains(". 192.0.2.2"), "{gate}");
    let chains = hosts.a.in_network(&hosts.network, "nft list table netdev sealane");
    assert!(chains.contains("chain vxlan1") && chains.contains("chain vxlan0"), "{chains}");
}

#[tokio::test]
async fn hosts_ask_each_other_by_the_family_that_both_have() {
    let (hosts, ..) = of_both_families().await;
    place(&hosts, [BOTH[0], "2001:db8::2"]).await;
    let peers = |of: &[(&str, &str)]| -> EchoPeers {
        of.iter().map(|(name, place)| (name.parse().unwrap(), place.parse().unwrap())).collect()
    };
    let [a, b] = [&hosts.a, &hosts.b];
    let elsewhere = ("z", "192.0.2.9");
    let both = peers(&[("b", "2001:db8::2"), elsewhere]);
    let device = a.overlay.ensure_echo(&a.node, &both, Reason::Change).await.unwrap();
    let back =
        b.overlay.ensure_echo(&b.node, &peers(&[("a", BOTH[0]), elsewhere]), Reason::Change).await.unwrap();
    assert_eq!((device.peers.len(), back.peers.len()), (2, 1), "host b has no way to z");
    let to = device.peers[&"b".parse().unwrap()];
    assert_ne!(to.device, device.peers[&"z".parse().unwrap()].device, "each family has a device");
    let socket = a.overlay.echo_socket().unwrap().unwrap();
    let answered = async {
        loop {
            // Nothing is said before the kernel has taken the address.
            let _ = socket.send(&[EchoRequest { to: to.address, device: to.device, token: 7, length: 0 }]);
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let Some(answer) = socket.receive().unwrap().first() {
                return answer.from;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap(), to.address);
    let (device, _) =
        (a.overlay.ensure_echo(&a.node, &peers(&[elsewhere]), Reason::Change).await.unwrap(), back);
    assert_eq!(device.peers.len(), 1);
    let audit = a.overlay.ensure_echo(&a.node, &peers(&[elsewhere]), Reason::Audit).await.unwrap();
    assert_eq!(audit.mended, 0);
}
