//! One rule, from its words to its expressions.

use super::super::expression::{Family, Rule};
use super::super::writer::Writer;
use super::value::{self, DEVICE, Key, MESSAGE, PORT, STATE, behind, ethernet, mask, port, prefix, row};
use super::{INET, IPV6, NETDEV};
use crate::netlink::netfilter::Attributes;

const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_IIFTYPE: u32 = 8;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
/// IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const DESTINATION_CHANGED: u32 = 1 << 5;
/// The first of the registers, and the one behind 16 bytes of it.
const FIRST: u32 = 1;
const SECOND: u32 = 2;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// ARPHRD_ETHER, ETH_P_ARP.
const ETHERNET: u16 = 1;
const ARP: u16 = 0x0806;
/// NFT_SET_ANONYMOUS, NFT_SET_CONSTANT; NFT_SET_INTERVAL.
const ANONYMOUS: u32 = 1 | 2;
const INTERVAL: u32 = 4;
const INVERTED: u32 = 1; // NFT_LOOKUP_F_INV
const NOT_EQUAL: u32 = 1; // NFT_CMP_NEQ
const DNAT: u32 = 1; // NFT_NAT_DNAT
const WITH_PORT: u32 = 2; // NF_NAT_RANGE_PROTO_SPECIFIED

/// A rule that is being read.
pub(super) struct Sentence<'w, 'a> {
    writer: &'w mut Writer<'a>,
    rule: Rule,
    /// Facts that the rule has established so far: the packet's family and its protocol.
    network: Option<u8>,
    transport: Option<u8>,
    comment: Option<&'a str>,
}

impl<'w, 'a> Sentence<'w, 'a> {
    pub(super) fn new(writer: &'w mut Writer<'a>) -> Self {
        Self { writer, rule: Rule::default(), network: None, transport: None, comment: None }
    }

    /// The rule and its comment.
    pub(super) fn read(mut self, mut words: &[&'a str]) -> Option<(Rule, Option<&'a str>)> {
        while !words.is_empty() {
            words = self.statement(words)?;
        }
        Some((self.rule, self.comment))
    }

    /// Takes one statement and leaves the rest.
    fn statement<'t>(&mut self, words: &'t [&'a str]) -> Option<&'t [&'a str]> {
        match words {
            ["comment", text, rest @ ..] => {
                self.comment = Some(text);
                Some(rest)
            }
            ["counter", rest @ ..] => self.add(Rule::count_here, rest),
            ["accept", rest @ ..] => self.add(Rule::accept, rest),
            ["drop", rest @ ..] => self.add(Rule::drop, rest),
            ["return", rest @ ..] => self.add(Rule::leave, rest),
            ["goto", chain, rest @ ..] => self.add(|rule| rule.go_to(chain), rest),
            ["reject", "with", "tcp", "reset", rest @ ..] => self.add(Rule::reset, rest),
            ["dnat", "ip", "to", place, rest @ ..] if self.writer.family() == INET => self.lead(place, rest),
            ["dnat", "to", place, rest @ ..] if self.writer.family() == IPV6 => self.lead(place, rest),
            ["redirect", "to", to, rest @ ..] => {
                let port = port(to.strip_prefix(':')?)?;
                self.add(|rule| rule.constant(FIRST, &port).redirect_by(FIRST, WITH_PORT), rest)
            }
            _ => self.condition(words),
        }
    }

    fn condition<'t>(&mut self, words: &'t [&'a str]) -> Option<&'t [&'a str]> {
        match words {
            ["meta", "mark", mark, rest @ ..] => {
                let mark = u32::from_str_radix(mark.strip_prefix("0x")?, 16).ok()?;
                self.add(|rule| rule.meta(META_MARK, FIRST).is(&mark.to_ne_bytes()), rest)
            }
            ["meta", "l4proto", "tcp", rest @ ..] => self.carried_by(libc::IPPROTO_TCP as u8, rest),
            ["meta", "nfproto", "ipv4", rest @ ..] if self.writer.family() == INET => {
                self.of_family(Family::V4)?;
                Some(rest)
            }
            ["iifname", rest @ ..] => {
                self.add(|rule| rule.meta(META_IIFNAME, FIRST), rest)?;
                self.judge(DEVICE, rest)
            }
            ["oifname", rest @ ..] => {
                self.add(|rule| rule.meta(META_OIFNAME, FIRST), rest)?;
                self.judge(DEVICE, rest)
            }
            ["ip", end, rest @ ..] => self.address(Family::V4, end, rest),
            ["ip6", end, rest @ ..] => self.address(Family::V6, end, rest),
            ["tcp", "dport", rest @ ..] => {
                self.carried_by(libc::IPPROTO_TCP as u8, rest)?;
                self.add(|rule| rule.payload(TRANSPORT_HEADER, 2, 2, FIRST), rest)?;
                self.judge(PORT, rest)
            }
            ["icmpv6", "type", rest @ ..] => {
                self.of_family(Family::V6)?;
                self.carried_by(libc::IPPROTO_ICMPV6 as u8, rest)?;
                self.add(|rule| rule.payload(TRANSPORT_HEADER, 0, 1, FIRST), rest)?;
                self.judge(MESSAGE, rest)
            }
            ["@th,64,128", "!=", value, rest @ ..] => {
                let value = u128::from_str_radix(value.strip_prefix("0x")?, 16).ok()?.to_be_bytes();
                let payload = |rule: Rule| rule.payload(TRANSPORT_HEADER, 8, 16, FIRST);
                self.add(|rule| payload(rule).compare(NOT_EQUAL, &value), rest)
            }
            ["ct", rest @ ..] => self.tracked(rest),
            ["ether" | "arp", ..] => self.frame(words),
            _ => None,
        }
    }

    /// Matches on conntrack's knowledge of the packet's connection.
    fn tracked<'t>(&mut self, words: &'t [&'a str]) -> Option<&'t [&'a str]> {
        match words {
            ["state", rest @ ..] => {
                self.add(|rule| rule.tracked(CT_STATE, None), rest)?;
                self.judge(STATE, rest)
            }
            ["status", "dnat", rest @ ..] => {
                let flag = DESTINATION_CHANGED.to_ne_bytes();
                let zero = [0; 4];
                let masked = |rule: Rule| rule.tracked(CT_STATUS, None).masked(&flag);
                self.add(|rule| masked(rule).compare(NOT_EQUAL, &zero), rest)
            }
            ["original", "proto-dst", number, rest @ ..] => {
                let port = port(number)?;
                self.add(|rule| rule.tracked(CT_PROTO_DST, Some(0)).is(&port), rest)
            }
            _ => None,
        }
    }

    /// Matches on the frame's header, or on that of an ARP message.
    fn frame<'t>(&mut self, words: &'t [&'a str]) -> Option<&'t [&'a str]> {
        let (header, offset, value, rest) = match words {
            ["ether", "saddr", mac, rest @ ..] => {
                self.add(|rule| rule.meta(META_IIFTYPE, FIRST).is(&ETHERNET.to_ne_bytes()), rest)?;
                (LINK_HEADER, 6, ethernet(mac)?, rest)
            }
            ["arp", "saddr", "ether", mac, rest @ ..] => (NETWORK_HEADER, 8, ethernet(mac)?, rest),
            ["arp", "saddr", "ip", address, rest @ ..] => (NETWORK_HEADER, 14, prefix(address)?.0, rest),
            _ => return None,
        };
        if header == NETWORK_HEADER {
            self.of_protocol(ARP, 0)?;
        }
        let length = u32::try_from(value.len()).ok()?;
        self.add(|rule| rule.payload(header, offset, length, FIRST).is(&value), rest)
    }

    fn add<'t>(&mut self, with: impl FnOnce(Rule) -> Rule, rest: &'t [&'a str]) -> Option<&'t [&'a str]> {
        self.rule = with(std::mem::take(&mut self.rule));
        Some(rest)
    }

    fn carried_by<'t>(&mut self, protocol: u8, rest: &'t [&'a str]) -> Option<&'t [&'a str]> {
        if self.transport.replace(protocol) == Some(protocol) {
            return Some(rest);
        }
        self.add(|rule| rule.carried_by(protocol), rest)
    }

    /// Sees to it that the packet is one of the family, where the table's own does not.
    fn of_family(&mut self, family: Family) -> Option<()> {
        match self.writer.family() {
            INET if self.network.replace(family.nfproto) != Some(family.nfproto) => {
                self.add(|rule| rule.of(family), &[]).map(drop)
            }
            NETDEV => self.of_protocol(family.protocol, family.nfproto),
            IPV6 if family == Family::V4 => None,
            _ => Some(()),
        }
    }

    fn of_protocol(&mut self, protocol: u16, family: u8) -> Option<()> {
        if self.writer.family() != NETDEV {
            return None;
        }
        if self.network.replace(family) != Some(family) {
            let protocol = protocol.to_be_bytes();
            self.add(|rule| rule.meta(META_PROTOCOL, FIRST).is(&protocol), &[])?;
        }
        Some(())
    }

    fn address<'t>(&mut self, family: Family, end: &str, words: &'t [&'a str]) -> Option<&'t [&'a str]> {
        self.of_family(family)?;
        let offset = match end {
            "saddr" => family.source,
            "daddr" => family.destination,
            _ => return None,
        };
        self.add(|rule| rule.payload(NETWORK_HEADER, offset, family.length, FIRST), words)?;
        let length = family.length as usize;
        let (differs, value) = match words {
            ["!=", value, ..] => (true, *value),
            [value, ..] => (false, *value),
            [] => return None,
        };
        let rest = words.get(1 + usize::from(differs)..)?;
        if let Some((network, bits)) = prefix(value).filter(|(_, bits)| *bits < family.length * 8) {
            if network.len() != length {
                return None;
            }
            let operator = if differs { NOT_EQUAL } else { 0 };
            return self.add(|rule| rule.masked(&mask(bits, length)).compare(operator, &network), rest);
        }
        if value == "{" {
            let end = rest.iter().position(|word| *word == "}")?;
            let (rows, rest) = rest.split_at(end);
            let rows: Vec<_> = rows.iter().map(|row| prefix(row)).collect::<Option<_>>()?;
            let is_of_family = |(row, _): &(Vec<u8>, u32)| row.len() == length;
            if !rows.iter().all(is_of_family) {
                return None;
            }
            self.look_up_ranges(family, &rows, differs);
            return rest.get(1..);
        }
        let read = if family == Family::V4 { value::address4 } else { value::address6 };
        self.judge(Key { kind: family.kind, length, of_host: false, read }, words)
    }

    /// Compares what is in the first register with what the words say: a value, a set of them, or one of the table's.
    fn judge<'t>(&mut self, key: Key, words: &'t [&'a str]) -> Option<&'t [&'a str]> {
        let (differs, words) = match words {
            ["!=", words @ ..] => (true, words),
            words => (false, words),
        };
        let (first, rest) = words.split_first()?;
        if let Some(set) = first.strip_prefix('@') {
            return self.add(|rule| rule.found_in(set, None, flags(differs)), rest);
        }
        if *first != "{" {
            let (value, operator) = ((key.read)(first)?, if differs { NOT_EQUAL } else { 0 });
            return self.add(|rule| rule.compare(operator, &value), rest);
        }
        let end = rest.iter().position(|word| *word == "}")?;
        let (rows, rest) = rest.split_at(end);
        let rows: Vec<_> = rows.iter().map(|text| Some(row(&(key.read)(text)?))).collect::<Option<_>>()?;
        self.look_up(key, 0, &rows, differs);
        rest.get(1..)
    }

    /// Looks up an address in addresses and prefixes.
    fn look_up_ranges(&mut self, family: Family, rows: &[(Vec<u8>, u32)], differs: bool) {
        let length = family.length as usize;
        let key = Key { kind: family.kind, length, of_host: false, read: value::address4 };
        let all = family.length * 8;
        if rows.iter().all(|(_, bits)| *bits == all) {
            let rows: Vec<_> = rows.iter().map(|(key, _)| row(key)).collect();
            return self.look_up(key, 0, &rows, differs);
        }
        let mut sorted: Vec<&(Vec<u8>, u32)> = rows.iter().collect();
        sorted.sort();
        // As nft does: each range begins, and ends where the next address is none of any.
        let mut ranges = vec![value::end(&vec![0; length])];
        for (place, (network, bits)) in sorted.iter().enumerate() {
            let Some(behind) = behind(network, *bits) else {
                ranges.push(value::last(network));
                continue;
            };
            ranges.push(row(network));
            if sorted.get(place + 1).is_none_or(|(next, _)| *next != behind) {
                ranges.push(value::end(&behind));
            }
        }
        self.look_up(key, INTERVAL, &ranges, differs);
    }

    /// Makes a set of these rows for this rule alone.
    fn look_up(&mut self, key: Key, more: u32, rows: &[Attributes], differs: bool) {
        let id = self.writer.next_set();
        let order: u32 = if key.of_host { 1 } else { 2 };
        self.writer.put(9, super::NLM_F_CREATE, |set| {
            set.text(2, "__set%d");
            set.number(3, ANONYMOUS | more);
            set.number(4, key.kind);
            set.number(5, u32::try_from(key.length).unwrap_or_default());
            set.nested(9, |size| size.number(1, u32::try_from(rows.len()).unwrap_or_default()));
            set.number(10, id);
            // As nft keeps the byte order of keys: a type, the length, the number.
            set.bytes(13, &[&[0, 4], &order.to_ne_bytes()[..]].concat());
        });
        self.writer.elements_of(id, "__set%d", rows);
        self.rule = std::mem::take(&mut self.rule).found_in("__set%d", Some(id), flags(differs));
    }

    /// `dnat to PLACE`
    fn lead<'t>(&mut self, place: &str, rest: &'t [&'a str]) -> Option<&'t [&'a str]> {
        let (address, number) = place.rsplit_once(':')?;
        let (address, _) = prefix(address.trim_start_matches('[').trim_end_matches(']'))?;
        let (port, family) = (port(number)?, if address.len() == 4 { Family::V4 } else { Family::V6 });
        let constants = |rule: Rule| rule.constant(FIRST, &address).constant(SECOND, &port);
        let lead = [(1, DNAT), (2, family.nfproto.into()), (3, FIRST), (5, SECOND), (7, WITH_PORT)];
        self.add(|rule| constants(rule).translate(&lead), rest)
    }
}

fn flags(differs: bool) -> u32 {
    if differs { INVERTED } else { 0 }
}
