//! What a port of a network's bridge lets in: frames of its workload's Ethernet and IP address, nothing else. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use sealane_proto::types::MacAddr;

use super::rules::{TABLE, same};
use super::table::{self, Rows};

pub(super) const FAMILY: &str = "bridge";

/// Who may send what through which port: a row of the guard's set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    /// The port's device.
    pub(crate) port: String,
    /// The Ethernet address.
    pub(crate) mac: MacAddr,
    /// The IPv4 address.
    pub(crate) address: Ipv4Addr,
    /// The IPv6 address, where the network has such.
    pub(crate) address6: Option<Ipv6Addr>,
}

impl Sender {
    /// The rows that let it send, each with its set.
    fn rows(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { port, mac, address, address6 } = self;
        let rows6 = address6.iter().flat_map(move |address| {
            let target = address.to_bits();
            [
                ("senders6", format!("\"{port}\" . {mac} . {address}")),
                ("advertised", format!("\"{port}\" . {target:#034x}")),
            ]
        });
        [("senders", format!("\"{port}\" . {mac} . {address}"))].into_iter().chain(rows6)
    }
}

/// The table with its set empty. ARP (RFC 826) is held to the same rows by both of its senders, so that nobody
/// answers for another or for the gateway. The VXLAN device brings what other hosts have let in.
pub(super) fn table(ipv6: bool) -> String {
    if ipv6 {
        table::stamped(FAMILY, TABLE, "guard", BOTH)
    } else {
        table::stamped(FAMILY, TABLE, "guard", IPV4)
    }
}

const IPV4: &str = "    \
    counter spoofed {
    }
    counter unsupported {
    }
    set senders {
        type ifname . ether_addr . ipv4_addr
    }
    chain prerouting {
        type filter hook prerouting priority -200; policy drop;
        iifname \"vxlan0\" accept
        ether type ip iifname . ether saddr . ip saddr @senders accept
        ether type arp iifname . ether saddr . arp saddr ip @senders iifname . arp saddr ether . arp saddr ip @senders accept
        ether type { ip, arp } counter name \"spoofed\" drop
        counter name \"unsupported\" drop
    }
";

/// Neighbour advertisements (RFC 4861, section 4.4) are about the sender; nobody else is a router. The kernel reports
/// multicast groups before it has an address to do it with: that is no forgery.
const BOTH: &str = "    \
    counter spoofed {
    }
    counter unsupported {
    }
    set senders {
        type ifname . ether_addr . ipv4_addr
    }
    set senders6 {
        type ifname . ether_addr . ipv6_addr
    }
    set advertised {
        typeof iifname . @th,64,128
    }
    chain prerouting {
        type filter hook prerouting priority -200; policy drop;
        iifname \"vxlan0\" accept
        ether type ip iifname . ether saddr . ip saddr @senders accept
        ether type arp iifname . ether saddr . arp saddr ip @senders iifname . arp saddr ether . arp saddr ip @senders accept
        icmpv6 type { nd-router-advert, nd-redirect } counter name \"spoofed\" drop
        icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @advertised counter name \"spoofed\" drop
        ether type ip6 iifname . ether saddr . ip6 saddr @senders6 accept
        icmpv6 type mld2-listener-report drop
        ether type { ip, arp, ip6 } counter name \"spoofed\" drop
        counter name \"unsupported\" drop
    }
";

/// The script that puts the table with these rows in the place of what is there.
pub(super) fn replacing(senders: &BTreeSet<Sender>, ipv6: bool) -> String {
    table::replacing(FAMILY, TABLE, &table(ipv6)) + &changing(&BTreeSet::new(), senders)
}

/// The script that makes the rows `from` the rows `to`.
pub(super) fn changing(from: &BTreeSet<Sender>, to: &BTreeSet<Sender>) -> String {
    let (from, to) = (by_set(from), by_set(to));
    let sets: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let none = BTreeSet::new();
    let change = |set: &String| {
        let [from, to] = [&from, &to].map(|sets| sets.get(set).unwrap_or(&none));
        table::changing_rows([FAMILY, TABLE, set], from, to)
    };
    sets.into_iter().map(change).collect()
}

fn by_set(senders: &BTreeSet<Sender>) -> Rows {
    let mut sets = Rows::new();
    for (set, row) in senders.iter().flat_map(Sender::rows) {
        sets.entry(set.to_owned()).or_default().insert(row);
    }
    sets
}

/// The rows of the table that nft lists; `None` when the table is not this one, or its sets contradict each other.
pub(super) fn listed(text: &str, ipv6: bool) -> Option<BTreeSet<Sender>> {
    let (bare, sets) = table::without_rows(text)?;
    if !same(&bare, &table(ipv6)) {
        return None;
    }
    let rows6: BTreeMap<String, Ipv6Addr> = rows(&sets, "senders6")
        .map(|row| cut(row).map(|(port, _, address)| (port, address)))
        .collect::<Option<_>>()?;
    let senders = rows(&sets, "senders").map(|row| {
        let (port, mac, address) = cut(row)?;
        let address6 = rows6.get(&port).copied();
        Some(Sender { port, mac, address, address6 })
    });
    let senders = senders.collect::<Option<BTreeSet<Sender>>>()?;
    // What these rows would be listed as is what there is.
    (sets == by_set(&senders)).then_some(senders)
}

fn rows<'a>(sets: &'a Rows, set: &str) -> impl Iterator<Item = &'a str> {
    sets.get(set).into_iter().flatten().map(String::as_str)
}

fn cut<A: FromStr>(row: &str) -> Option<(String, MacAddr, A)> {
    let mut parts = row.split(" . ");
    let port = parts.next()?.trim_matches('"').to_owned();
    let (mac, address) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((port, mac, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(last: &[u8]) -> BTreeSet<Sender> {
        let sender = |&last: &u8| Sender {
            port: format!("w{last:012x}"),
            mac: MacAddr::new([2, 0, 0, 0, 0, last]),
            address: Ipv4Addr::new(10, 42, 0, last),
            address6: None,
        };
        last.iter().map(sender).collect()
    }

    #[test]
    fn what_nft_lists_is_read_back() {
        let lists = |rows: &str| table(false).replace("ipv4_addr\n", &format!("ipv4_addr\n{rows}"));
        assert_eq!(listed(&lists(""), false), Some(senders(&[])));
        let rows = "\t\telements = { \"w00000000000a\" . 02:00:00:00:00:0a . 10.42.0.10,\n\t\t\t     \
            \"w00000000000b\" . 02:00:00:00:00:0b . 10.42.0.11 }\n";
        assert_eq!(listed(&lists(rows), false), Some(senders(&[10, 11])));
        assert_eq!(listed(&lists(rows).replace("policy drop", "policy drop;\n accept"), false), None);
        assert_eq!(listed("", false), None);
    }

    #[test]
    fn the_sets_of_a_network_with_ipv6_agree() {
        let row = "\"w00000000000a\" . 02:00:00:00:00:0a . ";
        let set = |kind: &str, row: &str| format!("{kind}\n\t\telements = {{ {row} }}\n");
        let lists = |target: &str| {
            let text = table(true).replace("ipv4_addr\n", &set("ipv4_addr", &format!("{row}10.42.0.10")));
            let text = text.replace("ipv6_addr\n", &set("ipv6_addr", &format!("{row}fd42::a2a:a")));
            text.replace(
                "128\n    }",
                &format!("{}    }}", set("128", &format!("\"w00000000000a\" . {target}"))),
            )
        };
        let sender =
            senders(&[10]).into_iter().map(|one| Sender { address6: "fd42::a2a:a".parse().ok(), ..one });
        let right = lists("0xfd42000000000000000000000a2a000a");
        assert_eq!(listed(&right, true), Some(sender.collect()));
        assert_eq!(listed(&lists("0xfd42000000000000000000000a2a000b"), true), None);
        assert_eq!(listed(&right, false), None);
    }

    #[test]
    fn only_rows_that_differ_are_changed() {
        assert_eq!(changing(&senders(&[10, 11]), &senders(&[10, 11])), "");
        let script = changing(&senders(&[10, 11]), &senders(&[11, 12]));
        assert_eq!(
            script,
            "delete element bridge sealane senders { \"w00000000000a\" . 02:00:00:00:00:0a . 10.42.0.10 }\n\
             add element bridge sealane senders { \"w00000000000c\" . 02:00:00:00:00:0c . 10.42.0.12 }\n"
        );
    }
}
