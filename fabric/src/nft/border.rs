//! The tables at a network's border to the world outside: in the network's namespace and in the host's. Pure.
//!
//! Both masquerade: the first makes packets of networks whose subnets overlap different, the second gives them the
//! host's address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sealane_proto::resource::Egress;
use sealane_proto::types::Subnet;

use super::change::Changes;
use super::content::TableContent;
use super::datum::{
    DNAT, Datum, ECHO_REQUEST, ESTABLISHED, INVALID, KeyType, NAME_LENGTH, RELATED, TCP, UDP, UNICAST,
};
use super::rows::Row;
use super::rule::{Rejection, Rule, rule};
use super::ruleset::{Chain, Element, Family, Hook, Point, Set, Table, TableName};
use super::selector::{End, Ip, Selector};
use super::sidecar::TABLE;

/// Prefix of the host's ends of all networks' links to the world outside.
pub const HOST_LINK: &str = "sealane";
/// The network's end of its link.
pub(crate) const NETWORK_LINK: &str = "egress0";

/// The network's own device, behind which its workloads are.
const BRIDGE: &str = "br0";
/// The counter of packets that may not leave.
const REFUSED: &str = "refused";
/// Priorities of chains: before conntrack, and behind every translation.
const RAW: i32 = -300;
const SRCNAT: i32 = 100;
/// Before the host's own filters.
const BEFORE_FILTER: i32 = -10;
const SOURCE: Selector = Selector::Address(Ip::V4, End::Source);
const DESTINATION: Selector = Selector::Address(Ip::V4, End::Destination);
const TUNNELLED: Selector = Selector::UdpPort(End::Destination);

/// Addresses of clouds' services for their hosts alone, and link-local addresses (RFC 3927, section 2.7), behind which are
/// also the hosts' ends of the links: Alibaba Cloud, Azure, everybody else, Oracle Cloud.
fn metadata() -> [Datum; 4] {
    let alone = |a, b, c, d| Ipv4Addr::new(a, b, c, d).into();
    let link_local = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16).into();
    [alone(100, 100, 100, 200), alone(168, 63, 129, 16), link_local, alone(192, 0, 0, 192)]
}

/// The name of the tables of a network's namespace and of the host.
pub(super) fn name() -> TableName {
    TableName::new(Family::Inet, TABLE)
}

/// The hosts of the mesh.
fn hosts() -> Set {
    Set { interval: true, ..Set::of("hosts", KeyType::IPV4) }
}

/// The host's bridges and veths that lead outside.
fn uplinks() -> Set {
    Set::of("uplinks", KeyType::DEVICE)
}

/// The ports of tunnels that need no tracking.
fn tunnels() -> Set {
    Set::of("tunnels", KeyType::PORT)
}

/// The ports of the mesh itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeshPorts {
    /// VXLAN, over UDP.
    pub(crate) tunnel: u16,
    /// Control, metrics and what hosts say to each other.
    pub(crate) services: BTreeSet<u16>,
}

/// The table of a network's namespace. What is refused is refused at once (RFC 1812, section 5.2.7.1: code 13).
///
/// VXLAN is not forwarded: the host's address would be on it, and other hosts would take it for the host's own. Nor is
/// what the hosts of the mesh offer each other, for the same reason.
pub(super) fn network(subnet: Subnet, egress: Egress, ports: &MeshPorts) -> Table {
    let table = name().table().comment("border").counter(REFUSED);
    match egress {
        Egress::Deny => {
            let outward = rule().is(Selector::InputName, BRIDGE).is(Selector::DestinationType, UNICAST);
            let refused = refuse(outward.differs(DESTINATION, subnet));
            table.chain(Chain::new("prerouting", [refused]).at(Hook::filter(Point::Prerouting, 0)))
        }
        Egress::Allow => open(table.set(hosts()), subnet, ports),
    }
}

fn open(table: Table, subnet: Subnet, ports: &MeshPorts) -> Table {
    let inward = || rule().is(Selector::InputName, BRIDGE);
    let answers = [ESTABLISHED, RELATED];
    // DNS at the gateway address needs no connection tracking.
    let raw = [inward().is(DESTINATION, subnet.gateway().to_ipv4()).untracked()];
    let output = [rule().is(Selector::OutputName, BRIDGE).untracked()];
    let input = [rule().is(Selector::InputName, NETWORK_LINK).outside(Selector::State, answers).drop()];
    let from_outside = rule().is(Selector::InputName, NETWORK_LINK).is(Selector::OutputName, BRIDGE);
    let services = inward().in_set(DESTINATION, hosts().name).among(Selector::Protocol, [TCP, UDP]);
    let forward = [
        rule().is(Selector::State, INVALID).drop(),
        from_outside.among(Selector::State, answers).accept(),
        refuse(inward().among(DESTINATION, metadata())),
        refuse(inward().is(TUNNELLED, ports.tunnel)),
        refuse(services.among(Selector::AnyPort(End::Destination), ports.services.iter().copied())),
        inward().is(Selector::OutputName, NETWORK_LINK).is(SOURCE, subnet).accept(),
    ];
    let postrouting = [rule().is(Selector::OutputName, NETWORK_LINK).masquerade()];
    table
        .chain(Chain::new("raw", raw).at(Hook::filter(Point::Prerouting, RAW)))
        .chain(Chain::new("output", output).at(Hook::filter(Point::Output, RAW)))
        .chain(Chain::new("input", input).at(Hook::filter(Point::Input, 0)))
        .chain(Chain::new("forward", forward).at(Hook::filter(Point::Forward, 0).dropping()))
        .chain(Chain::new("postrouting", postrouting).at(Hook::nat(Point::Postrouting, SRCNAT)))
}

fn refuse(rule: Rule) -> Rule {
    rule.count_by(REFUSED).reject(Rejection::IcmpAdmin)
}

/// The table of the host: for the links of all networks, of every agent on it. Its own services answer nobody who
/// comes by a link but for ping: such a packet passes by the rules that the host has for its real devices. Links
/// do not reach each other, and nobody outside reaches into one. Nor do they reach into a bridge or a veth (of
/// containers, of virtual machines) but by what that publishes: its own rules have come to trust FORWARD's policy.
/// Packets of others are let go by the first rule of every chain.
///
/// With masquerade begins conntrack; tunnels to those ports are exempt from it (`egress/tracking`). What may enter is
/// asked of every packet, not of flows alone: one that conntrack finds invalid (a FIN of no connection) has none, and the
/// host's TCP would answer it.
fn host_table() -> Table {
    let links = format!("{HOST_LINK}*");
    let (links, by, to) = (links.as_str(), Selector::InputName, Selector::OutputName);
    let answers = [ESTABLISHED, RELATED];
    let prerouting = [rule().in_set(TUNNELLED, tunnels().name).differs(by, links).untracked()];
    let output = [rule().in_set(TUNNELLED, tunnels().name).untracked()];
    let input = [
        rule().differs(by, links).accept(),
        rule().among(Selector::State, answers).accept(),
        rule().is(Selector::Message(Ip::V4), ECHO_REQUEST).accept(),
        rule().reject(Rejection::Admin),
    ];
    let virtual_device = rule().among(Selector::OutputKind, ["bridge", "veth"]);
    let forward = [
        rule().differs(by, links).differs(to, links).accept(),
        rule().is(by, links).is(to, links).reject(Rejection::Admin),
        rule().is(to, links).among(Selector::State, answers).accept(),
        rule().is(to, links).drop(),
        rule().is(Selector::Status, DNAT).accept(),
        virtual_device.not_in_set(to, uplinks().name).reject(Rejection::Admin),
    ];
    let postrouting = [rule().is(by, links).masquerade()];
    name()
        .table()
        .comment("host")
        .set(uplinks())
        .set(tunnels())
        .chain(Chain::new("prerouting", prerouting).at(Hook::filter(Point::Prerouting, RAW)))
        .chain(Chain::new("output", output).at(Hook::filter(Point::Output, RAW)))
        .chain(Chain::new("input", input).at(Hook::filter(Point::Input, BEFORE_FILTER)))
        .chain(Chain::new("forward", forward).at(Hook::filter(Point::Forward, BEFORE_FILTER)))
        .chain(Chain::new("postrouting", postrouting).at(Hook::nat(Point::Postrouting, SRCNAT)))
}

/// The changes that make the table of a network's namespace what it should be, and how many tables and rows were not. Of the
/// mesh's hosts, those that are there stay where none are told.
pub(super) fn settle(
    there: &mut Option<Border>,
    wanted: Table,
    told: Option<&BTreeSet<Ipv4Net>>,
) -> (Changes, usize) {
    let content = wanted.content();
    // A denied network forwards nothing, and has no such set.
    let has_hosts = content.sets.contains_key(hosts().name);
    let known = there.take().filter(|known| known.content == content);
    let mut changes = Changes::default();
    if known.is_none() {
        changes.replace(wanted);
    }
    let mut count = usize::from(known.is_none());
    let from = known.map(|known| known.hosts).unwrap_or_default();
    let to = match told {
        _ if !has_hosts => BTreeSet::new(),
        Some(hosts) => hosts.clone(),
        None => from.clone(),
    };
    count += usize::from(from != to);
    change(&mut changes, &hosts(), &from, &to);
    *there = Some(Border { content, hosts: to });
    (changes, count)
}

/// Makes the rows of a set `to`, which were `from`.
fn change<T: Clone + Ord + Into<Datum>>(
    changes: &mut Changes,
    set: &Set,
    from: &BTreeSet<T>,
    to: &BTreeSet<T>,
) {
    let only = |a: &BTreeSet<T>, b: &BTreeSet<T>| a.difference(b).cloned().map(Element::of).collect();
    changes.remove_elements(&name(), set, only(from, to));
    changes.add_elements(&name(), set, only(to, from));
}

/// Reads a network of a set's row.
fn net((first, row): (&Vec<u8>, &Row)) -> Option<Ipv4Net> {
    let bits = |octets: &[u8]| octets.try_into().ok().map(u32::from_be_bytes).map(u64::from);
    let first = bits(first)?;
    let behind = row.until.as_ref().map_or(Some(1 << 32), |until| bits(until))?;
    let length = 32 - u8::try_from(behind.checked_sub(first)?.checked_ilog2()?).ok()?;
    let net = Ipv4Net::new(Ipv4Addr::from_bits(u32::try_from(first).ok()?), length).ok()?;
    let is_whole = net.network() == net.addr() && u64::from(net.broadcast().to_bits()) + 1 == behind;
    is_whole.then_some(net)
}

/// Reads a device of a set's row.
fn device(row: &[u8]) -> Option<String> {
    let length = row.iter().position(|byte| *byte == 0).unwrap_or(NAME_LENGTH);
    String::from_utf8(row.get(..length)?.to_vec()).ok()
}

/// A table of a network's namespace, and the hosts that it keeps workloads from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Border {
    content: TableContent,
    hosts: BTreeSet<Ipv4Net>,
}

impl Border {
    /// Takes a table apart that the kernel lists.
    pub(super) fn of(mut listed: TableContent) -> Option<Self> {
        let rows = listed.take_rows(hosts().name).unwrap_or_default();
        let hosts = rows.iter().map(net).collect::<Option<_>>()?;
        Some(Self { content: listed, hosts })
    }
}

/// Properties of a host that its table depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The bridges and veths that lead outside.
    pub(crate) uplinks: BTreeSet<String>,
    /// The UDP port of this agent's tunnels.
    pub(crate) tunnel: u16,
    /// True if rules that nft lists ask for the state of tunnels' packets; `None` when that is to be found out again.
    pub(crate) asked: Option<bool>,
    /// True if tunnels go untracked.
    pub(crate) untracked: bool,
}

/// The changes that make the host's table what it should be; none when it is that already. Ports of other agents' tunnels
/// stay.
pub(super) fn host(listed: Option<TableContent>, surroundings: &Surroundings) -> Changes {
    let table = host_table();
    let mut changes = Changes::default();
    let there = listed.and_then(|mut listed| {
        let mut take = |set: Set| listed.take_rows(set.name);
        let rows = [take(uplinks())?, take(tunnels())?];
        (listed == table.content()).then_some(rows)
    });
    if there.is_none() {
        changes.replace(table);
    }
    let [devices, ports] = there.unwrap_or([BTreeMap::new(), BTreeMap::new()]);
    let from: BTreeSet<String> = devices.keys().filter_map(|row| device(row)).collect();
    change_names(&mut changes, &from, &surroundings.uplinks);
    let port = |row: &Vec<u8>| row.as_slice().try_into().ok().map(u16::from_be_bytes);
    let from: BTreeSet<u16> = ports.keys().filter_map(port).collect();
    let mut to = from.clone();
    if surroundings.untracked {
        to.insert(surroundings.tunnel)
    } else {
        to.remove(&surroundings.tunnel)
    };
    change(&mut changes, &tunnels(), &from, &to);
    changes
}

fn change_names(changes: &mut Changes, from: &BTreeSet<String>, to: &BTreeSet<String>) {
    let names = |names: &BTreeSet<String>| names.iter().cloned().map(Datum::Name).collect();
    change::<Datum>(changes, &uplinks(), &names(from), &names(to));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(tunnel: u16) -> MeshPorts {
        MeshPorts { tunnel, services: [7443, 9464].into() }
    }

    #[test]
    fn hosts_of_the_mesh_are_rows_that_come_and_go() {
        let subnet = "10.42.0.0/16".parse().unwrap();
        let [allow, deny] = [Egress::Allow, Egress::Deny].map(|egress| network(subnet, egress, &ports(4789)));
        let hosts = |last: &[u8]| {
            last.iter()
                .map(|&last| Ipv4Net::from(std::net::Ipv4Addr::new(192, 0, 2, last)))
                .collect::<BTreeSet<_>>()
        };
        let settled = |there: &mut Option<Border>, wanted: &Table, hosts: Option<&BTreeSet<Ipv4Net>>| {
            let (changes, count) = settle(there, wanted.clone(), hosts);
            (changes.to_string(), count)
        };
        let mut there = None;
        let (script, changes) = settled(&mut there, &allow, Some(&hosts(&[1, 2])));
        assert!(
            script.ends_with("add element inet sealane hosts { 192.0.2.1, 192.0.2.2 }\n") && changes == 2
        );
        let mut replaced = Changes::default();
        replaced.replace(allow.clone());
        assert!(script.starts_with(&replaced.to_string()), "{script}");
        assert_eq!(settled(&mut there, &allow, None), (String::new(), 0));
        let change =
            "delete element inet sealane hosts { 192.0.2.1 }\nadd element inet sealane hosts { 192.0.2.3 }\n";
        assert_eq!(settled(&mut there, &allow, Some(&hosts(&[2, 3]))), (change.to_owned(), 1));
        let mut content = allow.content();
        let rows = hosts(&[2, 3]).into_iter().map(|host| Element::of(host).row(&super::hosts()));
        content.sets.get_mut("hosts").unwrap().rows.extend(rows);
        let mut listed = Border::of(content);
        assert_eq!(settled(&mut listed, &allow, None), (String::new(), 0));
        let lan = ["198.51.100.0/24".parse().unwrap()].into();
        let (script, _) = settled(&mut listed, &allow, Some(&lan));
        assert!(script.ends_with("add element inet sealane hosts { 198.51.100.0/24 }\n"), "{script}");
        let (script, _) = settled(&mut there, &deny, Some(&hosts(&[2])));
        assert!(!script.contains("element"), "{script}");
    }

    #[test]
    fn a_row_is_a_network_when_it_begins_and_ends_as_one() {
        for text in ["192.0.2.1/32", "198.51.100.0/24", "224.0.0.0/3", "0.0.0.0/0"] {
            let (key, row) = Element::of(text.parse::<Ipv4Net>().unwrap()).row(&hosts());
            assert_eq!(net((&key, &row)), text.parse().ok(), "{text}");
        }
        let row = |until: u8| Row { until: Some(vec![192, 0, 2, until]), data: None };
        for (first, until) in [(1, 3), (3, 3), (4, 3), (0, 6)] {
            assert_eq!(net((&vec![192, 0, 2, first], &row(until))), None, "{first} {until}");
        }
    }

    #[test]
    fn a_denied_network_has_another_table() {
        let table = |egress| network("10.42.0.0/16".parse().unwrap(), egress, &ports(4789)).content();
        assert_ne!(table(Egress::Allow), table(Egress::Deny));
    }

    #[test]
    fn what_is_refused_comes_before_what_leaves() {
        let text = network("10.42.0.0/16".parse().unwrap(), Egress::Allow, &ports(14789)).to_string();
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        assert!(line("169.254.0.0/16") < line("ip saddr 10.42.0.0/16 accept"));
        assert!(line("udp dport 14789") < line("ip saddr 10.42.0.0/16 accept"));
        assert!(line("@hosts") < line("ip saddr 10.42.0.0/16 accept"));
    }

    #[test]
    fn the_hosts_table_follows_its_surroundings() {
        let like = |names: &[&str], untracked: bool| Surroundings {
            uplinks: names.iter().map(|&name| name.to_owned()).collect(),
            tunnel: 4789,
            asked: Some(!untracked),
            untracked,
        };
        let host = |there: Option<&TableContent>, names: &[&str], untracked| {
            super::host(there.cloned(), &like(names, untracked)).to_string()
        };
        let (fresh, bare) = (host(None, &[], false), host_table().content());
        assert!(fresh.ends_with(&host_table().to_string()), "{fresh}");
        let with = |set: &str, rows: Vec<Datum>| {
            let mut content = bare.clone();
            let rows = rows.into_iter().map(|row| (row.bytes(), Row::default()));
            content.sets.get_mut(set).unwrap().rows.extend(rows);
            content
        };
        let listed = with("uplinks", vec!["br0".into()]);
        assert_eq!(host(Some(&listed), &["br0"], false), "");
        assert_eq!(
            host(Some(&listed), &["br1"], true),
            "delete element inet sealane uplinks { \"br0\" }\nadd element inet sealane uplinks { \"br1\" }\n\
             add element inet sealane tunnels { 4789 }\n"
        );
        assert_eq!(host(Some(&bare), &[], false), "");
        let both = with("tunnels", vec![4789.into(), 14789.into()]);
        assert_eq!(host(Some(&both), &[], true), "");
        assert_eq!(host(Some(&both), &[], false), "delete element inet sealane tunnels { 4789 }\n");
        let mut broken = listed.clone();
        broken.chains.get_mut("forward").unwrap().rules.remove(4);
        let added = format!("{fresh}add element inet sealane uplinks {{ \"br0\" }}\n");
        assert_eq!(host(Some(&broken), &["br0"], false), added);
    }
}
