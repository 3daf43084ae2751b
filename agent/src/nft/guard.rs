//! What a port of a network's bridge lets in: frames of its workload's Ethernet and IP address, nothing else. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use sealane_proto::types::MacAddr;

use super::rules::{TABLE, same};
use super::table;

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
}

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" . {} . {}", self.port, self.mac, self.address)
    }
}

/// The table with its set empty. ARP (RFC 826) is held to the same rows by both of its senders, so that nobody
/// answers for another or for the gateway. The VXLAN device brings what other hosts have let in.
pub(super) fn table() -> String {
    let body = "    \
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
    table::stamped(FAMILY, TABLE, "guard", body)
}

/// The script that puts the table with these rows in the place of what is there.
pub(super) fn replacing(senders: &BTreeSet<Sender>) -> String {
    let mut script = table::replacing(FAMILY, TABLE, &table());
    script.push_str(&change("add", senders));
    script
}

/// The script that makes the rows `from` the rows `to`.
pub(super) fn changing(from: &BTreeSet<Sender>, to: &BTreeSet<Sender>) -> String {
    change("delete", from.difference(to)) + &change("add", to.difference(from))
}

fn change<'a>(verb: &str, senders: impl IntoIterator<Item = &'a Sender>) -> String {
    let senders: Vec<String> = senders.into_iter().map(Sender::to_string).collect();
    if senders.is_empty() {
        return String::new();
    }
    format!("{verb} element {FAMILY} {TABLE} senders {{ {} }}\n", senders.join(", "))
}

/// The rows of the table that nft lists; `None` when the table is not this one.
pub(super) fn listed(text: &str) -> Option<BTreeSet<Sender>> {
    let (before, rows) = text.split_once("elements = {").unwrap_or((text, "}"));
    let (rows, after) = rows.split_once('}')?;
    if !same(&format!("{before}{after}"), &table()) {
        return None;
    }
    let rows = rows.split(',').map(str::trim).filter(|row| !row.is_empty());
    rows.map(sender).collect()
}

fn sender(row: &str) -> Option<Sender> {
    let mut parts = row.split(" . ");
    let port = parts.next()?.trim_matches('"').to_owned();
    let (mac, address) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Sender { port, mac, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(last: &[u8]) -> BTreeSet<Sender> {
        let sender = |&last: &u8| Sender {
            port: format!("w{last:012x}"),
            mac: MacAddr::new([2, 0, 0, 0, 0, last]),
            address: Ipv4Addr::new(10, 42, 0, last),
        };
        last.iter().map(sender).collect()
    }

    #[test]
    fn what_nft_lists_is_read_back() {
        let lists = |rows: &str| table().replace("ipv4_addr\n", &format!("ipv4_addr\n{rows}"));
        assert_eq!(listed(&lists("")), Some(senders(&[])));
        let rows = "\t\telements = { \"w00000000000a\" . 02:00:00:00:00:0a . 10.42.0.10,\n\t\t\t     \
            \"w00000000000b\" . 02:00:00:00:00:0b . 10.42.0.11 }\n";
        assert_eq!(listed(&lists(rows)), Some(senders(&[10, 11])));
        assert_eq!(listed(&lists(rows).replace("policy drop", "policy drop;\n accept")), None);
        assert_eq!(listed(""), None);
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
