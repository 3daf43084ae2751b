//! Datagrams that try whether checksums arrive as they should.

use std::net::Ipv6Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sealane_fabric::netlink::{ChecksumBy, ChecksumProber, LinkRequest, Socket};
use sealane_fabric::overlay::{EchoAddr, EchoPeers, Reason};
use sealane_proto::types::MacAddr;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use sealane_sys::spawn::SpawnExt;

use crate::hosts::{Host, Hosts, sh, two_hosts};

/// The program that is a network card which makes no checksums in tunnels.
const BROKEN_CARD: &str = include_str!("../../../tests/programs/broken_card.py");
const LONG: Duration = Duration::from_secs(20);
const BOTH: [ChecksumBy; 2] = [ChecksumBy::Device, ChecksumBy::Kernel];

/// A wire that ends with the test.
struct Wire(Child);

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Joins the hosts by a wire on which the card of host a makes no checksums in tunnels.
fn broken_card(hosts: &Hosts) -> Wire {
    let (hopper, middle) = (Hopper::start().unwrap(), NetNs::anonymous().unwrap());
    sh(&middle, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    sh(&hosts.a.ns, "ip link del under0");
    let mut socket = Socket::open(&hopper, &middle).unwrap();
    for (end, host, last) in [("left", &hosts.a, 1), ("right", &hosts.b, 2)] {
        let peer = LinkRequest::named("under0").in_namespace(&host.ns);
        socket.request(LinkRequest::named(end).veth(peer).create(), || "lay a wire".into()).unwrap();
        sh(&middle, &format!("ip link set {end} up"));
        sh(&host.ns, &format!("ip addr add 192.0.2.{last}/24 dev under0 && ip link set under0 up"));
    }
    let mut card = Command::new("/usr/bin/python3");
    let middle = std::os::fd::OwnedFd::from(middle);
    let card = card.args(["-c", BROKEN_CARD, "left", "right"]).stdout(Stdio::piped()).enter(vec![middle]);
    let mut card = card.die_with_parent().spawn().unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(card.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(&said, b"joined");
    Wire(card)
}

/// One host as it tries checksums on the way to the other one.
struct Trial {
    prober: ChecksumProber,
    to: EchoAddr,
    token: u64,
}

impl Trial {
    async fn of(host: &Host, (peer, underlay): (&str, &str)) -> Self {
        let peers: EchoPeers = [(peer.parse().unwrap(), underlay.parse().unwrap())].into();
        let device = host.overlay.ensure_echo(&host.node, &peers, Reason::Change).await.unwrap();
        let to = *device.peers.values().next().unwrap();
        Self { prober: host.overlay.checksum_prober().unwrap().unwrap(), to, token: 0 }
    }

    /// Sends a datagram; returns its token.
    fn send(&mut self, by: ChecksumBy) -> u64 {
        self.token += 1;
        // Nothing is sent while the device is down.
        let _ = self.prober.send(self.to.address, self.to.device, self.token, by);
        self.token
    }

    /// Sends datagrams of a kind until one is answered, for at most so long; no kernel answers more often than that.
    async fn answered(&mut self, by: ChecksumBy, within: Duration) -> bool {
        let (began, first) = (Instant::now(), self.token + 1);
        while began.elapsed() < within {
            let _ = self.send(by);
            tokio::time::sleep(Duration::from_millis(260)).await;
            for (from, token) in self.prober.receive().unwrap() {
                assert_eq!(from, self.to.address);
                if token >= first {
                    return true;
                }
            }
        }
        false
    }
}

const ON_IPV4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

async fn trials(hosts: &Hosts, [a, b]: [&str; 2]) -> [Trial; 2] {
    [Trial::of(&hosts.a, ("b", b)).await, Trial::of(&hosts.b, ("a", a)).await]
}

fn echoes(host: &str) -> NetNs {
    NetNs::open(format!("/tmp/{host}/netns/echo")).unwrap()
}

#[tokio::test]
async fn checksums_that_a_card_leaves_out_are_told_from_those_of_the_kernel_until_that_makes_all() {
    let hosts = two_hosts();
    let _wire = broken_card(&hosts);
    judged(&hosts, ON_IPV4).await;
    let on_ipv6 = ["2001:db8::1", "2001:db8::2"];
    for (host, address) in [&hosts.a, &hosts.b].into_iter().zip(on_ipv6) {
        sh(&host.ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.under0.disable_ipv6=0");
        sh(&host.ns, &format!("ip addr add {address}/64 dev under0 nodad"));
        host.overlay.relocate(address.parse().unwrap()).await.unwrap();
    }
    judged(&hosts, on_ipv6).await;
}

/// Tries the ways between the hosts, of which the card of host a breaks one.
async fn judged(hosts: &Hosts, places: [&str; 2]) {
    let [mut there, mut back] = trials(hosts, places).await;
    for by in BOTH {
        assert!(back.answered(by, LONG).await, "the other card is sound: {by:?}");
    }
    assert!(there.answered(ChecksumBy::Kernel, LONG).await);
    assert!(!there.answered(ChecksumBy::Device, Duration::from_secs(3)).await);
    assert!(there.answered(ChecksumBy::Kernel, LONG).await);
    let way = hosts.a.overlay.device_to(places[1].parse().unwrap()).await.unwrap();
    assert_eq!(way.as_deref(), Some("under0"));
    sh(&hosts.a.ns, "ethtool -K under0 tx off");
    assert!(there.answered(ChecksumBy::Device, LONG).await);
    sh(&hosts.a.ns, "ethtool -K under0 tx on");
    assert!(!there.answered(ChecksumBy::Device, Duration::from_secs(1)).await);
}

#[tokio::test]
async fn both_kinds_take_one_way_through_the_network() {
    let hosts = two_hosts();
    let [mut there, _back] = trials(&hosts, ON_IPV4).await;
    assert!(there.answered(ChecksumBy::Device, LONG).await);
    sh(
        &hosts.b.ns,
        "nft 'table ip seen { set ports { type inet_service; flags dynamic; size 64; }; \
           chain c { type filter hook prerouting priority -400; udp dport 4789 add @ports { udp sport }; }; }'",
    );
    for by in BOTH {
        assert!(there.answered(by, LONG).await, "{by:?}");
    }
    let ports = sh(&hosts.b.ns, "nft -j list set ip seen ports");
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    assert_eq!(ports["nftables"][1]["set"]["elem"].as_array().unwrap().len(), 1, "{ports}");
}

#[tokio::test]
async fn a_host_of_an_older_version_answers_neither_kind() {
    let hosts = two_hosts();
    let [mut there, _back] = trials(&hosts, ON_IPV4).await;
    assert!(there.answered(ChecksumBy::Kernel, LONG).await);
    let chain = "inet sealane-echo-door prerouting";
    let rule = "ip6 nexthdr ipv6-icmp icmpv6 type { echo-request, echo-reply } accept";
    sh(&echoes("b"), &format!("nft 'flush chain {chain}; add rule {chain} {rule}'"));
    for by in BOTH {
        assert!(!there.answered(by, Duration::from_secs(1)).await, "{by:?}");
    }
}

#[tokio::test]
async fn datagrams_enter_where_echoes_are_answered_at_a_port_at_which_nobody_listens_and_at_no_other() {
    let hosts = two_hosts();
    let [mut there, _back] = trials(&hosts, ON_IPV4).await;
    assert!(there.answered(ChecksumBy::Kernel, LONG).await);
    let noted = |what: &str| -> u64 {
        let all = sh(&echoes("b"), &format!("grep -w {what} /proc/net/snmp6"));
        all.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (unheard, came) = (noted("Udp6NoPorts"), noted("Ip6InReceives"));
    let to: Ipv6Addr = MacAddr::of_host(&"b".parse().unwrap()).link_local();
    // The port from which the other host's agent sends is one of these.
    sh(
        &echoes("a"),
        &format!(
            "/usr/bin/python3 -c 'import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
             for port in range(1, 65536): port == 9 or s.sendto(bytes(8), (\"{to}\", port, 0, {}))'",
            there.to.device
        ),
    );
    let last = there.send(ChecksumBy::Kernel);
    let answered = async {
        while !there.prober.receive().unwrap().iter().any(|(_, token)| *token == last) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // What was sent before is there before it.
    tokio::time::timeout(LONG, answered).await.unwrap();
    assert_eq!(noted("Udp6NoPorts"), unheard + 1);
    assert!(noted("Ip6InReceives") > came + 10_000);
    assert_eq!(sh(&echoes("b"), "ss -Hlun 'sport = 9'"), "", "nobody listens");
}
