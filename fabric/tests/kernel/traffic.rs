use std::io::Read;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use sealane_fabric::overlay::Reason;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, Protocol, Socket, Type};

use crate::hosts::{answers, sh, try_sh, two_hosts};

#[tokio::test]
async fn workloads_reach_each_other_and_the_wire_carries_vxlan_without_arp() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    let near = hosts.a.attach(&network, "near", 11, 11).await;
    let server = hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;

    let mut wire = capture(&hosts.b.hopper, &hosts.b.ns);
    assert!(answers(&client, "10.42.0.20", 5.0));
    assert!(answers(&server, "10.42.0.11", 5.0));
    assert!(answers(&near, "10.42.0.10", 5.0));
    assert!(answers(&client, "10.42.0.1", 5.0), "the gateway answers on every host");
    // Nobody has this address: its question must not leave the host, nor wait for long.
    assert!(!answers(&client, "10.42.0.99", 1.0));
    let full = "ping -n -c1 -W5 -M do -s 1422 10.42.0.20";
    assert!(try_sh(&client, full).status.success(), "a packet of the whole MTU (1450) crosses");

    let mut tunnelled = 0;
    for frame in wire.frames() {
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        if matches!(packet.net, Some(NetSlice::Arp(_))) {
            continue; // The hosts' own, about 192.0.2.0/24.
        }
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("on the wire: {packet:?}") };
        assert_eq!(udp.destination_port(), 4789);
        let inner = SlicedPacket::from_ethernet(&udp.payload()[8..]).unwrap();
        assert!(matches!(inner.net, Some(NetSlice::Ipv4(_))), "crossed the overlay: {inner:?}");
        tunnelled += 1;
    }
    assert!(tunnelled >= 6, "three exchanges");
}

#[tokio::test]
async fn a_warm_client_reaches_an_address_whose_mac_changed() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    assert!(answers(&client, "10.42.0.20", 5.0));

    let old = hosts.b.local.pop().unwrap();
    hosts.b.overlay.remove_workload(&network.name, &old.workload.name).await.unwrap();
    NetNs::remove_at(hosts.b.overlay.workload_path(&network.name, &old.workload.name)).unwrap();
    hosts.b.attach(&network, "server-2", 20, 21).await;
    hosts.converge().await;
    let began = Instant::now();
    while !answers(&client, "10.42.0.20", 0.2) {
        assert!(began.elapsed() < Duration::from_secs(10), "still the old MAC: {}", sh(&client, "ip neigh"));
        // The announcements are made by tasks of this thread's runtime.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Without announcements it takes 35 s; Linux keeps a new entry for 1 s in any case.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(sh(&client, "ip neigh show 10.42.0.20").contains("02:00:00:00:00:15"));
}

#[tokio::test]
async fn announcements_stay_on_their_host() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    hosts.a.attach(&network, "client", 10, 10).await;
    let near = hosts.a.attach(&network, "near", 11, 11).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    let mut wire = capture(&hosts.b.hopper, &hosts.b.ns);
    let mut inside = capture(&hosts.a.hopper, &near);
    // The MAC of a local workload changes; the port of `near` hears of it.
    hosts.a.local[0].workload.mac = "02:00:00:00:00:0c".parse().unwrap();
    hosts.converge().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut heard = 0;
    while heard < 6 {
        assert!(Instant::now() < deadline, "heard {heard} of 6 announcements");
        let arp = |frame: &Vec<u8>| frame[12..14] == [0x08, 0x06] && frame[28..32] == [10, 42, 0, 10];
        heard += inside.frames().iter().filter(|frame| arp(frame)).count();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for frame in wire.frames() {
        assert!(!frame.ends_with(&[10, 42, 0, 10]), "an announcement crossed: {frame:?}");
    }
}

#[tokio::test]
async fn a_workload_cannot_send_with_the_mac_of_another() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.a.attach(&network, "near", 11, 11).await;
    hosts.converge().await;
    assert!(answers(&client, "10.42.0.11", 5.0));
    sh(&client, "ip link set eth0 address 02:00:00:00:00:77");
    assert!(!answers(&client, "10.42.0.11", 1.0));
    let healed = hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
    assert_eq!(healed.total(), 1);
    assert!(answers(&client, "10.42.0.11", 5.0));
}

struct Capture(Socket);

/// Everything that a namespace's devices receive from now on.
fn capture(hopper: &Hopper, ns: &NetNs) -> Capture {
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    let socket = hopper.run(ns, move || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all))));
    let socket = socket.unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    Capture(socket)
}

impl Capture {
    fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65536];
        while let Ok(length) = self.0.read(&mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

#[tokio::test]
async fn connections_of_a_sidecar_to_its_application_do_not_spend_the_ports_of_the_workload() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    sh(&client, "sysctl -qw net.ipv4.ip_local_port_range='40000 40029'");
    // Twice as many as there are ports, closed first by who connects; the kernel counts the age of a used port in seconds.
    let script = r#"
import socket, time
server = socket.create_server(("10.42.0.10", 7100), backlog=100)
for n in range(60):
    if n == 30: time.sleep(2)
    near = socket.create_connection(("10.42.0.10", 7100))
    far = server.accept()[0]
    near.close(); far.recv(1); far.close()
"#;
    sh(&client, &format!("/usr/bin/python3 -c '{script}'"));
}

#[tokio::test]
async fn a_workload_reaches_itself_over_ipv6_in_a_namespace_that_a_runtime_has_left_without() {
    let mut hosts = two_hosts();
    hosts.network.subnet6 = Some("fd42::/64".parse().unwrap());
    let network = hosts.network.clone();
    let local = hosts.a.local(&network, "client", 10, 10);
    let ns = NetNs::ensure_at(hosts.a.overlay.workload_path(&network.name, &local.workload.name)).unwrap();
    sh(&ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    hosts.a.attach_local(&network, local).await;
    // Its sidecar is there.
    assert!(answers(&ns, "fd42::a2a:a", 5.0));
}
