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

use super::rules::{TABLE, same};
use super::table;

pub(super) const FAMILY: &str = "netdev";
/// The family of the table that guarded all ports of a network at once. One that an older agent left would drop the
/// frames of new ports.
const FORMER_FAMILY: &str = "bridge";

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
    rules: String,
}

impl Tunnel {
    pub(super) fn guarded(&self, addresses: &Addresses) -> Guarded {
        let first = addresses.between_workloads();
        let mut rules = vec!["meta pkttype host arp operation reply accept".to_owned()];
        if let Some(subnet6) = addresses.subnet6 {
            let [low, high] = ends(addresses.subnet).map(|end| subnet6.of_ipv4(end));
            rules.push("meta pkttype host icmpv6 type nd-neighbor-advert accept".to_owned());
            rules.push(
                "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } goto foreign"
                    .to_owned(),
            );
            rules.extend(addresses.senders().iter().map(|ends| {
                let [first, last] = ends.map(|end| subnet6.of_ipv4(end));
                format!("ip6 saddr {first}-{last} ip6 saddr != @local6 ip6 daddr {low}-{high} accept")
            }));
        }
        rules.push("goto foreign".to_owned());
        Guarded { device: self.device.clone(), index: self.index, rules: stamped(&first, &rules) }
    }
}

impl Addresses {
    /// The rule for packets of workloads elsewhere to workloads here, which every packet of a tunnel meets. It compares words
    /// under masks, which the kernel does in its interpreter's loop, while ranges are functions that it calls; sources
    /// that no workload elsewhere has take one lookup together.
    fn between_workloads(&self) -> String {
        let subnet = self.subnet;
        let services = self.services.iter().map(|block| format!(" ip saddr != {block}")).collect::<String>();
        let kept = subnet.reserved().map(|address| format!(" ip daddr != {address}")).concat();
        format!("ip saddr {subnet} ip daddr {subnet} ip saddr != @local{services}{kept} accept")
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

/// The first rule's comment is a fingerprint of them all.
fn stamped(first: &str, rules: &[String]) -> String {
    let rules = rules.join("\n        ");
    let fingerprint = crc32fast::hash(format!("{first}\n{rules}").as_bytes());
    format!("        {first} comment \"port {fingerprint:08x}\"\n        {rules}\n")
}

impl Sender {
    /// Returns the addresses of its own.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(self.address.into()), self.address6.map(IpAddr::from)].into_iter().flatten()
    }

    pub(super) fn guarded(&self) -> Guarded {
        Guarded { device: self.port.clone(), index: self.index, rules: self.rules() }
    }

    /// The port's chain. ARP (RFC 826) is held to the same addresses by both of its senders, so that nobody answers for
    /// another or for the gateway. Neighbour advertisements (RFC 4861, section 4.4) are about the sender; nobody else
    /// is a router.
    fn rules(&self) -> String {
        let Self { mac, address, .. } = self;
        let first = format!("ether saddr {mac} ip saddr {address} accept");
        let mut rules =
            vec![format!("ether saddr {mac} arp saddr ether {mac} arp saddr ip {address} accept")];
        if let Some(address) = self.address6 {
            let target = address.to_bits();
            rules.push("icmpv6 type { nd-router-advert, nd-redirect } goto strange".to_owned());
            rules.push(format!("icmpv6 type nd-neighbor-advert @th,64,128 != {target:#034x} goto strange"));
            rules.push(format!("ether saddr {mac} ip6 saddr {address} accept"));
        }
        rules.push("goto strange".to_owned());
        stamped(&first, &rules)
    }
}

/// A device's chain, by what it is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    fingerprint: String,
    lines: usize,
    /// The number of the device that it was bound to; `None` when that was before this agent's time.
    device: Option<u32>,
}

/// The chains that are there, by their devices.
pub(super) type Chains = BTreeMap<String, Chain>;

/// Content of the table beside the bare rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GuardTable {
    pub(super) chains: Chains,
    /// The addresses that no workload elsewhere has: those of this host's, and those of nobody.
    pub(super) local: BTreeSet<IpAddr>,
}

impl Chain {
    pub(super) fn of(guarded: &Guarded) -> Self {
        Self { device: Some(guarded.index), ..Self::read(&guarded.rules) }
    }

    /// The chain with these rules, whether this module's text or nft's.
    fn read(rules: &str) -> Self {
        let rules = rules.lines().filter(|line| !line.trim().is_empty());
        let fingerprint = rules.clone().find_map(|rule| rule.split_once(" comment ")).unwrap_or_default().1;
        Self { fingerprint: fingerprint.to_owned(), lines: rules.count(), device: None }
    }

    fn is(&self, wanted: &Self) -> bool {
        let same_device = self.device.is_none() || self.device == wanted.device;
        self.fingerprint == wanted.fingerprint && self.lines == wanted.lines && same_device
    }
}

/// The table without its devices. The kernel reports multicast groups before it has an address to do it with: that is
/// no forgery.
fn bare_table(ipv6: bool) -> String {
    let (reports, kinds, local6) = if ipv6 {
        (
            "        ip6 nexthdr ipv6-icmp icmpv6 type mld2-listener-report drop\n",
            "ip, arp, ip6",
            "    set local6 {\n        type ipv6_addr\n    }\n",
        )
    } else {
        ("", "ip, arp", "")
    };
    let body = format!(
        "    \
    counter spoofed {{
    }}
    counter foreign {{
    }}
    counter unsupported {{
    }}
    set local {{
        type ipv4_addr
    }}
{local6}    \
    chain foreign {{
        counter name \"foreign\" drop
    }}
    chain strange {{
{reports}        \
        ether type {{ {kinds} }} counter name \"spoofed\" drop
        counter name \"unsupported\" drop
    }}
"
    );
    table::stamped(FAMILY, TABLE, "guard", &body)
}

/// The script that puts the table, without devices, in the place of what is there.
pub(super) fn replacing(ipv6: bool) -> String {
    table::removal(FORMER_FAMILY, TABLE) + &table::replacing(FAMILY, TABLE, &bare_table(ipv6))
}

/// The script that gives a device its chain that has none. Nothing goes with it: a transaction that removes something waits
/// until no processor can be reading that any more, which takes longer than all the rest of a port.
pub(super) fn guarding(Guarded { device, rules, .. }: &Guarded) -> String {
    let hook = format!("type filter hook ingress device \"{device}\" priority -200; policy drop;");
    format!("table {FAMILY} {TABLE} {{\n    chain {device} {{\n        {hook}\n{rules}    }}\n}}\n")
}

/// The same for a device that may have one.
pub(super) fn guarding_anew(guarded: &Guarded) -> String {
    freeing(&guarded.device) + &guarding(guarded)
}

/// The script that makes the addresses that no workload elsewhere has `to`, which were `from`.
pub(super) fn localising(from: &BTreeSet<IpAddr>, to: &BTreeSet<IpAddr>) -> String {
    let of = |addresses: &BTreeSet<IpAddr>, ipv4: bool| -> BTreeSet<String> {
        let of_family = addresses.iter().filter(|address| address.is_ipv4() == ipv4);
        of_family.map(ToString::to_string).collect()
    };
    let change = |set, ipv4| table::changing_rows([FAMILY, TABLE, set], &of(from, ipv4), &of(to, ipv4));
    change("local", true) + &change("local6", false)
}

/// The script that removes the device's chain, whether it is there or not.
pub(super) fn freeing(port: &str) -> String {
    let chain = format!("chain {FAMILY} {TABLE} {port}");
    format!("add {chain}\nflush {chain}\ndelete {chain}\n")
}

/// The devices whose chains are not those that they should be.
pub(super) fn wrong<'a>(there: &Chains, wanted: &'a [Guarded]) -> Vec<&'a Guarded> {
    let is_right =
        |guarded: &Guarded| there.get(&guarded.device).is_some_and(|chain| chain.is(&Chain::of(guarded)));
    wanted.iter().filter(|guarded| !is_right(guarded)).collect()
}

/// Any chain of either kind, on a device that every namespace has.
pub(super) fn examples(addresses: Addresses) -> String {
    let (device, index) = ("lo".to_owned(), 1);
    let sender = Sender {
        port: device.clone(),
        index,
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        address: Ipv4Addr::new(10, 0, 0, 2),
        address6: addresses.subnet6.map(|_| Ipv6Addr::LOCALHOST),
    };
    let local = localising(&BTreeSet::new(), &sender.addresses().collect());
    local + &guarding(&sender.guarded()) + &guarding_anew(&Tunnel { device, index }.guarded(&addresses))
}

/// Removes the table, whether it is there or not.
pub(super) fn removal() -> String {
    table::removal(FAMILY, TABLE)
}

/// Reads the content of the table that nft lists; `None` when the table is not this one.
pub(super) fn listed(text: &str, ipv6: bool) -> Option<GuardTable> {
    let (text, rows) = table::without_rows(text)?;
    let local = rows.into_values().flatten().map(|row| row.parse().ok()).collect::<Option<_>>()?;
    let (mut bare, mut chains, mut rest) = (String::new(), Chains::new(), text.as_str());
    while let Some((before, chain)) = rest.split_once("\tchain ") {
        let (chain, after) = chain.split_once("\n\t}\n")?;
        bare.push_str(before);
        match chain.split_once(" hook ingress device ").zip(chain.split_once(" {\n")) {
            Some(((_, hook), (device, _))) => {
                let (_, rules) = hook.split_once('\n').unwrap_or_default();
                chains.insert(device.to_owned(), Chain::read(rules));
            }
            None => bare.push_str(&format!("\tchain {chain}\n\t}}\n")),
        }
        rest = after;
    }
    bare.push_str(rest);
    same(&bare, &bare_table(ipv6)).then_some(GuardTable { chains, local })
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
            let rules = tunnel.guarded(&addresses).rules;
            let ranges = addresses.senders();
            assert_eq!(
                ranges,
                expected
                    .iter()
                    .map(|ends| ends.map(|end| end.parse().unwrap()))
                    .collect::<Vec<[Ipv4Addr; 2]>>(),
                "{services:?}"
            );
            assert_eq!(rules.matches("ip6 saddr fd42::").count(), ranges.len(), "{rules}");
            let first = rules.lines().next().unwrap().trim();
            let (rule, comment) = first.split_once(" comment ").unwrap();
            let blocks: String = services.iter().map(|block| format!(" ip saddr != {block}")).collect();
            assert_eq!(
                rule,
                format!(
                    "ip saddr 10.42.0.0/16 ip daddr 10.42.0.0/16 ip saddr != @local{blocks} \
                     ip daddr != 10.42.0.0 ip daddr != 10.42.0.1 ip daddr != 10.42.255.255 accept"
                )
            );
            assert!(comment.starts_with("\"port "), "it is known again: {rules}");
        };
        let all = ["10.42.0.2", "10.42.255.254"];
        check(&[], &[all]);
        check(&["10.42.255.0/24"], &[["10.42.0.2", "10.42.254.255"]]);
        check(&["10.42.254.0/24", "10.42.255.0/24"], &[["10.42.0.2", "10.42.253.255"]]);
        check(&["10.42.7.0/24"], &[["10.42.0.2", "10.42.6.255"], ["10.42.8.0", all[1]]]);
        check(&["10.42.0.0/24"], &[["10.42.1.0", all[1]]]);
        check(&["10.42.0.0/16"], &[]);
    }

    fn sender(last: u8, index: u32) -> Sender {
        let port = format!("w{last:012x}");
        let mac = MacAddr::new([2, 0, 0, 0, 0, last]);
        Sender { port, index, mac, address: Ipv4Addr::new(10, 42, 0, last), address6: None }
    }

    fn guarded(senders: &[Sender]) -> Vec<Guarded> {
        senders.iter().map(Sender::guarded).collect()
    }

    /// As nft lists the table with these ports' chains.
    fn list(senders: &[Sender]) -> String {
        let chain = |sender: &Sender| {
            let chain = guarding(&sender.guarded())
                .lines()
                .skip(1)
                .map(|line| format!("{line}\n"))
                .collect::<String>();
            format!("\n{}", chain.strip_suffix("}\n").unwrap())
        };
        let chains: String = senders.iter().map(chain).collect();
        let bare = bare_table(true).replace("    }\n", "    }\n\n");
        format!("{}{chains}}}\n", bare.strip_suffix("\n}\n").unwrap()).replace("    ", "\t")
    }

    #[test]
    fn what_nft_lists_is_read_back() {
        let six = Sender { address6: "fd42::a2a:b".parse().ok(), ..sender(11, 5) };
        let senders = [sender(10, 4), six];
        let rows = "type ipv4_addr\n\t\telements = { 10.42.0.10,\n\t\t\t     10.42.0.11 }\n";
        let there = listed(&list(&senders).replace("type ipv4_addr\n", rows), true).unwrap();
        assert_eq!(there.chains.len(), 2);
        assert_eq!(there.local, ["10.42.0.10", "10.42.0.11"].map(|row| row.parse().unwrap()).into());
        assert!(wrong(&there.chains, &guarded(&senders)).is_empty());
        let other = guarded(&[sender(10, 4), sender(11, 5), sender(12, 6)]);
        let ports = |wrong: Vec<&Guarded>| wrong.iter().map(|one| one.index).collect::<Vec<_>>();
        assert_eq!(ports(wrong(&there.chains, &other)), [5, 6]);
        assert_eq!(listed(&list(&[]), true), Some(GuardTable::default()));
        assert_eq!(listed("", true), None);
    }

    #[test]
    fn a_rule_more_or_less_is_seen() {
        let senders = [sender(10, 4)];
        let text = list(&senders);
        let more = text.replace("\t\tgoto strange\n\t}", "\t\taccept\n\t\tgoto strange\n\t}");
        assert_eq!(wrong(&listed(&more, true).unwrap().chains, &guarded(&senders)).len(), 1, "{more}");
        let last = "name \"unsupported\" drop\n";
        assert_eq!(listed(&text.replace(last, &format!("{last}\t\taccept\n")), true), None);
        assert_eq!(listed(&text, false), None);
    }

    #[test]
    fn a_device_made_anew_is_guarded_anew() {
        let there = Chains::from([(sender(10, 4).port, Chain::of(&sender(10, 4).guarded()))]);
        assert!(wrong(&there, &guarded(&[sender(10, 4)])).is_empty());
        assert_eq!(wrong(&there, &guarded(&[sender(10, 9)])).len(), 1);
    }

    #[test]
    fn addresses_of_this_hosts_workloads_are_changed_by_their_differences() {
        let set = |addresses: &[&str]| addresses.iter().map(|text| text.parse().unwrap()).collect();
        let (from, to) = (set(&["10.42.0.9", "fd42::a2a:9"]), set(&["10.42.0.9", "10.42.0.10"]));
        assert_eq!(
            localising(&from, &to),
            "add element netdev sealane local { 10.42.0.10 }\ndelete element netdev sealane local6 { fd42::a2a:9 }\n"
        );
    }
}
