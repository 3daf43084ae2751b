//! The gate of a host's tunnels: a VXLAN packet of a network enters only from a host that carries the network. Pure.
//!
//! VXLAN itself (RFC 7348, section 7) takes frames from whoever can send UDP to a host. Every agent has a table of its own,
//! which judges the VNIs of its networks and no others: the port may serve other VXLANs as well.
//!
//! What is for the host itself is judged on the input hook, before every other table: by then IPv4 fragments are one packet
//! again. Of IPv6 ones the first alone has a UDP header, and without a VNI behind it is refused. What the host forwards is
//! judged alike: a container's packets would get the host's own address on their way out.
//!
//! What a host of the network sends by the underlay's device is told by one lookup of its VNI and source together; only what
//! comes another way, or is refused, is asked further.

pub(crate) mod lengths;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sealane_proto::types::{IpFamily, NetworkName, Vni};

use super::change::Changes;
use super::content::TableContent;
use super::datum::{Datum, KeyType, MISSING, octets};
use super::expression::Verdict;
use super::rule::{Rule, rule};
use super::ruleset::{Chain, Element, Family, Hook, Point, Set, Table, TableName};
use super::selector::{End, Ip, Selector};

/// The counter of packets with the address of somebody who is elsewhere.
const FORGED: &str = "forged";
/// The counter of packets without a VNI.
const MALFORMED: &str = "malformed";
const TUNNELS: &str = "tunnels";
const ORIGIN: &str = "origin";
/// Priority of `raw`: before conntrack and every usual table.
const PRIORITY: i32 = -300;
/// Kinds of devices behind which containers, virtual machines and other overlays are, or the underlay itself; not those of a
/// second way to the network beneath (bond, team, vlan).
const VIRTUAL: [&str; 13] = [
    "bridge",
    "veth",
    "tun",
    "netkit",
    "vxlan",
    "geneve",
    "wireguard",
    "gretap",
    "gre",
    "ipip",
    "sit",
    "ip6tnl",
    "ipvlan",
];
/// The VNI in the VXLAN header, alone and with the reserved byte behind it, which is zero; and that byte.
const VNI: Selector = Selector::Transport { offset: 96, length: 24 };
const VNI_AND_RESERVED: Selector = Selector::Transport { offset: 96, length: 32 };
const RESERVED: Selector = Selector::Transport { offset: 120, length: 8 };

/// The permitted senders by network: the VNI with the reserved byte behind it, then the address.
fn carriers(ip: Ip) -> Set {
    let name = match ip {
        Ip::V4 => "carriers",
        Ip::V6 => "carriers6",
    };
    Set { keys: vec![KeyType::MARK, ip.address()], ..Set::of(name, KeyType::MARK) }
}

/// Permissions of senders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// The UDP port of the tunnels.
    pub(crate) port: u16,
    /// The devices with the underlay addresses, once they are known: who sends by them is a neighbour beneath, not a container,
    /// and the way back is not asked for.
    pub(crate) devices: Option<GateDevices>,
    /// The networks by their names, and the hosts' echoes.
    pub(crate) tunnels: BTreeMap<Carried, Carriers>,
}

/// Numbers of the devices by which packets of IPv4 and IPv6 come in: one device has both underlay addresses, mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GateDevices {
    v4: u32,
    v6: u32,
}

/// Purpose of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Carried {
    /// Carries a network.
    Network(NetworkName),
    /// Carries the echoes of hosts.
    Echo,
}

impl GateDevices {
    /// The device of the main family, and that of the other one where the host has an address of it.
    pub(crate) fn new(main: IpFamily, device: u32, other: Option<u32>) -> Self {
        let other = other.unwrap_or(device);
        match main {
            IpFamily::V4 => Self { v4: device, v6: other },
            IpFamily::V6 => Self { v4: other, v6: device },
        }
    }

    fn of(self, ip: Ip) -> Datum {
        Datum::Index(match ip {
            Ip::V4 => self.v4,
            Ip::V6 => self.v6,
        })
    }
}

impl Carried {
    /// The network's name; empty for echoes.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Network(name) => name.as_str(),
            Self::Echo => "",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        if name.is_empty() { Some(Self::Echo) } else { name.parse().ok().map(Self::Network) }
    }
}

/// The other hosts that send into a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carriers {
    /// The tunnel's number.
    pub(crate) vni: Vni,
    /// Underlay addresses of its hosts.
    pub(crate) hosts: BTreeSet<IpAddr>,
}

/// Reasons for which packets were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The sender is no host of this network, or none that sends echoes.
    Stranger(Carried),
    /// The sender's address is not where the packets came from.
    Forged,
    /// The packets have no VNI.
    Malformed,
}

impl Refused {
    /// The reason of a counter.
    pub(crate) fn of_counter(name: &str) -> Option<Self> {
        match name {
            FORGED => Some(Self::Forged),
            MALFORMED => Some(Self::Malformed),
            name => Place::parse(name, "strangers").map(|(_, tunnel)| Self::Stranger(tunnel)),
        }
    }
}

/// Mark of a tunnel on its objects: its number and its network's name.
struct Place<'a>(&'a Carried, Vni);

impl Place<'_> {
    fn name(&self, what: &str) -> String {
        format!("{what}-{:06x}-{}", self.1.get(), self.0.as_str())
    }

    fn chain(&self) -> String {
        self.name("network")
    }

    fn counter(&self) -> String {
        self.name("strangers")
    }

    fn parse(name: &str, what: &str) -> Option<(Vni, Carried)> {
        let (vni, network) = name.strip_prefix(what)?.strip_prefix('-')?.split_once('-')?;
        let vni = u32::from_str_radix(vni, 16).ok().and_then(|vni| Vni::try_from(vni).ok())?;
        Some((vni, Carried::parse(network)?))
    }

    fn strangers(&self) -> Chain {
        Chain::new(self.chain(), [rule().count_by(&self.counter()).drop()])
    }
}

/// Reads the network and its sender from a set's key.
fn carrier_of(key: &[u8]) -> Option<(Vni, IpAddr)> {
    let (&[a, b, c, 0], host) = key.split_first_chunk::<4>()? else { return None };
    let v4 = <[u8; 4]>::try_from(host).ok().map(IpAddr::from);
    let host = v4.or_else(|| <[u8; 16]>::try_from(host).ok().map(IpAddr::from))?;
    Some((Vni::try_from(u32::from_be_bytes([0, a, b, c])).ok()?, host))
}

fn element_of(vni: Vni, host: IpAddr) -> Element {
    // Bytes of the packet, which nft shows as a number of the host's order.
    let header = u32::from_ne_bytes((vni.get() << 8).to_be_bytes());
    Element { key: vec![Datum::Mark(header), host.into()], verdict: None }
}

/// The tunnels of a table that is there, with those who may send.
pub(crate) fn tunnels_of(mut listed: TableContent) -> BTreeMap<Carried, Carriers> {
    tunnels_in(&mut listed)
}

/// Takes the rows of those who may send out of the table.
fn tunnels_in(listed: &mut TableContent) -> BTreeMap<Carried, Carriers> {
    let rows = Ip::ALL.map(|ip| listed.take_rows(carriers(ip).name).unwrap_or_default());
    let mut hosts: BTreeMap<Vni, BTreeSet<IpAddr>> = BTreeMap::new();
    for (vni, host) in rows.iter().flat_map(BTreeMap::keys).filter_map(|key| carrier_of(key)) {
        hosts.entry(vni).or_default().insert(host);
    }
    let places = listed.chains.keys().filter_map(|chain| Place::parse(chain, "network"));
    let carriers = |vni: Vni| Carriers { vni, hosts: hosts.get(&vni).cloned().unwrap_or_default() };
    places.map(|(vni, tunnel)| (tunnel, carriers(vni))).collect()
}

impl Gate {
    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.tunnels.iter().map(|(tunnel, carriers)| Place(tunnel, carriers.vni))
    }

    /// The chain of tunnels: those who may send and come by the underlay's device; the origin of all others; those who may
    /// send; then the way to the networks' own chains, a map, when there are any; what has a VNI then goes its way.
    fn tunnels(&self) -> Chain {
        let known = Ip::ALL.map(|ip| {
            let sender = [VNI_AND_RESERVED, Selector::Address(ip, End::Source)];
            rule().are_in(&sender, carriers(ip).name)
        });
        let mut rules = Vec::new();
        let elsewhere = match self.devices {
            Some(devices) => {
                let by_device = Ip::ALL.into_iter().zip(known.clone());
                rules.extend(by_device.map(|(ip, rule)| rule.is(Selector::Input, devices.of(ip)).accept()));
                let second = Some(devices.of(Ip::V6)).filter(|_| devices.v4 != devices.v6);
                let first = rule().differs(Selector::Input, devices.of(Ip::V4));
                second.into_iter().fold(first, |rule, device| rule.differs(Selector::Input, device))
            }
            None => rule(),
        };
        rules.push(elsewhere.visit(ORIGIN));
        rules.extend(known.map(Rule::accept));
        let ways = self.places().map(|place| {
            let vni = Datum::Number(place.1.get().into(), 3);
            (vni, Verdict::Goto(place.chain()))
        });
        let ways: Vec<_> = ways.collect();
        rules.extend((!ways.is_empty()).then(|| rule().mapped(VNI, ways)));
        // The byte is there, and another.
        rules.push(rule().differs(RESERVED, Datum::Number(0xff, 1)).leave());
        rules.push(rule().count_by(MALFORMED).drop());
        Chain::new(TUNNELS, rules)
    }

    /// The table, without those who may send.
    pub(crate) fn table(&self, name: TableName) -> Table {
        let forged = VIRTUAL.map(|kind| {
            let elsewhere = rule().is(Selector::InputKind, kind).is(Selector::WayBack, MISSING);
            elsewhere.count_by(FORGED).drop()
        });
        let entry = |chain: &str, point, others: Vec<Rule>| {
            let rule = rule().is(Selector::UdpPort(End::Destination), self.port).go_to(TUNNELS);
            Chain::new(chain, [rule].into_iter().chain(others)).at(Hook::filter(point, PRIORITY))
        };
        let counters = self.places().map(|place| place.counter());
        let fixed = [FORGED, MALFORMED, lengths::LENGTHS].map(str::to_owned);
        let counters = fixed.into_iter().chain(counters);
        let table = counters.fold(name.table(), |table, counter| table.counter(&counter));
        let fixed = Ip::ALL
            .map(carriers)
            .into_iter()
            .chain(Ip::ALL.map(lengths::peers))
            .fold(table, Table::set)
            .chain(Chain::new(ORIGIN, forged))
            .chain(self.tunnels())
            .chain(entry("input", Point::Input, lengths::entries().to_vec()))
            .chain(entry("forward", Point::Forward, Vec::new()));
        let fixed = lengths::chains(self.port).into_iter().fold(fixed, Table::chain);
        self.places().fold(fixed, |table, place| table.chain(place.strangers()))
    }

    /// Returns the gate that is there, when it is one of the port and device of `made` and nothing else.
    pub(crate) fn read(mut listed: TableContent, made: &Self) -> Option<Self> {
        let tunnels = tunnels_in(&mut listed);
        let mut peers = BTreeSet::new();
        for ip in Ip::ALL {
            let rows = listed.take_rows(lengths::peers(ip).name).unwrap_or_default();
            peers.extend(rows.into_keys());
        }
        let found = Self { tunnels, port: made.port, devices: made.devices };
        let asked = found.tunnels.get(&Carried::Echo).map(|echo| &echo.hosts);
        let asked: BTreeSet<_> = asked.into_iter().flatten().map(|host| octets(*host)).collect();
        let name = TableName::new(Family::Inet, "");
        (peers == asked && found.table(name).content() == listed).then_some(found)
    }

    /// The changes that put the table in the place of what is there.
    pub(crate) fn replacement(&self, name: &TableName) -> Changes {
        let mut changes = Changes::default();
        changes.replace(self.table(name.clone()));
        for (tunnel, carriers) in &self.tunnels {
            change_hosts(&mut changes, name, &Place(tunnel, carriers.vni), &BTreeSet::new(), &carriers.hosts);
        }
        changes
    }

    /// The changes that lead from the table as it is known to be to this one.
    pub(crate) fn difference(&self, name: &TableName, known: &Self) -> Changes {
        if (known.port, known.devices) != (self.port, self.devices) {
            return self.replacement(name);
        }
        let mut changes = Changes::default();
        let of = |gate: &Self, tunnel: &Carried, vni: Vni| {
            gate.tunnels.get(tunnel).filter(|other| other.vni == vni).cloned()
        };
        let gone: Vec<_> =
            known.tunnels.iter().filter(|(name, there)| of(self, name, there.vni).is_none()).collect();
        let mut others = !gone.is_empty();
        for (tunnel, wanted) in &self.tunnels {
            let (place, there) = (Place(tunnel, wanted.vni), of(known, tunnel, wanted.vni));
            let from = there.as_ref().map(|there| there.hosts.clone()).unwrap_or_default();
            if there.is_none() {
                others = true;
                changes.add_counter(name, place.counter());
                changes.add_chain(name, place.strangers());
            }
            change_hosts(&mut changes, name, &place, &from, &wanted.hosts);
        }
        if others {
            changes.refill_chain(name, self.tunnels());
        }
        for (tunnel, carriers) in gone {
            let place = Place(tunnel, carriers.vni);
            change_hosts(&mut changes, name, &place, &carriers.hosts, &BTreeSet::new());
            changes.remove_chain(name, &place.chain());
            changes.remove_counter(name, place.counter());
        }
        changes
    }
}

fn change_hosts(
    changes: &mut Changes,
    name: &TableName,
    place: &Place<'_>,
    from: &BTreeSet<IpAddr>,
    to: &BTreeSet<IpAddr>,
) {
    for ip in Ip::ALL {
        let only = |a: &BTreeSet<IpAddr>, b: &BTreeSet<IpAddr>| -> Vec<IpAddr> {
            a.difference(b).filter(|host| host.is_ipv4() == (ip == Ip::V4)).copied().collect()
        };
        let (gone, new) = (only(from, to), only(to, from));
        let senders = |hosts: &[IpAddr]| hosts.iter().map(|host| element_of(place.1, *host)).collect();
        changes.remove_elements(name, &carriers(ip), senders(&gone));
        changes.add_elements(name, &carriers(ip), senders(&new));
        if *place.0 == Carried::Echo {
            let peers = lengths::peers(ip);
            let peer = |host: IpAddr| Element { key: vec![host.into()], verdict: None };
            changes.remove_elements(name, &peers, gone.into_iter().map(peer).collect());
            changes.add_elements(name, &peers, new.into_iter().map(peer).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(networks: &[(&str, u32, &[&str])]) -> Gate {
        let tunnels = networks.iter().map(|(name, vni, hosts)| {
            let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
            (Carried::parse(name).unwrap(), Carriers { vni: Vni::try_from(*vni).unwrap(), hosts })
        });
        Gate { port: 4789, devices: None, tunnels: tunnels.collect() }
    }

    fn numbers(changes: &Changes) -> Vec<u8> {
        changes.transaction().messages().iter().map(|(verb, _)| verb.number).collect()
    }

    fn name() -> TableName {
        TableName::new(Family::Inet, "t")
    }

    fn rules(gate: &Gate) -> TableContent {
        gate.table(name()).content()
    }

    #[test]
    fn a_host_more_or_less_changes_nothing_but_its_element() {
        let before = gate(&[("shop", 7, &["192.0.2.2", "192.0.2.3"]), ("lab", 8, &["2001:db8::1"])]);
        let after = gate(&[("shop", 7, &["192.0.2.2", "192.0.2.4"]), ("lab", 8, &["2001:db8::1"])]);
        assert_eq!(numbers(&after.difference(&name(), &before)), [14, 12]);
        assert!(after.difference(&name(), &after).is_empty());
        assert_eq!(rules(&before), rules(&after));
    }

    #[test]
    fn a_network_that_goes_leaves_nothing_and_one_with_another_number_is_another() {
        let (one, none) = (gate(&[("shop", 7, &["192.0.2.2"])]), gate(&[]));
        // The chain of those who may send and of the ways, then the network's hosts, its rules and chain, its counter.
        assert_eq!(numbers(&none.difference(&name(), &one)), [8, 6, 6, 6, 6, 6, 14, 8, 5, 20]);
        let other = gate(&[("shop", 9, &["192.0.2.2"])]);
        let change = numbers(&other.difference(&name(), &one));
        assert!(change.starts_with(&[18, 3, 6, 12]) && change.ends_with(&[14, 8, 5, 20]), "{change:?}");
        assert_ne!(rules(&one), rules(&other));
        // Who sends into a network that comes is let in, whatever was there before.
        assert_eq!(numbers(&one.difference(&name(), &none)), [18, 3, 6, 12, 8, 6, 6, 6, 9, 12, 6, 6, 6]);
        assert!(one.replacement(&name()).to_string().contains("192.0.2.2"));
        let elsewhere = Gate { port: 14789, ..one.clone() };
        assert_eq!(elsewhere.difference(&name(), &one), elsewhere.replacement(&name()));
        let moved = Gate { devices: Some(GateDevices::new(IpFamily::V4, 2, None)), ..one.clone() };
        assert_eq!(moved.difference(&name(), &one), moved.replacement(&name()));
        assert_ne!(rules(&moved), rules(&one));
        let each = |main| Ip::ALL.map(|ip| GateDevices::new(main, 2, Some(3)).of(ip));
        assert_eq!(each(IpFamily::V4), [2, 3].map(Datum::Index));
        assert_eq!(each(IpFamily::V6), [3, 2].map(Datum::Index));
        let two = Gate { devices: Some(GateDevices::new(IpFamily::V6, 2, Some(3))), ..one.clone() };
        let same = Gate { devices: Some(GateDevices { v4: 3, v6: 2 }), ..one.clone() };
        assert_eq!((rules(&two), two.difference(&name(), &moved)), (rules(&same), two.replacement(&name())));
    }

    #[test]
    fn the_gate_is_read_back_with_those_who_may_send() {
        let echo = ("", Vni::ECHO.get(), &["192.0.2.3"][..]);
        let wanted = gate(&[("shop", 7, &["192.0.2.2", "2001:db8::1"]), ("lab", 8, &[]), echo]);
        let mut listed = rules(&wanted);
        let seven = Vni::try_from(7).unwrap();
        for (vni, host) in [(seven, "192.0.2.2"), (seven, "2001:db8::1"), (Vni::ECHO, "192.0.2.3")] {
            let host: IpAddr = host.parse().unwrap();
            let set = carriers(if host.is_ipv4() { Ip::V4 } else { Ip::V6 });
            let row = element_of(vni, host).row(&set);
            listed.sets.get_mut(set.name).unwrap().rows.extend([row]);
        }
        assert_eq!(Gate::read(listed.clone(), &wanted), None, "the hosts of echoes are missing");
        let peers = lengths::peers(Ip::V4);
        let peer = Element { key: vec![Datum::Address("192.0.2.3".parse().unwrap())], verdict: None };
        listed.sets.get_mut(peers.name).unwrap().rows.extend([peer.row(&peers)]);
        assert_eq!(tunnels_of(listed.clone()), wanted.tunnels);
        assert_eq!(Gate::read(listed.clone(), &wanted), Some(wanted.clone()));
        assert_eq!(Gate::read(listed.clone(), &Gate { port: 14789, ..wanted.clone() }), None);
        listed.chains.get_mut(TUNNELS).unwrap().rules.pop();
        assert_eq!(Gate::read(listed, &wanted), None);
    }

    #[test]
    fn a_key_tells_who_sends_into_what() {
        for host in ["192.0.2.2", "2001:db8::2"].map(|host| host.parse().unwrap()) {
            let (key, _) = element_of(Vni::FIRST, host).row(&carriers(Ip::V4));
            assert_eq!(
                (key[..4].to_vec(), carrier_of(&key)),
                (vec![0x10, 0, 0, 0], Some((Vni::FIRST, host)))
            );
        }
        for other in [&[][..], &[0x10, 0, 0, 1, 192, 0, 2, 2], &[0x10, 0, 0, 0, 192, 0, 2]] {
            assert_eq!(carrier_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn names_tell_what_belongs_to_which_network() {
        for (tunnel, vni) in [("shop-2", Vni::FIRST), ("", Vni::ECHO)] {
            let tunnel = Carried::parse(tunnel).unwrap();
            let place = Place(&tunnel, vni);
            assert_eq!(Place::parse(&place.chain(), "network"), Some((vni, tunnel.clone())));
            assert_eq!(Refused::of_counter(&place.counter()), Some(Refused::Stranger(tunnel.clone())));
        }
        assert_eq!(Refused::of_counter(FORGED), Some(Refused::Forged));
        assert_eq!(Refused::of_counter(MALFORMED), Some(Refused::Malformed));
        for other in ["input", "network-", "network-zz-shop", "network-1000000-shop", "strangers-100000-Shop"]
        {
            assert_eq!((Place::parse(other, "network"), Refused::of_counter(other)), (None, None), "{other}");
        }
    }
}
