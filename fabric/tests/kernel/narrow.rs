//! Ways that take shorter packets than the devices that they leave by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sealane_fabric::netlink::{EchoRequest, UnsentEcho};
use sealane_fabric::overlay::{EchoPeers, NarrowHosts, Reason};
use sealane_sys::NetNs;

use crate::hosts::{Host, answers, sh, try_sh, two_hosts};

const PEER: &str = "192.0.2.2";

fn narrow(hosts: &[(&str, u32)]) -> NarrowHosts {
    hosts.iter().map(|(host, length)| (host.parse::<IpAddr>().unwrap(), *length)).collect()
}

async fn ensure(host: &Host, hosts: &[(&str, u32)]) {
    host.overlay.ensure_narrow_ways(narrow(hosts)).await.unwrap();
}

/// The way of the packets of tunnels, with the mark of echoes or without.
fn way(ns: &NetNs, words: &str) -> String {
    sh(ns, &format!("ip -o route get {words} ipproto udp dport 4789"))
}

fn fits(ns: &NetNs, length: u32, to: &str) -> bool {
    // IPv4 and ICMP take 28 bytes.
    try_sh(ns, &format!("ping -n -c1 -W1 -M do -s {} {to}", length - 28)).status.success()
}

#[tokio::test]
async fn senders_in_workloads_are_told_what_the_way_takes_and_only_while_it_does() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    assert!(answers(&client, "10.42.0.20", 5.0) && fits(&client, 1_450, "10.42.0.20"));
    sh(
        &hosts.b.ns,
        "nft 'add table ip hole; add chain ip hole c { type filter hook prerouting priority -400; }; \
         add rule ip hole c ip length > 1400 drop'",
    );
    assert!(!fits(&client, 1_450, "10.42.0.20"), "nobody says why");
    ensure(&hosts.a, &[(PEER, 1_400)]).await;
    let told = try_sh(&client, "ping -n -c3 -i0.2 -W1 -M do -s 1422 10.42.0.20");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("mtu = 1350") || told.contains("mtu=1350") || told.contains("mtu: 1350"), "{told}");
    assert!(fits(&client, 1_350, "10.42.0.20"));
    let of_client = sh(&client, "ip route get 10.42.0.20");
    assert!(of_client.contains("mtu 1350"), "{of_client}");
    // What may be sent in pieces is.
    assert!(try_sh(&client, "ping -n -c1 -W2 -M dont -s 1422 10.42.0.20").status.success());
    // Packets to others, those that are of no tunnel, and echoes are as long as before.
    for others in ["", "ipproto udp dport 4788", "ipproto tcp dport 4789"] {
        let way = sh(&hosts.a.ns, &format!("ip -o route get {PEER} {others}"));
        assert!(!way.contains("mtu") && !way.contains("table"), "{others}: {way}");
    }
    assert!(!way(&hosts.a.ns, "192.0.2.3").contains("mtu"));
    assert!(!way(&hosts.a.ns, &format!("{PEER} mark 0x5ea1a4e0")).contains("mtu"));
    sh(&hosts.b.ns, "nft delete table ip hole");
    ensure(&hosts.a, &[]).await;
    assert!(!way(&hosts.a.ns, PEER).contains("mtu"));
    sh(&client, "ip route flush cache");
    assert!(fits(&client, 1_450, "10.42.0.20"));
    assert_eq!(sh(&hosts.a.ns, "ip rule; ip -6 rule").matches("47:").count(), 0);
}

#[tokio::test]
async fn echoes_are_as_long_as_the_device_takes_them_whatever_others_are_told() {
    let hosts = two_hosts();
    let peers = |name: &str, underlay: &str| -> EchoPeers {
        BTreeMap::from([(name.parse().unwrap(), underlay.parse().unwrap())])
    };
    let (a, b) = (&hosts.a, &hosts.b);
    let device = a.overlay.ensure_echo(&a.node, &peers("b", PEER), Reason::Change).await.unwrap();
    b.overlay.ensure_echo(&b.node, &peers("a", "192.0.2.1"), Reason::Change).await.unwrap();
    ensure(a, &[(PEER, 1_400)]).await;
    ensure(b, &[("192.0.2.1", 1_300)]).await;
    let socket = a.overlay.echo_socket().unwrap().unwrap();
    let (name, at) = device.peers.first_key_value().unwrap();
    assert_eq!((name.as_str(), at.underlay.to_string().as_str()), ("b", PEER));
    let echo = |length| EchoRequest { to: at.address, device: at.device, token: 1, length };
    let answered = async {
        while socket.receive().unwrap().first().is_none_or(|answer| answer.from != at.address) {
            let _ = socket.send(&[echo(1_450)]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    // The device has an MTU of 1450 bytes.
    let unsent = socket.send(&[echo(1_450), echo(1_451), echo(0)]);
    assert_eq!(unsent, [UnsentEcho { place: 1, too_long: true }]);
}

#[tokio::test]
async fn what_others_change_is_mended_and_counted_and_what_is_theirs_stays() {
    let hosts = two_hosts();
    let host = &hosts.a;
    ensure(host, &[(PEER, 1_400)]).await;
    let table = sh(&host.ns, "ip rule | sed -n 's/^47:.*lookup //p'");
    let table = table.split_whitespace().next().unwrap_or_default();
    assert!(!table.is_empty(), "{}", sh(&host.ns, "ip rule"));
    let theirs = [
        format!("ip route add 198.51.100.7/32 dev under0 table {table} proto static"),
        "ip rule add pref 46 to 198.51.100.9 lookup main".to_owned(),
        "ip route add 192.0.2.2/32 dev under0 metric 7".to_owned(),
    ];
    theirs.iter().for_each(|line| drop(sh(&host.ns, line)));
    host.overlay.audit_host().await.unwrap();
    for line in [
        format!("ip route del {PEER} table {table}"),
        format!("ip route replace {PEER} dev under0 mtu 1500 proto 94 table {table}"),
        format!("ip route add 192.0.2.9 dev under0 mtu 1300 proto 94 table {table}"),
        format!("ip rule del pref 47 lookup {table}"),
        format!("ip rule del pref 47 lookup {table}; ip rule add pref 47 lookup {table}"),
        // As an older version made it.
        format!(
            "ip rule del pref 47 lookup {table}; ip rule add not fwmark 0x5ea1a4e0 pref 47 lookup {table}"
        ),
        format!("ip link set under0 down; ip link set under0 up; {}; {}", theirs[0], theirs[2]),
    ] {
        let before = host.drift("route");
        host.overlay.audit_host().await.unwrap();
        assert_eq!(host.drift("route"), before, "before {line}");
        sh(&host.ns, &line);
        host.overlay.audit_host().await.unwrap();
        assert!(host.drift("route") > before, "{line}");
        let all = sh(&host.ns, &format!("ip route show table {table}"));
        assert!(all.contains("198.51.100.7"), "after {line}: {all}");
        let way_to_nine = way(&host.ns, "192.0.2.9");
        let way = way(&host.ns, PEER);
        assert!(way.contains("mtu 1400") && way.contains("dev under0 table"), "after {line}: {way}");
        assert!(!way_to_nine.contains("mtu"), "after {line}");
    }
    // It goes where the host's other routes go, with the shorter of the lengths.
    sh(
        &host.ns,
        "ip link add other0 type veth peer name other1; ip addr add 203.0.113.1/24 dev other0; ip link set other1 up; ip link set other0 up",
    );
    sh(&host.ns, &format!("ip route add {PEER}/32 via 203.0.113.9 dev other0 mtu 1380"));
    host.overlay.audit_host().await.unwrap();
    let moved = way(&host.ns, PEER);
    assert!(moved.contains("via 203.0.113.9 dev other0") && moved.contains("mtu 1380"), "{moved}");
    // Another agent finds what is there, and takes away what nobody needs.
    let again = Host::start(host.ns.try_clone().unwrap(), "a", 1, "/tmp/a", 4789);
    assert_eq!(again.overlay.narrow_ways().await.unwrap(), narrow(&[(PEER, 1_380)]));
    ensure(&again, &[]).await;
    assert_eq!(again.overlay.narrow_ways().await.unwrap(), NarrowHosts::new());
    let left =
        sh(&host.ns, &format!("ip rule; ip route show table all proto 94; ip route show table {table}"));
    assert!(
        !left.contains("47:") && left.contains("198.51.100.7") && left.contains("198.51.100.9"),
        "{left}"
    );
}

#[tokio::test]
async fn hosts_on_ipv6_have_such_routes_as_well() {
    let hosts = two_hosts();
    let host = &hosts.a;
    sh(
        &host.ns,
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.under0.disable_ipv6=0; \
         ip -6 addr add 2001:db8::1/64 dev under0 nodad; ip -6 route add default via 2001:db8::ff dev under0",
    );
    ensure(host, &[("2001:db8::2", 1_400), ("2001:db8:1::7", 1_380)]).await;
    for (to, mtu) in [("2001:db8::2", 1_400), ("2001:db8:1::7", 1_380)] {
        let way = way(&host.ns, to);
        assert!(way.contains(&format!("mtu {mtu}")), "{way}");
        assert!(!self::way(&host.ns, &format!("{to} mark 0x5ea1a4e0")).contains("mtu"));
    }
    let before = host.drift("route");
    host.overlay.audit_host().await.unwrap();
    assert_eq!(
        host.drift("route"),
        before,
        "routes are read as they were made: {}",
        sh(&host.ns, "ip -6 route show table all proto 94")
    );
    ensure(host, &[]).await;
    assert!(!sh(&host.ns, "ip -6 rule").contains("47:"));
}
