use std::net::Ipv4Addr;

use sealane_proto::resource::{NetworkChange, NetworkSnapshot};

use super::*;
use crate::testing;
use crate::transition::Instances;

/// `name ADDRESS service WEIGHT ports...`; a name that ends with `-` is not ready.
pub(in crate::services) fn snapshot(services: &[&str], workloads: &[&str]) -> NetworkSnapshot {
    let service = |text: &&str| {
        let mut words = text.split(' ');
        testing::service(words.next().unwrap(), words.next().unwrap(), words)
    };
    let workload = |text: &&str| {
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap();
        let (name, address, service, weight) = (word(), word(), word(), word());
        Workload {
            service: Some(service.parse().unwrap()),
            weight: weight.parse().unwrap(),
            ports: words.map(|port| port.parse().unwrap()).collect(),
            ready: !name.ends_with('-'),
            ..testing::workload(name.trim_end_matches('-'), address)
        }
    };
    let mut snapshot = testing::snapshot();
    snapshot.blocks =
        vec![testing::block(None, "10.42.255.0/24"), testing::block(Some("host-1"), "10.42.0.0/24")];
    snapshot.services = services.iter().map(service).collect();
    snapshot.workloads = workloads.iter().map(workload).collect();
    snapshot
}

pub(in crate::services) fn table(services: &[&str], workloads: &[&str], sidecar: bool) -> ServiceTable {
    ServiceTables::build(&snapshot(services, workloads)).of(sidecar).as_ref().clone()
}

const SERVICES: [&str; 2] = ["api 10.42.255.1 80/http 53 53/udp", "db 10.42.255.2 5432/tcp"];

fn mapped(last: u8, port: &str) -> Mapped {
    let port: sealane_proto::types::ServicePort = port.parse().unwrap();
    let (port, transport) = port.key();
    Mapped { vip: Ipv4Addr::new(10, 42, 255, last).into(), transport, port: port.get() }
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 42, 0, last).into()
}

#[test]
fn a_port_leads_to_those_who_offer_it_are_ready_and_not_drained() {
    let instances = [
        "api-1 10.42.0.1 api 1 80/http 53 53/udp",
        "api-2 10.42.0.2 api 3 80/http",
        "api-3- 10.42.0.3 api 1 80/http 53/udp",
        "api-4 10.42.0.4 api 0 80/http 53/udp",
    ];
    let table = table(&SERVICES, &instances, false);
    let endpoints = |port: &str| {
        let backends = &table.ports[&mapped(1, port)];
        let shown = |known: &Endpoint| format!("{}*{}", known.address, known.weight);
        backends.endpoints.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(endpoints("80"), ["10.42.0.1*1", "10.42.0.2*3"]);
    assert_eq!(endpoints("53"), ["10.42.0.1*1"]);
    assert_eq!(endpoints("53/udp"), ["10.42.0.1*1"]);
    assert!(!table.ports.contains_key(&mapped(2, "5432")), "nobody serves it");
    assert_eq!((table.vips.len(), table.blocks.len(), table.len()), (2, 1, 3));
}

#[test]
fn beside_a_sidecar_only_datagrams_are_balanced() {
    let table = table(&SERVICES, &["api-1 10.42.0.1 api 1 80/http 53/udp"], true);
    assert_eq!(table.ports.keys().copied().collect::<Vec<_>>(), [mapped(1, "53/udp")]);
    assert_eq!(table.vips.len(), 2);
}

#[test]
fn a_chain_is_named_by_everything_that_it_does() {
    let name = |instance: &str| {
        let table = table(&SERVICES, &[instance], false);
        table.ports[&mapped(1, "80")].chain.clone()
    };
    let one = name("api-1 10.42.0.1 api 1 80/http");
    assert!(one.starts_with("svc/api/tcp/80/"), "{one}");
    assert_eq!(one, name("renamed 10.42.0.1 api 1 80/http"));
    assert_ne!(one, name("api-1 10.42.0.1 api 2 80/http"));
    assert_ne!(one, name("api-1 10.42.0.9 api 1 80/http"));
}

#[test]
fn flows_go_on_where_the_port_is_served_and_nowhere_else() {
    let table = table(&SERVICES, &["api-1 10.42.0.1 api 1 53/udp"], true);
    let check = |last: u8, port: &str, answerer: IpAddr, expected: bool| {
        let mapped = mapped(last, port);
        let serves = |number| table.serves(mapped, (answerer, number).into());
        assert_eq!(serves(mapped.port), expected, "{last} {port} {answerer}");
        let is_of_nobody = !table.vips.contains(&mapped.vip);
        assert_eq!(serves(5353), is_of_nobody, "{last} {port} {answerer}: at another port");
    };
    check(1, "53/udp", address(1), true);
    check(1, "53/udp", address(2), false);
    check(1, "53/udp", mapped(1, "53").vip, false);
    check(1, "54/udp", address(1), false);
    check(9, "53/udp", address(9), true);
}

#[test]
fn flows_are_looked_at_when_an_endpoint_left_or_a_port_is_new() {
    let of = |instances: &[&str]| table(&SERVICES, instances, false);
    let (none, one, two) = (
        of(&[]),
        of(&["api-1 10.42.0.1 api 1 53/udp"]),
        of(&["api-1 10.42.0.1 api 1 53/udp", "api-2 10.42.0.2 api 1 53/udp"]),
    );
    let streams = of(&["api-1 10.42.0.1 api 1 53/udp", "api-2 10.42.0.2 api 1 80"]);
    assert!(one.strands(&two) && one.strands(&none) && none.strands(&one));
    assert!(none.strands_connections(&streams) && !none.strands_connections(&one));
    assert!(!streams.strands_connections(&none) && !streams.strands_connections(&streams));
    assert!(!two.strands(&one) && !one.strands(&streams) && !streams.strands(&one));
}

#[test]
fn names_of_a_newer_state_can_be_told_where_every_port_leads_to_who_still_serves_it() {
    let one = table(&SERVICES, &["api-1 10.42.0.1 api 1 80/http"], false);
    let check = |newer: ServiceTable, told: bool| assert_eq!(one.leads_where(&newer), told, "{newer:?}");
    check(one.clone(), true);
    check(table(&SERVICES, &["api-1 10.42.0.1 api 3 80/http", "api-2 10.42.0.2 api 1 80/http"], false), true);
    check(table(&SERVICES, &[], false), true);
    // Another instance alone, a port more, an address more.
    check(table(&SERVICES, &["api-2 10.42.0.2 api 1 80/http"], false), false);
    check(table(&SERVICES, &["api-1 10.42.0.1 api 1 80/http 53"], false), false);
    check(table(&[SERVICES[0], SERVICES[1], "new 10.42.255.3 80/http"], &[], false), false);
}

#[test]
fn instances_outside_every_network_are_endpoints_of_every_port_or_of_one_by_a_port_of_their_own() {
    let with = |services: &[&str], workloads: &[&str], external: &[&str]| {
        let mut snapshot = snapshot(services, workloads);
        let external = external.iter().map(|place| place.parse().unwrap()).collect();
        snapshot.services.iter_mut().for_each(|service| service.external.instances = Vec::clone(&external));
        ServiceTables::build(&snapshot).of(false).as_ref().clone()
    };
    let places = |table: &ServiceTable, port: &str| {
        let backends = &table.ports[&mapped(1, port)];
        let place = |known: &Endpoint| format!("{}:{}", known.address, known.port);
        (backends.endpoints.iter().map(place).collect::<Vec<_>>(), backends.elsewhere)
    };
    let plain = with(&["api 10.42.255.1 80/http 53/udp"], &["api-1 10.42.0.1 api 1 80/http"], &["192.0.2.9"]);
    assert_eq!(places(&plain, "80"), (vec!["10.42.0.1:80".into(), "192.0.2.9:80".into()], false));
    assert_eq!(places(&plain, "53/udp"), (vec!["192.0.2.9:53".into()], false));
    let own = with(&["api 10.42.255.1 80/http"], &[], &["192.0.2.9:8080", "192.0.2.9:80"]);
    assert_eq!(places(&own, "80"), (vec!["192.0.2.9:80".into(), "192.0.2.9:8080".into()], true));
    let other = with(&["api 10.42.255.1 80/http"], &[], &["192.0.2.9:8081"]);
    assert!(
        !other.leads_where(&own) && own.leads_where(&own),
        "another port of one address is another place"
    );
    let datagrams = |external| with(&["api 10.42.255.1 53/udp"], &[], &[external]);
    let (here, there) = (datagrams("192.0.2.9"), datagrams("192.0.2.9:5353"));
    assert!(there.strands(&here) && here.strands(&there) && !here.strands(&here));
}

#[test]
fn tables_that_follow_changes_are_those_of_the_state_and_share_what_no_change_touches() {
    let mut chance = testing::Chance::of(7);
    for _ in 0..200 {
        let mut before = testing::random_network(&mut chance, 20);
        let mut tables = ServiceTables::build(&before);
        let mut instances = Instances::in_network(&before);
        for _ in 0..5 {
            let after = testing::random_network(&mut chance, 20);
            let change = NetworkChange::between(&before, &after).unwrap();
            instances = instances.after(&before, &change);
            let transition =
                Transition { before: &before, after: &after, change: &change, instances: &instances };
            let followed = tables.follow(transition);
            let built = ServiceTables::build(&after);
            assert_eq!(followed.of(false), built.of(false));
            assert_eq!(followed.of(true), built.of(true));
            for (mapped, backends) in &followed.of(false).ports {
                let known = tables.of(false).ports.get(mapped).filter(|known| *known == backends);
                assert!(known.is_none_or(|known| Arc::ptr_eq(known, backends)), "{mapped:?}");
            }
            assert_differs_by(tables.of(false), followed.of(false));
            (before, tables) = (after, followed);
        }
    }
}

/// Asserts that the difference has what looking each port up in the other table finds.
fn assert_differs_by(one: &ServiceTable, other: &ServiceTable) {
    let found: BTreeSet<&Mapped> = one.differences(other).map(|(mapped, ..)| mapped).collect();
    let all: BTreeSet<&Mapped> = one.ports.keys().chain(other.ports.keys()).collect();
    let expected = all.into_iter().filter(|mapped| one.ports.get(mapped) != other.ports.get(mapped));
    assert_eq!(found, expected.collect());
    let leads = other.ports.iter().all(|(mapped, wanted)| {
        one.ports.get(mapped).is_some_and(|known| known.chain == wanted.chain || known.meets(wanted))
    });
    assert_eq!(
        one.leads_where(other),
        leads && one.blocks == other.blocks && other.vips.is_subset(&one.vips)
    );
    let left = |transport| {
        let mut of = one.ports.iter().filter(move |(mapped, _)| mapped.transport == transport);
        of.any(|(mapped, known)| known.endpoints.iter().any(|known| !other.serves(*mapped, known.place())))
    };
    assert_eq!(other.strands_connections(one), left(Transport::Tcp));
    let is_new = |mapped: &&Mapped| mapped.transport == Transport::Udp && !one.ports.contains_key(mapped);
    assert_eq!(other.strands(one), left(Transport::Udp) || other.ports.keys().any(|mapped| is_new(&mapped)));
}
