//! Permission to send into a network by its tunnels.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use sealane_fabric::overlay::Reason;
use sealane_proto::resource::{Egress, NetworkSnapshot};
use sealane_proto::types::Vni;
use sealane_sys::NetNs;

use crate::hosts::{Host, Hosts, answers, sh, try_sh, two_hosts};

const GATEWAY_MAC: [u8; 6] = [2, 0, 10, 42, 0, 1];

/// A frame for the workload whose address ends with 10, in VXLAN with this number.
fn tunnelled(vni: u32, inner_source: [u8; 4], text: &str) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 77], [2, 0, 0, 0, 0, 10]);
    wrapped(vni, |frame| {
        let packet = packet.ipv4(inner_source, [10, 42, 0, 10], 64).udp(4000, 5353);
        packet.write(frame, text.as_bytes()).unwrap();
    })
}

fn wrapped(vni: u32, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let mut frame = vec![8, 0, 0, 0, a, b, c, 0];
    write(&mut frame);
    frame
}

/// A socket of `ns`.
fn socket(host: &Host, ns: &NetNs, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = host.hopper.run(ns, move || UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn heard(socket: &UdpSocket) -> String {
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Reads the counter of this name in `ns`.
fn counter(ns: &NetNs, name: &str) -> u64 {
    let listed = sh(ns, "nft list counters");
    let of = listed.split(&format!("counter {name} {{")).nth(1);
    let of = of.unwrap_or_else(|| panic!("no counter {name} in {listed}"));
    of.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn tables(ns: &NetNs) -> usize {
    sh(ns, "nft list tables").matches("sealane-tunnels-").count()
}

const STRANGERS: &str = "strangers-100000-shop";

/// Hosts a and b with a workload each; b has a stranger's address as well.
async fn hosts_and_a_stranger() -> (Hosts, UdpSocket) {
    let mut hosts = two_hosts();
    sh(&hosts.b.ns, "ip addr add 192.0.2.9/24 dev under0");
    let network = hosts.network.clone();
    let workload = hosts.a.attach(&network, "service", 10, 10).await;
    hosts.b.attach(&network, "client", 20, 20).await;
    hosts.converge().await;
    let service = socket(&hosts.a, &workload, "0.0.0.0:5353");
    (hosts, service)
}

#[tokio::test]
async fn frames_come_in_from_hosts_of_the_network_alone() {
    let (hosts, service) = hosts_and_a_stranger().await;
    let (shop, target) = (Vni::FIRST.get(), "192.0.2.1:4789");
    let stranger = socket(&hosts.b, &hosts.b.ns, "192.0.2.9:0");
    let member = socket(&hosts.b, &hosts.b.ns, "192.0.2.2:0");
    stranger.send_to(&tunnelled(shop, [10, 42, 0, 20], "from a stranger"), target).unwrap();
    member.send_to(&[8, 0, 0, 0], target).unwrap();
    member.send_to(&tunnelled(shop, [10, 42, 0, 20], "from a host"), target).unwrap();
    assert_eq!(heard(&service), "from a host");
    let refused = || (counter(&hosts.a.ns, STRANGERS), counter(&hosts.a.ns, "malformed"));
    assert_eq!(refused(), (1, 1));

    // One that is removed falls out with its rows.
    let mut without = NetworkSnapshot::clone(&hosts.snapshot());
    without.nodes.retain(|node| node.name == hosts.a.node);
    hosts.a.ensure(&Arc::new(without), Reason::Change).await.unwrap();
    member.send_to(&tunnelled(shop, [10, 42, 0, 20], "from a removed host"), target).unwrap();
    hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    member.send_to(&tunnelled(shop, [10, 42, 0, 20], "back again"), target).unwrap();
    assert_eq!(heard(&service), "back again");
    assert_eq!(refused(), (2, 1));
}

#[tokio::test]
async fn what_a_host_sends_has_an_inner_address_of_another_hosts_workload() {
    let (hosts, service) = hosts_and_a_stranger().await;
    let (shop, target) = (Vni::FIRST.get(), "192.0.2.1:4789");
    let member = socket(&hosts.b, &hosts.b.ns, "192.0.2.2:0");
    let forged = [
        // The gateway's, this host's own.
        [10, 42, 0, 1],
        [10, 42, 0, 10],
        // The network's and its broadcast address: nobody's.
        [10, 42, 0, 0],
        [10, 42, 255, 255],
        // Those of services, at which nobody is, whether a service has them or not.
        [10, 42, 7, 0],
        [10, 42, 7, 200],
        // Of no network, or of none that has senders.
        [192, 0, 2, 9],
        [127, 0, 0, 1],
        [0, 0, 0, 0],
        [224, 0, 0, 1],
        [255, 255, 255, 255],
    ];
    for inner in forged {
        member.send_to(&tunnelled(shop, inner, "forged"), target).unwrap();
    }
    // Whoever sends it: to the gateway, to nobody, to the world outside.
    let elsewhere = [[10, 42, 0, 1], [10, 42, 255, 255], [198, 51, 100, 7], [224, 0, 0, 1]];
    for to in elsewhere {
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 77], GATEWAY_MAC);
        let packet = packet.ipv4([10, 42, 0, 20], to, 64).udp(4000, 53);
        let frame = wrapped(shop, |frame| packet.write(frame, b"relayed").unwrap());
        member.send_to(&frame, target).unwrap();
    }
    let lie = wrapped(shop, |frame| {
        let everybody = [0xff; 6];
        let arp = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2];
        for part in
            [&everybody[..], &GATEWAY_MAC, &arp, &GATEWAY_MAC, &[10, 42, 0, 1], &everybody, &[10, 42, 0, 1]]
        {
            frame.extend_from_slice(part);
        }
    });
    member.send_to(&lie, target).unwrap();
    member.send_to(&tunnelled(shop, [10, 42, 0, 20], "true"), target).unwrap();
    assert_eq!(heard(&service), "true");
    let ns = hosts.a.overlay.network_netns(&hosts.network.name).unwrap();
    assert_eq!(counter(&ns, "foreign"), (forged.len() + elsewhere.len()) as u64 + 1);
    assert_eq!(counter(&hosts.a.ns, STRANGERS), 0);
}

#[tokio::test]
async fn inner_ipv6_addresses_are_held_to_what_workloads_can_have() {
    let mut hosts = two_hosts();
    hosts.network.subnet6 = Some("fd42::/64".parse().unwrap());
    let network = hosts.network.clone();
    let workload = hosts.a.attach(&network, "service", 10, 10).await;
    hosts.b.attach(&network, "client", 20, 20).await;
    hosts.converge().await;
    let service = socket(&hosts.a, &workload, "0.0.0.0:5353");
    let member = socket(&hosts.b, &hosts.b.ns, "192.0.2.2:0");
    let (shop, target) = (Vni::FIRST.get(), "192.0.2.1:4789");
    let forged = [
        // The routers' anycast address, the gateway's, this host's own.
        "fd42::",
        "fd42::a2a:1",
        "fd42::a2a:a",
        // What is made from the network's and the broadcast address, and from no address of the network.
        "fd42::a2a:0",
        "fd42::a2a:ffff",
        "fd42::a2a:700",
        "fd42::a2b:14",
        "fd42::1:0:a2a:14",
        // Of no network, or of none that has senders.
        "fd43::a2a:14",
        "::",
        "::1",
        "ff02::1",
        "fe80::14",
    ];
    let elsewhere = ["fd42::a2a:1", "2001:db8:7::7", "ff02::1"].map(|to| ("fd42::a2a:14", to));
    let forged: Vec<_> = forged.map(|from| (from, "fd42::a2a:a")).into_iter().chain(elsewhere).collect();
    for (from, to) in &forged {
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 77], [2, 0, 0, 0, 0, 10]);
        let (from, to): (Ipv6Addr, Ipv6Addr) = (from.parse().unwrap(), to.parse().unwrap());
        let packet = packet.ipv6(from.octets(), to.octets(), 64).udp(4000, 5353);
        let frame = wrapped(shop, |frame| packet.write(frame, b"forged").unwrap());
        member.send_to(&frame, target).unwrap();
    }
    member.send_to(&tunnelled(shop, [10, 42, 0, 20], "true"), target).unwrap();
    assert_eq!(heard(&service), "true");
    let ns = hosts.a.overlay.network_netns(&hosts.network.name).unwrap();
    assert_eq!(counter(&ns, "foreign"), forged.len() as u64);
}

#[tokio::test]
async fn a_gate_that_somebody_breaks_is_mended_at_once_also_without_a_way_out() {
    let mut hosts = two_hosts();
    hosts.network.egress = Egress::Deny;
    let network = hosts.network.clone();
    hosts.a.attach(&network, "service", 10, 10).await;
    hosts.converge().await;
    let whole = sh(&hosts.a.ns, "nft list ruleset");
    let broken_and_mended = async {
        tokio::task::yield_now().await;
        let set = "inet $(nft list tables | sed -n 's/.*inet \\(sealane-tunnels.*\\)/\\1/p') carriers";
        for line in [
            "nft flush ruleset",
            &format!("nft add element {set} '{{ 0x10 . 192.0.2.9 }}'"),
            &format!("nft flush set {set}"),
        ] {
            sh(&hosts.a.ns, line);
            let began = Instant::now();
            while sh(&hosts.a.ns, "nft list ruleset") != whole {
                assert!(began.elapsed() < Duration::from_secs(20), "{line}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // It counts what it has mended.
        let began = Instant::now();
        while hosts.a.drift("nft") < 3 {
            assert!(began.elapsed() < Duration::from_secs(20), "{} are counted", hosts.a.drift("nft"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        biased;
        ended = hosts.a.overlay.watch_host() => panic!("{ended:?}"),
        () = broken_and_mended => {}
    }
    assert_eq!(hosts.a.drift("nft"), 3);
}

#[tokio::test]
async fn what_others_do_before_the_first_network_is_no_drift() {
    let hosts = two_hosts();
    hosts.a.overlay.forget_carriers_but(&[]).await.unwrap();
    sh(&hosts.a.ns, "nft add table ip others");
    // The first look is at once; nothing tells that it has found nothing.
    let looks = tokio::time::timeout(Duration::from_secs(1), hosts.a.overlay.watch_host());
    assert!(looks.await.is_err(), "it goes on");
    assert_eq!(hosts.a.drift("nft"), 0);
}

#[tokio::test]
async fn a_restarted_agent_keeps_every_network_closed_and_forgets_those_that_are_gone() {
    let (hosts, service) = hosts_and_a_stranger().await;
    let whole = sh(&hosts.a.ns, "nft list ruleset");
    let mut restarted = Host::start(hosts.a.ns.try_clone().unwrap(), "a", 1, "/tmp/a", 4789);
    restarted.local = hosts.a.local.clone();
    // Another network's pass comes first.
    let mut other = NetworkSnapshot::clone(&hosts.snapshot());
    other.network.name = "lab".parse().unwrap();
    other.network.vni = Vni::try_from(Vni::FIRST.get() + 1).unwrap();
    other.workloads = Default::default();
    restarted.ensure(&Arc::new(other.clone()), Reason::Change).await.unwrap();
    assert!(sh(&hosts.a.ns, "nft list ruleset").contains("strangers-100001-lab"));
    let stranger = socket(&hosts.b, &hosts.b.ns, "192.0.2.9:0");
    let member = socket(&hosts.b, &hosts.b.ns, "192.0.2.2:0");
    stranger.send_to(&tunnelled(Vni::FIRST.get(), [10, 42, 0, 20], "stranger"), "192.0.2.1:4789").unwrap();
    member.send_to(&tunnelled(Vni::FIRST.get(), [10, 42, 0, 20], "host"), "192.0.2.1:4789").unwrap();
    assert_eq!(heard(&service), "host");
    assert_eq!(counter(&hosts.a.ns, STRANGERS), 1);

    restarted.overlay.forget_carriers_but(std::slice::from_ref(&hosts.network.name)).await.unwrap();
    let lines = |text: &str| {
        text.lines().filter(|line| !line.contains("packets")).map(str::to_owned).collect::<Vec<_>>()
    };
    let bare = |host: &Host| lines(&sh(&host.ns, "nft list ruleset"));
    assert_eq!(bare(&hosts.a).len(), lines(&whole).len());
    for network in ["lab", "shop"] {
        restarted.overlay.remove_network(&network.parse().unwrap()).await.unwrap();
    }
    assert_eq!(tables(&hosts.a.ns), 0);
}

#[tokio::test]
async fn agents_of_one_host_have_a_gate_each() {
    let (hosts, _service) = hosts_and_a_stranger().await;
    let second = Host::start(hosts.a.ns.try_clone().unwrap(), "c", 1, "/tmp/c", 14789);
    let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
    snapshot.workloads = Default::default();
    second.ensure(&Arc::new(snapshot), Reason::Change).await.unwrap();
    assert_eq!(tables(&hosts.a.ns), 2);
    second.overlay.remove_network(&hosts.network.name).await.unwrap();
    assert_eq!((tables(&hosts.a.ns), counter(&hosts.a.ns, STRANGERS)), (1, 0));
}

#[tokio::test]
async fn containers_of_a_host_do_not_speak_in_its_name_nor_in_another_hosts() {
    let (hosts, service) = hosts_and_a_stranger().await;
    let container = NetNs::anonymous().unwrap();
    let fd = format!("/proc/{}/fd/{}", std::process::id(), container.as_fd().as_raw_fd());
    sh(
        &hosts.b.ns,
        &format!(
            "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.ip_forward=1 && \
             ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up && \
             ip link add inner type veth peer name eth0 netns {fd} && ip link set inner master docker0 up && \
             nsenter --net={fd} ip link set eth0 up && nsenter --net={fd} ip addr add 172.17.0.2/16 dev eth0 && \
             nsenter --net={fd} ip route add default via 172.17.0.1 && \
             nft 'table ip d {{ chain p {{ type nat hook postrouting priority 100; oifname under0 masquerade; }}; }}'"
        ),
    );
    let shop = Vni::FIRST.get();
    // With the host's address, by its masquerade.
    let inside = socket(&hosts.b, &container, "172.17.0.2:0");
    inside.send_to(&tunnelled(shop, [10, 42, 0, 20], "container"), "192.0.2.1:4789").unwrap();
    let began = Instant::now();
    while counter(&hosts.b.ns, STRANGERS) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // With host a's address, to host b itself.
    sh(&container, "ip addr add 192.0.2.1/32 dev eth0");
    let forging = socket(&hosts.b, &container, "192.0.2.1:0");
    forging.send_to(&tunnelled(shop, [10, 42, 0, 20], "forged"), "192.0.2.2:4789").unwrap();
    let began = Instant::now();
    while counter(&hosts.b.ns, "forged") == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let member = socket(&hosts.b, &hosts.b.ns, "192.0.2.2:0");
    member.send_to(&tunnelled(shop, [10, 42, 0, 20], "host"), "192.0.2.1:4789").unwrap();
    assert_eq!(heard(&service), "host");
}

#[tokio::test]
async fn ipv6_underlays_have_the_same_gate() {
    let mut hosts = two_hosts();
    // Without connection tracking, which would join fragments.
    hosts.network.egress = Egress::Deny;
    for (ns, last) in [(&hosts.a.ns, 1), (&hosts.b.ns, 2)] {
        sh(ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.under0.disable_ipv6=0");
        sh(ns, &format!("ip addr add 2001:db8::{last}/64 dev under0 nodad"));
    }
    sh(&hosts.b.ns, "ip addr add 2001:db8::9/64 dev under0 nodad");
    let at = |ns: &NetNs, name: &str, last: u8| {
        let underlay: IpAddr = format!("2001:db8::{last}").parse().unwrap();
        Host::start_at(ns.try_clone().unwrap(), name, underlay, &format!("/tmp/{name}"), 4789)
    };
    let (mut a, mut b) = (at(&hosts.a.ns, "a6", 1), at(&hosts.b.ns, "b6", 2));
    let network = hosts.network.clone();
    let workload = a.attach(&network, "service", 10, 10).await;
    let client = b.attach(&network, "client", 20, 20).await;
    let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
    for (node, host, last) in [(0, &a, 1), (1, &b, 2)] {
        let underlay: IpAddr = format!("2001:db8::{last}").parse().unwrap();
        snapshot.nodes[node].name = host.node.clone();
        snapshot.nodes[node].underlay = underlay.into();
        snapshot.workloads.extend(host.local.iter().map(|local| local.workload.clone()));
    }
    let snapshot = Arc::new(snapshot);
    for host in [&a, &b] {
        host.ensure(&snapshot, Reason::Change).await.unwrap();
    }
    assert!(answers(&client, "10.42.0.10", 20.0));
    let service = socket(&a, &workload, "0.0.0.0:5353");
    let stranger = socket(&b, &b.ns, "[2001:db8::9]:0");
    let member = socket(&b, &b.ns, "[2001:db8::2]:0");
    let (shop, target) = (Vni::FIRST.get(), "[2001:db8::1]:4789");
    stranger.send_to(&tunnelled(shop, [10, 42, 0, 20], "stranger"), target).unwrap();
    // In fragments, of which the first has no VNI.
    let pieces = try_sh(&b.ns, &format!("/usr/bin/python3 -c '{FRAGMENTS}'"));
    assert!(pieces.status.success(), "{}", String::from_utf8_lossy(&pieces.stderr));
    member.send_to(&tunnelled(shop, [10, 42, 0, 20], "host"), target).unwrap();
    assert_eq!(heard(&service), "host");
    assert_eq!((counter(&a.ns, STRANGERS), counter(&a.ns, "malformed")), (1, 1));
}

/// The first of two fragments to port 4789 over IPv6 is a UDP header and nothing else, the second the rest.
const FRAGMENTS: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 44)
s.bind(("2001:db8::9", 0))
body = bytes([8, 0, 0, 0, 0x10, 0, 0, 0]) + bytes(64)
udp = struct.pack("!HHHH", 4000, 4789, 8 + len(body), 0)
def fragment(offset, more, data):
    s.sendto(struct.pack("!BBHI", 17, 0, offset << 3 | more, 77) + data, ("2001:db8::1", 0))
fragment(0, 1, udp)
fragment(1, 0, body)
"#;
