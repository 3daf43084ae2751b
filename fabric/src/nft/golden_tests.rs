//! The text of every ruleset, for a table of states, is what it always was (`golden_tests.txt`; gate and services as nft has listed
//! them), and the kernel has the same as if nft had read it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use sealane_proto::resource::Egress;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::{IpFamily, MacAddr, Vni};

use super::content::TableContent;
use super::expression::Verdict;
use super::gate::{Carried, Carriers, Gate, GateDevices};
use super::guard::Addresses;
use super::rule::{Choice, rule};
use super::ruleset::Chain;
use super::selector::{End, Selector};
use super::*;
use crate::netlink::netfilter::attribute;
use crate::seat::Owner;

const GOLDEN: &str = include_str!("golden_tests.txt");
const GATE: &str = "sealane-tunnels";

fn adding(table: Table) -> Changes {
    let mut changes = Changes::default();
    changes.add(table);
    changes
}

fn sidecars() -> Vec<(String, Changes)> {
    let ports = SidecarPorts { outbound: 15001, inbound: 15006, tunnel: 15008 };
    let states = [
        ("first", "10.42.0.0/16", "10.42.0.9", 0),
        ("second", "10.42.16.0/20", "10.42.16.9", 1),
        ("small", "192.168.7.0/24", "192.168.7.9", 0),
    ];
    let each = states.into_iter().flat_map(|(name, subnet, address, number)| {
        let (subnet, address) = (subnet.parse().unwrap(), address.parse().unwrap());
        let seat = Seat::new(Owner::Agent, number);
        let v4 = Redirect::v4(subnet, address, seat, ports);
        let v6 = Redirect::v6("fd42::/64".parse().unwrap(), subnet, address, seat, ports);
        [(format!("sidecar {name}"), v4), (format!("sidecar6 {name}"), v6)]
    });
    each.map(|(name, redirect)| (name, adding(redirect.table()))).collect()
}

fn guards() -> Vec<(String, Changes)> {
    let mut states =
        vec![("guard".to_owned(), guard::replacing(false)), ("guard6".to_owned(), guard::replacing(true))];
    let sender = |address6: Option<&str>| Sender {
        port: "lo".to_owned(),
        index: 1,
        mac: MacAddr::new([2, 0, 0, 0, 0, 9]),
        address: Ipv4Addr::new(10, 42, 16, 9),
        address6: address6.map(|address| address.parse().unwrap()),
    };
    let (mut port, mut port6, mut local) = Default::default();
    guard::guard(&mut port, &sender(None).guarded());
    guard::guard_anew(&mut port6, &sender(Some("fd42::a2a:1009")).guarded());
    let set = |addresses: &[&str]| -> BTreeSet<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    };
    let to = set(&["10.42.0.9", "10.42.0.10", "10.42.0.11", "fd42::a2a:b"]);
    guard::localise(&mut local, &set(&["10.42.0.9", "fd42::a2a:9"]), &to);
    states.extend([("port", port), ("port6", port6), ("local", local)].map(|(n, c)| (n.to_owned(), c)));
    for (name, subnet, services) in [
        ("wide", "10.42.0.0/16", &[][..]),
        ("services", "10.42.0.0/16", &["10.42.254.0/24", "10.42.128.0/20"]),
        ("small", "192.168.7.0/24", &["192.168.7.0/28"]),
    ] {
        for subnet6 in [None, Some("fd42::/64".parse().unwrap())] {
            let services = services.iter().map(|block| block.parse().unwrap()).collect();
            let addresses = Addresses { subnet: subnet.parse().unwrap(), subnet6, services };
            let mut tunnel = Changes::default();
            let device = "lo".to_owned();
            guard::guard(&mut tunnel, &Tunnel { device, index: 1 }.guarded(&addresses));
            states.push((format!("tunnel {name} {}", subnet6.is_some()), tunnel));
        }
    }
    states
}

fn borders() -> Vec<(String, Changes)> {
    let allowed = |egress: Egress| {
        let ports = MeshPorts { tunnel: 4789, services: [7443, 9464].into() };
        let table = border::network("10.42.0.0/16".parse().unwrap(), egress, &ports);
        (format!("border {}", egress.as_str()), adding(table))
    };
    let host = |names: &[&str], untracked: bool| {
        let uplinks = names.iter().map(|&name| name.to_owned()).collect();
        border::host(None, &Surroundings { uplinks, tunnel: 4789, asked: Some(!untracked), untracked })
    };
    let mut states = [Egress::Allow, Egress::Deny].map(allowed).to_vec();
    let wire = |answered| adding(wire::table("sealane-tap", [("lo", 1), ("lo", 1)], answered));
    let others = [
        ("host", host(&[], false)),
        ("host with rows", host(&["br0", "eth0"], true)),
        ("names", adding(names::table(Ipv4Addr::new(127, 0, 0, 53)))),
        ("wire", wire(false)),
        ("wire answered", wire(true)),
        ("echo", adding(echo::table(0x5ea1_a4e0))),
        ("echo door", adding(echo_door::table())),
    ];
    states.extend(others.map(|(name, changes)| (name.to_owned(), changes)));
    states
}

/// Name, number and hosts of a network.
type Network<'a> = (&'a str, u32, &'a [&'a str]);

fn gates() -> Vec<(String, Changes)> {
    let states = [
        ("empty", None, &[][..]),
        ("two", None, &[("shop", 7, &["192.0.2.2", "2001:db8::1"][..]), ("lab", 4096, &["192.0.2.3"])]),
        ("beneath", Some(GateDevices::new(IpFamily::V4, 1, None)), &[("shop", 7, &["192.0.2.2"])]),
    ];
    let gate = |(name, devices, networks): (&str, Option<GateDevices>, &[Network<'_>])| {
        let networks = networks.iter().map(|(name, vni, hosts)| {
            let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
            (Carried::Network(name.parse().unwrap()), Carriers { vni: Vni::try_from(*vni).unwrap(), hosts })
        });
        let gate = Gate { port: 4789, devices, tunnels: networks.collect() };
        (format!("gate {name}"), gate.replacement(&TableName::new(Family::Inet, GATE)))
    };
    states.map(gate).to_vec()
}

fn states() -> Vec<(String, Changes)> {
    let services = crate::services::examples();
    let services = services.into_iter().map(|(name, changes)| (format!("services {name}"), changes));
    [sidecars(), guards(), borders(), gates()].concat().into_iter().chain(services).collect()
}

/// The lines of each chain, set and counter, and those beside them; without the comments of rules.
fn parts(text: &str) -> BTreeMap<String, Vec<String>> {
    let (mut parts, mut part): (BTreeMap<String, Vec<String>>, _) = (BTreeMap::new(), String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let head = line.split_once(' ').filter(|(_, rest)| rest.ends_with(" {")).map(|(word, _)| word);
        if matches!(head, Some("chain" | "set" | "map" | "counter")) {
            part = line.to_owned();
            parts.entry(part.clone()).or_default();
        } else if line == "}" {
            part.clear();
        } else {
            let line = line.split_once(" comment \"").map_or(line, |(rule, _)| rule);
            parts.entry(part.clone()).or_default().push(line.to_owned());
        }
    }
    parts
}

#[test]
fn every_ruleset_reads_as_it_always_did() {
    let golden: BTreeMap<&str, &str> =
        GOLDEN.split("## ").filter_map(|entry| entry.split_once('\n')).collect();
    let states = states();
    assert_eq!(golden.len(), states.len());
    for (name, changes) in states {
        let [mut now, mut then] = [changes.to_string().as_str(), golden[name.as_str()]].map(parts);
        // What was listed says no changes.
        if name.starts_with("gate") || name.starts_with("services") {
            now.remove("");
            then.remove("");
        }
        assert_eq!(now, then, "{name}");
    }
}

/// The table after these changes: as the kernel lists it, and as nft does.
fn outcome(make: impl FnOnce(&Hopper, &NetNs), table: &TableName) -> (TableContent, String) {
    let (hopper, ns) = (Hopper::start().unwrap(), NetNs::anonymous().unwrap());
    make(&hopper, &ns);
    let content = Tables::open(&hopper, &ns).unwrap().read(table).unwrap().unwrap();
    (content, nft(&hopper, &ns, &["-s", "-n", "list", "ruleset"], ""))
}

fn nft(hopper: &Hopper, ns: &NetNs, arguments: &[&str], script: &str) -> String {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let spawn = move || {
        let mut nft = Command::new("nft");
        nft.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut child = hopper.run(ns, spawn).unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).unwrap()
}

fn same(one: &TableContent, other: &TableContent, name: &str) {
    assert_eq!((&one.counters, &one.sets), (&other.counters, &other.sets), "{name}");
    assert!(one.chains.keys().eq(other.chains.keys()), "{name}");
    for (chain, content) in &one.chains {
        assert_eq!(content, &other.chains[chain], "{name}: {chain}");
    }
}

#[test]
fn the_kernel_has_what_nft_makes_of_the_text() {
    for (name, changes) in states() {
        // nft has no way to write what the gate looks up. It loads parts of a packet that are side by side, and three bytes, at
        // once, which the kernel takes longer for.
        if name.starts_with("gate") || name == "local" {
            continue;
        }
        let of_guard = name.starts_with("port") || name.starts_with("tunnel");
        let mut all = if of_guard { guard::replacing(true) } else { Changes::default() };
        all.then(changes);
        let text = all.to_string();
        let table = text.lines().rev().find_map(|line| line.strip_prefix("table ")).unwrap();
        let (family, table) = table.trim_end_matches(" {").split_once(' ').unwrap();
        let families = [Family::Inet, Family::Ip, Family::Ip6, Family::Netdev];
        let family = families.into_iter().find(|known| known.to_string() == family).unwrap();
        let table = TableName::new(family, table);
        let (by_netlink, listed) =
            outcome(|hopper, ns| client::commit(hopper, ns, &all, "try").unwrap(), &table);
        let (by_nft, as_nft_lists) = outcome(|hopper, ns| drop(nft(hopper, ns, &["-f", "-"], &text)), &table);
        assert_eq!(listed, as_nft_lists, "{name}");
        if !text.contains(".0/24") && !name.starts_with("port") {
            same(&by_netlink, &by_nft, &name);
        }
    }
}

#[test]
fn what_is_committed_is_read_back() {
    for (name, changes) in states() {
        let Some(table) = changes.tables().last().cloned() else { continue };
        let (read, _) =
            outcome(|hopper, ns| client::commit(hopper, ns, &changes, "try").unwrap(), &table.name);
        let mut wanted = table.content();
        for (set, content) in &mut wanted.sets {
            content.rows = read.sets[set].rows.clone();
        }
        wanted.chains.extend(read.chains.clone().into_iter().filter(|(chain, _)| chain.starts_with("svc/")));
        same(&read, &wanted, &name);
    }
}

/// Changes of a table one after another, each with its text.
fn steps(table: &TableName) -> Vec<(Changes, String)> {
    let step = |text: String, make: &dyn Fn(&mut Changes)| {
        let mut changes = Changes::default();
        assert!(changes.is_empty());
        make(&mut changes);
        assert!(!changes.is_empty());
        (changes, text)
    };
    let chain = |rules| Chain::new("pick", [rules]);
    let removed = format!("flush chain {table} pick\ndelete chain {table} pick\n");
    let made = format!("table {table} {{\n    chain pick {{\n        accept\n    }}\n}}\n");
    vec![
        step(format!("table {table} {{\n}}\n"), &|changes| changes.add(table.clone().table())),
        step(made.clone(), &|changes| changes.add_chain(table, chain(rule().accept()))),
        step(format!("flush chain {table} pick\nadd rule {table} pick drop\n"), &|changes| {
            changes.refill_chain(table, chain(rule().drop()));
        }),
        step(removed.clone(), &|changes| changes.remove_chain(table, "pick")),
        step(format!("add chain {table} pick\n{removed}"), &|changes| {
            changes.remove_any_chain(table, "pick")
        }),
        step(made, &|changes| changes.add_chain(table, chain(rule().accept()))),
        step(format!("add chain {table} pick\n{removed}"), &|changes| {
            changes.remove_any_chain(table, "pick")
        }),
        step(format!("add counter {table} seen\n"), &|changes| changes.add_counter(table, "seen".to_owned())),
        step(format!("delete counter {table} seen\n"), &|changes| {
            changes.remove_counter(table, "seen".to_owned());
        }),
        step(format!("table {table} {{}}\ndelete table {table}\n"), &|changes| changes.remove(table.clone())),
    ]
}

#[test]
fn each_kind_of_change_is_written_and_made_as_nft_makes_it() {
    let hopper = Hopper::start().unwrap();
    let [by_netlink, by_nft] = [NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap()];
    for family in [Family::Inet, Family::Bridge] {
        for (changes, text) in steps(&TableName::new(family, "shop")) {
            assert_eq!(changes.to_string(), text);
            client::commit(&hopper, &by_netlink, &changes, "try").unwrap();
            nft(&hopper, &by_nft, &["-f", "-"], &text);
            let [made, wanted] = [&by_netlink, &by_nft].map(|ns| nft(&hopper, ns, &["list", "ruleset"], ""));
            assert_eq!(made, wanted, "{text}");
        }
    }
}

#[test]
fn a_choice_names_the_ports_of_its_places_where_they_are_others() {
    let of = ["10.42.0.9:80", "10.42.0.10:81"].map(|place| place.parse().unwrap());
    let of = vec![(of[0], 2), (of[1], 1)];
    for (with_port, rows) in
        [(false, "0-1 : 10.42.0.9, 2 : 10.42.0.10"), (true, "0-1 : 10.42.0.9 . 80, 2 : 10.42.0.10 . 81")]
    {
        let text = rule().choose(Choice { of: of.clone(), with_port }).to_string();
        assert_eq!(text, format!("dnat ip to numgen random mod 3 map {{ {rows} }}"));
    }
}

#[test]
fn the_kernel_is_told_the_size_of_a_rule_s_own_set_and_not_of_its_map() {
    let chain = |rule| {
        let mut changes = Changes::default();
        changes.add_chain(&TableName::new(Family::Inet, "shop"), Chain::new("pick", [rule]));
        let transaction = changes.transaction();
        let sizes: Vec<_> = transaction
            .messages()
            .iter()
            .filter(|(verb, _)| verb.number == 9)
            .map(|(_, set)| attribute(set.as_bytes(), 9).map(|size| attribute(size, 1).unwrap().to_vec()))
            .collect();
        sizes
    };
    let ports = [80_u16, 81, 82];
    assert_eq!(
        chain(rule().among(Selector::TcpPort(End::Destination), ports).accept()),
        [Some(vec![0, 0, 0, 3])]
    );
    let rows = ports.map(|port| (port.into(), Verdict::Accept)).to_vec();
    assert_eq!(chain(rule().mapped(Selector::TcpPort(End::Destination), rows)), [None]);
}

#[test]
fn the_kernel_has_of_choices_and_maps_of_a_rule_what_nft_makes_of_them() {
    let of = ["10.42.0.9:80", "10.42.0.10:81"].map(|place| place.parse().unwrap());
    let of = vec![(of[0], 2), (of[1], 1)];
    let choices = [false, true].map(|with_port| rule().tcp().choose(Choice { of: of.clone(), with_port }));
    let rows = vec![(80.into(), Verdict::Accept), (81.into(), Verdict::Drop)];
    let mapped = rule().mapped(Selector::TcpPort(End::Destination), rows);
    let name = TableName::new(Family::Inet, "shop");
    let chain = Chain::new("pick", choices.into_iter().chain([mapped]));
    let changes = adding(name.clone().table().chain(chain));
    let (by_netlink, listed) =
        outcome(|hopper, ns| client::commit(hopper, ns, &changes, "try").unwrap(), &name);
    let text = changes.to_string();
    let (by_nft, as_nft_lists) = outcome(|hopper, ns| drop(nft(hopper, ns, &["-f", "-"], &text)), &name);
    assert_eq!(listed, as_nft_lists);
    same(&by_netlink, &by_nft, "choices");
}
