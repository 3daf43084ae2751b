use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_fabric::overlay::{InterfaceOffer, OverlayError, Reason, Table, preflight};
use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::{MacAddr, Mtu};
use sealane_sys::NetNs;

use crate::hosts::{Host, Hosts, answers, sh, two_hosts};

#[tokio::test]
async fn packets_are_as_long_as_the_ways_of_all_hosts_allow() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    // Its address is on loopback, and reached by a route.
    sh(&hosts.a.ns, "ip addr add 198.51.100.1/32 dev lo");
    let loopback = "198.51.100.1".parse().unwrap();
    let mut a = Host::start_at(hosts.a.ns.try_clone().unwrap(), "c", loopback, "/tmp/c", 4789);
    let client = a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    let told = |hosts: &Hosts, bytes: u32| {
        let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
        for node in snapshot.nodes.iter_mut().filter(|node| node.name == hosts.b.node) {
            node.mtu = Mtu::try_from(bytes).ok();
        }
        Arc::new(snapshot)
    };
    let inside = |ns: &NetNs| {
        let shown = sh(ns, "ip -o link show eth0");
        let mtu = shown.split(" mtu ").nth(1).and_then(|rest| rest.split(' ').next());
        mtu.unwrap_or_default().to_owned()
    };
    a.ensure(&told(&hosts, 0), Reason::Change).await.unwrap();
    assert_eq!(inside(&client), "1450");
    // Another host's way is narrower; then its own.
    a.ensure(&told(&hosts, 1380), Reason::Change).await.unwrap();
    assert_eq!(inside(&client), "1380");
    assert_eq!(a.ensure(&told(&hosts, 1380), Reason::Audit).await.unwrap().total(), 0);
    // Below 1280 bytes, the kernel takes IPv6 from devices, and later gives it back with other settings: nobody else did that.
    for bytes in [1239, 1380] {
        a.ensure(&told(&hosts, bytes), Reason::Change).await.unwrap();
        assert_eq!(inside(&client), bytes.to_string());
        let mended = a.ensure(&told(&hosts, bytes), Reason::Audit).await.unwrap();
        assert_eq!(mended.total(), 0, "after {bytes}: {mended:?}");
    }
    let mut mtu = a.overlay.mtu();
    mtu.borrow_and_update();
    let narrowed = async {
        tokio::task::yield_now().await;
        sh(&hosts.a.ns, "ip link set under0 mtu 1400");
        mtu.changed().await.unwrap();
    };
    tokio::select! {
        biased;
        ended = a.overlay.watch_host() => panic!("{ended:?}"),
        () = narrowed => {}
    }
    a.ensure(&told(&hosts, 1380), Reason::Change).await.unwrap();
    assert_eq!(inside(&client), "1350");
    // What somebody asked for is what it is, and said when it does not fit.
    for (bytes, said) in [(1300, None), (1400, Some("1400 bytes, and 1350 fit; large ones are lost"))] {
        let mut asked = NetworkSnapshot::clone(&told(&hosts, 1200));
        asked.network.mtu = Mtu::try_from(bytes).ok();
        let too_long = a.ensure(&Arc::new(asked), Reason::Change).await.unwrap().too_long;
        assert_eq!(too_long.as_deref().and_then(|text| text.split(':').next()), said);
        assert_eq!(inside(&client), bytes.to_string());
    }
}

#[tokio::test]
async fn two_agents_with_one_vni_on_one_host_are_told_apart_by_an_error() {
    let hosts = two_hosts();
    hosts.converge().await;
    let second = Host::start(hosts.a.ns.try_clone().unwrap(), "a", 1, "/tmp/second", 4789);
    let error = second.ensure(&hosts.snapshot(), Reason::Change).await.unwrap_err();
    assert!(matches!(error, OverlayError::VniTaken { port: 4789, .. }), "{error}");
    let third = Host::start(hosts.a.ns.try_clone().unwrap(), "a", 1, "/tmp/third", 14789);
    third.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
}

#[tokio::test]
async fn a_device_of_the_same_name_on_the_host_is_in_nobodys_way() {
    let hosts = two_hosts();
    sh(&hosts.a.ns, "ip link add vxlan0 type bridge && ip link add br0 type bridge");
    hosts.converge().await;
}

#[tokio::test]
async fn a_removed_network_frees_its_vni_though_a_socket_is_left_inside() {
    let hosts = two_hosts();
    hosts.converge().await;
    let name = &hosts.network.name;
    let inside = hosts.a.overlay.network_netns(name).unwrap();
    let socket = hosts.a.hopper.run(&inside, || std::net::UdpSocket::bind("10.42.0.1:53")).unwrap().unwrap();
    hosts.a.overlay.remove_network(name).await.unwrap();
    assert!(hosts.a.overlay.networks_on_disk().unwrap().is_empty());
    hosts.a.overlay.remove_network(name).await.unwrap();
    let again = hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert!(again.changes(Table::Link) > 0);
    drop(socket);
}

#[tokio::test]
async fn what_a_killed_agent_left_half_made_is_completed() {
    let hosts = two_hosts();
    fs::create_dir_all("/tmp/a/netns").unwrap();
    // Killed between file and mount.
    fs::write("/tmp/a/netns/net-shop", "").unwrap();
    hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    // Killed between device and settings.
    hosts.a.in_network(&hosts.network, "ip link del vxlan0; ip link set br0 down; ip addr flush dev br0");
    let next = Host::start(hosts.a.ns.try_clone().unwrap(), "a", 1, "/tmp/a", 4789);
    next.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert_eq!(next.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap().total(), 0);
}

#[tokio::test]
async fn another_port_or_mtu_takes_effect_on_what_is_there() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    let local = std::mem::take(&mut hosts.a.local);
    // The agent before has ended.
    hosts.a = Host::start(hosts.a.ns.try_clone().unwrap(), "a", 1, "/tmp/a", 14789);
    hosts.a.local = local;
    let other = &hosts.a;
    sh(&hosts.a.ns, "ip link set under0 mtu 1400");
    other.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
    let devices = other.in_network(&network, "ip -d link show");
    assert!(devices.contains("dstport 14789"), "{devices}");
    assert_eq!(devices.matches("mtu 1350").count(), 4, "bridge, VXLAN device, port and way out: {devices}");
    assert!(other.in_network(&network, "ip -d link show br0").contains("nf_call_iptables 0"));
}

#[tokio::test]
async fn an_interface_of_somebody_else_is_left_alone() {
    let hosts = two_hosts();
    let ns = NetNs::anonymous().unwrap();
    sh(&ns, "ip link add eth0 type bridge");
    let workload = hosts.a.local(&hosts.network, "client", 10, 10);
    let error = hosts.a.overlay.ensure_workload(&hosts.network, &workload, &ns).await.unwrap_err();
    assert!(matches!(error, OverlayError::InterfaceTaken { .. }), "{error}");
    assert!(sh(&ns, "ip -d link show eth0").contains("bridge"));
}

#[tokio::test]
async fn a_workload_that_comes_back_in_a_new_namespace_gets_its_port_again() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let old = hosts.a.attach(&network, "client", 10, 10).await;
    let new = NetNs::anonymous().unwrap();
    hosts.a.overlay.ensure_workload(&network, &hosts.a.local[0], &new).await.unwrap();
    assert!(sh(&new, "ip addr show eth0").contains("10.42.0.10/16"));
    assert!(!sh(&old, "ip link").contains("eth0"));
}

#[tokio::test]
async fn ten_thousand_remote_workloads_are_a_matter_of_a_second() {
    let hosts = two_hosts();
    let mut snapshot = (*hosts.snapshot()).clone();
    snapshot.workloads = (0..10_000_u16).map(|at| remote(&hosts.b, &hosts.network, at)).collect();
    let snapshot = Arc::new(snapshot);
    let began = Instant::now();
    let applied = hosts.a.ensure(&snapshot, Reason::Change).await.unwrap();
    let first = began.elapsed();
    assert_eq!((applied.changes(Table::Fdb), applied.changes(Table::Neighbour)), (10_000, 10_000));
    let began = Instant::now();
    assert_eq!(hosts.a.ensure(&snapshot, Reason::Audit).await.unwrap().total(), 0);
    println!("10,000 rows: {first:?} to add, {:?} to compare", began.elapsed());
    // Well under a second by itself; the machine may be busy with other things.
    assert!(first < Duration::from_secs(5), "{first:?}");
}

fn remote(host: &Host, network: &sealane_proto::resource::Network, at: u16) -> Workload {
    let [high, low] = at.to_be_bytes();
    let mut workload = host.workload(network, &format!("w{at}"), 0, 0);
    workload.address = std::net::Ipv4Addr::new(10, 42, high + 1, low).into();
    workload.mac = MacAddr::new([2, 1, 0, 0, high, low]);
    workload
}

#[test]
fn this_kernel_has_what_it_takes() {
    let hopper = sealane_sys::hop::Hopper::start().unwrap();
    preflight::check(&hopper).unwrap();
}

#[tokio::test]
async fn a_row_that_the_kernel_refuses_costs_that_row_alone() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    // A workload elsewhere has an address of a group, for which no row is put in another's place.
    let with_a_stranger = |hosts: &Hosts| {
        let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
        let mut lost = hosts.b.workload(&network, "lost", 30, 30);
        lost.mac = MacAddr::new([0x01, 0, 0x5e, 0, 0, 30]);
        snapshot.workloads.push(lost);
        Arc::new(snapshot)
    };
    for reason in [Reason::Change, Reason::Audit, Reason::Change] {
        let applied = hosts.a.ensure(&with_a_stranger(&hosts), reason).await.unwrap();
        let said = applied.refused_rows.unwrap();
        assert!(said.contains("01:00:5e:00:00:1e") && said.contains("192.0.2.2"), "{reason:?}: {said}");
    }
    // Others come and are reached.
    hosts.b.attach(&network, "later", 21, 21).await;
    let snapshot = with_a_stranger(&hosts);
    assert!(hosts.a.ensure(&snapshot, Reason::Change).await.unwrap().refused_rows.is_some());
    hosts.b.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert!(answers(&client, "10.42.0.20", 5.0) && answers(&client, "10.42.0.21", 5.0));
    assert_eq!(hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap().refused_rows, None);
}

#[tokio::test]
async fn an_interface_that_a_runtime_took_becomes_a_port_also_where_the_network_has_a_device_of_its_number() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let _first = hosts.a.attach(&network, "first", 9, 9).await;
    hosts.converge().await;
    let local = hosts.a.local(&network, "second", 10, 10);
    let offer = InterfaceOffer { number: 7, mac: local.workload.mac, mtu: 1450 };
    hosts.a.overlay.offer(offer).await.unwrap();
    let index = sh(&hosts.a.ns, "ip -o link show slo000000000007 | cut -d: -f1");
    let index = index.trim();
    let other =
        format!("ip -o link | grep -q '^{index}:' || ip link add name other index {index} type bridge");
    hosts.a.in_network(&network, &other);
    let path = hosts.a.overlay.workload_path(&network.name, &local.workload.name);
    let ns = NetNs::ensure_at(&path).unwrap();
    sh(&hosts.a.ns, &format!("ip link set {} netns {}", offer.source(), path.display()));
    sh(&ns, &format!("ip link set {} name eth0 && ip link set eth0 up", offer.source()));
    let taken = hosts.a.overlay.taken(7, &ns, &network.name).await.unwrap();
    assert_eq!(taken.map(|name| name.as_str().to_owned()).as_deref(), Some("eth0"));
    hosts.a.overlay.ensure_workload(&network, &local, &ns).await.unwrap();
    hosts.a.local.push(local);
    hosts.converge().await;
    assert!(answers(&ns, "10.42.0.9", 5.0));
}
