use std::net::Ipv4Addr;

use netlink_packet_route::link::InfoKind;
use netlink_packet_route::neighbour::NeighbourState;
use sealane_proto::types::{IpFamily, MacAddr};

use super::*;
use crate::netlink::{
    LinkRequest, NetlinkRequest, bridge_fdb_entry, neighbour_entry, own_fdb_entry, vxlan_fdb_entry,
};

const BRIDGE: u32 = 2;
const VXLAN: u32 = 3;
const PORT: u32 = 4;

fn mac(last: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, last])
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, last)
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn gateway() -> Address {
    Address { index: BRIDGE, address: ip(1).into(), prefix_len: 16 }
}

/// A network with one workload here and one elsewhere.
fn with_network(check: impl FnOnce(&Expected<'_>)) {
    let fdb = SharedList::from([FdbRow { mac: mac(20), peer: peer(2) }]);
    let neighbours = SharedList::from([NeighbourRow { address: ip(20).into(), mac: mac(20) }]);
    let local = [(mac(10), PORT), (mac(1), BRIDGE)];
    let local = local.map(|(mac, port)| BridgeFdbRow { mac, port }).into();
    let devices = Devices { bridge: BRIDGE, vxlan: VXLAN, family: IpFamily::V4, other: None };
    let way_out = Route::default_via(PORT, ip(9), 0);
    check(&Expected {
        addresses: BTreeSet::from([gateway()]),
        routes: vec![Route::connected(BRIDGE, ip(1), "10.42.0.0/16".parse().unwrap()), way_out],
        alone: None,
        forwarding: BTreeMap::from([((-1, false), true)]),
        rows: Some(ExpectedRows { devices, fdb: &fdb, neighbours: &neighbours, local }),
    });
}

fn told(request: NetlinkRequest) -> Notice {
    Notice::read(&request.into_bytes()).unwrap()
}

fn row(there: bool, message: NeighbourMessage) -> Notice {
    told(if there { NetlinkRequest::set_row(message) } else { NetlinkRequest::remove_row(message) })
}

/// A row of a bridge's table as the kernel tells it: with the bridge.
fn of_bridge(mut message: NeighbourMessage) -> NeighbourMessage {
    use netlink_packet_route::neighbour::NeighbourAttribute;
    message.attributes.push(NeighbourAttribute::Controller(BRIDGE));
    message
}

fn contradict(notices: &[Notice], expected: &Expected<'_>) -> bool {
    let mut hearing = Hearing::default();
    notices.iter().for_each(|notice| hearing.handle(notice, expected));
    hearing.contradicts()
}

#[test]
fn a_notice_that_tells_of_what_is_wanted_contradicts_nothing_and_one_of_anything_else_does() {
    let fdb = |mac, peer| vxlan_fdb_entry(VXLAN, mac, peer);
    let neighbour = |address: u8, mac| neighbour_entry(VXLAN, ip(address).into(), mac);
    let mut stale = neighbour(20, mac(20));
    stale.header.state = NeighbourState::Stale;
    let other = Address { address: ip(77).into(), ..gateway() };
    let elsewhere = Address { index: PORT, ..other };
    let out = Route::default_via(PORT, ip(9), 0);
    let detour = Route { gateway: Some(ip(8)), ..out };
    let beside = Route { metric: 50, ..detour };
    let forwarding = |index, ipv6, on| Notice::Forwarding { index, ipv6, on };
    with_network(|expected| {
        for (line, notice, wrong) in [
            ("a remote MAC is set", row(true, fdb(mac(20), peer(2))), false),
            ("it is removed", row(false, fdb(mac(20), peer(2))), true),
            ("it leads elsewhere", row(true, fdb(mac(20), peer(9))), true),
            ("a stranger's goes", row(false, fdb(mac(66), peer(2))), false),
            ("a neighbour is set", row(true, neighbour(20, mac(20))), false),
            ("it is removed", row(false, neighbour(20, mac(20))), true),
            ("it has another MAC", row(true, neighbour(20, mac(66))), true),
            ("it may go by itself", row(true, stale), true),
            ("a stranger's comes", row(true, neighbour(66, mac(66))), true),
            ("another device's", row(true, neighbour_entry(PORT, ip(66).into(), mac(66))), false),
            ("a local MAC is set", row(true, of_bridge(bridge_fdb_entry(PORT, mac(10)))), false),
            ("it is removed", row(false, of_bridge(bridge_fdb_entry(PORT, mac(10)))), true),
            ("it is at another port", row(true, of_bridge(bridge_fdb_entry(9, mac(10)))), true),
            ("the bridge's own", row(true, of_bridge(own_fdb_entry(BRIDGE, mac(1)))), false),
            ("a port's own", row(true, of_bridge(own_fdb_entry(PORT, mac(99)))), false),
            ("the gateway's address is set", told(gateway().add()), false),
            ("it is removed", told(gateway().remove()), true),
            ("another one comes", told(other.add()), true),
            ("another one goes", told(other.remove()), false),
            ("another device's", told(elsewhere.add()), false),
            ("the way out is set", told(out.set()), false),
            ("it is removed", told(out.remove()), true),
            ("another one is in its place", told(detour.set()), true),
            ("another one leaves its place", told(detour.remove()), false),
            ("another one is beside it", told(beside.set()), false),
            ("it forwards", forwarding(-1, false, true), false),
            ("it forwards no more", forwarding(-1, false, false), true),
            ("it never forwarded IPv6", forwarding(-1, true, false), false),
            ("a device that nobody asked about", forwarding(7, false, false), false),
        ] {
            assert_eq!(contradict(&[notice], expected), wrong, "{line}");
        }
    });
}

#[test]
fn of_several_notices_about_one_thing_the_last_one_counts() {
    let set = |there, peer| row(there, vxlan_fdb_entry(VXLAN, mac(20), peer));
    with_network(|expected| {
        assert!(!contradict(&[set(false, peer(2)), set(true, peer(2))], expected));
        assert!(contradict(&[set(true, peer(2)), set(false, peer(2))], expected));
        assert!(!contradict(&[set(true, peer(9)), set(false, peer(9))], expected));
        assert!(contradict(&[set(true, peer(9)), set(true, peer(2))], expected), "another row beside it");
    });
}

#[test]
fn who_leaves_the_place_of_a_route_does_not_bring_that_back() {
    let out = Route::default_via(BRIDGE, ip(1), 1_000);
    let detour = Route { gateway: Some(ip(8)), ..out };
    let expected = Expected { routes: vec![out], ..Expected::default() };
    assert!(contradict(&[told(detour.set()), told(detour.remove())], &expected));
    assert!(!contradict(&[told(detour.set()), told(detour.remove()), told(out.set())], &expected));
}

#[test]
fn a_default_route_of_another_metric_is_stale_where_there_is_to_be_one() {
    let wanted = Route::default_via(BRIDGE, ip(1), 1_000);
    let expected = Expected { routes: vec![wanted], alone: Some(wanted), ..Expected::default() };
    let stale = Route { metric: 2_000, ..wanted };
    assert!(contradict(&[told(stale.set())], &expected));
    assert!(!contradict(&[told(stale.set()), told(stale.remove())], &expected));
    let others = Route { gateway: Some(ip(3)), ..stale };
    assert!(!contradict(&[told(others.set())], &expected), "somebody else's own");
}

#[test]
fn devices_are_named_whatever_is_told_of_them() {
    let mut hearing = Hearing::default();
    let device = |name| LinkRequest::named(name).kind(InfoKind::Veth);
    hearing.handle(&told(device("a").create()), &Expected::default());
    hearing.handle(&told(device("b").remove()), &Expected::default());
    assert!(!hearing.contradicts());
    assert_eq!(hearing.into_devices(), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}
