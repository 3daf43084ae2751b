//! Answers as another implementation reads them.

mod protocol;

use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::{DNSClass, Name, RecordType as Kind};
use proptest::prelude::*;

use super::super::zone::tests::{service, shop, snapshot, workload};
use super::*;
use crate::dns::Zone;
use sealane_proto::resource::{Egress, NetworkSnapshot, Workload};
use sealane_proto::types::{Aliases, Weight};

#[test]
fn names_of_the_network_are_answered_and_others_are_not() {
    let table = [
        // A service with a ready instance: its address, bare and full, in any case.
        ("api", Kind::A, "NoError 10.42.255.1"),
        ("API.Shop", Kind::A, "NoError 10.42.255.1"),
        ("api.shop", Kind::ANY, "NoError 10.42.255.1"),
        // It has no other records, and says so in a way that is not remembered for long.
        ("api", Kind::AAAA, "NoError SOA api. 2"),
        ("api.shop", Kind::AAAA, "NoError SOA shop. 2"),
        ("api", Kind::HTTPS, "NoError SOA api. 2"),
        // Only datagrams: the kernel balances them.
        ("stats", Kind::A, "NoError 10.42.255.3"),
        // Nothing ready: the name is there, nothing can be reached.
        ("db", Kind::A, "NoError SOA db. 2"),
        ("db-1", Kind::A, "NoError SOA db-1. 2"),
        // Workloads: instances when ready, others at once.
        ("api-1", Kind::A, "NoError 10.42.0.2"),
        ("tool", Kind::A, "NoError 10.42.0.9"),
        // The service before the workload of the same name.
        ("both", Kind::A, "NoError 10.42.255.4"),
        // The network's own name has names below it.
        ("shop", Kind::A, "NoError SOA shop. 2"),
        ("nobody", Kind::A, "NXDomain SOA . 2"),
        ("nobody.shop", Kind::AAAA, "NXDomain SOA shop. 2"),
        ("a.api.shop", Kind::A, "NXDomain SOA shop. 2"),
        ("localhost", Kind::A, "NoError 127.0.0.1"),
        ("x.localhost", Kind::AAAA, "NoError ::1"),
        ("localhost", Kind::MX, "NoError SOA localhost. 2"),
        // Addresses of the network, and of others.
        ("1.255.42.10.in-addr.arpa", Kind::PTR, "NoError api.shop."),
        ("2.0.42.10.in-addr.arpa", Kind::PTR, "NoError api-1.shop."),
        ("2.0.42.10.in-addr.arpa", Kind::A, "NoError SOA 0.42.10.in-addr.arpa. 2"),
        ("77.0.42.10.in-addr.arpa", Kind::PTR, "NXDomain SOA 0.42.10.in-addr.arpa. 2"),
        ("1.0.0.127.in-addr.arpa", Kind::PTR, "NoError localhost."),
        // Nothing of the network's addresses is asked elsewhere, whatever part of them it is.
        ("42.10.in-addr.arpa", Kind::SOA, "NoError SOA 42.10.in-addr.arpa. 2"),
        ("02.0.42.10.in-addr.arpa", Kind::PTR, "NXDomain SOA 0.42.10.in-addr.arpa. 2"),
        ("lb._dns-sd._udp.0.0.42.10.in-addr.arpa", Kind::PTR, "NXDomain SOA 0.42.10.in-addr.arpa. 2"),
        ("1.0.127.in-addr.arpa", Kind::PTR, "NoError SOA 1.0.127.in-addr.arpa. 2"),
        ("10.in-addr.arpa", Kind::PTR, "forward"),
        ("in-addr.arpa", Kind::NS, "forward"),
        ("1.2.0.192.in-addr.arpa", Kind::PTR, "forward"),
        ("1.0.43.10.in-addr.arpa", Kind::PTR, "forward"),
        ("example.com", Kind::A, "forward"),
        ("shop.example.com", Kind::A, "forward"),
        ("", Kind::NS, "forward"),
        ("api", Kind::AXFR, "Refused"),
    ];
    let view = NameView { zones: vec![Arc::new(Zone::build(&shop()))], own: vec![], balanced: true };
    for (name, kind, expected) in table {
        assert_eq!(summary(&view, &query(name, kind)), expected, "{name} {kind}");
    }
}

#[test]
fn a_network_that_lets_nothing_out_asks_nobody() {
    let zone = |egress| {
        let mut snapshot = shop();
        snapshot.network.egress = egress;
        Arc::new(Zone::build(&snapshot))
    };
    let (closed, open) = (zone(Egress::Deny), zone(Egress::Allow));
    let view = |zones: &[&Arc<Zone>]| NameView {
        zones: zones.iter().map(|&zone| zone.clone()).collect(),
        own: vec![],
        balanced: true,
    };
    for name in ["example.com", "secret.evil.example", "tasks.com", "1.2.0.192.in-addr.arpa", ""] {
        for kind in [Kind::A, Kind::TXT, Kind::PTR] {
            assert_eq!(summary(&view(&[&closed]), &query(name, kind)), "Refused", "{name} {kind}");
        }
        // Who is in another network besides may ask there.
        assert_eq!(summary(&view(&[&closed, &open]), &query(name, Kind::A)), "forward", "{name}");
    }
    assert_eq!(summary(&view(&[&closed]), &query("api", Kind::A)), "NoError 10.42.255.1");
}

#[test]
fn instances_and_ports_of_services_have_names() {
    let table = [
        // Every ready instance.
        ("tasks.api", Kind::A, "NoError 10.42.0.2 10.42.0.3"),
        ("Tasks.Api.Shop", Kind::A, "NoError 10.42.0.2 10.42.0.3"),
        ("tasks.db", Kind::A, "NoError SOA db. 2"),
        ("tasks.tool.shop", Kind::A, "NXDomain SOA shop. 2"),
        ("tasks.tool", Kind::A, "forward"),
        ("tasks.com", Kind::A, "forward"),
        ("x.tasks.api.shop", Kind::A, "NXDomain SOA shop. 2"),
        // Ports by name and number, at the service and at its instances.
        ("_web._tcp.api", Kind::SRV, "NoError 0 0 8080 api.shop. + api.shop. 10.42.255.1"),
        ("_8080._tcp.api.shop", Kind::SRV, "NoError 0 0 8080 api.shop. + api.shop. 10.42.255.1"),
        (
            "_web._tcp.tasks.api",
            Kind::SRV,
            "NoError 0 1 8080 api-1.shop. 0 1 8080 api-2.shop. + api-1.shop. 10.42.0.2 api-2.shop. 10.42.0.3",
        ),
        ("_8125._udp.stats", Kind::SRV, "NoError 0 0 8125 stats.shop. + stats.shop. 10.42.255.3"),
        ("_8125._tcp.stats", Kind::SRV, "NXDomain SOA stats. 2"),
        ("_web._tcp.api", Kind::A, "NoError SOA api. 2"),
        ("_tcp.api", Kind::SRV, "NoError SOA api. 2"),
        ("_udp.api", Kind::SRV, "NXDomain SOA api. 2"),
        ("_admin._tcp.api.shop", Kind::SRV, "NXDomain SOA shop. 2"),
        ("_80._tcp.db", Kind::SRV, "NoError SOA db. 2"),
        ("_80._tcp.tasks.db.shop", Kind::SRV, "NoError SOA shop. 2"),
        ("_web._tcp.tool", Kind::SRV, "NXDomain SOA tool. 2"),
        ("_web._tcp.nobody", Kind::SRV, "NXDomain SOA nobody. 2"),
        ("_sip._tcp.example.com", Kind::SRV, "forward"),
        // Instances outside every network: addresses without names of ours, those at another port than the service's left out.
        ("vault", Kind::A, "NoError 10.42.255.5"),
        ("tasks.vault", Kind::A, "NoError 192.0.2.50 192.0.2.51"),
        ("tasks.vault", Kind::AAAA, "NoError SOA vault. 2"),
        ("_http._tcp.vault", Kind::SRV, "NoError 0 0 80 vault.shop. + vault.shop. 10.42.255.5"),
        ("_http._tcp.tasks.vault", Kind::SRV, "NoError SOA vault. 2"),
        ("50.2.0.192.in-addr.arpa", Kind::PTR, "forward"),
        ("_a._b._c._tcp.api.shop", Kind::SRV, "NXDomain SOA shop. 2"),
    ];
    let view = NameView { zones: vec![Arc::new(Zone::build(&shop()))], own: vec![], balanced: true };
    for (name, kind, expected) in table {
        assert_eq!(summary(&view, &query(name, kind)), expected, "{name} {kind}");
    }
}

#[test]
fn an_alias_leads_to_everybody_who_has_it_and_can_be_reached() {
    let mut shop = shop();
    for (name, aliases) in [
        ("api-1", &["backend"][..]),
        ("api-3", &["backend"]),
        ("tool", &["backend", "demo_tool_1", "api", "api-2"]),
    ] {
        let workload = shop.workloads.iter_mut().find(|workload| workload.name.as_str() == name).unwrap();
        workload.aliases = Aliases::parse(aliases).unwrap();
    }
    let view = NameView { zones: vec![Arc::new(Zone::build(&shop))], own: vec![], balanced: true };
    let table = [
        ("backend", Kind::A, "NoError 10.42.0.2 10.42.0.9"),
        ("Demo_Tool_1.shop", Kind::A, "NoError 10.42.0.9"),
        ("tasks.backend.shop", Kind::A, "NoError 10.42.0.2 10.42.0.9"),
        ("_8080._tcp.backend", Kind::SRV, "NXDomain SOA backend. 2"),
        // Services and workloads have their names to themselves.
        ("api", Kind::A, "NoError 10.42.255.1"),
        ("api-2", Kind::A, "NoError 10.42.0.3"),
        ("9.0.42.10.in-addr.arpa", Kind::PTR, "NoError tool.shop."),
    ];
    for (name, kind, expected) in table {
        assert_eq!(summary(&view, &query(name, kind)), expected, "{name} {kind}");
    }
}

#[test]
fn one_of_no_service_is_known_before_it_is_ready_and_not_when_it_ends() {
    let mut shop = shop();
    let asked = |shop: &NetworkSnapshot| {
        let view = NameView { zones: vec![Arc::new(Zone::build(shop))], own: vec![], balanced: true };
        summary(&view, &query("tool", Kind::A))
    };
    assert_eq!(asked(&shop), "NoError 10.42.0.9");
    shop.workloads.iter_mut().for_each(|workload| workload.weight = Weight::NONE);
    assert!(!asked(&shop).contains("10.42"), "{}", asked(&shop));
}

#[test]
fn a_drained_workload_is_in_no_name_and_one_without_a_share_has_its_own() {
    let mut shop = shop();
    let asked = |shop: &NetworkSnapshot, name: &str| {
        let view = NameView { zones: vec![Arc::new(Zone::build(shop))], own: vec![], balanced: false };
        summary(&view, &query(name, Kind::A))
    };
    let serves = shop.workloads.iter_mut().find(|workload| workload.ready && workload.service.is_some());
    let (name, service, address) = {
        let workload = serves.unwrap();
        (workload.name.clone(), workload.service.clone().unwrap(), workload.address.to_string())
    };
    let mut weigh = |weight: Weight| {
        shop.workloads.iter_mut().filter(|known| known.name == name).for_each(|known| known.weight = weight);
        (asked(&shop, name.as_str()).contains(&address), asked(&shop, service.as_str()).contains(&address))
    };
    assert_eq!(weigh(Weight::default()), (true, true));
    assert_eq!(weigh(Weight::default().drain()), (false, false));
    assert_eq!(weigh(Weight::NONE), (true, false));
}

#[test]
fn one_that_was_renamed_answers_to_its_new_name_and_those_of_a_group_within_it() {
    let mut shop = shop();
    for (name, aliases, called, group) in [
        ("tool", &["tool2", "backend"][..], Some("tool2"), Some("demo")),
        ("api-1", &["backend"], None, Some("other")),
    ] {
        let workload = shop.workloads.iter_mut().find(|workload| workload.name.as_str() == name).unwrap();
        let alias = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        workload.aliases =
            Aliases::parse(aliases).unwrap().with_called(alias(called)).with_group(alias(group));
    }
    let own = vec!["tool".parse().unwrap()];
    let view = NameView { zones: vec![Arc::new(Zone::build(&shop))], own, balanced: true };
    let table = [
        ("tool2", Kind::A, "NoError 10.42.0.9"),
        ("tool", Kind::A, "NXDomain SOA . 2"),
        ("9.0.42.10.in-addr.arpa", Kind::PTR, "NoError tool2.shop."),
        ("backend", Kind::A, "NoError 10.42.0.2 10.42.0.9"),
        ("backend.demo", Kind::A, "NoError 10.42.0.9"),
        ("Backend.Demo.Shop", Kind::A, "NoError 10.42.0.9"),
        ("backend.third", Kind::A, "forward"),
        ("backend.third.shop", Kind::A, "NXDomain SOA shop. 2"),
        // Other groups' names are below the network's alone: whoever named one would take names of the world.
        ("backend.other", Kind::A, "forward"),
        ("Backend.Other.Shop", Kind::A, "NoError 10.42.0.2"),
    ];
    for (name, kind, expected) in table {
        assert_eq!(summary(&view, &query(name, kind)), expected, "{name} {kind}");
    }
}

#[test]
fn every_address_of_a_network_with_ipv6_has_a_twin_there() {
    let mut snapshot = shop();
    snapshot.network.subnet6 = Some("fd42:0:0:7::/64".parse().unwrap());
    let view = NameView { zones: vec![Arc::new(Zone::build(&snapshot))], own: vec![], balanced: true };
    let api = "1.0.f.f.a.2.a.0.0.0.0.0.0.0.0.0.7.0.0.0.0.0.0.0.0.0.0.0.2.4.d.f.ip6.arpa";
    let table = [
        ("api", Kind::AAAA, "NoError fd42::7:0:0:a2a:2 fd42::7:0:0:a2a:3"),
        ("api", Kind::A, "NoError 10.42.255.1"),
        ("tasks.api", Kind::AAAA, "NoError fd42::7:0:0:a2a:2 fd42::7:0:0:a2a:3"),
        ("tool.shop", Kind::AAAA, "NoError fd42::7:0:0:a2a:9"),
        ("db", Kind::AAAA, "NoError SOA db. 2"),
        ("nobody.shop", Kind::AAAA, "NXDomain SOA shop. 2"),
        (
            "_web._tcp.api",
            Kind::SRV,
            "NoError 0 0 8080 api.shop. + api.shop. 10.42.255.1 api.shop. fd42::7:0:0:a2a:2 api.shop. fd42::7:0:0:a2a:3",
        ),
        (api, Kind::PTR, "NoError api.shop."),
        // The last address of the prefix, names in between, one behind the IPv4 part, another network.
        (&api.replacen('1', "f", 1), Kind::PTR, "NXDomain SOA 0.0.0.0.0.0.0.0.7."),
        ("0.0.0.0.7.0.0.0.0.0.0.0.0.0.0.0.2.4.d.f.ip6.arpa", Kind::PTR, "NoError SOA 0.0.0.0.7."),
        (&format!("lb._dns-sd._udp.{api}"), Kind::PTR, "NXDomain SOA 0.0.0.0.0.0.0.0.7."),
        ("2.4.d.f.ip6.arpa", Kind::PTR, "forward"),
        ("0.0.0.0.8.0.0.0.0.0.0.0.0.0.0.0.2.4.d.f.ip6.arpa", Kind::PTR, "forward"),
        (&format!("1.{}ip6.arpa", "0.".repeat(31)), Kind::PTR, "NoError localhost."),
    ];
    for (name, kind, expected) in table {
        let said = summary(&view, &query(name, kind));
        assert!(said.starts_with(expected), "{name} {kind}: {said}");
    }
}

#[test]
fn a_name_says_the_instances_that_are_ready_at_the_family_that_is_asked_for() {
    let mut snapshot = shop();
    snapshot.network.subnet6 = Some("fd42::/64".parse().unwrap());
    for workload in snapshot.workloads.iter_mut() {
        // api-1 listens for IPv4 alone, api-2 for IPv6 alone; stats for IPv4 alone.
        match workload.name.as_str() {
            "api-1" | "stats-1" => workload.ready6 = false,
            "api-2" => workload.ready = false,
            _ => {}
        }
        if workload.name.as_str().starts_with("api-") {
            workload.aliases = Aliases::parse(["web"]).unwrap();
        }
    }
    let api2 = "fd42::a2a:3";
    let with_target = format!(
        "NoError 0 1 8080 api-1.shop. 0 1 8080 api-2.shop. + api-1.shop. 10.42.0.2 api-2.shop. {api2}"
    );
    let table = [
        ("tasks.api", Kind::A, "NoError 10.42.0.2"),
        ("api", Kind::A, "NoError 10.42.255.1"),
        ("api", Kind::AAAA, &format!("NoError {api2}")),
        ("tasks.api.shop", Kind::AAAA, &format!("NoError {api2}")),
        ("api-1", Kind::A, "NoError 10.42.0.2"),
        ("api-1", Kind::AAAA, "NoError SOA api-1. 2"),
        ("api-2", Kind::A, "NoError SOA api-2. 2"),
        ("api-2", Kind::AAAA, &format!("NoError {api2}")),
        ("web", Kind::A, "NoError 10.42.0.2"),
        ("web", Kind::AAAA, &format!("NoError {api2}")),
        // Nobody serves it there: no address, so that nobody calls one that refuses.
        ("stats", Kind::A, "NoError 10.42.255.3"),
        ("stats", Kind::AAAA, "NoError SOA stats. 2"),
        ("tool", Kind::AAAA, "NoError fd42::a2a:9"),
        ("_web._tcp.tasks.api", Kind::SRV, &with_target),
    ];
    for balanced in [true, false] {
        let view = NameView { zones: vec![Arc::new(Zone::build(&snapshot))], own: vec![], balanced };
        for (name, kind, expected) in &table {
            if balanced || !matches!((*name, kind), ("api" | "stats", Kind::A)) {
                assert_eq!(summary(&view, &query(name, *kind)), *expected, "{name} {kind}");
            }
        }
    }
}

#[test]
fn where_service_addresses_lead_nowhere_a_service_is_its_ready_instances_from_a_place_the_seed_chooses() {
    let view = NameView { zones: vec![Arc::new(Zone::build(&shop()))], own: vec![], balanced: false };
    let query = query("api", Kind::A);
    let answers = [0, 1, 2].map(|seed| addresses(&view, &query, Transport::Udp, seed));
    assert_eq!(answers[0], ["10.42.0.2", "10.42.0.3"]);
    assert_eq!(answers[1], ["10.42.0.3", "10.42.0.2"]);
    assert_eq!(answers[2], answers[0]);
}

#[test]
fn what_does_not_fit_into_a_datagram_is_told_over_tcp() {
    let ready = (0..600_u16)
        .map(|n| workload(&format!("big-{n}"), n.to_be_bytes(), Some("big"), true))
        .map(|workload| Workload { ports: vec!["80".parse().unwrap()], ..workload })
        .collect();
    let snapshot = snapshot(vec![service("big", 9, "80")], ready);
    let view = NameView { zones: vec![Arc::new(Zone::build(&snapshot))], own: vec![], balanced: false };
    for (name, kind, size, transport, limit, count) in [
        ("tasks.big", Kind::A, None, Transport::Udp, 512, 30),
        ("tasks.big", Kind::A, Some(0), Transport::Udp, 512, 29),
        ("tasks.big", Kind::A, Some(900), Transport::Udp, 900, 53),
        ("tasks.big", Kind::A, Some(4096), Transport::Udp, 1232, 74),
        ("tasks.big", Kind::A, None, Transport::Tcp, 65535, 600),
        ("_80._tcp.tasks.big", Kind::SRV, None, Transport::Udp, 512, 15),
        ("_80._tcp.tasks.big", Kind::SRV, None, Transport::Tcp, 65535, 600),
    ] {
        let mut query = query(name, kind);
        query.edns = size.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        let mut out = Vec::new();
        answer(&view, &query.to_vec().unwrap(), transport, 7, &mut out);
        assert!(out.len() <= limit);
        let message = Message::from_vec(&out).unwrap();
        assert_eq!(message.metadata.truncation, transport == Transport::Udp, "{name} {size:?}");
        assert_eq!(message.answers.len(), count, "{name} {size:?}");
        let whole = kind == Kind::SRV && transport == Transport::Tcp;
        assert_eq!(message.additionals.len(), if whole { 600 } else { 0 });
    }
}

#[test]
fn the_first_network_that_can_be_reached_answers_a_bare_name() {
    let mut other = snapshot(vec![service("db", 7, "80")], vec![workload("db-9", [3, 1], Some("db"), true)]);
    other.network.name = "other".parse().unwrap();
    let zones = vec![Arc::new(Zone::build(&shop())), Arc::new(Zone::build(&other))];
    let view = NameView { zones, own: vec![], balanced: true };
    for (name, expected) in [
        ("api", "NoError 10.42.255.1"),
        ("db", "NoError 10.42.255.7"),
        ("db.shop", "NoError SOA shop. 2"),
        ("db.other", "NoError 10.42.255.7"),
    ] {
        assert_eq!(summary(&view, &query(name, Kind::A)), expected, "{name}");
    }
}

#[test]
fn what_is_called_like_a_service_of_another_network_does_not_take_its_name() {
    let mut workload = workload("trap", [3, 1], None, true);
    workload.aliases = Aliases::parse(["api", "db", "trap-alias"]).unwrap();
    let mut named = workload.clone();
    named.name = "db".parse().unwrap();
    for trap in [workload, named] {
        let mut other = snapshot(vec![], vec![trap]);
        other.network.name = "other".parse().unwrap();
        for turned in [false, true] {
            let mut zones = vec![Arc::new(Zone::build(&shop())), Arc::new(Zone::build(&other))];
            if turned {
                zones.reverse();
            }
            let view = NameView { zones, own: vec![], balanced: true };
            for (name, expected) in [
                ("api", "NoError 10.42.255.1"),
                ("db", "NoError SOA db. 2"),
                ("trap-alias", "NoError 10.42.3.1"),
            ] {
                assert_eq!(summary(&view, &query(name, Kind::A)), expected, "{name}");
            }
        }
    }
}

fn query(name: &str, kind: Kind) -> Message {
    let mut message = Message::query();
    message.queries.push(Asked::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message
}

fn reply(view: &NameView, query: &Message) -> Message {
    let mut out = Vec::new();
    let outcome = answer(view, &query.to_vec().unwrap(), Transport::Udp, 0, &mut out);
    assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
    Message::from_vec(&out).unwrap()
}

fn addresses(view: &NameView, query: &Message, transport: Transport, seed: u64) -> Vec<String> {
    let mut out = Vec::new();
    answer(view, &query.to_vec().unwrap(), transport, seed, &mut out);
    Message::from_vec(&out).unwrap().answers.iter().map(|record| record.data.to_string()).collect()
}

/// The code and the answers, or whose SOA record stands for them and its smallest number.
fn summary(view: &NameView, query: &Message) -> String {
    let mut out = Vec::new();
    match answer(view, &query.to_vec().unwrap(), Transport::Udp, 0, &mut out) {
        Outcome::Forward => "forward".into(),
        Outcome::Drop => "drop".into(),
        Outcome::Answered { rcode } => {
            let message = Message::from_vec(&out).unwrap();
            assert_eq!(Rcode::of(&out), rcode);
            let mut words = vec![format!("{:?}", message.metadata.response_code)];
            words.extend(message.answers.iter().map(|record| {
                assert_eq!(record.ttl, TTL);
                record.data.to_string()
            }));
            for record in &message.authorities {
                let data = record.data.to_string();
                words.push(format!("SOA {} {}", record.name, data.rsplit(' ').next().unwrap()));
            }
            if !message.additionals.is_empty() {
                words.push("+".into());
            }
            words.extend(message.additionals.iter().map(|record| format!("{} {}", record.name, record.data)));
            words.join(" ")
        }
    }
}
