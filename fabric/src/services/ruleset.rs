//! The kernel's table of a network's services, in one workload's namespace, and the transactions that make it. Pure.
//!
//! Base chains ask two sets: `services` (address . transport . port) leads to the chain of a port, which chooses an
//! endpoint; `vips` has every service's address. A port's chain is replaced, never changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sealane_proto::types::{NetworkName, Transport};

use super::table::{Backends, Mapped, ServiceTable};
use crate::nft::change::Changes;
use crate::nft::datum::{ECHO_REQUEST, KeyType, Symbol, TCP, UDP};
use crate::nft::expression::Verdict;
use crate::nft::rule::{Choice, Rejection, Rule, rule};
use crate::nft::ruleset::{Chain, Element, Family, Hook, Point, Set, Table, TableName};
use crate::nft::selector::{End, Ip, Selector};

/// Before and after the sidecar's rules, which are at the usual -100 (dstnat).
const BEFORE_DSTNAT: i32 = -110;
const AFTER_DSTNAT: i32 = -90;
const DESTINATION: Selector = Selector::Address(Ip::V4, End::Destination);

/// The name of a network's table.
pub(super) fn table_name(network: &NetworkName) -> TableName {
    TableName::new(Family::Inet, format!("sealane-services-{network}"))
}

/// The map from ports to their chains.
pub(super) fn services() -> Set {
    let keys = vec![KeyType::IPV4, KeyType::PROTOCOL, KeyType::PORT];
    Set { keys, leads: true, ..Set::of("services", KeyType::IPV4) }
}

/// The set of services' addresses.
pub(super) fn vips() -> Set {
    Set::of("vips", KeyType::IPV4)
}

/// The comments of every chain's rules, in their order.
pub(super) fn comments(table: &ServiceTable) -> BTreeMap<String, Vec<String>> {
    let ports = table.ports.values().map(|backends| (backends.chain.clone(), vec![mark(&backends.chain)]));
    let base = base_chains(table).into_iter().filter(|chain| !chain.rules.is_empty());
    let base =
        base.map(|chain| (chain.name, chain.rules.into_iter().filter_map(|rule| rule.comment).collect()));
    base.chain(ports).collect()
}

/// The rows that lead from ports to their chains.
pub(super) fn ports<'a>(ports: impl Iterator<Item = (&'a Mapped, &'a Arc<Backends>)>) -> Vec<Element> {
    let port = |(mapped, backends): (&Mapped, &Arc<Backends>)| Element {
        key: vec![mapped.vip.into(), protocol(mapped.transport).into(), mapped.port.into()],
        verdict: Some(Verdict::Goto(backends.chain.clone())),
    };
    ports.map(port).collect()
}

/// The rows of services' addresses.
pub(super) fn addresses<'a>(vips: impl Iterator<Item = &'a IpAddr>) -> Vec<Element> {
    vips.map(|vip| Element::of(*vip)).collect()
}

fn protocol(transport: Transport) -> Symbol {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

/// The checksum of what a rule does: kept beside it, it tells the rule from every other.
fn mark(does: &str) -> String {
    format!("{:08x}", crc32fast::hash(does.as_bytes()))
}

fn marked(rule: Rule) -> Rule {
    let mark = mark(&rule.to_string());
    rule.comment(mark)
}

/// Chains of the kind `nat`: the kernel asks them for the first packet of a flow alone, and leaves them out as soon as another
/// has translated that.
fn base_chains(table: &ServiceTable) -> [Chain; 2] {
    let each = |rule: &dyn Fn(IpNet) -> Rule| table.blocks.iter().map(|&net| rule(net)).collect::<Vec<_>>();
    let within = |net| rule().is(DESTINATION, net);
    let port = [DESTINATION, Selector::Protocol, Selector::AnyPort(End::Destination)];
    let mapped = vec![
        rule().mapped_by(&port, services().name),
        // The kernel answers pings to itself.
        rule().in_set(DESTINATION, vips().name).is(Selector::Message(Ip::V4), ECHO_REQUEST).redirect(None),
    ];
    // A sender of datagrams is told by ICMP alone when nobody is there to get them: where a rule refuses them on their
    // way out, send(2) fails with EPERM as well. At port 0 nobody can listen.
    let round = each(&|net| within(net).carried_by(UDP).redirect(Some(0)));
    let reset = each(&|net| within(net).tcp().reject(Rejection::Reset));
    let other = each(&|net| within(net).reject(Rejection::PortUnreachable));
    let chain = |name: &str, priority, rules: Vec<Rule>| {
        Chain::new(name, rules.into_iter().map(marked)).at(Hook::nat(Point::Output, priority))
    };
    [
        chain("balance", BEFORE_DSTNAT, mapped.clone()),
        // What was mapped or redirected, here or to the sidecar, does not come here. Once more: a packet that meets a change of
        // rules may find rows of the new ones that lead to chains it does not see yet, as a chain's generation is that of the moment at
        // which the packet came into its hook, and a row's that of the look.
        chain("unmapped", AFTER_DSTNAT, [mapped, round, reset, other].concat()),
    ]
}

/// A port's chain: every endpoint has as many of the numbers as it weighs. Its name says everything that it does.
fn port_chain(backends: &Backends) -> Chain {
    let of = backends.endpoints.iter().map(|known| (known.place(), known.weight.get().into()));
    let choice = Choice { of: of.collect(), with_port: backends.elsewhere };
    Chain::new(backends.chain.clone(), [rule().choose(choice).comment(mark(&backends.chain))])
}

/// The table, without ports and addresses.
fn bare_table(name: &TableName, wanted: &ServiceTable) -> Table {
    base_chains(wanted).into_iter().fold(name.clone().table().set(services()).set(vips()), Table::chain)
}

/// The changes that put the table in the place of what is there.
pub(super) fn replacement(name: &TableName, wanted: &ServiceTable) -> Changes {
    let mut changes = Changes::default();
    changes.replace(bare_table(name, wanted));
    prepare(&mut changes, name, &ServiceTable::default(), wanted);
    advance(&mut changes, name, &ServiceTable::default(), wanted);
    changes
}

/// The changes that put the table where there is none.
pub(super) fn creation(name: &TableName, wanted: &ServiceTable) -> Changes {
    let mut changes = Changes::default();
    changes.add(bare_table(name, wanted));
    prepare(&mut changes, name, &ServiceTable::default(), wanted);
    advance(&mut changes, name, &ServiceTable::default(), wanted);
    changes
}

/// The changes that lead from the table as it is known to be to the one that is wanted, in two steps: new chains are whole before a
/// packet is led to them. In one, the kernel leads packets there before it has put the elements into the maps of these chains.
pub(super) fn difference(name: &TableName, known: &ServiceTable, wanted: &ServiceTable) -> [Changes; 2] {
    let [mut first, mut second] = [(); 2].map(|()| Changes::default());
    prepare(&mut first, name, known, wanted);
    advance(&mut second, name, known, wanted);
    if known.blocks != wanted.blocks {
        base_chains(wanted).into_iter().for_each(|chain| second.refill_chain(name, chain));
    }
    [first, second]
}

/// Adds the chains of ports that are new or other.
fn prepare(changes: &mut Changes, name: &TableName, known: &ServiceTable, wanted: &ServiceTable) {
    let new = known.differences(wanted).filter_map(|(_, _, new)| new);
    new.for_each(|backends| changes.add_chain(name, port_chain(backends)));
}

/// Leads ports to their chains, and removes those of before.
fn advance(changes: &mut Changes, name: &TableName, known: &ServiceTable, wanted: &ServiceTable) {
    let gone = || known.differences(wanted).filter_map(|(mapped, gone, _)| Some((mapped, gone?)));
    let new = known.differences(wanted).filter_map(|(mapped, _, new)| Some((mapped, new?)));
    changes.remove_elements(name, &services(), ports(gone()));
    changes.add_elements(name, &services(), ports(new));
    gone().for_each(|(_, backends)| changes.remove_chain(name, &backends.chain));
    changes.remove_elements(name, &vips(), addresses(known.vips.difference(&wanted.vips)));
    changes.add_elements(name, &vips(), addresses(wanted.vips.difference(&known.vips)));
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::*;

    const SERVICES: [&str; 2] = ["api 10.42.255.1 80 53/udp", "db 10.42.255.2 5432"];
    const API: &str = "api-1 10.42.0.1 api 1 80 53/udp";
    const DB: &str = "db-1 10.42.0.2 db 1 5432";

    fn numbers(changes: &Changes) -> Vec<u8> {
        changes.transaction().messages().iter().map(|(verb, _)| verb.number).collect()
    }

    fn steps(before: &ServiceTable, after: &ServiceTable) -> [Vec<u8>; 2] {
        super::difference(&name(), before, after).map(|changes| numbers(&changes))
    }

    fn name() -> TableName {
        TableName::new(Family::Inet, "t")
    }

    #[test]
    fn a_change_of_one_service_touches_no_other() {
        let before = table(&SERVICES, &[API, DB], false);
        let after = table(&SERVICES, &[API, DB, "db-2 10.42.0.3 db 1 5432"], false);
        // Chain, map, elements, rule; then the port leads there, and the old chain goes.
        assert_eq!(steps(&before, &after), [vec![3, 9, 12, 6], vec![14, 12, 8, 5]]);
        for change in difference(&name(), &before, &after) {
            let text = change.to_string();
            assert!(text.contains("svc/db/") && !text.contains("svc/api/"), "{text}");
        }
        assert!(difference(&name(), &after, &after).iter().all(Changes::is_empty));
    }

    #[test]
    fn ports_come_and_go_with_their_endpoints() {
        let (none, one) = (table(&SERVICES, &[], false), table(&SERVICES, &[DB], false));
        assert_eq!(steps(&none, &one), [vec![3, 9, 12, 6], vec![12]]);
        assert_eq!(steps(&one, &none), [vec![], vec![14, 8, 5]]);
        let fewer = table(&SERVICES[..1], &[], false);
        assert_eq!(steps(&none, &fewer), [vec![], vec![14]], "an address that is no service's any more");
    }

    #[test]
    fn many_endpoints_are_split_into_lists_that_a_message_can_hold() {
        let many: Vec<String> =
            (0..1200).map(|n| format!("db-{n} 10.42.{}.{} db 1 5432", n / 250, n % 250 + 1)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (none, all) = (table(&SERVICES, &[], false), table(&SERVICES, &many, false));
        let [change, _] = difference(&name(), &none, &all);
        assert_eq!(steps(&none, &all), [vec![3, 9, 12, 12, 12, 6], vec![12]]);
        assert!(
            change
                .transaction()
                .messages()
                .iter()
                .all(|(_, attributes)| attributes.as_bytes().len() < 60_000)
        );
    }

    #[test]
    fn other_blocks_make_other_base_rules() {
        let before = table(&SERVICES, &[API], false);
        let mut after = before.clone();
        after.blocks.insert("10.42.254.0/24".parse().unwrap());
        // Each chain is emptied and filled in one step; ports and their chains stay.
        let rules = base_chains(&after).map(|chain| chain.rules.len());
        let refilled = rules.map(|rules| [vec![8], vec![6; rules]].concat()).concat();
        assert_eq!(steps(&before, &after), [vec![], refilled]);
        assert_ne!(comments(&before), comments(&after));
    }
}
