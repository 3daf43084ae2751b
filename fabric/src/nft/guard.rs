//! Guard of a network's bridge: the frames that it lets in. Pure.
//!
//! By a port: frames of its workload's Ethernet and IP address, nothing else. By the VXLAN device: packets from addresses
//! that workloads of the network can have, but those of this host's own: not the gateway's, nor the network's own and the
//! broadcast address, nor one of those that are kept for services, at which nobody is; and to such addresses: no host asks another
//! one's gateway, or leaves by it. ARP and neighbour discovery never come by a
//! tunnel, as every host answers its own workloads' questions: what comes by the device is the kernel's own answer, which is
//! marked as for the host, while others' frames are for somebody behind the bridge.
//!
//! Each device has a chain of its own at its ingress, before the bridge. Such a chain is bound to its device: kernels before
//! 6.16 remove it with that, without a new generation of the ruleset, so a device that was made anew gets its chain anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use sealane_proto::types::{MacAddr, Subnet, Subnet6};

use super::change::Changes;
use super::content::{ChainContent, TableContent};
use super::datum::{
    Datum, FRAME_ARP, FRAME_IP, FRAME_IP6, HOST, KeyType, LISTENER_REPORT, NEIGHBOR_ADVERT, NEIGHBOR_SOLICIT,
    REDIRECT, REPLY, ROUTER_ADVERT, ROUTER_SOLICIT,
};
use super::rule::{Rule, rule};
use super::ruleset::{Chain, Element, Family, Hook, Point, Set, Table, TableName};
use super::selector::{End, Ip, Selector};
use super::sidecar::TABLE;

/// The family of the table that guarded all ports of a network at once. One that an older agent left would drop the
/// frames of new ports.
const FORMER_FAMILY: Family = Family::Bridge;
/// Before whatever else is at a device's ingress.
const PRIORITY: i32 = -200;
/// The chain for packets of tunnels that nobody of the network can have sent.
const FOREIGN: &str = "foreign";
/// The chain for frames that a workload may not send.
const STRANGE: &str = "strange";
/// ICMPv6 behind its first eight bytes: of neighbour discovery, the address that it is about.
const TARGET: Selector = Selector::Transport { offset: 64, length: 128 };

/// The table's name.
pub(super) fn name() -> TableName {
    TableName::new(Family::Netdev, TABLE)
}

/// The addresses that no workload elsewhere has: those of this host's, and those of nobody.
fn local(ip: Ip) -> Set {
    match ip {
        Ip::V4 => Set::of("local", KeyType::IPV4),
        Ip::V6 => Set::of("local6", KeyType::IPV6),
    }
}

const fn source(ip: Ip) -> Selector {
    Selector::Address(ip, End::Source)
}

const fn destination(ip: Ip) -> Selector {
    Selector::Address(ip, End::Destination)
}

const MESSAGE: Selector = Selector::Message(Ip::V6);

/// Port and the frames that may be sent through it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    /// The port's device.
    pub(crate) port: String,
    /// Number of the port.
    pub(crate) index: u32,
    /// The Ethernet address.
    pub(crate) mac: MacAddr,
    /// The IPv4 address.
    pub(crate) address: Ipv4Addr,
    /// The IPv6 address, where the network has such.
    pub(crate) address6: Option<Ipv6Addr>,
}

/// The device that other hosts' frames come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// The device.
    pub(crate) device: String,
    /// Number of the port.
    pub(crate) index: u32,
}

/// The addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// IPv4.
    pub(crate) subnet: Subnet,
    /// IPv6, where it has such.
    pub(crate) subnet6: Option<Subnet6>,
    /// Blocks that are kept for services, disjoint.
    pub(crate) services: BTreeSet<Ipv4Net>,
}

/// The chain of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guarded {
    pub(super) device: String,
    index: u32,
    chain: Chain,
}

impl Guarded {
    fn new(device: &str, index: u32, rules: Vec<Rule>) -> Self {
        let hook = Hook::filter(Point::Ingress(device.to_owned()), PRIORITY).dropping();
        Self { device: device.to_owned(), index, chain: Chain::new(device, rules).at(hook) }
    }
}

impl Tunnel {
    pub(super) fn guarded(&self, addresses: &Addresses) -> Guarded {
        let for_host = || rule().is(Selector::PacketType, HOST);
        let mut rules =
            vec![addresses.between_workloads(), for_host().is(Selector::ArpOperation, REPLY).accept()];
        if let Some(subnet6) = addresses.subnet6 {
            let [low, high] = ends(addresses.subnet).map(|end| IpAddr::V6(subnet6.of_ipv4(end)));
            let discovery = [ROUTER_SOLICIT, ROUTER_ADVERT, NEIGHBOR_SOLICIT, NEIGHBOR_ADVERT, REDIRECT];
            rules.push(for_host().is(MESSAGE, NEIGHBOR_ADVERT).accept());
            rules.push(rule().among(MESSAGE, discovery).go_to(FOREIGN));
            rules.extend(addresses.senders().iter().map(|ends| {
                let [first, last] = ends.map(|end| IpAddr::V6(subnet6.of_ipv4(end)));
                rule()
                    .is(source(Ip::V6), Datum::Range(first, last))
                    .not_in_set(source(Ip::V6), local(Ip::V6).name)
                    .is(destination(Ip::V6), Datum::Range(low, high))
                    .accept()
            }));
        }
        rules.push(rule().go_to(FOREIGN));
        Guarded::new(&self.device, self.index, rules)
    }
}

impl Addresses {
    /// The rule for packets of workloads elsewhere to workloads here, which every packet of a tunnel meets. It compares words
    /// under masks, which the kernel does in its interpreter's loop, while ranges are functions that it calls; sources
    /// that no workload elsewhere has take one lookup together.
    fn between_workloads(&self) -> Rule {
        let (from, to) = (source(Ip::V4), destination(Ip::V4));
        let within = rule().is(from, self.subnet).is(to, self.subnet).not_in_set(from, local(Ip::V4).name);
        let served = self.services.iter().fold(within, |rule, block| rule.differs(from, *block));
        let kept = self.subnet.reserved();
        kept.iter().fold(served, |rule, address| rule.differs(to, address.to_ipv4())).accept()
    }

    /// The ranges of addresses that workloads can have: all but those that are kept for services.
    fn senders(&self) -> Vec<[Ipv4Addr; 2]> {
        let [first, last] = ends(self.subnet).map(Ipv4Addr::to_bits);
        let (mut ranges, mut next) = (vec![], first);
        for range in &self.services {
            let (begin, end) = (range.network().to_bits(), range.broadcast().to_bits());
            if begin > next {
                ranges.push([next, last.min(begin - 1)]);
            }
            next = next.max(end.saturating_add(1));
        }
        if next <= last {
            ranges.push([next, last]);
        }
        ranges.into_iter().map(|ends| ends.map(Ipv4Addr::from_bits)).collect()
    }
}

/// The first and the last address that a workload can have: behind the gateway's, before the broadcast address.
fn ends(subnet: Subnet) -> [Ipv4Addr; 2] {
    let (gateway, broadcast) = (subnet.gateway().to_ipv4(), subnet.to_net().broadcast());
    [gateway.to_bits() + 1, broadcast.to_bits() - 1].map(Ipv4Addr::from_bits)
}

impl Sender {
    /// Returns the addresses of its own.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(self.address.into()), self.address6.map(IpAddr::from)].into_iter().flatten()
    }

    /// The port's chain. ARP (RFC 826) is held to the same addresses by both of its senders, so that nobody answers for
    /// another or for the gateway. Neighbour advertisements (RFC 4861, section 4.4) are about the sender; nobody else
    /// is a router.
    pub(super) fn guarded(&self) -> Guarded {
        let Self { mac, address, .. } = *self;
        let own = || rule().is(Selector::EtherSource, mac);
        let arp = own().is(Selector::ArpSenderMac, mac).is(Selector::ArpSenderAddress, address);
        let mut rules = vec![own().is(source(Ip::V4), address).accept(), arp.accept()];
        if let Some(address) = self.address6 {
            let target = Datum::Number(address.to_bits(), 16);
            rules.push(rule().among(MESSAGE, [ROUTER_ADVERT, REDIRECT]).go_to(STRANGE));
            rules.push(rule().is(MESSAGE, NEIGHBOR_ADVERT).differs(TARGET, target).go_to(STRANGE));
            rules.push(own().is(source(Ip::V6), address).accept());
        }
        rules.push(rule().go_to(STRANGE));
        Guarded::new(&self.port, self.index, rules)
    }
}

/// A device's chain that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    content: ChainContent,
    /// The number of the device that it was bound to; `None` when that was before this agent's time.
    device: Option<u32>,
}

/// The chains that are there, by their devices.
pub(super) type Chains = BTreeMap<String, Known>;

/// Content of the table beside the bare rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GuardTable {
    pub(super) chains: Chains,
    /// The addresses that no workload elsewhere has: those of this host's, and those of nobody.
    pub(super) local: BTreeSet<IpAddr>,
}

impl Known {
    pub(super) fn of(guarded: &Guarded) -> Self {
        Self { content: guarded.chain.content(Family::Netdev), device: Some(guarded.index) }
    }

    fn is(&self, wanted: &Self) -> bool {
        let same_device = self.device.is_none() || self.device == wanted.device;
        self.content == wanted.content && same_device
    }
}

impl GuardTable {
    /// Takes the table apart that the kernel lists; `None` when it is not this one.
    pub(super) fn of(mut listed: TableContent, ipv6: bool) -> Option<Self> {
        let mut there = Self::default();
        for ip in families(ipv6) {
            let rows = listed.take_rows(local(ip).name)?;
            there.local.extend(rows.keys().map(|row| address(row)).collect::<Option<BTreeSet<_>>>()?);
        }
        let (guards, bare) = listed.chains.into_iter().partition(|(_, chain)| chain.hook.is_some());
        listed.chains = bare;
        let guards: BTreeMap<String, ChainContent> = guards;
        there
            .chains
            .extend(guards.into_iter().map(|(device, content)| (device, Known { content, device: None })));
        (listed == bare_table(ipv6).content()).then_some(there)
    }
}

fn address(row: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(row).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(row).ok().map(IpAddr::from))
}

/// The families that a network has.
fn families(ipv6: bool) -> impl Iterator<Item = Ip> {
    [Some(Ip::V4), ipv6.then_some(Ip::V6)].into_iter().flatten()
}

/// The table without its devices. The kernel reports multicast groups before it has an address to do it with (RFC 3810, section 5.2.13,
/// behind a hop-by-hop header): that is no forgery.
fn bare_table(ipv6: bool) -> Table {
    let report = rule().is(MESSAGE, LISTENER_REPORT).drop();
    let kinds = [Some(FRAME_IP), Some(FRAME_ARP), ipv6.then_some(FRAME_IP6)].into_iter().flatten();
    let strange = [
        rule().among(Selector::EtherType, kinds).count_by("spoofed").drop(),
        rule().count_by("unsupported").drop(),
    ];
    let counters = ["spoofed", FOREIGN, "unsupported"];
    let table = counters.into_iter().fold(name().table().comment("guard"), Table::counter);
    families(ipv6)
        .map(local)
        .fold(table, Table::set)
        .chain(Chain::new(FOREIGN, [rule().count_by(FOREIGN).drop()]))
        .chain(Chain::new(STRANGE, ipv6.then_some(report).into_iter().chain(strange)))
}

/// Puts the table, without devices, in the place of what is there.
pub(super) fn replacing(ipv6: bool) -> Changes {
    let mut changes = Changes::default();
    changes.remove(TableName::new(FORMER_FAMILY, TABLE));
    changes.replace(bare_table(ipv6));
    changes
}

/// Gives a device its chain that has none. Nothing goes with it: a transaction that removes something waits until no
/// processor can be reading that any more, which takes longer than all the rest of a port.
pub(super) fn guard(changes: &mut Changes, guarded: &Guarded) {
    changes.add_chain(&name(), guarded.chain.clone());
}

/// The same for a device that may have one.
pub(super) fn guard_anew(changes: &mut Changes, guarded: &Guarded) {
    free(changes, &guarded.device);
    guard(changes, guarded);
}

/// Makes the addresses that no workload elsewhere has `to`, which were `from`.
pub(super) fn localise(changes: &mut Changes, from: &BTreeSet<IpAddr>, to: &BTreeSet<IpAddr>) {
    for ip in Ip::ALL {
        let only = |a: &BTreeSet<IpAddr>, b: &BTreeSet<IpAddr>| -> Vec<Element> {
            let of_family = a.difference(b).filter(|address| address.is_ipv4() == (ip == Ip::V4));
            of_family.map(|address| Element::of(*address)).collect()
        };
        changes.remove_elements(&name(), &local(ip), only(from, to));
        changes.add_elements(&name(), &local(ip), only(to, from));
    }
}

/// Removes the device's chain, whether it is there or not.
pub(super) fn free(changes: &mut Changes, device: &str) {
    changes.remove_any_chain(&name(), device);
}

/// The devices whose chains are not those that they should be.
pub(super) fn wrong<'a>(there: &Chains, wanted: &'a [Guarded]) -> Vec<&'a Guarded> {
    let is_right =
        |guarded: &Guarded| there.get(&guarded.device).is_some_and(|chain| chain.is(&Known::of(guarded)));
    wanted.iter().filter(|guarded| !is_right(guarded)).collect()
}

/// Any chain of either kind, on a device that every namespace has.
pub(super) fn examples(addresses: &Addresses) -> Changes {
    let (device, index) = ("lo".to_owned(), 1);
    let sender = Sender {
        port: device.clone(),
        index,
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        address: Ipv4Addr::new(10, 0, 0, 2),
        address6: addresses.subnet6.map(|_| Ipv6Addr::LOCALHOST),
    };
    let mut changes = replacing(addresses.subnet6.is_some());
    localise(&mut changes, &BTreeSet::new(), &sender.addresses().collect());
    guard(&mut changes, &sender.guarded());
    guard_anew(&mut changes, &Tunnel { device, index }.guarded(addresses));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_have_any_address_but_those_that_are_kept_for_services() {
        let check = |services: &[&str], expected: &[[&str; 2]]| {
            let addresses = Addresses {
                subnet: "10.42.0.0/16".parse().unwrap(),
                subnet6: Some("fd42::/64".parse().unwrap()),
                services: services.iter().map(|range| range.parse().unwrap()).collect(),
            };
            let tunnel = Tunnel { device: "vxlan0".to_owned(), index: 3 };
            let rules = tunnel.guarded(&addresses).chain.rules;
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            let ranges = addresses.senders();
            assert_eq!(
                ranges,
                expected
                    .iter()
                    .map(|ends| ends.map(|end| end.parse().unwrap()))
                    .collect::<Vec<[Ipv4Addr; 2]>>(),
                "{services:?}"
            );
            let ranged = rules.iter().filter(|rule| rule.contains("ip6 saddr fd42::"));
            assert_eq!(ranged.count(), ranges.len(), "{rules:?}");
            let blocks: String = services.iter().map(|block| format!(" ip saddr != {block}")).collect();
            assert_eq!(
                rules[0],
                format!(
                    "ip saddr 10.42.0.0/16 ip daddr 10.42.0.0/16 ip saddr != @local{blocks} \
                     ip daddr != 10.42.0.0 ip daddr != 10.42.0.1 ip daddr != 10.42.255.255 accept"
                )
            );
        };
        let all = ["10.42.0.2", "10.42.255.254"];
        check(&[], &[all]);
        check(&["10.42.255.0/24"], &[["10.42.0.2", "10.42.254.255"]]);
        check(&["10.42.254.0/24", "10.42.255.0/24"], &[["10.42.0.2", "10.42.253.255"]]);
        check(&["10.42.7.0/24"], &[["10.42.0.2", "10.42.6.255"], ["10.42.8.0", all[1]]]);
        check(&["10.42.0.0/24"], &[["10.42.1.0", all[1]]]);
        check(&["10.42.0.0/16"], &[]);
        let all_but_the_last = [
            "10.42.0.0/17",
            "10.42.128.0/18",
            "10.42.192.0/19",
            "10.42.224.0/20",
            "10.42.240.0/21",
            "10.42.248.0/22",
            "10.42.252.0/23",
            "10.42.254.0/24",
            "10.42.255.0/25",
            "10.42.255.128/26",
            "10.42.255.192/27",
            "10.42.255.224/28",
            "10.42.255.240/29",
            "10.42.255.248/30",
            "10.42.255.252/31",
        ];
        check(&all_but_the_last, &[[all[1]; 2]]);
    }

    fn sender(last: u8, index: u32) -> Sender {
        let port = format!("w{last:012x}");
        let mac = MacAddr::new([2, 0, 0, 0, 0, last]);
        Sender { port, index, mac, address: Ipv4Addr::new(10, 42, 0, last), address6: None }
    }

    fn guarded(senders: &[Sender]) -> Vec<Guarded> {
        senders.iter().map(Sender::guarded).collect()
    }

    /// As the kernel has the table with these ports' chains.
    fn listed(senders: &[Sender], local: &[&str]) -> TableContent {
        let chains = guarded(senders).into_iter().map(|guarded| guarded.chain);
        let mut content = chains.fold(bare_table(true), Table::chain).content();
        for row in local.iter().map(|row| row.parse().unwrap()) {
            let set = if matches!(row, IpAddr::V4(_)) { "local" } else { "local6" };
            content
                .sets
                .get_mut(set)
                .unwrap()
                .rows
                .insert(super::super::datum::octets(row), Default::default());
        }
        content
    }

    #[test]
    fn what_the_kernel_lists_is_read_back() {
        let six = Sender { address6: "fd42::a2a:b".parse().ok(), ..sender(11, 5) };
        let senders = [sender(10, 4), six];
        let rows = ["10.42.0.10", "10.42.0.11", "fd42::a2a:b"];
        let there = GuardTable::of(listed(&senders, &rows), true).unwrap();
        assert_eq!(there.chains.len(), 2);
        assert_eq!(there.local, rows.map(|row| row.parse().unwrap()).into());
        assert!(wrong(&there.chains, &guarded(&senders)).is_empty());
        let other = guarded(&[sender(10, 4), sender(11, 5), sender(12, 6)]);
        let ports = |wrong: Vec<&Guarded>| wrong.iter().map(|one| one.index).collect::<Vec<_>>();
        assert_eq!(ports(wrong(&there.chains, &other)), [5, 6]);
        assert_eq!(GuardTable::of(listed(&[], &[]), true), Some(GuardTable::default()));
        assert_eq!(GuardTable::of(TableContent::default(), true), None);
    }

    #[test]
    fn a_rule_more_or_less_is_seen() {
        let senders = [sender(10, 4)];
        let listed = listed(&senders, &[]);
        let accept = Chain::new("any", [rule().accept()]).content(Family::Netdev).rules;
        let mut more = listed.clone();
        more.chains.get_mut(&senders[0].port).unwrap().rules.extend(accept.clone());
        assert_eq!(wrong(&GuardTable::of(more, true).unwrap().chains, &guarded(&senders)).len(), 1);
        let mut more = listed.clone();
        more.chains.get_mut(STRANGE).unwrap().rules.extend(accept);
        assert_eq!(GuardTable::of(more, true), None);
        assert_eq!(GuardTable::of(listed, false), None);
    }

    #[test]
    fn a_device_made_anew_is_guarded_anew() {
        let there = Chains::from([(sender(10, 4).port, Known::of(&sender(10, 4).guarded()))]);
        assert!(wrong(&there, &guarded(&[sender(10, 4)])).is_empty());
        assert_eq!(wrong(&there, &guarded(&[sender(10, 9)])).len(), 1);
    }

    #[test]
    fn addresses_of_this_hosts_workloads_are_changed_by_their_differences() {
        let set = |addresses: &[&str]| addresses.iter().map(|text| text.parse().unwrap()).collect();
        let (from, to) = (set(&["10.42.0.9", "fd42::a2a:9"]), set(&["10.42.0.9", "10.42.0.10"]));
        let mut changes = Changes::default();
        localise(&mut changes, &from, &to);
        assert_eq!(
            changes.to_string(),
            "add element netdev sealane local { 10.42.0.10 }\ndelete element netdev sealane local6 { fd42::a2a:9 }\n"
        );
    }
}
