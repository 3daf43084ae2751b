//! What a port of a network's bridge lets in: frames of its workload's Ethernet and IP address, nothing else. Pure.
//!
//! A port has a chain of its own at its device's ingress, before the bridge: what other hosts have let in comes by the
//! VXLAN device and is not looked at again. Such a chain is bound to its device: kernels before 6.16 remove it with
//! that, without a new generation of the ruleset, so a device that was made anew gets its chain anew.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use sealane_proto::types::MacAddr;

use super::rules::{TABLE, same};
use super::table;

pub(super) const FAMILY: &str = "netdev";
/// The family of the table that guarded all ports of a network at once. One that an older agent left would drop the
/// frames of new ports.
const FORMER_FAMILY: &str = "bridge";

/// Who may send what through which port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    /// The port's device.
    pub(crate) port: String,
    /// Its number.
    pub(crate) index: u32,
    /// The Ethernet address.
    pub(crate) mac: MacAddr,
    /// The IPv4 address.
    pub(crate) address: Ipv4Addr,
    /// The IPv6 address, where the network has such.
    pub(crate) address6: Option<Ipv6Addr>,
}

impl Sender {
    /// The port's chain. ARP (RFC 826) is held to the same addresses by both of its senders, so that nobody answers for
    /// another or for the gateway. Neighbour advertisements (RFC 4861, section 4.4) are about the sender; nobody else
    /// is a router.
    ///
    /// The first rule's comment is a fingerprint of them all.
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
        let rules = rules.join("\n        ");
        let fingerprint = crc32fast::hash(format!("{first}\n{rules}").as_bytes());
        format!("        {first} comment \"port {fingerprint:08x}\"\n        {rules}\n")
    }
}

/// A port's chain, by what it is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    fingerprint: String,
    lines: usize,
    /// The number of the device that it was bound to; `None` when that was before this agent's time.
    device: Option<u32>,
}

/// The chains that are there, by their ports.
pub(super) type Chains = BTreeMap<String, Chain>;

impl Chain {
    pub(super) fn of(sender: &Sender) -> Self {
        Self { device: Some(sender.index), ..Self::read(&sender.rules()) }
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

/// The table without its ports. The kernel reports multicast groups before it has an address to do it with: that is
/// no forgery.
fn bare_table(ipv6: bool) -> String {
    let (reports, kinds) = if ipv6 {
        ("        ip6 nexthdr ipv6-icmp icmpv6 type mld2-listener-report drop\n", "ip, arp, ip6")
    } else {
        ("", "ip, arp")
    };
    let body = format!(
        "    \
    counter spoofed {{
    }}
    counter unsupported {{
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

/// The script that puts the table, without ports, in the place of what is there.
pub(super) fn replacing(ipv6: bool) -> String {
    table::removal(FORMER_FAMILY, TABLE) + &table::replacing(FAMILY, TABLE, &bare_table(ipv6))
}

/// The script that gives the port its chain. It does not mind what there is of one.
pub(super) fn guarding(sender: &Sender) -> String {
    let (port, rules) = (&sender.port, sender.rules());
    let hook = format!("type filter hook ingress device \"{port}\" priority -200; policy drop;");
    format!(
        "{}table {FAMILY} {TABLE} {{\n    chain {port} {{\n        {hook}\n{rules}    }}\n}}\n",
        freeing(port)
    )
}

/// The script that removes the port's chain, whether it is there or not.
pub(super) fn freeing(port: &str) -> String {
    let chain = format!("chain {FAMILY} {TABLE} {port}");
    format!("add {chain}\nflush {chain}\ndelete {chain}\n")
}

/// The ports whose chains are not those that they should be.
pub(super) fn wrong<'a>(there: &Chains, wanted: impl Iterator<Item = &'a Sender>) -> Vec<&'a Sender> {
    wanted
        .filter(|sender| !there.get(&sender.port).is_some_and(|chain| chain.is(&Chain::of(sender))))
        .collect()
}

/// Any chain, on a device that every namespace has.
pub(super) fn example() -> String {
    guarding(&Sender {
        port: "lo".to_owned(),
        index: 1,
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        address: Ipv4Addr::new(10, 0, 0, 2),
        address6: Some(Ipv6Addr::LOCALHOST),
    })
}

/// Removes the table, whether it is there or not.
pub(super) fn removal() -> String {
    table::removal(FAMILY, TABLE)
}

/// The chains of ports in the table that nft lists; `None` when the table is not this one.
pub(super) fn listed(text: &str, ipv6: bool) -> Option<Chains> {
    let (mut bare, mut chains, mut rest) = (String::new(), Chains::new(), text);
    while let Some((before, chain)) = rest.split_once("\tchain ") {
        let (chain, after) = chain.split_once("\n\t}\n")?;
        bare.push_str(before);
        match chain.split_once(" hook ingress device ").zip(chain.split_once(" {\n")) {
            Some(((_, hook), (port, _))) => {
                let (_, rules) = hook.split_once('\n').unwrap_or_default();
                chains.insert(port.to_owned(), Chain::read(rules));
            }
            None => bare.push_str(&format!("\tchain {chain}\n\t}}\n")),
        }
        rest = after;
    }
    bare.push_str(rest);
    same(&bare, &bare_table(ipv6)).then_some(chains)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(last: u8, index: u32) -> Sender {
        let port = format!("w{last:012x}");
        let mac = MacAddr::new([2, 0, 0, 0, 0, last]);
        Sender { port, index, mac, address: Ipv4Addr::new(10, 42, 0, last), address6: None }
    }

    /// As nft lists the table with these ports' chains.
    fn list(senders: &[Sender]) -> String {
        let chain = |sender: &Sender| {
            let chain = guarding(sender).lines().skip(4).map(|line| format!("{line}\n")).collect::<String>();
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
        let there = listed(&list(&senders), true).unwrap();
        assert_eq!(there.len(), 2);
        assert!(wrong(&there, senders.iter()).is_empty());
        let other = [sender(10, 4), sender(11, 5), sender(12, 6)];
        let ports =
            |wrong: Vec<&Sender>| wrong.iter().map(|sender| sender.address.octets()[3]).collect::<Vec<_>>();
        assert_eq!(ports(wrong(&there, other.iter())), [11, 12]);
        assert_eq!(listed(&list(&[]), true), Some(Chains::new()));
        assert_eq!(listed("", true), None);
    }

    #[test]
    fn a_rule_more_or_less_is_seen() {
        let senders = [sender(10, 4)];
        let text = list(&senders);
        let more = text.replace("\t\tgoto strange\n\t}", "\t\taccept\n\t\tgoto strange\n\t}");
        assert_eq!(wrong(&listed(&more, true).unwrap(), senders.iter()).len(), 1, "{more}");
        let last = "name \"unsupported\" drop\n";
        assert_eq!(listed(&text.replace(last, &format!("{last}\t\taccept\n")), true), None);
        assert_eq!(listed(&text, false), None);
    }

    #[test]
    fn a_device_made_anew_is_guarded_anew() {
        let there = Chains::from([(sender(10, 4).port, Chain::of(&sender(10, 4)))]);
        assert!(wrong(&there, [sender(10, 4)].iter()).is_empty());
        assert_eq!(wrong(&there, [sender(10, 9)].iter()).len(), 1);
    }
}
