//! The kernel's table of a network's services, in one workload's namespace, and the transactions that make it. Pure.
//!
//! Base chains ask two sets: `services` (address . transport . port) leads to the chain of a port, which chooses an
//! endpoint; `vips` has every service's address. A port's chain is replaced, never changed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sealane_proto::types::{NetworkName, Transport};

use super::table::{Backends, Mapped, ServiceTable};
use crate::netlink::netfilter::{Attributes, Transaction};
use crate::nft::expression::{Family, Rule, octets, value};
use crate::nft::writer::{Hook, NLM_F_CREATE, Writer, element, fingerprint};

/// The map from ports to their chains.
pub(super) const SERVICES: &str = "services";
/// The set of services' addresses.
pub(super) const VIPS: &str = "vips";
/// NF_INET_LOCAL_OUT of linux/netfilter.h.
const OUTPUT: u32 = 3;
/// Before and after the sidecar's rules, which are at the usual -100 (dstnat).
const BEFORE_DSTNAT: i32 = -110;
const AFTER_DSTNAT: i32 = -90;
/// Numbers of types in the nft program, by which it shows elements: of verdicts, ports, transports and numbers.
const VERDICTS: u32 = 0xffff_ff00;
const PORT: u32 = 13;
const PROTOCOL: u32 = 12;
const NUMBER: u32 = 4;
/// NFT_MSG_NEWTABLE of linux/netfilter/nf_tables.h.
const NEW_TABLE: u8 = 0;
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const INTERVAL: u32 = 4;
const MAP: u32 = 8;

/// The name of a network's table.
pub(super) fn table_name(network: &NetworkName) -> String {
    format!("sealane-services-{network}")
}

/// The rules of every chain that has any, by fingerprints in their order.
pub(super) fn fingerprints(table: &ServiceTable) -> BTreeMap<String, Vec<String>> {
    let base = base_chains(table).into_iter().filter(|chain| !chain.rules.is_empty());
    let mut chains: BTreeMap<String, Vec<String>> =
        base.map(|chain| (chain.name.to_owned(), chain.rules.iter().map(fingerprint).collect())).collect();
    for backends in table.ports.values() {
        chains.insert(backends.chain.clone(), vec![fingerprint(&choice(backends, 0))]);
    }
    chains
}

/// A port as the kernel looks it up: every part begins at a multiple of four bytes.
pub(super) fn key(mapped: Mapped) -> Vec<u8> {
    let mut key = octets(mapped.vip);
    key.extend([protocol(mapped.transport), 0, 0, 0]);
    key.extend(mapped.port.to_be_bytes());
    key.extend([0; 2]);
    key
}

fn protocol(transport: Transport) -> u8 {
    (match transport {
        Transport::Tcp => libc::IPPROTO_TCP,
        Transport::Udp => libc::IPPROTO_UDP,
    }) as u8
}

/// A base chain of the kind `nat`: the kernel asks it for the first packet of a flow alone, and leaves it out as soon as
/// another has translated that.
struct Chain {
    name: &'static str,
    priority: i32,
    rules: Vec<Rule>,
}

fn base_chains(table: &ServiceTable) -> Vec<Chain> {
    let (family, tcp, udp) = (Family::V4, protocol(Transport::Tcp), protocol(Transport::Udp));
    let each = |rule: &dyn Fn(IpNet) -> Rule| table.blocks.iter().map(|&net| rule(net)).collect::<Vec<_>>();
    let mapped = vec![
        Rule::default().mapped_by(family, SERVICES),
        // The kernel answers pings to itself.
        Rule::default().destination_in(family, VIPS).echo_request(family).redirect(),
    ];
    // A sender of datagrams is told by ICMP alone when nobody is there to get them: where a rule refuses them on their
    // way out, send(2) fails with EPERM as well.
    let round = each(&|net| Rule::default().destination_of(family, net).carried_by(udp).redirect_to_nobody());
    let reset = each(&|net| Rule::default().destination_of(family, net).carried_by(tcp).reset());
    let other = each(&|net| Rule::default().destination_of(family, net).unreachable());
    vec![
        Chain { name: "balance", priority: BEFORE_DSTNAT, rules: [mapped, round].concat() },
        // What was mapped or redirected, here or to the sidecar, does not come here.
        Chain { name: "unmapped", priority: AFTER_DSTNAT, rules: [reset, other].concat() },
    ]
}

/// The rule of a port's chain, with the map of this number in its transaction.
fn choice(backends: &Backends, id: u32) -> Rule {
    let total = backends.endpoints.iter().map(|known| u32::from(known.weight.get())).sum();
    Rule::default().choose(Family::V4, total, ("__map%d", id), backends.elsewhere)
}

/// The transaction that puts the table in the place of what is there.
pub(super) fn replacement(name: &str, wanted: &ServiceTable) -> Transaction {
    Writer::replacing(name).whole(wanted)
}

/// The transaction that puts the table where there is none.
pub(super) fn creation(name: &str, wanted: &ServiceTable) -> Transaction {
    let mut writer = Writer::of(name);
    writer.put(NEW_TABLE, NLM_F_CREATE, |_| {});
    writer.whole(wanted)
}

/// The transaction that leads from the table as it is known to be to the one that is wanted.
pub(super) fn difference(name: &str, known: &ServiceTable, wanted: &ServiceTable) -> Transaction {
    if known.blocks != wanted.blocks {
        return replacement(name, wanted);
    }
    let mut writer = Writer::of(name);
    writer.advance(known, wanted);
    writer.done()
}

impl Writer<'_> {
    /// All of a table that has just been made.
    fn whole(mut self, wanted: &ServiceTable) -> Transaction {
        self.sets();
        for chain in base_chains(wanted) {
            self.chain(chain.name, Some(&Hook { kind: "nat", number: OUTPUT, priority: chain.priority }));
            for rule in &chain.rules {
                self.rule(chain.name, rule);
            }
        }
        self.advance(&ServiceTable::default(), wanted);
        self.done()
    }

    fn advance(&mut self, known: &ServiceTable, wanted: &ServiceTable) {
        let other = |a: &ServiceTable, b: &ServiceTable| -> Vec<(Mapped, Backends)> {
            let ports = a.ports.iter().filter(|(mapped, backends)| b.ports.get(mapped) != Some(backends));
            ports.map(|(mapped, backends)| (*mapped, backends.clone())).collect()
        };
        let (gone, new) = (other(known, wanted), other(wanted, known));
        for (_, backends) in &new {
            self.chain(&backends.chain, None);
            self.choice(backends);
        }
        self.elements(false, SERVICES, gone.iter().map(|(mapped, _)| element(&key(*mapped), None)));
        let leads = |(mapped, backends): &(Mapped, Backends)| element(&key(*mapped), Some(&backends.chain));
        self.elements(true, SERVICES, new.iter().map(leads));
        for (_, backends) in &gone {
            self.remove_chain(&backends.chain);
        }
        let only = |a: &ServiceTable, b: &ServiceTable| -> Vec<IpAddr> {
            a.vips.difference(&b.vips).copied().collect()
        };
        for (add, vips) in [(false, only(known, wanted)), (true, only(wanted, known))] {
            self.elements(add, VIPS, vips.iter().map(|&vip| element(&octets(vip), None)));
        }
    }

    fn sets(&mut self) {
        let Family { kind, length, .. } = Family::V4;
        let id = self.next_set();
        self.put(9, NLM_F_CREATE, |map| {
            map.text(2, SERVICES);
            map.number(3, MAP);
            map.number(4, (kind << 12) | (PROTOCOL << 6) | PORT);
            map.number(5, length + 8);
            map.number(6, VERDICTS);
            map.number(7, 0);
            map.number(10, id);
        });
        self.set(VIPS, kind, length);
    }

    /// A port's rule: every endpoint has as many of the numbers as it weighs.
    fn choice(&mut self, backends: &Backends) {
        let (id, Family { kind, length, .. }) = (self.next_set(), Family::V4);
        // An address, or an address and a port.
        let (kind, length) =
            if backends.elsewhere { ((kind << 6) | PORT, length + 4) } else { (kind, length) };
        self.put(9, NLM_F_CREATE, |map| {
            map.text(2, "__map%d");
            map.number(3, ANONYMOUS | CONSTANT | INTERVAL | MAP);
            map.number(4, NUMBER);
            map.number(5, 4);
            map.number(6, kind);
            map.number(7, length);
            map.number(10, id);
        });
        let mut first = 0;
        let mut ranges: Vec<Attributes> = Vec::new();
        for known in &backends.endpoints {
            let mut place = octets(known.address);
            if backends.elsewhere {
                place.extend(known.port.to_be_bytes());
                place.extend([0; 2]);
            }
            ranges.push(range(first, &place));
            first += u32::from(known.weight.get());
        }
        ranges.push(end(first));
        self.elements_of(id, "__map%d", &ranges);
        // The number differs from one transaction to the next; the name must not.
        let name = fingerprint(&choice(backends, 0));
        self.named_rule(&backends.chain, &choice(backends, id), &name);
    }
}

/// The numbers from `first` on, up to the next element, choose `place`.
fn range(first: u32, place: &[u8]) -> Attributes {
    Attributes::of(|element| {
        element.nested(1, |data| value(data, &first.to_be_bytes()));
        element.nested(2, |data| value(data, place));
    })
}

/// The last range ends before `number`.
fn end(number: u32) -> Attributes {
    Attributes::of(|element| {
        element.nested(1, |data| value(data, &number.to_be_bytes()));
        element.number(3, 1);
    })
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::*;

    const SERVICES: [&str; 2] = ["api 10.42.255.1 80 53/udp", "db 10.42.255.2 5432"];
    const API: &str = "api-1 10.42.0.1 api 1 80 53/udp";
    const DB: &str = "db-1 10.42.0.2 db 1 5432";

    fn numbers(transaction: &Transaction) -> Vec<u8> {
        transaction.messages().iter().map(|(verb, _)| verb.number).collect()
    }

    fn mentions(transaction: &Transaction, text: &str) -> bool {
        let has = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        transaction.messages().iter().any(|(_, attributes)| has(attributes.as_bytes()))
    }

    #[test]
    fn a_change_of_one_service_touches_no_other() {
        let before = table(&SERVICES, &[API, DB], false);
        let after = table(&SERVICES, &[API, DB, "db-2 10.42.0.3 db 1 5432"], false);
        let change = difference("t", &before, &after);
        // Chain, map, elements, rule; the port leads there; the old chain goes.
        assert_eq!(numbers(&change), [3, 9, 12, 6, 14, 12, 8, 5]);
        assert!(mentions(&change, "svc/db/") && !mentions(&change, "svc/api/"));
        assert!(difference("t", &after, &after).is_empty());
    }

    #[test]
    fn ports_come_and_go_with_their_endpoints() {
        let (none, one) = (table(&SERVICES, &[], false), table(&SERVICES, &[DB], false));
        assert_eq!(numbers(&difference("t", &none, &one)), [3, 9, 12, 6, 12]);
        assert_eq!(numbers(&difference("t", &one, &none)), [14, 8, 5]);
        let fewer = table(&SERVICES[..1], &[], false);
        assert_eq!(
            numbers(&difference("t", &none, &fewer)),
            [14],
            "an address that is no service's any more"
        );
    }

    #[test]
    fn many_endpoints_are_split_into_lists_that_a_message_can_hold() {
        let many: Vec<String> =
            (0..1200).map(|n| format!("db-{n} 10.42.{}.{} db 1 5432", n / 250, n % 250 + 1)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (none, all) = (table(&SERVICES, &[], false), table(&SERVICES, &many, false));
        let change = difference("t", &none, &all);
        assert_eq!(numbers(&change), [3, 9, 12, 12, 12, 6, 12]);
        assert!(change.messages().iter().all(|(_, attributes)| attributes.as_bytes().len() < 60_000));
    }

    #[test]
    fn other_blocks_make_other_base_rules() {
        let before = table(&SERVICES, &[API], false);
        let mut after = before.clone();
        after.blocks.insert("10.42.254.0/24".parse().unwrap());
        assert_eq!(difference("t", &before, &after), replacement("t", &after));
        assert_ne!(fingerprints(&before), fingerprints(&after));
    }
}
