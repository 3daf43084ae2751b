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

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sealane_proto::types::{NetworkName, Vni};

use super::expression::{Family, Rule, octets};
use super::writer::{Hook, NLM_F_CREATE, Writer, element, fingerprint};
use crate::netlink::netfilter::Transaction;

/// The counter of packets with the address of somebody who is elsewhere.
const FORGED: &str = "forged";
/// The counter of packets without a VNI.
const MALFORMED: &str = "malformed";
const TUNNELS: &str = "tunnels";
const ORIGIN: &str = "origin";
/// NF_INET_LOCAL_IN and NF_INET_FORWARD of linux/netfilter.h.
const HOOKS: [(&str, u32); 2] = [("input", 1), ("forward", 2)];
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
/// Sets of permitted senders by network: the VNI with the reserved byte behind it, then the address.
const SETS: [(Family, &str); 2] = [(Family::V4, "carriers"), (Family::V6, "carriers6")];
/// nft's number for the type of the first part of those keys: `mark`, four bytes.
const MARK: u32 = 19;
/// Number of bits by which nft shifts the types of a key's parts.
const TYPE_BITS: u32 = 6;
/// Offset of the VNI in the VXLAN header with its last, reserved byte, which is zero: from the beginning of UDP's, in
/// bytes; and its length.
const VNI: [u32; 2] = [12, 3];
const RESERVED: u32 = 15;
const ANONYMOUS_MAP: u32 = 1 | 2 | 8; // NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_MAP
const INTEGER: u32 = 4;
const VERDICTS: u32 = 0xffff_ff00;

/// Permissions of senders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// The UDP port of the tunnels.
    pub(crate) port: u16,
    /// Number of the device with the underlay address, once it is known: who sends by it is a neighbour beneath, not a container,
    /// and the way back is not asked for.
    pub(crate) device: Option<u32>,
    /// The networks by their names.
    pub(crate) networks: BTreeMap<NetworkName, Carriers>,
}

/// The other hosts that carry a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carriers {
    /// The network's number.
    pub(crate) vni: Vni,
    /// Underlay addresses of its hosts.
    pub(crate) hosts: BTreeSet<IpAddr>,
}

/// Reasons for which packets were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The sender is no host of this network.
    Stranger(NetworkName),
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
            name => Place::parse(name, "strangers").map(|(_, network)| Self::Stranger(network)),
        }
    }
}

/// Mark of a network on its objects: its number and its name.
struct Place<'a>(&'a NetworkName, Vni);

impl Place<'_> {
    fn name(&self, what: &str) -> String {
        format!("{what}-{:06x}-{}", self.1.get(), self.0)
    }

    fn chain(&self) -> String {
        self.name("network")
    }

    fn counter(&self) -> String {
        self.name("strangers")
    }

    fn parse(name: &str, what: &str) -> Option<(Vni, NetworkName)> {
        let (vni, network) = name.strip_prefix(what)?.strip_prefix('-')?.split_once('-')?;
        let vni = u32::from_str_radix(vni, 16).ok().and_then(|vni| Vni::try_from(vni).ok())?;
        Some((vni, network.parse().ok()?))
    }

    fn rule(&self) -> Rule {
        Rule::default().count(&self.counter()).drop()
    }
}

/// The network of a chain of the table.
pub(crate) fn network_of(chain: &str) -> Option<(Vni, NetworkName)> {
    Place::parse(chain, "network")
}

/// The names of the sets of those who may send.
pub(crate) fn sets() -> [&'static str; 2] {
    SETS.map(|(_, set)| set)
}

/// Reads the network and its sender from a set's key.
pub(crate) fn carrier_of(key: &[u8]) -> Option<(Vni, IpAddr)> {
    let (&[a, b, c, 0], host) = key.split_first_chunk::<4>()? else { return None };
    let v4 = <[u8; 4]>::try_from(host).ok().map(IpAddr::from);
    let host = v4.or_else(|| <[u8; 16]>::try_from(host).ok().map(IpAddr::from))?;
    Some((Vni::try_from(u32::from_be_bytes([0, a, b, c])).ok()?, host))
}

fn key_of(vni: Vni, host: IpAddr) -> Vec<u8> {
    [&(vni.get() << 8).to_be_bytes(), octets(host).as_slice()].concat()
}

/// The rules of the chain of tunnels, in their order.
struct TunnelRules {
    judged: Vec<Rule>,
    map: Option<Rule>,
    rest: [Rule; 2],
}

impl Gate {
    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.networks.iter().map(|(network, carriers)| Place(network, carriers.vni))
    }

    /// The rules of the chains around that of tunnels, the same for every network.
    fn fixed_rules(&self) -> Vec<(&'static str, Rule)> {
        let entries = HOOKS.map(|(chain, _)| (chain, Rule::default().datagram_to(self.port).go_to(TUNNELS)));
        let forged =
            VIRTUAL.map(|kind| Rule::default().comes_by(kind).source_is_elsewhere().count(FORGED).drop());
        entries.into_iter().chain(forged.map(|rule| (ORIGIN, rule))).collect()
    }

    /// The chain of tunnels: those who may send and come by the underlay's device; the origin of all others; those who may
    /// send; then the way to the networks' own chains, a map, when there are any; what has a VNI then goes its way.
    fn tunnels(&self, map: u32) -> TunnelRules {
        let known = SETS.map(|(family, set)| Rule::default().header_and_source_in(VNI[0], family, set));
        let mut judged = Vec::new();
        let elsewhere = match self.device {
            Some(device) => {
                judged.extend(known.clone().map(|rule| rule.comes_by_device(device).accept()));
                Rule::default().comes_not_by(device)
            }
            None => Rule::default(),
        };
        judged.push(elsewhere.visit(ORIGIN));
        judged.extend(known.map(Rule::accept));
        let mapped = Rule::default().header_mapped_by(VNI, "__map%d", map);
        let foreign = Rule::default().header_byte_is_not(RESERVED, 0xff).leave();
        let malformed = Rule::default().count(MALFORMED).drop();
        let map = (!self.networks.is_empty()).then_some(mapped);
        TunnelRules { judged, map, rest: [foreign, malformed] }
    }

    /// The map's rule says everything that the map does.
    fn name_of_map(&self) -> String {
        let ways: Vec<String> = self.places().map(|place| place.chain()).collect();
        format!("{:08x}", crc32fast::hash(ways.join(" ").as_bytes()))
    }

    /// The rules of every chain, by fingerprints in their order.
    pub(crate) fn fingerprints(&self) -> BTreeMap<String, Vec<String>> {
        let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (chain, rule) in self.fixed_rules() {
            chains.entry(chain.to_owned()).or_default().push(fingerprint(&rule));
        }
        let TunnelRules { judged, map, rest } = self.tunnels(0);
        let map = map.map(|_| self.name_of_map());
        let tunnels = judged.iter().map(fingerprint).chain(map).chain(rest.iter().map(fingerprint));
        chains.insert(TUNNELS.to_owned(), tunnels.collect());
        for place in self.places() {
            chains.insert(place.chain(), vec![fingerprint(&place.rule())]);
        }
        chains
    }

    /// The transaction that puts the table in the place of what is there.
    pub(crate) fn replacement(&self, table: &str) -> Transaction {
        let mut writer = Writer::replacing(table);
        writer.counter(FORGED);
        writer.counter(MALFORMED);
        for chain in [ORIGIN, TUNNELS] {
            writer.chain(chain, None);
        }
        for (chain, number) in HOOKS {
            writer.chain(chain, Some(&Hook { kind: "filter", number, priority: PRIORITY }));
        }
        for (family, set) in SETS {
            let Family { kind, length, .. } = family;
            writer.set(set, (MARK << TYPE_BITS) | kind, 4 + length);
        }
        for (chain, rule) in self.fixed_rules() {
            writer.rule(chain, &rule);
        }
        for (network, carriers) in &self.networks {
            writer.add_network(network, carriers);
        }
        writer.lead(self);
        writer.done()
    }

    /// The transaction that leads from the table as it is known to be to this one.
    pub(crate) fn difference(&self, table: &str, known: &Self) -> Transaction {
        if (known.port, known.device) != (self.port, self.device) {
            return self.replacement(table);
        }
        let mut writer = Writer::of(table);
        let of = |gate: &Self, network: &NetworkName, vni: Vni| {
            gate.networks.get(network).filter(|other| other.vni == vni).cloned()
        };
        let gone: Vec<_> =
            known.networks.iter().filter(|(name, there)| of(self, name, there.vni).is_none()).collect();
        let mut others = !gone.is_empty();
        for (network, wanted) in &self.networks {
            match of(known, network, wanted.vni) {
                None => {
                    others = true;
                    writer.add_network(network, wanted);
                }
                Some(there) => writer.change_hosts(&Place(network, wanted.vni), &there.hosts, &wanted.hosts),
            }
        }
        if others {
            writer.flush_chain(TUNNELS);
            writer.lead(self);
        }
        for (network, carriers) in gone {
            let place = Place(network, carriers.vni);
            writer.change_hosts(&place, &carriers.hosts, &BTreeSet::new());
            writer.remove_chain(&place.chain());
            writer.remove_counter(&place.counter());
        }
        writer.done()
    }
}

impl Writer<'_> {
    fn add_network(&mut self, network: &NetworkName, carriers: &Carriers) {
        let place = Place(network, carriers.vni);
        self.counter(&place.counter());
        self.change_hosts(&place, &BTreeSet::new(), &carriers.hosts);
        self.chain(&place.chain(), None);
        self.rule(&place.chain(), &place.rule());
    }

    fn change_hosts(&mut self, place: &Place<'_>, from: &BTreeSet<IpAddr>, to: &BTreeSet<IpAddr>) {
        for (family, set) in SETS {
            let of_family = |host: &&IpAddr| octets(**host).len() == family.length as usize;
            let only = |a: &BTreeSet<IpAddr>, b: &BTreeSet<IpAddr>| -> Vec<IpAddr> {
                a.difference(b).filter(of_family).copied().collect()
            };
            for (add, hosts) in [(false, only(from, to)), (true, only(to, from))] {
                self.elements(add, set, hosts.iter().map(|&host| element(&key_of(place.1, host), None)));
            }
        }
    }

    /// Fills the chain of tunnels, which leads to the networks'.
    fn lead(&mut self, gate: &Gate) {
        let id = self.next_set();
        let TunnelRules { judged, map, rest } = gate.tunnels(id);
        for rule in &judged {
            self.rule(TUNNELS, rule);
        }
        if let Some(rule) = map {
            self.put(9, NLM_F_CREATE, |map| {
                map.text(2, "__map%d");
                for (kind, value) in
                    [(3, ANONYMOUS_MAP), (4, INTEGER), (5, VNI[1]), (6, VERDICTS), (7, 0), (10, id)]
                {
                    map.number(kind, value);
                }
            });
            let key = |vni: Vni| vni.get().to_be_bytes()[1..].to_vec();
            let ways: Vec<_> =
                gate.places().map(|place| element(&key(place.1), Some(&place.chain()))).collect();
            self.elements_of(id, "__map%d", &ways);
            self.named_rule(TUNNELS, &rule, &gate.name_of_map());
        }
        for rule in &rest {
            self.rule(TUNNELS, rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(networks: &[(&str, u32, &[&str])]) -> Gate {
        let networks = networks.iter().map(|(name, vni, hosts)| {
            let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
            (name.parse().unwrap(), Carriers { vni: Vni::try_from(*vni).unwrap(), hosts })
        });
        Gate { port: 4789, device: None, networks: networks.collect() }
    }

    fn numbers(transaction: &Transaction) -> Vec<u8> {
        transaction.messages().iter().map(|(verb, _)| verb.number).collect()
    }

    #[test]
    fn a_host_more_or_less_changes_nothing_but_its_element() {
        let before = gate(&[("shop", 7, &["192.0.2.2", "192.0.2.3"]), ("lab", 8, &["2001:db8::1"])]);
        let after = gate(&[("shop", 7, &["192.0.2.2", "192.0.2.4"]), ("lab", 8, &["2001:db8::1"])]);
        assert_eq!(numbers(&after.difference("t", &before)), [14, 12]);
        assert!(after.difference("t", &after).is_empty());
        assert_eq!(before.fingerprints(), after.fingerprints());
    }

    #[test]
    fn a_network_that_goes_leaves_nothing_and_one_with_another_number_is_another() {
        let (one, none) = (gate(&[("shop", 7, &["192.0.2.2"])]), gate(&[]));
        // The chain of those who may send and of the ways, then the network's hosts, its rules and chain, its counter.
        assert_eq!(numbers(&none.difference("t", &one)), [8, 6, 6, 6, 6, 6, 14, 8, 5, 20]);
        let other = gate(&[("shop", 9, &["192.0.2.2"])]);
        let change = numbers(&other.difference("t", &one));
        assert!(change.starts_with(&[18, 12, 3, 6]) && change.ends_with(&[14, 8, 5, 20]), "{change:?}");
        assert_ne!(one.fingerprints(), other.fingerprints());
        let elsewhere = Gate { port: 14789, ..one.clone() };
        assert_eq!(elsewhere.difference("t", &one), elsewhere.replacement("t"));
        let moved = Gate { device: Some(2), ..one.clone() };
        assert_eq!(moved.difference("t", &one), moved.replacement("t"));
        assert_ne!(moved.fingerprints(), one.fingerprints());
    }

    #[test]
    fn a_key_tells_who_sends_into_what() {
        for host in ["192.0.2.2", "2001:db8::2"].map(|host| host.parse().unwrap()) {
            let key = key_of(Vni::FIRST, host);
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
        let (name, vni): (NetworkName, Vni) = ("shop-2".parse().unwrap(), Vni::FIRST);
        let place = Place(&name, vni);
        assert_eq!(network_of(&place.chain()), Some((vni, name.clone())));
        assert_eq!(Refused::of_counter(&place.counter()), Some(Refused::Stranger(name.clone())));
        assert_eq!(Refused::of_counter(FORGED), Some(Refused::Forged));
        for other in ["input", "network-", "network-zz-shop", "network-1000000-shop", "strangers-100000-Shop"]
        {
            assert_eq!((network_of(other), Refused::of_counter(other)), (None, None), "{other}");
        }
    }
}
