//! Echoes between hosts, answered by their kernels.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use etherparse::{Icmpv6Type, PacketBuilder};
use sealane_fabric::netlink::EchoRequest;
use sealane_fabric::overlay::{EchoPeers, OverlayError, Reason};
use sealane_proto::types::{MacAddr, NodeName};
use sealane_sys::NetNs;

use crate::hosts::{Host, Hosts, sh, two_hosts};

fn peers(of: &[(&str, &str)]) -> EchoPeers {
    of.iter().map(|(name, underlay)| (name.parse().unwrap(), underlay.parse().unwrap())).collect()
}

async fn ensure(host: &Host, of: &[(&str, &str)], reason: Reason) -> sealane_fabric::overlay::EchoDevice {
    host.overlay.ensure_echo(&host.node, &peers(of), reason).await.unwrap()
}

async fn joined() -> Hosts {
    let hosts = two_hosts();
    ensure(&hosts.a, &[("b", "192.0.2.2")], Reason::Change).await;
    ensure(&hosts.b, &[("a", "192.0.2.1")], Reason::Change).await;
    hosts
}

fn address(name: &str) -> Ipv6Addr {
    MacAddr::of_host(&name.parse::<NodeName>().unwrap()).link_local()
}

/// Sends short echoes until one is answered, for at most so long.
async fn answers(from: &Host, to: &str, within: Duration) -> bool {
    answers_of(from, to, 0, within).await
}

/// The same, with packets of this length.
async fn answers_of(from: &Host, to: &str, length: usize, within: Duration) -> bool {
    let socket = from.overlay.echo_socket().unwrap().unwrap();
    let device = number(from);
    let asking = async {
        for token in 1.. {
            // Nothing is said while the device is down.
            let _ = socket.send(&[EchoRequest { to: address(to), device, token, length }]);
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let Some(answer) = socket.receive().unwrap().first() {
                assert_eq!((answer.from, (1..=token).contains(&answer.token)), (address(to), true));
                return;
            }
        }
    };
    tokio::time::timeout(within, asking).await.is_ok()
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(400);

fn namespace(host: &str) -> NetNs {
    NetNs::open(format!("/tmp/{host}/netns/echo")).unwrap()
}

fn number(host: &Host) -> u32 {
    let index = sh(&namespace(host.node.as_str()), "cat /proc/net/if_inet6 | grep vxlan0");
    u32::from_str_radix(index.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

#[tokio::test]
async fn the_kernel_of_a_host_answers_without_its_agent() {
    let Hosts { a, b, .. } = joined().await;
    assert!(answers(&a, "b", LONG).await);
    assert!(answers(&b, "a", LONG).await);
    drop(b.overlay);
    assert!(answers(&a, "b", LONG).await);
}

#[tokio::test]
async fn echoes_come_in_from_peers_alone_and_only_as_long_as_they_are_some() {
    let Hosts { a, b, .. } = joined().await;
    // Host b is told that a is somebody else.
    ensure(&b, &[("c", "192.0.2.3")], Reason::Change).await;
    assert!(!answers(&a, "b", SHORT).await);
    let counters = sh(&b.ns, "nft list counters");
    let refused = counters.split("counter strangers-ffffff- {").nth(1).unwrap();
    assert!(!refused.trim_start().starts_with("packets 0 "), "{counters}");
    ensure(&b, &[("a", "192.0.2.1")], Reason::Change).await;
    assert!(answers(&a, "b", LONG).await);
}

#[tokio::test]
async fn a_packet_that_does_not_fit_is_not_fragmented() {
    let Hosts { a, b, .. } = joined().await;
    assert!(answers(&a, "b", LONG).await);
    // 1,500 bytes without the outer headers.
    assert!(answers_of(&a, "b", 1450, LONG).await);
    sh(&b.ns, "ip link set under0 mtu 1400");
    assert!(answers_of(&a, "b", 1350, LONG).await);
    assert!(!answers_of(&a, "b", 1450, SHORT).await, "the receiver drops what its device does not take");
}

#[tokio::test]
async fn the_device_goes_with_the_last_peer_and_nothing_of_it_stays() {
    let Hosts { a, b: _b, .. } = joined().await;
    let open = namespace("a");
    let device = ensure(&a, &[], Reason::Change).await;
    assert!(device.peers.is_empty());
    assert!(NetNs::open("/tmp/a/netns/echo").is_err());
    assert!(!sh(&open, "ip -o link").contains("vxlan0"), "its VNI is free, whoever keeps the namespace");
    assert!(!sh(&a.ns, "nft list tables").contains("sealane-tunnels"));
    assert!(a.overlay.echo_socket().unwrap().is_none());
    // Again is no error, and back is as before.
    ensure(&a, &[], Reason::Change).await;
    ensure(&a, &[("b", "192.0.2.2")], Reason::Change).await;
    assert!(answers(&a, "b", LONG).await);
}

#[tokio::test]
async fn what_others_change_of_it_is_mended_and_counted() {
    let Hosts { a, b: _b, .. } = joined().await;
    let ns = namespace("a");
    let (mac, to) = (MacAddr::of_host(&"b".parse().unwrap()), address("b"));
    let table = [
        format!("bridge fdb del {mac} dev vxlan0 dst 192.0.2.2"),
        format!("bridge fdb replace {mac} dev vxlan0 dst 192.0.2.9"),
        "bridge fdb append 02:00:00:00:00:66 dev vxlan0 dst 192.0.2.9".to_owned(),
        format!("ip neigh del {to} dev vxlan0"),
        "nft flush ruleset".to_owned(),
        "nft add chain inet sealane-echo-door prerouting { policy accept \\; }".to_owned(),
        "ip link set vxlan0 down".to_owned(),
        "ip link set vxlan0 mtu 1300".to_owned(),
        "ip addr flush dev vxlan0".to_owned(),
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1".to_owned(),
        "ip link del vxlan0".to_owned(),
    ];
    for line in &table {
        let clean = ensure(&a, &[("b", "192.0.2.2")], Reason::Audit).await;
        assert_eq!(clean.mended, 0, "before {line}");
        sh(&ns, line);
        let mended = ensure(&a, &[("b", "192.0.2.2")], Reason::Audit).await.mended;
        assert!(mended > 0, "{line}");
        assert!(answers(&a, "b", LONG).await, "after {line}");
    }
    sh(&ns, "umount -l /tmp/a/netns/echo");
    ensure(&a, &[("b", "192.0.2.2")], Reason::Audit).await;
    assert_eq!(namespace("a").inode().unwrap(), ns.inode().unwrap(), "it is the same, with its name");
    assert_eq!(a.drift("handle"), 1);
}

#[tokio::test]
async fn an_agent_that_is_back_takes_up_what_is_there() {
    let Hosts { a, b, .. } = joined().await;
    let before = namespace("a").inode().unwrap();
    let restarted = Host::start(a.ns.try_clone().unwrap(), "a", 1, "/tmp/a", 4789);
    drop(a);
    let device = ensure(&restarted, &[("b", "192.0.2.2")], Reason::Audit).await;
    assert_eq!((device.mended, namespace("a").inode().unwrap()), (0, before));
    assert!(answers(&restarted, "b", LONG).await && answers(&b, "a", LONG).await);
}

#[tokio::test]
async fn a_vni_that_another_device_has_is_named_with_the_port() {
    let hosts = two_hosts();
    sh(&hosts.a.ns, "ip link add other type vxlan id 16777215 dstport 4789");
    let refused =
        hosts.a.overlay.ensure_echo(&hosts.a.node, &peers(&[("b", "192.0.2.2")]), Reason::Change).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, OverlayError::EchoInUse { port: 4789 }), "{error}");
}

#[tokio::test]
async fn many_echoes_are_sent_and_answered_together_and_those_that_cannot_be_sent_are_named() {
    let Hosts { a, b: _b, .. } = joined().await;
    assert!(answers(&a, "b", LONG).await);
    let (socket, device) = (a.overlay.echo_socket().unwrap().unwrap(), number(&a));
    let mut echoes: Vec<EchoRequest> =
        (0..200).map(|token| EchoRequest { to: address("b"), device, token, length: 0 }).collect();
    // No way leads there.
    (echoes[7].to, echoes[150].to) = ("2001:db8::9".parse().unwrap(), "2001:db8::9".parse().unwrap());
    let began = Instant::now();
    let places = |echoes: &[EchoRequest]| -> Vec<usize> {
        socket.send(echoes).into_iter().filter(|echo| !echo.too_long).map(|echo| echo.place).collect()
    };
    assert_eq!(places(&echoes), [7, 150]);
    let gone = [0, 1].map(|at| EchoRequest { device: device + 100, ..echoes[at] });
    assert_eq!(places(&gone), [0, 1]);
    let mut tokens = BTreeSet::new();
    while tokens.len() < 198 && began.elapsed() < LONG {
        for answer in socket.receive().unwrap() {
            assert!(answer.age <= began.elapsed(), "{answer:?}");
            tokens.insert(answer.token);
        }
    }
    assert!(tokens.len() == 198 && !tokens.contains(&7) && !tokens.contains(&150));
}

/// Packet that a host of the gate sends into the tunnel of echoes, from this address to that one: a word that a packet of 1,000 bytes is too
/// long.
fn too_long(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mac = |name: &str| MacAddr::of_host(&name.parse().unwrap()).octets();
    let refused = PacketBuilder::ipv6(to.octets(), from.octets(), 64).icmpv6_echo_request(0, 0);
    let mut invoking = Vec::new();
    refused.write(&mut invoking, &[0; 960]).unwrap();
    let mut frame = vec![8, 0, 0, 0, 0xff, 0xff, 0xff, 0];
    let word = PacketBuilder::ethernet2(mac("b"), mac("a")).ipv6(from.octets(), to.octets(), 255);
    word.icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 }).write(&mut frame, &invoking).unwrap();
    frame
}

#[tokio::test]
async fn nothing_but_echoes_enters_where_echoes_are_answered() {
    let Hosts { a, b, .. } = joined().await;
    assert!(answers(&a, "b", LONG).await);
    let socket = b.hopper.run(&b.ns, || UdpSocket::bind("192.0.2.2:0").unwrap()).unwrap();
    for from in ["b", "c"] {
        socket.send_to(&too_long(address(from), address("a")), "192.0.2.1:4789").unwrap();
    }
    // What was sent before is there before the answer.
    assert!(answers_of(&a, "b", 1450, LONG).await);
    let echoes = namespace("a");
    assert!(!sh(&echoes, &format!("ip -6 route get {}", address("b"))).contains("mtu"));
    let heard = sh(&echoes, "grep -E 'Icmp6(InPktTooBigs|InMsgs) ' /proc/net/snmp6");
    assert!(heard.contains("Icmp6InPktTooBigs               \t0"), "{heard}");
    sh(&b.ns, "ip link set under0 mtu 1400");
    assert!(!answers_of(&a, "b", 1450, SHORT).await, "a long echo went in pieces");
}

#[tokio::test]
async fn rules_of_echoes_that_somebody_takes_away_are_heard_of_and_put_back() {
    let hosts = joined().await;
    let host = &hosts.a;
    assert!(host.overlay.has_echo());
    let ear = host.overlay.echo_ear().unwrap().unwrap();
    ensure(host, &[("b", "192.0.2.2")], Reason::Audit).await;
    let quiet = tokio::time::timeout(SHORT, ear.rules_changed()).await;
    assert!(quiet.is_err(), "a look that changes nothing says nothing");
    let ns = namespace(host.node.as_str());
    let tables = sh(&ns, "nft list tables | sort");
    for table in tables.lines() {
        sh(&ns, &format!("nft delete {table}"));
        tokio::time::timeout(LONG, ear.rules_changed()).await.unwrap().unwrap();
        assert!(ensure(host, &[("b", "192.0.2.2")], Reason::Audit).await.mended > 0);
        assert_eq!(sh(&ns, "nft list tables | sort"), tables);
    }
}
