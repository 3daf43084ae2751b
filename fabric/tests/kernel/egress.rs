use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use sealane_fabric::egress::{self, Firewall};
use sealane_fabric::overlay::Reason;
use sealane_proto::resource::Egress;
use sealane_sys::NetNs;

use crate::hosts::{Host, answers, sh, try_sh, two_hosts};

/// Lists the host's rules, devices and settings of ours.
fn traces(host: &Host) -> String {
    sh(
        &host.ns,
        "nft list tables; iptables -S | grep sealane; ip -br link | grep sealane; sysctl net.ipv4.ip_forward net.ipv4.conf.all.accept_redirects",
    )
}

/// Returns true if there is anything of ours but the gate of tunnels.
fn ways_out(host: &Host) -> bool {
    traces(host).lines().any(|line| line.contains("sealane") && !line.contains("sealane-tunnels-"))
}

#[tokio::test]
async fn packets_leave_with_the_hosts_address_and_nothing_is_left_of_the_way_when_the_network_goes() {
    let mut hosts = two_hosts();
    let before = traces(&hosts.a);
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    assert!(answers(&client, "192.0.2.2", 5.0));
    let seen =
        sh(&hosts.b.ns, "ip neigh show 192.0.2.1; ip neigh show 10.42.0.10; ip neigh show 169.254.192.2");
    assert!(seen.contains("192.0.2.1") && !seen.contains("10.42") && !seen.contains("169.254"), "{seen}");
    // The whole underlay MTU does not fit into the network, and the sender is told.
    let big = try_sh(&client, "ping -n -c1 -W5 -M do -s 1472 192.0.2.2");
    assert!(!big.status.success());
    assert!(answers(&client, "-M do -s 1422 192.0.2.2", 5.0));
    assert!(traces(&hosts.a).contains("sealane00100000"));

    hosts.a.overlay.remove_workload(&network.name, &hosts.a.local[0].workload.name).await.unwrap();
    hosts.a.overlay.remove_network(&network.name).await.unwrap();
    assert_eq!(traces(&hosts.a), before);
}

#[tokio::test]
async fn a_restarted_agent_finds_the_way_as_it_is_and_takes_it_back_in_the_end() {
    let mut hosts = two_hosts();
    let before = traces(&hosts.a);
    let network = hosts.network.clone();
    hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    let restarted = Host::start(hosts.a.ns.try_clone().unwrap(), "a", 1, "/tmp/a", 4789);
    let mut restarted = restarted;
    restarted.local = hosts.a.local.clone();
    assert_eq!(restarted.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap(), Default::default());
    restarted.overlay.remove_network(&network.name).await.unwrap();
    assert_eq!(traces(&hosts.a), before);
}

#[tokio::test]
async fn a_firewall_that_drops_what_is_forwarded_gets_a_rule_and_loses_it_again() {
    let mut hosts = two_hosts();
    sh(&hosts.a.ns, "sysctl -qw net.ipv4.ip_forward=1 && iptables -P FORWARD DROP");
    sh(
        &hosts.a.ns,
        "iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER && iptables -A DOCKER-USER -j RETURN",
    );
    let before = traces(&hosts.a);
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    assert!(answers(&client, "192.0.2.2", 5.0));
    let inspected = |host: &Host| egress::inspect(&host.hopper, &host.ns).unwrap();
    assert_eq!(inspected(&hosts.a), Firewall::Passed("DOCKER-USER".into()));
    // The host's rules are set up anew by somebody.
    for line in
        ["iptables -F DOCKER-USER", "nft delete table inet sealane", "sysctl -qw net.ipv4.ip_forward=0"]
    {
        sh(&hosts.a.ns, line);
        assert!(!answers(&client, "192.0.2.2", 0.5), "{line}");
        hosts.a.overlay.audit_host().await.unwrap();
        assert!(answers(&client, "192.0.2.2", 5.0), "{line}");
    }
    assert_eq!((hosts.a.drift("iptables"), hosts.a.drift("nft")), (2, 1));
    sh(&hosts.a.ns, "sysctl -qw net.ipv4.ip_forward=1");
    hosts.a.overlay.remove_network(&network.name).await.unwrap();
    assert_eq!(inspected(&hosts.a), Firewall::Closed("DOCKER-USER".into()));
    let after = traces(&hosts.a);
    assert!(after.starts_with(before.split("net.ipv4").next().unwrap()), "{before}\nis now\n{after}");
}

/// Sends ACK and FIN to the host without a connection, and tells of which of them ICMP says that they are prohibited.
const STRAY_SEGMENTS: &str = r#"
import socket, struct
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
icmp.settimeout(10)
tcp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
ends = socket.inet_aton("10.42.0.10") + socket.inet_aton("192.0.2.1")
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
for flags in (0x10, 0x11):
    segment = struct.pack("!HHIIBBHHH", 31001, 7000, 1000, 1, 5 << 4, flags, 65535, 0, 0)
    whole = ends + struct.pack("!BBH", 0, 6, len(segment)) + segment
    tcp.sendto(segment[:16] + struct.pack("!H", checksum(whole)) + segment[18:], ("192.0.2.1", 0))
    answer = icmp.recv(2000)[20:]
    assert answer[:2] == bytes([3, 13]), (hex(flags), answer)
    print("refused", hex(flags), flush=True)
"#;

/// Firewall that asks for the state of tunnels' packets.
const STATEFUL: &str = "add table inet fw; \
    add chain inet fw input { type filter hook input priority 0; policy drop; }; \
    add rule inet fw input ct state established,related accept; \
    add rule inet fw input ct state new udp dport 4789 accept; \
    add rule inet fw input icmp type echo-request accept";

#[tokio::test]
async fn tunnels_are_tracked_only_on_hosts_whose_firewall_asks_for_it() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    let untracked = |host: &Host| sh(&host.ns, "nft list set inet sealane tunnels").contains("{ 4789 }");
    assert!(untracked(&hosts.a) && answers(&client, "10.42.0.20", 5.0));
    for host in [&hosts.a, &hosts.b] {
        sh(&host.ns, &format!("nft '{STATEFUL}'"));
        host.overlay.audit_host().await.unwrap();
        assert!(!untracked(host));
    }
    assert!(answers(&client, "10.42.0.20", 5.0), "its firewall lets new tunnels in");
    sh(
        &hosts.a.ns,
        "nft delete rule inet fw input handle $(nft -a list chain inet fw input | sed -n 's/.*4789.*handle //p')",
    );
    hosts.a.overlay.audit_host().await.unwrap();
    assert!(untracked(&hosts.a), "what is established is none of the tunnels' business");
    assert!(!answers(&client, "10.42.0.20", 0.5), "nor does our table let in what the firewall drops");
    assert_eq!(hosts.a.drift("nft"), 0, "nobody has touched our rules");
    sh(&hosts.a.ns, "nft delete table inet fw");
    // What iptables say, by nf_tables or by themselves, nft cannot read.
    for iptables in ["iptables-nft", "iptables-legacy"] {
        hosts.a.overlay.audit_host().await.unwrap();
        assert!(untracked(&hosts.a), "{iptables}");
        let rule = "INPUT -p udp --dport 4789 -m conntrack --ctstate NEW -j ACCEPT";
        sh(&hosts.a.ns, &format!("{iptables} -A {rule}"));
        hosts.a.overlay.audit_host().await.unwrap();
        assert!(!untracked(&hosts.a), "{iptables}");
        sh(&hosts.a.ns, &format!("{iptables} -D {rule}"));
    }
}

#[tokio::test]
async fn what_happens_to_the_hosts_rules_is_mended_at_once() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    let host = &hosts.a;
    let broken_and_mended = async {
        // The watch listens once it has been polled.
        tokio::task::yield_now().await;
        for (line, wanted) in [
            ("nft delete table inet sealane", "nft list table inet sealane | grep masquerade"),
            ("iptables -P FORWARD DROP", "iptables -S FORWARD | grep sealane"),
            (
                "ip link add br9 type bridge && ip link set br9 up && ip addr add 192.0.2.99/32 dev br9 && \
                 ip route add default dev br9",
                "nft list set inet sealane uplinks | grep br9",
            ),
        ] {
            sh(&host.ns, line);
            let began = Instant::now();
            while !try_sh(&host.ns, wanted).status.success() {
                assert!(began.elapsed() < Duration::from_secs(20), "{line}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(answers(&client, "192.0.2.2", 5.0), "{line}");
        }
    };
    tokio::select! {
        biased;
        ended = host.overlay.watch_host() => panic!("{ended:?}"),
        () = broken_and_mended => {}
    }
    assert_eq!((host.drift("nft"), host.drift("iptables")), (1, 2), "a new uplink is no drift");
}

#[tokio::test]
async fn what_happens_to_the_hosts_end_of_a_link_is_told_and_mended_by_a_look() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    let (host, snapshot) = (&hosts.a, hosts.snapshot());
    let mut doubted = host.overlay.doubted();
    let broken_and_mended = async {
        // The watch listens once it has been polled.
        tokio::task::yield_now().await;
        for line in [
            "ip link del sealane00100000",
            "ip link set sealane00100000 down",
            "ip addr flush dev sealane00100000",
            "ip route flush dev sealane00100000",
            "ip link set sealane00100000 mtu 1200",
        ] {
            sh(&host.ns, line);
            let told = tokio::time::timeout(Duration::from_secs(20), doubted.changed()).await;
            told.unwrap_or_else(|_| panic!("nobody is told after {line}")).unwrap();
            assert!(doubted.borrow_and_update().contains(&network.name), "{line}");
            host.ensure(&snapshot, Reason::Audit).await.unwrap();
            assert!(answers(&client, "192.0.2.2", 5.0), "{line}");
        }
        // The kernel tells of the mending as well.
        let quiet = tokio::time::timeout(Duration::from_secs(3), doubted.changed()).await;
        assert!(quiet.is_err(), "what was mended is looked at again");
    };
    tokio::select! {
        biased;
        ended = host.overlay.watch_host() => panic!("{ended:?}"),
        () = broken_and_mended => {}
    }
}

#[tokio::test]
async fn the_host_itself_other_links_and_vxlan_are_not_reached_by_the_way_out() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    // So many refusals that the kernel would say some of them less often.
    hosts.a.in_network(&network, "sysctl -qw net.ipv4.icmp_ratelimit=0");
    sh(&hosts.a.ns, "sysctl -qw net.ipv4.icmp_ratelimit=0");
    assert!(answers(&client, "192.0.2.1", 5.0), "the host answers ping");
    let refused = |target: &str| {
        let began = Instant::now();
        let line =
            format!("/usr/bin/python3 -c 'import socket; socket.create_connection((\"{target}\", 22), 20)'");
        let said = String::from_utf8(try_sh(&client, &line).stderr).unwrap();
        assert!(said.contains("No route to host") || said.contains("EHOSTUNREACH"), "{target}: {said}");
        assert!(began.elapsed() < Duration::from_secs(10), "{target}: at once");
    };
    refused("192.0.2.1");
    refused("169.254.192.1");
    for metadata in ["169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192"] {
        refused(metadata);
    }
    let line = "/usr/bin/python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.settimeout(10); s.connect((\"192.0.2.2\", 4789)); s.send(b\"x\"); s.recv(1)'";
    let said = String::from_utf8(try_sh(&client, line).stderr).unwrap();
    assert!(said.contains("No route to host"), "{said}");
    // Nor what hosts offer each other, at control and at a host that carries the network.
    hosts.a.overlay.learn_control(["192.0.2.7:17443".parse().unwrap()]);
    hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
    for (target, port) in [
        ("192.0.2.7", 17443),
        ("192.0.2.7", 9465),
        ("192.0.2.2", 7443),
        ("192.0.2.2", 9464),
        ("192.0.2.200", 9465),
    ] {
        let line =
            format!("python3 -c 'import socket; socket.create_connection((\"{target}\", {port}), 20)'");
        let said = String::from_utf8(try_sh(&client, &line).stderr).unwrap();
        assert!(said.contains("No route to host"), "{target}:{port}: {said}");
    }
    // Nor by segments of no connection, which a host would answer with RST.
    let said = try_sh(&client, &format!("/usr/bin/python3 -c '{STRAY_SEGMENTS}' 2>&1"));
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "refused 0x10\nrefused 0x11\n");
    // Nobody outside reaches in.
    sh(&hosts.b.ns, "ip route add 10.42.0.0/16 via 192.0.2.1");
    sh(&hosts.b.ns, "ip route replace 169.254.192.0/30 via 192.0.2.1");
    assert!(!answers(&hosts.b.ns, "10.42.0.10", 0.5) && !answers(&hosts.b.ns, "169.254.192.2", 0.5));
}

#[tokio::test]
async fn containers_of_others_are_reached_by_what_they_publish_alone() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    let container = NetNs::anonymous().unwrap();
    let fd = format!("/proc/{}/fd/{}", std::process::id(), container.as_fd().as_raw_fd());
    sh(
        &hosts.a.ns,
        &format!(
            "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up && \
             ip link add inner type veth peer name eth0 netns {fd} && ip link set inner master docker0 up && \
             nsenter --net={fd} ip link set eth0 up && nsenter --net={fd} ip addr add 172.17.0.2/16 dev eth0 && \
             nsenter --net={fd} ip route add default via 172.17.0.1"
        ),
    );
    hosts.converge().await;
    let reaches = |target: &str| {
        let line =
            format!("/usr/bin/python3 -c 'import socket; socket.create_connection((\"{target}\", 80), 20)'");
        let done = try_sh(&client, &line);
        (done.status.success(), String::from_utf8(done.stderr).unwrap())
    };
    let listen = || TcpListener::bind("0.0.0.0:80");
    let _listener = hosts.a.hopper.run(&container, listen).unwrap().unwrap();
    let (reached, said) = reaches("172.17.0.2");
    assert!(!reached && said.contains("No route to host"), "{said}");
    sh(
        &hosts.a.ns,
        "nft 'table ip publish { chain pre { type nat hook prerouting priority -100; tcp dport 80 dnat to 172.17.0.2; }; }'",
    );
    assert!(reaches("192.0.2.1").0, "published at the host's address");
    // A way outside that is a bridge itself.
    sh(&hosts.a.ns, "ip route add default via 172.17.0.2 table 77");
    hosts.a.overlay.audit_host().await.unwrap();
    sh(&hosts.a.ns, "nft delete table ip publish");
    assert!(reaches("172.17.0.2").0);
    // A container without a bridge.
    sh(&hosts.a.ns, "ip route del default table 77");
    sh(&hosts.a.ns, "ip link set inner nomaster && ip route add 172.17.0.2/32 dev inner");
    hosts.a.overlay.audit_host().await.unwrap();
    let (reached, said) = reaches("172.17.0.2");
    assert!(!reached && said.contains("No route to host"), "{said}");
}

#[tokio::test]
async fn a_denied_network_says_so_at_once_and_a_change_of_mind_takes_effect() {
    let mut hosts = two_hosts();
    hosts.network.egress = Egress::Deny;
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    let said = try_sh(&client, "ping -n -c1 -W20 192.0.2.2");
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("From 10.42.0.1") && said.contains("filtered"), "{said}");
    assert!(answers(&client, "10.42.0.20", 5.0) && answers(&client, "10.42.0.1", 5.0));
    assert!(!ways_out(&hosts.a), "the host is left alone");
    let counted = hosts.a.in_network(&network, "nft list counter inet sealane refused");
    assert!(counted.contains("packets 1 "), "{counted}");

    for (egress, leaves) in [(Egress::Allow, true), (Egress::Deny, false)] {
        hosts.network.egress = egress;
        hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
        assert_eq!(answers(&client, "192.0.2.2", 2.0), leaves);
        assert_eq!(ways_out(&hosts.a), leaves);
        assert_eq!(hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap().total(), 0);
        assert_eq!(sh(&client, "ip route show default").lines().count(), 1);
    }
}

#[tokio::test]
async fn networks_with_the_same_subnet_leave_side_by_side() {
    let mut hosts = two_hosts();
    let first = hosts.network.clone();
    let mut second = first.clone();
    second.name = "office".parse().unwrap();
    second.vni = sealane_proto::types::Vni::try_from(first.vni.get() + 1).unwrap();
    let one = hosts.a.attach(&first, "one", 10, 10).await;
    hosts.converge().await;
    hosts.network = second.clone();
    let other = hosts.a.attach(&second, "other", 10, 10).await;
    hosts.converge().await;
    for (name, client) in [("one", &one), ("other", &other)] {
        assert!(answers(client, "192.0.2.2", 5.0), "{name}");
    }
    // One that goes leaves the other its way.
    hosts.a.overlay.remove_network(&first.name).await.unwrap();
    assert!(answers(&other, "192.0.2.2", 5.0));
}
