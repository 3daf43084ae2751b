use std::collections::BTreeSet;

use sealane_fabric::netlink::PacketSocket;
use sealane_sys::NetNs;

use crate::hosts::{Host, answers, sh, two_hosts};

/// Reads the number of frames that the guard of `shop` on this host has counted as spoofed.
fn spoofed(host: &Host, network: &sealane_proto::resource::Network) -> u64 {
    let listed = host.in_network(network, "nft list counter netdev sealane spoofed");
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_workload_cannot_send_with_the_address_of_another() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.a.attach(&network, "near", 11, 11).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    assert!(answers(&client, "10.42.0.11", 5.0) && answers(&client, "10.42.0.20", 5.0));
    let before = spoofed(&hosts.a, &network);
    sh(&client, "ip addr add 10.42.0.77/32 dev lo");
    for target in ["10.42.0.11", "10.42.0.20", "10.42.0.1"] {
        assert!(!answers(&client, &format!("-I 10.42.0.77 {target}"), 0.5), "{target}");
        assert!(answers(&client, target, 5.0), "{target}");
    }
    assert!(spoofed(&hosts.a, &network) >= before + 3);
}

#[tokio::test]
async fn nobody_answers_for_the_gateway_or_for_another_workload() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let near = hosts.a.attach(&network, "near", 11, 11).await;
    let liar = hosts.a.attach(&network, "liar", 12, 12).await;
    hosts.a.attach(&network, "other", 13, 13).await;
    hosts.converge().await;
    assert!(answers(&near, "10.42.0.1", 5.0) && answers(&near, "10.42.0.13", 5.0));
    let neighbours = |ns: &NetNs| sh(ns, "ip neigh | sed 's/ dev.*lladdr / /; s/ [A-Z]*$//' | sort");
    let (warm, before) = (neighbours(&near), spoofed(&hosts.a, &network));

    let socket = PacketSocket::open(&hosts.a.hopper, &liar).unwrap();
    let index = sh(&liar, "cat /proc/net/dev_snmp6/eth0 2>/dev/null | head -1 | tr -dc 0-9 || true");
    let index: u32 = match index.trim().parse() {
        Ok(index) => index,
        Err(_) => sh(&liar, "ip -o link show eth0 | cut -d: -f1").trim().parse().unwrap(),
    };
    let own = [2, 0, 0, 0, 0, 12];
    let gateway_mac = [2, 0, 10, 42, 0, 1];
    let lies = [
        // The liar has the gateway's address, and another's.
        arp(own, own, [10, 42, 0, 1]),
        arp(own, own, [10, 42, 0, 13]),
        // A body that says otherwise than its frame.
        arp(own, [2, 0, 0, 0, 0, 99], [10, 42, 0, 12]),
        // Frames in the gateway's name.
        arp(gateway_mac, gateway_mac, [10, 42, 0, 1]),
    ];
    for lie in &lies {
        socket.send(index, lie).unwrap();
    }
    // What was sent through a veth is through when the next one is.
    assert!(answers(&liar, "10.42.0.11", 5.0), "the truth still passes");
    assert_eq!(spoofed(&hosts.a, &network), before + lies.len() as u64);
    let after = neighbours(&near);
    assert!(warm.lines().all(|line| after.contains(line)), "{warm}\nis now\n{after}");
    assert!(answers(&near, "10.42.0.1", 5.0) && answers(&near, "10.42.0.13", 5.0));
}

#[tokio::test]
async fn what_is_neither_ipv4_nor_arp_is_dropped_and_counted_apart() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    sh(&client, "sysctl -qw net.ipv6.conf.eth0.addr_gen_mode=0 net.ipv6.conf.eth0.disable_ipv6=0");
    let listed = || hosts.a.in_network(&network, "nft list counter netdev sealane unsupported");
    let began = std::time::Instant::now();
    // Neighbour discovery of its own link-local address.
    while listed().contains("packets 0 ") {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{}", listed());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(spoofed(&hosts.a, &network), 0);
}

/// An ARP reply to everybody that `address` has `sender`, in a frame from `from`.
/// The handles of what nft lists of the guard, which the kernel counts up for each thing that it makes.
fn handles(listed: &str) -> BTreeSet<u32> {
    let numbers = listed.lines().filter_map(|line| line.rsplit_once("# handle ")?.1.trim().parse().ok());
    numbers.collect()
}

#[tokio::test]
async fn a_new_port_is_guarded_without_a_touch_on_any_other() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    hosts.a.attach(&network, "first", 10, 10).await;
    hosts.a.attach(&network, "second", 11, 11).await;
    hosts.converge().await;
    let listed = |host: &Host| handles(&host.in_network(&network, "nft -a list table netdev sealane"));
    let links = |host: &Host| host.in_network(&network, "ip -o link show | grep -o '^[0-9]*: [^:@]*'");
    let (before, links_before) = (listed(&hosts.a), links(&hosts.a));
    hosts.a.attach(&network, "third", 12, 12).await;
    let after = listed(&hosts.a);
    assert!(before.is_subset(&after), "{before:?} {after:?}");
    let new: Vec<u32> = after.difference(&before).copied().collect();
    // A chain and its rules; nothing was made for a moment only.
    let newest = before.last().unwrap();
    assert_eq!(new, (newest + 1..=newest + new.len() as u32).collect::<Vec<_>>());
    assert_eq!(new.len(), 4);
    assert!(links(&hosts.a).starts_with(links_before.trim_end()), "{links_before}");
}

fn arp(from: [u8; 6], sender: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let everybody = [0xff; 6];
    let kind = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2];
    [&everybody[..], &from, &kind, &sender, &address, &everybody, &address].concat()
}
