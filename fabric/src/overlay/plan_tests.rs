use proptest::prelude::*;
use sealane_proto::resource::{Node, Workload};

use super::*;
use crate::seat::Seat;
use crate::testing;

proptest! {
    #[test]
    fn a_diff_applied_to_what_is_there_gives_what_should_be(want in rows(), have in rows()) {
        let want: BTreeSet<FdbRow> = want.into_iter().map(|row| (row.key(), row)).collect::<BTreeMap<_, _>>()
            .into_values().collect();
        let list = |rows: &BTreeSet<FdbRow>| rows.iter().copied().collect::<SharedList<_>>();
        for changes in [diff(&want, &have), difference(&list(&want), &list(&have))] {
            prop_assert_eq!(apply(&changes, have.clone()), want.clone());
        }
    }

    #[test]
    fn a_diff_of_equals_is_empty(have in rows()) {
        let changes = diff(&have, &have);
        prop_assert!(changes.add.is_empty() && changes.remove.is_empty());
    }

    #[test]
    fn nothing_of_this_host_is_sent_to_another(
        remote in proptest::collection::vec((0_u8..3, 1_u8..12, 1_u8..12), 0..20),
        own in proptest::collection::vec((1_u8..12, 1_u8..12), 0..4),
    ) {
        let mut snapshot = snapshot();
        snapshot.workloads = remote.into_iter().enumerate()
            .map(|(at, (node, ip, mac))| workload(&format!("r{at}"), &format!("node-{node}"), ip, mac)).collect();
        let attachments: Vec<Attachment> = own.into_iter().enumerate()
            .map(|(at, (ip, mac))| attachment(&format!("l{at}"), "node-0", ip, mac)).collect();
        let desired = desired(&snapshot, (&"node-0".parse().unwrap(), snapshot.nodes[0].underlay), &attachments, 1450);

        let own: IpAddr = snapshot.nodes[0].underlay.first().to_ip();
        prop_assert!(desired.fdb.iter().all(|row| row.peer != own));
        for own in &attachments {
            prop_assert!(desired.fdb.iter().all(|row| row.mac != own.workload.mac));
            prop_assert!(desired.neighbours.iter().all(|row| row.address != IpAddr::from(own.workload.address.to_ipv4())));
        }
        prop_assert!(desired.neighbours.iter().all(|row| row.address != IpAddr::from(desired.base.gateway.to_ipv4())));
        let macs: BTreeSet<MacAddr> = desired.fdb.iter().map(|row| row.mac).collect();
        let addresses: BTreeSet<IpAddr> = desired.neighbours.iter().map(|row| row.address).collect();
        prop_assert_eq!(macs.len(), desired.fdb.len());
        prop_assert_eq!(addresses.len(), desired.neighbours.len());
        prop_assert!(desired.neighbours.iter().all(|row| macs.contains(&row.mac)));
    }
}

#[test]
fn a_local_workload_wins_over_a_stale_remote_one_of_its_address() {
    let mut snapshot = snapshot();
    snapshot.workloads = [workload("old", "node-1", 5, 9), workload("other", "node-2", 6, 6)].into();
    let attachments = [attachment("new", "node-0", 5, 5)];
    let desired =
        desired(&snapshot, (&"node-0".parse().unwrap(), snapshot.nodes[0].underlay), &attachments, 1450);
    assert_eq!(
        desired.neighbours.iter().map(|row| row.address.to_string()).collect::<Vec<_>>(),
        ["10.42.0.6"]
    );
    assert_eq!((desired.ports.len(), desired.fdb.len(), desired.peers), (1, 1, 1));
}

#[test]
fn workloads_of_other_networks_and_unknown_hosts_have_no_place() {
    let mut snapshot = snapshot();
    snapshot.workloads = [workload("lost", "node-9", 5, 5)].into();
    let mut foreign = attachment("foreign", "node-0", 6, 6);
    foreign.workload.network = "blog".parse().unwrap();
    let desired =
        desired(&snapshot, (&"node-0".parse().unwrap(), snapshot.nodes[0].underlay), &[foreign], 1450);
    assert!(desired.ports.is_empty() && desired.fdb.is_empty() && desired.neighbours.is_empty());
}

#[test]
fn hosts_are_reached_by_the_family_that_both_have_and_by_another_device_only_where_one_needs_it() {
    let planned = |places: [&str; 3]| {
        let mut snapshot = snapshot();
        places
            .iter()
            .zip(&mut snapshot.nodes)
            .for_each(|(place, node)| node.underlay = place.parse().unwrap());
        snapshot.workloads = [workload("one", "node-1", 5, 5), workload("two", "node-2", 6, 6)].into();
        let own = snapshot.nodes[0].underlay;
        let desired = desired(&snapshot, (&"node-0".parse().unwrap(), own), &[], 1450);
        let rows: Vec<String> = desired.fdb.iter().map(|row| row.peer.to_string()).collect();
        assert_eq!(desired.carriers.len(), desired.fdb.len(), "each that is sent to may send");
        assert!(desired.hosts.iter().all(|host| !own.contains((*host).into())));
        (rows.join(" "), desired.other.map(|other| other.to_string()).unwrap_or_default())
    };
    let check = |places, rows: &str, other: &str| {
        assert_eq!(planned(places), (rows.to_owned(), other.to_owned()), "{places:?}");
    };
    check(["192.0.2.1,fd00::1", "192.0.2.2,fd00::2", "192.0.2.3"], "192.0.2.2 192.0.2.3", "");
    check(["192.0.2.1,fd00::1", "192.0.2.2", "fd00::3"], "192.0.2.2 fd00::3", "fd00::1");
    check(["fd00::1,192.0.2.1", "192.0.2.2", "fd00::3"], "192.0.2.2 fd00::3", "192.0.2.1");
    check(["fd00::1", "192.0.2.2", "192.0.2.3,fd00::3"], "fd00::3", "");
}

#[test]
fn the_other_hosts_of_a_network_are_let_in_and_its_service_addresses_are_nobodys() {
    let mut snapshot = snapshot();
    snapshot.blocks =
        vec![testing::block(Some("node-1"), "10.42.1.0/24"), testing::block(None, "10.42.255.0/24")];
    let desired = desired(&snapshot, (&"node-0".parse().unwrap(), snapshot.nodes[0].underlay), &[], 1450);
    let others = [2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
    assert_eq!(*desired.carriers, BTreeSet::from(others));
    assert_eq!(desired.services, BTreeSet::from(["10.42.255.0/24".parse().unwrap()]));
}

#[test]
fn whoever_has_the_gateways_ethernet_address_gets_no_frames() {
    let mut snapshot = snapshot();
    let base = Base::of(&snapshot.network, 1450);
    let mut port = Port::of(&attachment("api", "node-0", 5, 5));
    assert!(!base.is_gateway(&port));
    port.mac = base.gateway_mac;
    assert!(base.is_gateway(&port));
    let thief = Workload { mac: base.gateway_mac, ..workload("thief", "node-1", 5, 5) };
    snapshot.workloads = [thief].into();
    assert!(
        desired(&snapshot, (&"node-0".parse().unwrap(), snapshot.nodes[0].underlay), &[], 1450)
            .fdb
            .is_empty(),
        "nor from afar"
    );
}

#[test]
fn a_network_that_lets_packets_out_is_the_way_before_one_that_does_not() {
    let mut network = snapshot().content.network;
    let second = Seat::new(crate::seat::Owner::Agent, 1);
    let port = Port::of(&Attachment { seat: second, ..attachment("api", "node-0", 5, 5) });
    let metrics = [Egress::Allow, Egress::Deny].map(|egress| {
        network.egress = egress;
        Base::of(&network, 1450).default_metric(&port)
    });
    assert_eq!(metrics, [1001, 2001]);
}

#[test]
fn a_row_that_stands_alone_under_its_key_is_replaced_and_one_of_two_is_removed() {
    let row =
        |peer: u8| FdbRow { mac: MacAddr::new([2, 0, 0, 0, 0, 1]), peer: IpAddr::from([192, 0, 2, peer]) };
    let want = BTreeSet::from([row(1)]);
    assert_eq!(diff(&want, &BTreeSet::from([row(2)])), Diff { remove: vec![], add: vec![row(1)] });
    let two = BTreeSet::from([row(2), row(3)]);
    assert_eq!(diff(&want, &two), Diff { remove: vec![row(2), row(3)], add: vec![row(1)] });
}

#[test]
fn port_names_fit_the_kernel_and_do_not_change_between_versions() {
    let name = port_name(&"api-1".parse().unwrap());
    assert_eq!(name.len(), 13);
    assert_eq!(name, port_name(&"api-1".parse().unwrap()));
    assert_ne!(name, port_name(&"api-2".parse().unwrap()));
    assert_eq!(port_name(&"a".parse().unwrap()), "waf63dc4c8601");
}

fn rows() -> impl Strategy<Value = BTreeSet<FdbRow>> {
    let row = (1_u8..8, 1_u8..4, any::<bool>()).prop_map(|(mac, peer, six)| FdbRow {
        mac: MacAddr::new([2, 0, 0, 0, 0, mac]),
        peer: if six { [0xfd00, 0, 0, 0, 0, 0, 0, peer.into()].into() } else { [192, 0, 2, peer].into() },
    });
    proptest::collection::btree_set(row, 0..12)
}

fn apply(changes: &Diff<FdbRow>, mut rows: BTreeSet<FdbRow>) -> BTreeSet<FdbRow> {
    for row in &changes.remove {
        assert!(rows.remove(row));
    }
    for row in &changes.add {
        rows.retain(|other| other.key() != row.key());
        rows.insert(*row);
    }
    rows
}

fn snapshot() -> NetworkSnapshot {
    let node = |at: u8| Node {
        name: format!("node-{at}").parse().unwrap(),
        underlay: IpAddr::from([192, 0, 2, at + 1]).into(),
        mtu: None,
    };
    let mut snapshot = testing::snapshot();
    snapshot.nodes = (0..3).map(node).collect();
    snapshot
}

fn attachment(name: &str, node: &str, ip: u8, mac: u8) -> Attachment {
    Attachment { workload: workload(name, node, ip, mac), seat: Seat::default(), ending: false }
}

fn workload(name: &str, node: &str, ip: u8, mac: u8) -> Workload {
    Workload {
        node: node.parse().unwrap(),
        mac: MacAddr::new([2, 0, 0, 0, 0, mac]),
        sidecar: false,
        ..testing::workload(name, &format!("10.42.0.{ip}"))
    }
}
