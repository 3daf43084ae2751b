//! Scripts of ours as messages of one transaction, so that what every start needs takes no process. Pure.
//!
//! The text is what counts. This knows the part of nft's language that the tables of workloads and the chains of ports are
//! written in, and lays it out as the program does, which lists it as if it had read it; a script with anything else is
//! left to the program.

mod parts;
mod rule;
mod value;

use super::expression::octets;
use super::writer::{NLM_F_CREATE, Writer, element};
use crate::netlink::netfilter::Transaction;
use rule::Sentence;

const INET: u8 = 1;
const NETDEV: u8 = 5;
const IPV6: u8 = 10;
/// NFT_MSG_* of linux/netfilter/nf_tables.h.
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const DELETE_CHAIN: u8 = 5;

/// A chain of a table.
#[derive(Default)]
struct Chain<'a> {
    name: &'a str,
    hook: Option<Hook<'a>>,
    rules: Vec<Vec<&'a str>>,
}

/// Hook at which packets enter a chain, and its policy for those that no rule decides.
#[derive(Clone, Copy)]
struct Hook<'a> {
    kind: &'a str,
    number: u32,
    device: Option<&'a str>,
    priority: i32,
    policy: u32,
}

/// The transaction that does what the script says; `None` when it says more than this module knows.
pub(super) fn compile(script: &str) -> Option<Transaction> {
    let mut writer = Writer::of("");
    let mut lines = script.lines().map(words).filter(|words| !words.is_empty());
    while let Some(line) = lines.next() {
        match *line.as_slice() {
            ["table", of, name, "{}"] => {
                writer.turn_to(family(of)?, name);
                writer.table(None);
            }
            ["table", of, name, "{"] => {
                writer.turn_to(family(of)?, name);
                table(&mut writer, &mut lines)?;
            }
            ["delete", "table", of, name] => {
                writer.turn_to(family(of)?, name);
                writer.put(DELETE_TABLE, 0, |_| {});
            }
            [verb, "chain", of, table, name] => {
                writer.turn_to(family(of)?, table);
                match verb {
                    "add" => writer.chain(name, None),
                    "flush" => writer.flush_chain(name),
                    "delete" => writer.put(DELETE_CHAIN, 0, |chain| chain.text(3, name)),
                    _ => return None,
                }
            }
            [verb @ ("add" | "delete"), "element", of, table, set, "{", ref rows @ .., "}"] => {
                writer.turn_to(family(of)?, table);
                let rows: Vec<_> =
                    rows.iter().map(|row| Some(octets(row.parse().ok()?))).collect::<Option<_>>()?;
                writer.elements(verb == "add", set, rows.iter().map(|row| element(row, None)));
            }
            _ => return None,
        }
    }
    Some(writer.done())
}

/// The words of a line; what is in quotes is one.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (place, part) in line.split('"').enumerate() {
        if place % 2 == 1 {
            words.push(part);
        } else {
            let part = part.split_whitespace().map(|word| word.trim_end_matches([',', ';']));
            words.extend(part.filter(|word| !word.is_empty()));
        }
    }
    words
}

fn family(name: &str) -> Option<u8> {
    match name {
        "inet" => Some(INET),
        "netdev" => Some(NETDEV),
        "ip6" => Some(IPV6),
        _ => None,
    }
}

/// All of a table but its first line: its chains first, as rules lead to them.
fn table<'a>(writer: &mut Writer<'a>, lines: &mut impl Iterator<Item = Vec<&'a str>>) -> Option<()> {
    let (mut comment, mut chains): (Option<&str>, Vec<Chain<'a>>) = (None, Vec::new());
    loop {
        match *lines.next()?.as_slice() {
            ["comment", text] => comment = Some(text),
            ["chain", name, "{"] => chains.push(chain(name, lines)?),
            ["}"] => break,
            _ => return None,
        }
    }
    writer.table(comment);
    for Chain { name, hook, .. } in &chains {
        match hook {
            Some(hook) => hook.open(writer, name),
            None => writer.chain(name, None),
        }
    }
    for chain in &chains {
        for words in &chain.rules {
            let (rule, comment) = Sentence::new(writer).read(words)?;
            writer.commented_rule(chain.name, &rule, comment);
        }
    }
    Some(())
}

fn chain<'a>(name: &'a str, lines: &mut impl Iterator<Item = Vec<&'a str>>) -> Option<Chain<'a>> {
    let mut chain = Chain { name, ..Chain::default() };
    loop {
        let words = lines.next()?;
        match *words.as_slice() {
            ["}"] => return Some(chain),
            ["type", kind, "hook", hook, "priority", priority, "policy", policy] => {
                chain.hook = Some(Hook::of(kind, hook, None, priority, policy)?);
            }
            ["type", kind, "hook", hook, "device", device, "priority", priority, "policy", policy] => {
                chain.hook = Some(Hook::of(kind, hook, Some(device), priority, policy)?);
            }
            _ => chain.rules.push(words),
        }
    }
}

impl<'a> Hook<'a> {
    fn of(kind: &'a str, hook: &str, device: Option<&'a str>, priority: &str, policy: &str) -> Option<Self> {
        let number = match hook {
            "prerouting" | "ingress" => 0,
            "input" => 1,
            "forward" => 2,
            "output" => 3,
            _ => return None,
        };
        let policy = match policy {
            "drop" => 0,
            "accept" => 1,
            _ => return None,
        };
        Some(Self { kind, number, device, priority: priority.parse().ok()?, policy })
    }

    fn open(&self, writer: &mut Writer<'_>, name: &str) {
        writer.put(NEW_CHAIN, NLM_F_CREATE, |chain| {
            chain.text(3, name);
            chain.nested(4, |hook| {
                hook.number(1, self.number);
                hook.bytes(2, &self.priority.to_be_bytes());
                if let Some(device) = self.device {
                    hook.text(3, device);
                }
            });
            chain.number(5, self.policy);
            chain.text(7, self.kind);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use sealane_proto::sidecar::SidecarPorts;
    use sealane_proto::types::MacAddr;
    use sealane_sys::NetNs;
    use sealane_sys::hop::Hopper;

    use super::super::program::{list_table, run_program};
    use super::super::{Redirect, Redirect6, Sender, guard, rules};
    use super::*;
    use crate::netlink::netfilter::NetfilterSocket;
    use crate::seat::Seat;

    #[test]
    fn words_are_told_apart_by_spaces_and_quotes() {
        let line = "  iifname != { \"lo\", \"eth0\" } ip saddr 10.0.0.0/8 counter drop comment \"port 12\";";
        let expected = [
            "iifname",
            "!=",
            "{",
            "lo",
            "eth0",
            "}",
            "ip",
            "saddr",
            "10.0.0.0/8",
            "counter",
            "drop",
            "comment",
            "port 12",
        ];
        assert_eq!(words(line), expected);
    }

    /// Lists the table after these scripts: those before it run by the program, the last one as `run` says.
    fn listed(before: &[String], last: &str, by_netlink: bool, [family, table]: [&str; 2]) -> String {
        let (hopper, ns) = (Hopper::start().unwrap(), NetNs::anonymous().unwrap());
        for script in before {
            run_program(&hopper, &ns, script.clone()).unwrap();
        }
        if by_netlink {
            let transaction = compile(last).unwrap_or_else(|| panic!("not known: {last}"));
            NetfilterSocket::open(&hopper, &ns).unwrap().commit(&transaction, "try").unwrap();
        } else {
            run_program(&hopper, &ns, last.to_owned()).unwrap();
        }
        list_table(&hopper, &ns, family, table).unwrap().unwrap()
    }

    #[test]
    fn nft_lists_what_came_by_netlink_as_if_it_had_read_the_text() {
        let seat = Seat::default();
        let (subnet, subnet6) = ("10.42.16.0/20".parse().unwrap(), "fd42::/64".parse().unwrap());
        let (address, ports) = ("10.42.16.9".parse().unwrap(), SidecarPorts::default());
        let sidecar = rules::replacing(seat, &rules::sidecar(&Redirect { subnet, address, seat, ports }));
        let sidecar6 = Redirect6::new(subnet6, subnet, address, seat, ports).table();
        let port = |address6| Sender {
            port: "lo".to_owned(),
            index: 1,
            mac: MacAddr::new([2, 0, 0, 0, 0, 9]),
            address: Ipv4Addr::new(10, 42, 16, 9),
            address6,
        };
        let (v4, v6) = (port(None), port("fd42::a2a:1009".parse().ok()));
        let start = |sender: &Sender, guarding: fn(&guard::Guarded) -> String| {
            guard::localising(&BTreeSet::new(), &sender.addresses().collect()) + &guarding(&sender.guarded())
        };
        let guarded = [guard::replacing(true), guard::guarding(&v4.guarded())];
        let guard = ["netdev", rules::TABLE];
        for (before, script, table) in [
            (&[][..], sidecar.clone(), ["inet", &seat.table()]),
            (std::slice::from_ref(&sidecar), sidecar.clone(), ["inet", &seat.table()]),
            (&[], sidecar6.clone(), ["ip6", &seat.table()]),
            (&guarded[..1], start(&v4, guard::guarding), guard),
            (&guarded[..1], start(&v6, guard::guarding), guard),
            (&guarded, start(&v6, guard::guarding_anew), guard),
            (&guarded, guard::freeing("lo"), guard),
        ] {
            let [text, netlink] = [false, true].map(|by_netlink| listed(before, &script, by_netlink, table));
            assert_eq!(netlink, text, "{script}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_to_the_program() {
        let known = "table inet t {}\ndelete table inet t\ntable inet t {\n chain c {\n accept\n }\n}\n";
        assert_eq!(compile(known).map(|known| known.messages().len()), Some(5));
        for unknown in [
            "table bridge t {}",
            "flush ruleset",
            "table inet t {\n counter c {\n }\n}",
            "table inet t {\n chain c {\n udp dport 53 accept\n }\n}",
            "table inet t {\n chain c {\n ip saddr { 10.0.0.1 accept\n }\n}",
            "table inet t {\n chain c {\n type filter hook input priority raw; policy accept;\n }\n}",
            "table inet t {\n chain c {\n accept\n",
            "add element inet t s { web }",
        ] {
            assert!(compile(unknown).is_none(), "{unknown}");
        }
    }
}
