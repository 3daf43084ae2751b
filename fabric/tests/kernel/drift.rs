use sealane_fabric::overlay::{Reason, Table};
use sealane_sys::NetNs;

use crate::hosts::{Host, answers, sh, two_hosts};

#[tokio::test]
async fn a_second_pass_changes_nothing_nor_does_that_of_a_restarted_agent() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    let snapshot = hosts.snapshot();
    for reason in [Reason::Change, Reason::Audit] {
        assert_eq!(hosts.a.ensure(&snapshot, reason).await.unwrap(), Default::default());
    }
    let client =
        NetNs::open(hosts.a.overlay.workload_path(&network.name, &hosts.a.local[0].workload.name)).unwrap();
    let again = hosts.a.overlay.ensure_workload(&network, &hosts.a.local[0], &client).await.unwrap();
    assert_eq!(again.total(), 0);

    let mut restarted = Host::start(hosts.a.ns.try_clone().unwrap(), "a", 1, "/tmp/a", 4789);
    restarted.local = hosts.a.local.clone();
    assert_eq!(restarted.overlay.networks_on_disk().unwrap(), [network.name]);
    assert_eq!(restarted.ensure(&snapshot, Reason::Audit).await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_handle_that_somebody_removed_counts_whoever_finds_it_first() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    let path = hosts.a.overlay.network_path(&network.name);
    for (count, by_pass) in [(1, true), (2, false)] {
        sh(&hosts.a.ns, &format!("umount -l {}", path.display()));
        if by_pass {
            hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
        } else {
            assert!(hosts.a.overlay.ensure_handle(&network.name).unwrap());
        }
        assert!(!hosts.a.overlay.ensure_handle(&network.name).unwrap());
        assert_eq!(hosts.a.drift("handle"), count);
    }
}

#[tokio::test]
async fn what_others_change_is_mended_and_counted() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    let snapshot = hosts.snapshot();
    let port = sealane_fabric::overlay::plan::port_name(&hosts.a.local[0].workload.name);
    let gateway = network.mac_of(network.subnet.gateway());
    let table = [
        ("bridge fdb del 02:00:00:00:00:14 dev vxlan0 dst 192.0.2.2", Table::Fdb),
        ("bridge fdb replace 02:00:00:00:00:14 dev vxlan0 dst 192.0.2.9", Table::Fdb),
        ("bridge fdb append 02:00:00:00:00:66 dev vxlan0 dst 192.0.2.9", Table::Fdb),
        ("ip neigh del 10.42.0.20 dev vxlan0", Table::Neighbour),
        ("ip neigh add 10.42.0.66 lladdr 02:00:00:00:00:66 dev vxlan0 nud permanent", Table::Neighbour),
        (&format!("bridge fdb del 02:00:00:00:00:0a dev {port} master"), Table::BridgeFdb),
        (&format!("bridge fdb replace {gateway} dev {port} master static"), Table::BridgeFdb),
        (&format!("bridge fdb del {gateway} dev br0 self"), Table::BridgeFdb),
        ("ip addr del 10.42.0.1/16 dev br0", Table::Address),
        ("ip link set br0 down", Table::Link),
        ("ip link set br0 mtu 1300", Table::Link),
        ("ip link set vxlan0 nomaster", Table::Link),
        ("ip link set vxlan0 type bridge_slave learning on", Table::Link),
        ("ip link set vxlan0 type bridge_slave isolated on neigh_suppress on", Table::Link),
        (&format!("ip link set {port} type bridge_slave isolated on hairpin on"), Table::Link),
        (&format!("ip link set {port} down"), Table::Link),
        (&format!("ip link del {port}"), Table::Link),
        ("ip link del vxlan0", Table::Link),
        ("ip link del br0", Table::Link),
        ("ip link del egress0", Table::Link),
        ("ip addr flush dev egress0", Table::Address),
        ("ip route del default", Table::Route),
        ("ip route flush table main", Table::Route),
        (&format!("nft flush chain netdev sealane {port}"), Table::Rules),
        (&format!("nft insert rule netdev sealane {port} accept"), Table::Rules),
        ("nft insert rule netdev sealane strange accept", Table::Rules),
        ("nft delete table netdev sealane", Table::Rules),
        ("nft delete table inet sealane", Table::Rules),
        ("nft flush ruleset", Table::Rules),
    ];
    for (line, broken) in table {
        let before = hosts.a.drift(broken.label());
        hosts.a.in_network(&network, line);
        let mended = hosts.a.ensure(&snapshot, Reason::Audit).await.unwrap();
        assert!(mended.changes(broken) > 0, "{line}: {mended:?}");
        assert_eq!(hosts.a.drift(broken.label()), before + mended.changes(broken), "{line}");
        assert_eq!(hosts.a.ensure(&snapshot, Reason::Audit).await.unwrap().total(), 0, "{line}");
        assert!(answers(&client, "10.42.0.20", 5.0), "{line}");
        assert!(answers(&client, "10.42.0.1", 5.0), "{line}");
    }
    sh(&client, "ip route flush table main");
    assert!(!answers(&client, "10.42.0.20", 1.0));
    let mended = hosts.a.ensure(&snapshot, Reason::Audit).await.unwrap();
    assert_eq!(mended.changes(Table::Route), 2, "the network and everywhere else: {mended:?}");
    assert!(answers(&client, "10.42.0.20", 5.0) && answers(&client, "192.0.2.2", 5.0));
    sh(&client, "ip addr flush dev eth0 && ip addr add 10.42.0.77/16 dev eth0");
    let mended = hosts.a.ensure(&snapshot, Reason::Audit).await.unwrap();
    assert_eq!(mended.changes(Table::Address), 2);
    assert!(answers(&client, "10.42.0.20", 5.0));
}

#[tokio::test]
async fn what_is_gone_from_the_snapshot_is_gone_from_the_kernel() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    assert!(hosts.a.in_network(&network, "bridge fdb show dev vxlan0").contains("dst 192.0.2.2"));
    hosts.b.local.clear();
    hosts.converge().await;
    assert_eq!(hosts.a.in_network(&network, "bridge fdb show dev vxlan0 | grep dst || true"), "");
    assert_eq!(hosts.a.in_network(&network, "ip neigh show dev vxlan0"), "");
    assert_eq!(hosts.b.in_network(&network, "ip -br link show type veth | grep -v egress0 || true"), "");
}

#[tokio::test]
async fn a_local_workload_whose_namespace_is_nowhere_is_named() {
    let mut hosts = two_hosts();
    let lost = hosts.a.local(&hosts.network, "lost", 10, 10);
    hosts.a.local.push(lost);
    let applied = hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert_eq!(applied.unattached, ["lost".parse().unwrap()]);
}

#[tokio::test]
async fn a_workload_with_the_gateways_own_mac_takes_nothing_from_it() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    let mut impostor = hosts.a.local(&network, "impostor", 11, 11);
    impostor.workload.mac = network.mac_of(network.subnet.gateway());
    let ns = hosts.a.attach_local(&network, impostor).await;
    hosts.converge().await;
    assert!(answers(&client, "10.42.0.1", 5.0) && !answers(&ns, "10.42.0.1", 1.0));
    hosts.a.local.pop();
    hosts.converge().await;
    assert!(answers(&client, "10.42.0.1", 5.0));
}

#[tokio::test]
async fn a_change_after_a_whole_pass_touches_what_it_concerns_and_leaves_the_rest_to_the_next_look() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    hosts.a.in_network(&network, "ip neigh add 10.42.0.66 lladdr 02:00:00:00:00:66 dev vxlan0 nud permanent");
    hosts.b.attach(&network, "server", 20, 20).await;
    let second = hosts.a.attach(&network, "second", 11, 11).await;
    let applied = hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert_eq!((applied.changes(Table::Fdb), applied.changes(Table::Neighbour), applied.total()), (1, 1, 2));
    hosts.b.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert!(answers(&client, "10.42.0.20", 5.0) && answers(&second, "10.42.0.20", 5.0));
    assert!(answers(&client, "10.42.0.11", 5.0));

    hosts.a.local.pop();
    let applied = hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert_eq!((applied.changes(Table::Link), applied.changes(Table::Rules), applied.total()), (1, 1, 2));
    assert!(!sh(&second, "ip link").contains("eth0"));
    let again = hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert_eq!(again, Default::default());

    let mended = hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
    assert_eq!((mended.changes(Table::Neighbour), mended.total()), (1, 1), "what somebody else had added");
}

#[tokio::test]
async fn a_change_that_cannot_be_made_is_made_by_a_whole_pass() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    hosts.a.in_network(&network, "ip link del vxlan0");
    let mut other = hosts.b.local(&network, "other", 21, 21);
    std::mem::swap(&mut hosts.b.local[0], &mut other);
    hosts.b.local.push(other);
    hosts.a.ensure(&hosts.snapshot(), Reason::Change).await.unwrap();
    assert!(answers(&client, "10.42.0.20", 5.0));
}

#[tokio::test]
async fn a_workload_that_comes_or_goes_during_a_look_is_no_drift() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    hosts.converge().await;
    let coming = hosts.a.local(&network, "coming", 10, 10);
    let path = hosts.a.overlay.workload_path(&network.name, &coming.workload.name);
    let ns = NetNs::ensure_at(path).unwrap();
    hosts.a.local.push(coming);
    let looked = hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
    assert_eq!(looked, Default::default());

    let local = hosts.a.local[0].clone();
    hosts.a.overlay.ensure_workload(&network, &local, &ns).await.unwrap();
    assert!(answers(&ns, "10.42.0.1", 5.0));
    hosts.a.overlay.remove_workload(&network.name, &local.workload.name).await.unwrap();
    hosts.a.local.clear();
    let before = hosts.a.drift(Table::Rules.label());
    hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
    assert_eq!(hosts.a.drift(Table::Rules.label()), before);
}

#[tokio::test]
async fn a_default_route_that_somebody_adds_costs_a_workload_nothing_of_its_own() {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.converge().await;
    let default = || sh(&client, "ip route show default");
    let own = default();
    let gateway = network.subnet.gateway();
    let interface = own.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned();
    sh(&client, &format!("ip route add default via {gateway} dev {interface}"));
    let both = default();
    for _ in 0..2 {
        let applied = hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
        assert_eq!((applied.total(), default()), (0, both.clone()), "it is theirs");
    }
    // One that an agent has made, as while the network's egress was another.
    sh(&client, &format!("ip route del default via {gateway} dev {interface} metric 0 proto boot"));
    sh(&client, &format!("ip route add default via {gateway} dev {interface} metric 7 proto static"));
    hosts.a.ensure(&hosts.snapshot(), Reason::Audit).await.unwrap();
    assert_eq!(default(), own);
}
