use sealane_proto::resource::{Egress, Node};
use sealane_proto::types::MacAddr;

use super::*;
use crate::core::{CarryNetwork, Change, CreateNetwork, NodeRecord, model};

const NOW: Timestamp = Timestamp::from_unix(0);

/// Two hosts that carry network shop: host-1 holds 10.42.0.0/28, host-2 10.42.0.16/28.
fn state() -> State {
    let mut state = State::default();
    let name: NetworkName = "shop".parse().unwrap();
    run(
        &mut state,
        CreateNetwork {
            name: name.clone(),
            hosts: Default::default(),
            subnet: "10.42.0.0/16".parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        },
    );
    for (node, last) in [("host-1", 1), ("host-2", 2)] {
        let node = Node {
            name: node.parse().unwrap(),
            underlay: format!("192.0.2.{last}").parse().unwrap(),
            mtu: None,
        };
        state.apply(&Change::put(NodeRecord::new(node.clone(), [last; 32], NOW)));
        run(&mut state, CarryNetwork { node: node.name, network: name.clone(), blocks_held: 0 });
    }
    state
}

fn run<C: Command>(state: &mut State, command: C) -> C::Outcome {
    model::run(state, command, NOW).unwrap()
}

/// `name address service ports...`
fn workload(node: &str, text: &str) -> Workload {
    let mut words = text.split(' ');
    let name = words.next().unwrap().parse().unwrap();
    let address: sealane_proto::types::OverlayIp = words.next().unwrap().parse().unwrap();
    let [_, b, c, d] = address.to_ipv4().octets();
    Workload {
        name,
        network: "shop".parse().unwrap(),
        node: node.parse().unwrap(),
        address,
        mac: MacAddr::new([2, 0, 10, b, c, d]),
        service: words.next().map(|service| service.parse().unwrap()),
        ports: words.map(|port| port.parse().unwrap()).collect(),
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    }
}

fn report(state: &mut State, node: &str, workloads: &[&str]) -> Vec<String> {
    let workloads = workloads.iter().map(|text| workload(node, text)).collect();
    let reported =
        run(state, Report { node: node.parse().unwrap(), workloads, editions: Default::default() });
    reported.refused.iter().map(|refused| format!("{}: {}", refused.workload, refused.reason)).collect()
}

fn names(state: &State) -> Vec<String> {
    state.networks.values().flat_map(|network| network.workloads.keys()).map(ToString::to_string).collect()
}

fn service(state: &State, name: &str) -> (String, Vec<String>) {
    let service = &state.networks.values().next().unwrap().services[&name.parse().unwrap()];
    (service.vip.to_string(), service.ports.iter().map(ToString::to_string).collect())
}

#[test]
fn the_newest_report_replaces_every_older_one() {
    let mut state = state();
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.2", "b 10.42.0.3"]), [""; 0]);
    assert_eq!(report(&mut state, "host-2", &["c 10.42.0.18"]), [""; 0]);
    assert_eq!(report(&mut state, "host-1", &["b 10.42.0.3"]), [""; 0]);
    assert_eq!(names(&state), ["b", "c"]);
}

#[test]
fn a_repeated_report_changes_nothing() {
    let mut state = state();
    let workloads = vec![workload("host-1", "a 10.42.0.2 api 80/http")];
    let report = Report { node: "host-1".parse().unwrap(), workloads, editions: Default::default() };
    assert_eq!(run(&mut state, report.clone()).changed.len(), 1);
    let again = report.decide(&state, NOW).unwrap();
    assert_eq!(again, Decision { changes: vec![], outcome: Reported::default() });
}

#[test]
fn bad_workloads_are_refused_one_by_one_and_the_good_ones_stay() {
    let mut state = state();
    report(&mut state, "host-2", &["web-1 10.42.0.18 api 80/http"]);
    let vip = service(&state, "api").0;
    let table = [
        ("web-1 10.42.0.9".to_owned(), "workload name web-1 in network shop is in use on host-2"),
        ("x 10.43.0.9".to_owned(), "outside 10.42.0.0/16"),
        ("x 10.42.0.1".to_owned(), "gateway"),
        ("x 10.42.0.25".to_owned(), "block 10.42.0.16/28 of node host-2"),
        (format!("x {vip}"), "for service addresses"),
        ("x 10.42.0.2".to_owned(), "in use by workload good"),
        ("good 10.42.0.7".to_owned(), "workload name good in network shop is in use on host-1"),
        ("x 10.42.0.9 api 80/tcp".to_owned(), "port 80 of service api in network shop speaks http already"),
        ("x 10.42.0.9 dns 53/udp 53/tcp 53/tls".to_owned(), "speaks tcp already, not tls"),
    ];
    for (bad, expected) in table {
        let refused = report(&mut state, "host-1", &["good 10.42.0.2", &bad]);
        assert!(refused.len() == 1 && refused[0].contains(expected), "{bad}: {refused:?}");
        assert_eq!(names(&state), ["good", "web-1"], "{bad}");
    }
}

#[test]
fn what_is_no_ones_place_is_refused() {
    let mut state = state();
    let mut elsewhere = workload("host-2", "a 10.42.0.2");
    let mut nowhere = workload("host-1", "b 10.42.0.3");
    nowhere.network = "none".parse().unwrap();
    let mut portly = workload("host-1", "c 10.42.0.4 api 80");
    portly.service = None;
    let mut twin = workload("host-1", "d 10.42.0.5");
    twin.mac = workload("host-1", "e 10.42.0.6").mac;
    let mut gateway = workload("host-1", "f 10.42.0.7");
    gateway.mac = "02:00:0a:2a:00:01".parse().unwrap();
    elsewhere.node = "host-2".parse().unwrap();
    let workloads = vec![elsewhere, nowhere, portly, workload("host-1", "e 10.42.0.6"), twin, gateway];
    let reported =
        run(&mut state, Report { node: "host-1".parse().unwrap(), workloads, editions: Default::default() });
    let reasons: Vec<String> = reported.refused.iter().map(|refused| refused.reason.to_string()).collect();
    for expected in [
        "names host-2",
        "there is no network none",
        "without a service",
        "MAC 02:00:0a:2a:00:06 in network shop is in use by workload e",
        "MAC 02:00:0a:2a:00:01 in network shop goes with address 10.42.0.1",
    ] {
        assert!(reasons.iter().any(|reason| reason.contains(expected)), "{expected}: {reasons:?}");
    }
    assert_eq!(names(&state), ["e"]);
}

#[test]
fn an_address_may_pass_from_one_workload_to_another_in_one_report() {
    let mut state = state();
    report(&mut state, "host-1", &["a 10.42.0.2", "b 10.42.0.3"]);
    assert_eq!(report(&mut state, "host-1", &["b 10.42.0.2", "c 10.42.0.3"]), [""; 0]);
    let network = state.networks.values().next().unwrap();
    assert_eq!(network.at("10.42.0.2".parse().unwrap()).unwrap().name.as_str(), "b");
    assert_eq!(network.at("10.42.0.3".parse().unwrap()).unwrap().name.as_str(), "c");
}

#[test]
fn a_service_keeps_its_address_and_last_ports_when_its_instances_leave() {
    let mut state = state();
    report(&mut state, "host-1", &["a 10.42.0.2 api 80", "b 10.42.0.3 web 443/tls"]);
    report(&mut state, "host-2", &["c 10.42.0.18 api 80/http 9090"]);
    assert_eq!(service(&state, "api"), ("10.42.255.0".into(), vec!["80/http".into(), "9090".into()]));
    assert_eq!(service(&state, "web").0, "10.42.255.1");
    report(&mut state, "host-2", &[]);
    assert_eq!(service(&state, "api").1, ["80"]);
    report(&mut state, "host-1", &[]);
    assert_eq!(service(&state, "api"), ("10.42.255.0".into(), vec!["80".into()]));
    report(&mut state, "host-2", &["c 10.42.0.18 api 81"]);
    assert_eq!(service(&state, "api"), ("10.42.255.0".into(), vec!["81".into()]));
}

#[test]
fn a_static_address_outside_all_blocks_keeps_the_cell_around_it_from_other_hosts() {
    let mut state = state();
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.41"]), [""; 0]);
    let (node, network) = ("host-2".parse().unwrap(), "shop".parse().unwrap());
    let carried = run(&mut state, CarryNetwork { node, network, blocks_held: 1 });
    assert_eq!(carried.blocks[1].range.to_string(), "10.42.0.48/28");
}

#[test]
fn a_host_that_carries_nothing_has_no_workloads() {
    let mut state = state();
    let node = Node { name: "host-3".parse().unwrap(), underlay: "192.0.2.3".parse().unwrap(), mtu: None };
    state.apply(&Change::put(NodeRecord::new(node, [3; 32], NOW)));
    let refused = report(&mut state, "host-3", &["a 10.42.9.2"]);
    assert!(refused[0].contains("node host-3 holds no block of network shop"), "{refused:?}");
}

#[test]
fn the_cell_of_an_address_that_is_left_serves_new_services_at_once() {
    let mut state = State::default();
    let name: NetworkName = "shop".parse().unwrap();
    run(
        &mut state,
        CreateNetwork {
            name: name.clone(),
            hosts: Default::default(),
            subnet: "10.42.0.0/26".parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        },
    );
    let node = Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
    state.apply(&Change::put(NodeRecord::new(node.clone(), [1; 32], NOW)));
    for blocks_held in 0..3 {
        run(&mut state, CarryNetwork { node: node.name.clone(), network: name.clone(), blocks_held });
    }
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.62"]), [""; 0]);
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.2 api 80"]), [""; 0]);
    assert_eq!(service(&state, "api").0, "10.42.0.62");
}

/// Addresses of host-1's own block, and what else its report says.
fn own(count: u8) -> Vec<String> {
    (2..2 + count).map(|last| format!("own-{last} 10.42.0.{last}")).collect()
}

fn report_all(state: &mut State, workloads: &[String]) -> Vec<String> {
    let texts: Vec<&str> = workloads.iter().map(String::as_str).collect();
    report(state, "host-1", &texts)
}

#[test]
fn a_workload_in_each_cell_that_nobody_holds_takes_no_more_than_a_host_may_hold() {
    let mut state = state();
    let everywhere = |count: u8| (2..2 + count).map(|cell| format!("far-{cell} 10.42.{cell}.9"));
    let all: Vec<String> = everywhere(200).collect();
    let refused = report_all(&mut state, &all);
    // Beside its block of 14 assignable addresses: 67 of 16, with 1,024 and those that are used as the most.
    assert_eq!(refused.len(), 200 - 67, "{refused:?}");
    assert!(refused[0].contains("which no host holds, and node host-1 has hardly used"), "{refused:?}");
    // They count as its own.
    let more =
        CarryNetwork { node: "host-1".parse().unwrap(), network: "shop".parse().unwrap(), blocks_held: 1 };
    let said = more.clone().decide(&state, NOW).unwrap_err().to_string();
    assert!(said.contains("node host-1 holds 1086 addresses"), "{said}");
    // Again it is the same, and the fuller its blocks are the more it may have.
    assert_eq!(report_all(&mut state, &all).len(), 200 - 67);
    let full: Vec<String> = own(12).into_iter().chain(everywhere(200)).collect();
    assert_eq!(report_all(&mut state, &full).len(), 200 - 68);
    let next = CarryNetwork { node: "host-2".parse().unwrap(), ..more };
    assert!(next.decide(&state, NOW).is_ok());
}

#[test]
fn an_address_outside_of_every_block_is_had_as_before() {
    let mut state = state();
    let fixed: Vec<String> = (1..=200).map(|last| format!("fixed-{last} 10.42.200.{last}")).collect();
    assert_eq!(report_all(&mut state, &fixed), [""; 0]);
    assert_eq!(report(&mut state, "host-2", &["other 10.42.200.201"]), [""; 0]);
    assert_eq!(report_all(&mut state, &fixed), [""; 0]);
}

#[test]
fn a_report_carries_what_every_other_host_can_keep() {
    let many = |count: u16| (1..=count).map(|port| format!(" {port}/udp")).collect::<String>();
    let mut state = state();
    let refused = report_all(
        &mut state,
        &[format!("a 10.42.0.2 api{}", many(65)), format!("b 10.42.0.3 api{}", many(64))],
    );
    assert_eq!(
        refused,
        ["a: workload a in network shop: ports: 65 are too many, a workload offers 64 at most; offer fewer"]
    );
    // Together, the instances of a service without a document have four times as many.
    let apart = |index: u16| {
        let ports: String = (1..=60).map(|port| format!(" {}/udp", index * 100 + port)).collect();
        format!("i-{index} 10.42.0.{} web{ports}", index + 10)
    };
    let refused = report_all(&mut state, &(0..6).map(apart).collect::<Vec<_>>());
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("service web would have 300 with it"), "{refused:?}");
    // All of a host's, by what they are and by their number.
    let heavy = |last: u16| format!("h-{last} 10.42.9.{last} s-{last}{}", many(64));
    let light = |index: u16| format!("l-{index} 10.42.{}.{}", 20 + index / 250, 2 + index % 250);
    let refused = report_all(&mut state, &(2..254).map(heavy).collect::<Vec<_>>());
    assert!(
        refused.len() < 20 && refused[0].contains("1048576 is the most"),
        "{} {refused:?}",
        refused.len()
    );
    let before = state.clone();
    assert_eq!(report_all(&mut state, &(2..254).map(heavy).collect::<Vec<_>>()).len(), refused.len());
    assert_eq!(state, before, "the same report leads to the same network");
    let refused = report_all(&mut state, &(0..4_100).map(light).collect::<Vec<_>>());
    assert_eq!(
        refused.iter().filter(|said| said.contains("4096 workloads in the network already")).count(),
        4
    );
}

#[test]
fn the_load_of_a_workload_is_that_of_its_names_and_ports() {
    let mut one = workload("host-1", "a 10.42.0.2 api web=80 81");
    assert_eq!(bounds::load(&one), 64 + "a".len() + "api".len() + 2 * 64 + "web".len());
    one.aliases = sealane_proto::types::Aliases::parse(&["xy".to_owned()]).unwrap();
    assert_eq!(bounds::load(&one), 64 + "a".len() + "api".len() + 2 * 64 + "web".len() + 64 + "xy".len());
}

#[test]
fn what_is_known_at_its_address_goes_before_what_wants_to_take_it() {
    let mut state = state();
    report(&mut state, "host-1", &["b 10.42.0.3"]);
    let changed = Workload { ready: false, ..workload("host-1", "b 10.42.0.3") };
    let workloads = vec![workload("host-1", "a 10.42.0.3"), changed];
    let reported =
        run(&mut state, Report { node: "host-1".parse().unwrap(), workloads, editions: Default::default() });
    assert_eq!(reported.refused.len(), 1);
    assert_eq!(names(&state), ["b"]);
}

/// Reports these workloads of host 1; answers whose are refused.
fn refused(state: &mut State, workloads: Vec<Workload>) -> Vec<String> {
    let report = Report { node: "host-1".parse().unwrap(), workloads, editions: Default::default() };
    run(state, report).refused.iter().map(|refused| refused.workload.to_string()).collect()
}

#[test]
fn who_stays_where_it_is_goes_before_who_comes_there_from_another_address() {
    for ready in [true, false] {
        let mut state = state();
        report(&mut state, "host-1", &["a 10.42.0.2", "b 10.42.0.3"]);
        let stays = Workload { ready, ..workload("host-1", "b 10.42.0.3") };
        assert_eq!(refused(&mut state, vec![workload("host-1", "a 10.42.0.3"), stays]), ["a"]);
        assert_eq!(names(&state), ["b"]);
    }
}

#[test]
fn of_two_of_one_name_or_address_in_one_report_the_first_is_there() {
    let mut state = state();
    let other = Workload { mac: "06:11:22:33:44:55".parse().unwrap(), ..workload("host-1", "b 10.42.0.2") };
    let one = workload("host-1", "a 10.42.0.2");
    assert_eq!(refused(&mut state, vec![one.clone(), other]), ["b"]);
    assert_eq!(refused(&mut state, vec![one.clone(), one]), ["a"], "it is known, and there once");
    assert_eq!(names(&state), ["a"]);
}

#[test]
fn what_is_as_it_was_stays_though_it_could_not_come_any_more() {
    let mut state = state();
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.2 api 80"]), [""; 0]);
    let shop = state.networks.values().next().unwrap();
    let mut closed = shop.services.values().next().unwrap().clone();
    closed.hosts = ["host-2".parse().unwrap()].into_iter().collect();
    let change = Change::put_in(&shop.network.name, closed);
    state.apply(&change);
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.2 api 80"]), [""; 0]);
    assert_eq!(report(&mut state, "host-1", &["b 10.42.0.3 api 80"]).len(), 1);
}

#[test]
fn an_instance_stays_whose_ports_its_document_has_lost_since_and_gets_no_further_ones() {
    let mut state = state();
    let declare = |state: &mut State, port: u16| {
        let document = format!(
            r#"{{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{{"name":"api","network":"shop"}},"spec":{{"ports":[{{"port":{port}}}]}}}}"#
        );
        let documents = vec![sealane_proto::document::Document::from_json(&document).unwrap()];
        assert!(run(state, crate::core::Apply { documents, dry_run: false })[0].is_ok());
    };
    declare(&mut state, 80);
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.2 api 80"]), [""; 0]);
    declare(&mut state, 81);
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.2 api 80"]), [""; 0]);
    let unready = Workload { ready: false, ..workload("host-1", "a 10.42.0.2 api 80") };
    assert_eq!(refused(&mut state, vec![unready]), [""; 0]);
    assert_eq!(report(&mut state, "host-1", &["a 10.42.0.2 api 80 82"]).len(), 1);
}

#[test]
fn a_word_that_no_later_one_could_outdo_is_refused_and_one_that_an_older_version_took_is_outdone() {
    let (shop, node): (NetworkName, NodeName) = ("shop".parse().unwrap(), "host-1".parse().unwrap());
    let mut state = state();
    let report = |incarnation, revision| Report {
        node: node.clone(),
        workloads: vec![],
        editions: [(shop.clone(), Edition { incarnation, revision })].into(),
    };
    let known = |state: &State| state.networks[&shop].told[&node].edition.incarnation;
    run(&mut state, report(7, 1));
    for (incarnation, revision) in [(1 << 62, 1), ((1 << 33) + 8, 1), (u64::MAX, 1), (8, u64::MAX)] {
        let refused = report(incarnation, revision).decide(&state, NOW).unwrap_err();
        assert!(refused.to_string().contains("centuries ahead"), "{refused}");
        assert_eq!(known(&state), 7);
    }
    run(&mut state, report((1 << 33) + 7, 1));
    assert_eq!(known(&state), (1 << 33) + 7, "as of a name that many hosts have had");
    let edition = Edition { incarnation: u64::MAX, revision: u64::MAX };
    state.apply(&Change::put_in(&shop, crate::core::edition::Told { node: node.clone(), edition }));
    run(&mut state, report(9, 1));
    assert_eq!(known(&state), 9);
}
