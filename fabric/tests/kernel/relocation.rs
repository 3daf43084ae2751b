//! Hosts whose underlay address becomes another one.

use std::sync::Arc;

use sealane_fabric::overlay::{OverlayError, Reason, UnderlayError};
use sealane_proto::resource::{Network, NetworkSnapshot};
use sealane_proto::types::UnderlayAddrs;
use sealane_sys::NetNs;

use crate::hosts::{Hosts, answers, sh, two_hosts};

/// Two hosts with a workload each, and the namespaces of these.
async fn with_workloads() -> (Hosts, NetNs, NetNs) {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    let server = hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    (hosts, client, server)
}

/// Moves host b to this address, and tells both where it is.
async fn relocate(hosts: &Hosts, address: &str) {
    let address: UnderlayAddrs = address.parse().unwrap();
    hosts.b.overlay.relocate(address).await.unwrap();
    assert_eq!(*hosts.b.overlay.underlay().borrow(), address);
    let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
    if address.first().to_ip().is_ipv6() {
        let other: UnderlayAddrs = "2001:db8::1".parse().unwrap();
        hosts.a.overlay.relocate(other).await.unwrap();
        snapshot.nodes[0].underlay = other;
    }
    snapshot.nodes[1].underlay = address;
    let snapshot = Arc::new(snapshot);
    for host in [&hosts.b, &hosts.a] {
        host.ensure(&snapshot, Reason::Change).await.unwrap();
        assert_eq!(host.ensure(&snapshot, Reason::Audit).await.unwrap().total(), 0, "{}", host.node);
    }
}

fn device(hosts: &Hosts, network: &Network) -> String {
    hosts.b.in_network(network, "ip -o link show vxlan0 | cut -d: -f1")
}

#[tokio::test]
async fn a_tunnel_sends_from_another_address_without_being_made_again() {
    let (hosts, client, server) = with_workloads().await;
    let network = hosts.network.clone();
    assert!(answers(&client, "10.42.0.20", 20.0) && answers(&server, "10.42.0.10", 20.0));
    let before = device(&hosts, &network);
    // The host keeps the old one as well: what the kernel remembers of a way is right until it is told otherwise.
    sh(&hosts.b.ns, "ip addr add 192.0.2.52/24 dev under0");
    relocate(&hosts, "192.0.2.52").await;
    assert!(answers(&client, "10.42.0.20", 20.0) && answers(&server, "10.42.0.10", 20.0));
    assert_eq!(device(&hosts, &network), before);
    // And back, without the new one.
    relocate(&hosts, "192.0.2.2").await;
    sh(&hosts.b.ns, "ip addr del 192.0.2.52/24 dev under0");
    assert!(answers(&server, "10.42.0.10", 20.0) && answers(&client, "10.42.0.20", 20.0));
    assert_eq!(device(&hosts, &network), before);
}

#[tokio::test]
async fn tunnels_move_within_ipv6_as_well_and_are_made_again_for_another_family() {
    let (hosts, client, server) = with_workloads().await;
    let network = hosts.network.clone();
    for (ns, last) in [(&hosts.a.ns, 1), (&hosts.b.ns, 2)] {
        sh(ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.under0.disable_ipv6=0");
        sh(ns, &format!("ip addr add 2001:db8::{last}/64 dev under0 nodad"));
    }
    relocate(&hosts, "2001:db8::2").await;
    assert!(answers(&client, "10.42.0.20", 20.0) && answers(&server, "10.42.0.10", 20.0));
    let before = device(&hosts, &network);
    sh(&hosts.b.ns, "ip addr add 2001:db8::52/64 dev under0 nodad");
    relocate(&hosts, "2001:db8::52").await;
    assert!(answers(&client, "10.42.0.20", 20.0) && answers(&server, "10.42.0.10", 20.0));
    assert_eq!(device(&hosts, &network), before);
}

#[tokio::test]
async fn a_host_does_not_move_to_an_address_that_it_has_not() {
    let (hosts, client, _server) = with_workloads().await;
    let refused = hosts.b.overlay.relocate("192.0.2.77".parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, OverlayError::Underlay(UnderlayError::NotHere(_))), "{refused}");
    assert_eq!(hosts.b.overlay.underlay().borrow().to_string(), "192.0.2.2");
    assert!(answers(&client, "10.42.0.20", 20.0));
}

#[tokio::test]
async fn who_is_on_the_same_wire_hears_who_has_the_address_now() {
    let (hosts, _client, _server) = with_workloads().await;
    // Host a takes a stranger for the one that has the address.
    sh(&hosts.a.ns, "ip neigh replace 192.0.2.52 lladdr 02:00:00:00:00:99 dev under0 nud stale");
    sh(&hosts.b.ns, "ip addr add 192.0.2.52/24 dev under0");
    hosts.b.overlay.relocate("192.0.2.52".parse().unwrap()).await.unwrap();
    hosts.b.overlay.announce_underlay().await.unwrap();
    let mac = sh(&hosts.b.ns, "ip -br link show under0 | awk '{print $3}'");
    let known = sh(&hosts.a.ns, "ip neigh show 192.0.2.52");
    assert!(known.contains(mac.trim()), "{known}");
}
