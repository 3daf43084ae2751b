//! Lengths of tunnels' packets that a stranger says by ICMP.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use sealane_fabric::overlay::{EchoPeers, Reason};
use sealane_proto::resource::NetworkSnapshot;
use sealane_sys::NetNs;

use crate::hosts::{Host, sh, try_sh, two_hosts};

/// Sends messages that a packet of the first address to the second was longer than 1300 bytes, from the third: a line per form.
const FORGE: &str = r#"
import socket, struct, sys
victim, peer, stranger, form = sys.argv[1:]
v6 = ":" in victim
vxlan = struct.pack("!II", 0x08000000, 0x100000 << 8) + bytes(40)
def udp(source, to): return struct.pack("!HHHH", source, to, 1400, 0) + vxlan
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
tunnel, answer, other = udp(50000, 4789), udp(4789, 50000), udp(5000, 6000)
echo = bytes([129 if v6 else 0, 0, 0, 0, 1, 2, 0, 1]) + bytes(40)
if v6:
    def ip(next, body):
        addresses = socket.inet_pton(socket.AF_INET6, victim) + socket.inet_pton(socket.AF_INET6, peer)
        return struct.pack("!IHBB", 6 << 28, len(body), next, 64) + addresses + body
    def behind(next): return bytes([next, 0, 1, 4, 0, 0, 0, 0])
    def fragment(next): return bytes([next, 0, 0, 1, 0, 0, 0, 7])
    quoted = {
        "tunnel": ip(17, tunnel), "answer": ip(17, answer), "other": ip(17, other),
        "fragment": ip(44, fragment(17) + tunnel), "fragment answer": ip(44, fragment(17) + answer),
        "hops": ip(0, behind(17) + tunnel), "options": ip(60, behind(17) + tunnel),
        "both": ip(0, behind(60) + behind(17) + tunnel), "fragment options": ip(44, fragment(60) + behind(17) + tunnel),
        "options fragment": ip(60, behind(44) + fragment(17) + tunnel), "other fragment": ip(44, fragment(17) + other),
        "echo": ip(58, echo), "echo fragment": ip(44, fragment(58) + echo), "echo options": ip(60, behind(58) + echo),
    }[form]
    message, kind = struct.pack("!BBHI", 2, 0, 0, 1300) + quoted, (socket.AF_INET6, socket.SOCK_RAW, 58)
else:
    def ip(options, body, protocol=17):
        length = 20 + len(options) + len(body)
        head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, length, 1, 0x4000, 64, protocol, 0)
        head += socket.inet_aton(victim) + socket.inet_aton(peer) + options
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
    quoted = {
        "tunnel": ip(b"", tunnel), "answer": ip(b"", answer), "other": ip(b"", other),
        "options": ip(b"\1\1\1\1", tunnel), "echo": ip(b"", echo, 1), "echo options": ip(b"\1\1\1\1", echo, 1),
    }[form]
    message = struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    kind = (socket.AF_INET, socket.SOCK_RAW, 1)
raw = socket.socket(*kind)
raw.bind((stranger, 0))
raw.sendto(message, (victim, 0))
"#;

/// A host that is told of the way to another one, and the stranger who tells it.
struct Scene<'a> {
    victim: &'a Host,
    addresses: [&'a str; 3],
    stranger: &'a NetNs,
}

impl Scene<'_> {
    /// The MTU to which the victim's packets to the peer were brought by such a message; forgets it.
    fn believes(&self, form: &str) -> bool {
        let [victim, peer, _] = self.addresses;
        let words = self.addresses.map(|address| format!("'{address}'")).join(" ");
        let sent = try_sh(self.stranger, &format!("/usr/bin/python3 -c '{FORGE}' {words} '{form}'"));
        assert!(sent.status.success(), "{form}: {}", String::from_utf8_lossy(&sent.stderr));
        let ns = &self.victim.ns;
        let way = sh(ns, &format!("ip -o route get {peer} from {victim}"));
        sh(ns, "ip route flush cache; ip -6 route flush cache");
        way.contains("mtu 1300")
    }

    /// Number of messages that the gate has dropped.
    fn dropped(&self) -> usize {
        let counter = sh(&self.victim.ns, "nft list counters | grep -A1 'counter lengths {'");
        counter.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// Checks that none of these forms is believed at the gate, and each without it.
    fn check(&self, forged: &[&str], true_ones: &[&str]) {
        for form in forged {
            assert!(!self.believes(form), "{form}");
        }
        assert_eq!(self.dropped(), forged.len());
        for form in true_ones {
            assert!(self.believes(form), "{form}, which is about no tunnel");
        }
        assert_eq!(self.dropped(), forged.len());
        sh(&self.victim.ns, "nft flush ruleset");
        for form in forged {
            assert!(self.believes(form), "{form}, without the gate");
        }
    }
}

/// Lets the host have a peer at this address.
async fn ask(host: &Host, peer: &str) {
    let peers = EchoPeers::from([("b".parse().unwrap(), peer.parse().unwrap())]);
    host.overlay.ensure_echo(&host.node, &peers, Reason::Change).await.unwrap();
}

#[tokio::test]
async fn what_a_stranger_says_of_the_lengths_of_tunnels_packets_is_not_believed() {
    let hosts = two_hosts();
    sh(&hosts.b.ns, "ip addr add 192.0.2.9/24 dev under0");
    hosts.converge().await;
    ask(&hosts.a, "192.0.2.2").await;
    let scene =
        Scene { victim: &hosts.a, addresses: ["192.0.2.1", "192.0.2.2", "192.0.2.9"], stranger: &hosts.b.ns };
    let open = || UdpSocket::bind("192.0.2.1:5000");
    let _others = hosts.a.hopper.run(&hosts.a.ns, open).unwrap().unwrap();
    scene.check(&["tunnel", "answer", "options", "echo", "echo options"], &["other"]);
}

#[tokio::test]
async fn what_a_stranger_says_of_the_lengths_of_tunnels_packets_over_ipv6_is_not_believed() {
    let hosts = two_hosts();
    for (ns, last) in [(&hosts.a.ns, 1), (&hosts.b.ns, 2), (&hosts.b.ns, 9)] {
        sh(ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.under0.disable_ipv6=0");
        sh(ns, &format!("ip addr add 2001:db8::{last}/64 dev under0 nodad"));
    }
    let underlays = ["2001:db8::1", "2001:db8::2"].map(|address| address.parse::<IpAddr>().unwrap());
    let a6 = Host::start_at(hosts.a.ns.try_clone().unwrap(), "a6", underlays[0], "/tmp/a6", 4789);
    let mut snapshot = NetworkSnapshot::clone(&hosts.snapshot());
    snapshot.nodes[0].name = a6.node.clone();
    for (node, underlay) in snapshot.nodes.iter_mut().zip(underlays) {
        node.underlay = underlay.into();
    }
    a6.ensure(&Arc::new(snapshot), Reason::Change).await.unwrap();
    ask(&a6, "2001:db8::2").await;
    let scene = Scene {
        victim: &a6,
        addresses: ["2001:db8::1", "2001:db8::2", "2001:db8::9"],
        stranger: &hosts.b.ns,
    };
    let open = || UdpSocket::bind("[2001:db8::1]:5000");
    let _others = a6.hopper.run(&a6.ns, open).unwrap().unwrap();
    let hidden =
        ["fragment", "fragment answer", "fragment options", "hops", "options", "both", "options fragment"];
    let echoes = ["echo", "echo fragment", "echo options"];
    let forged = [&["tunnel", "answer"][..], &hidden, &echoes].concat();
    scene.check(&forged, &["other", "other fragment"]);
}
