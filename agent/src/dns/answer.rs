//! From a query's bytes to an answer's. Pure: no sockets, no clock, no random source.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::{Apex, Query, QueryName, Rcode, RecordType, Refused, UDP_LIMIT, Writer, write_header};
use super::targets::{SrvTarget, Targets};
use super::view::NameView;
use super::zone::Lookup;

/// Lifetime of our answers in caches, in seconds: an instance that ended is asked for no longer than this.
pub(crate) const TTL: u32 = 2;
/// Explanation for askers of a foreign name where nothing may leave (RFC 8914, section 4.19).
const PROHIBITED: (u16, &str) = (18, "the network lets nothing out (egress: deny)");
/// The class of the Internet.
const IN: u16 = 1;

/// Transport of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: answers are limited by what the asker says it takes.
    Udp,
    /// On a stream: answers may have 65,535 bytes.
    Tcp,
}

/// Action on a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send what was written.
    Answered {
        /// Response code of the answer.
        rcode: Rcode,
    },
    /// Let others answer.
    Forward,
    /// Nothing may be said.
    Drop,
}

/// Answers one query message into `out`, whose content is replaced.
///
/// Instances are answered in an order that `seed` chooses. Where not all fit into a datagram, those that do are said
/// (some resolvers look no further) and the answer is marked as truncated; over TCP it is whole.
///
/// Other types than A, AAAA, PTR and SRV of our names have no records (NOERROR and nothing, never NXDOMAIN, which would hide the A
/// records from resolvers that ask for AAAA first); ANY is answered like A (RFC 8482, section 4.1).
pub fn answer(view: &NameView, query: &[u8], transport: Transport, seed: u64, out: &mut Vec<u8>) -> Outcome {
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(Refused::Silently) => return Outcome::Drop,
        Err(Refused::With { id, flags, rcode }) => {
            write_header(out, id, flags, rcode);
            return Outcome::Answered { rcode };
        }
    };
    let limit = match transport {
        Transport::Udp => query.udp_limit().min(UDP_LIMIT),
        Transport::Tcp => u16::MAX,
    };
    let rcode = match refusal(&query) {
        Some(rcode) => {
            Writer::new(out, &query, rcode, false, limit).finish(None);
            rcode
        }
        None => match view.lookup(&query.name) {
            None if view.is_closed() => {
                Writer::new(out, &query, Rcode::Refused, false, limit).finish(Some(PROHIBITED));
                Rcode::Refused
            }
            None => return Outcome::Forward,
            Some(found) => write_found(found, &query, limit, seed, out),
        },
    };
    Outcome::Answered { rcode }
}

/// Queries that are understood and not served: other classes, zone transfers, EDNS of the future.
fn refusal(query: &Query<'_>) -> Option<Rcode> {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Some(Rcode::BadVers);
    }
    match query.kind {
        RecordType::OPT => Some(Rcode::FormErr),
        RecordType::AXFR | RecordType::IXFR => Some(Rcode::Refused),
        _ => (query.class != IN).then_some(Rcode::Refused),
    }
}

fn write_found(found: Lookup<'_>, query: &Query<'_>, limit: u16, seed: u64, out: &mut Vec<u8>) -> Rcode {
    let missing = matches!(found, Lookup::Missing);
    let rcode = if missing { Rcode::NxDomain } else { Rcode::NoError };
    let mut writer = Writer::new(out, query, rcode, true, limit);
    let any = query.kind == RecordType::ANY;
    let answered = match found {
        Lookup::Addresses(addresses) if any || query.kind == RecordType::A => {
            turned(addresses.v4, seed).take_while(|&address| writer.a(address, TTL)).count() > 0
        }
        Lookup::Addresses(addresses) if query.kind == RecordType::AAAA => {
            addresses.v6(seed).take_while(|&address| writer.aaaa(address, TTL)).count() > 0
        }
        Lookup::Loopback if query.kind == RecordType::AAAA => writer.aaaa(Ipv6Addr::LOCALHOST, TTL),
        Lookup::Loopback if any || query.kind == RecordType::A => writer.a(Ipv4Addr::LOCALHOST, TTL),
        Lookup::Pointer(name) if any || query.kind == RecordType::PTR => writer.ptr(name, TTL),
        Lookup::Targets(targets) if any || query.kind == RecordType::SRV => {
            write_targets(targets, seed, &mut writer)
        }
        Lookup::Addresses(_)
        | Lookup::Loopback
        | Lookup::Pointer(_)
        | Lookup::Targets(_)
        | Lookup::Missing => false,
    };
    if !answered {
        writer.soa(apex(&query.name, missing), TTL);
    }
    writer.finish(None);
    rcode
}

/// Writes SRV records and, as far as they fit, the addresses of their targets; returns whether there are any.
fn write_targets(targets: Targets<'_>, seed: u64, writer: &mut Writer<'_>) -> bool {
    let count = targets.records().count();
    let start = usize::try_from(seed % count.max(1) as u64).unwrap_or(0);
    let records = targets.records().skip(start).chain(targets.records().take(start));
    let written =
        records.clone().take_while(|target| writer.srv(target.weight, target.port, target.name, TTL)).count();
    if written == count {
        for target in records {
            if !write_additional(target, writer) {
                break;
            }
        }
    }
    written > 0
}

/// Writes the addresses of a target; returns whether they fitted.
fn write_additional(target: SrvTarget<'_>, writer: &mut Writer<'_>) -> bool {
    let SrvTarget { name, addresses, .. } = target;
    addresses.v4.iter().all(|address| writer.additional(name, RecordType::A, TTL, &address.octets()))
        && addresses.v6(0).all(|address| writer.additional(name, RecordType::AAAA, TTL, &address.octets()))
}

/// All of `addresses`, from a place that `seed` chooses.
fn turned(addresses: &[Ipv4Addr], seed: u64) -> impl Iterator<Item = Ipv4Addr> + '_ {
    let start = usize::try_from(seed % addresses.len().max(1) as u64).unwrap_or(0);
    let (before, after) = addresses.split_at_checked(start).unwrap_or((&[], addresses));
    after.iter().chain(before).copied()
}

/// Finds the apex whose SOA a negative answer carries: the network's or, of a bare name, its own; the /24's of an
/// address.
fn apex(name: &QueryName, missing: bool) -> Apex {
    let (offset, last) = name.last();
    match name.label_count() {
        0 | 1 if missing => Apex::Root,
        0 | 1 => Apex::At(0),
        count if last == b"arpa" => {
            // No more than the smallest network has: 24 bits of IPv4, 96 of IPv6.
            let apex = if name.labels().any(|(_, label)| label == b"ip6") { 26 } else { 5 };
            let above = name.labels().nth(usize::from(count).saturating_sub(apex));
            above.map_or(Apex::Root, |(offset, _)| Apex::At(offset))
        }
        _ => Apex::At(offset),
    }
}

/// Writes SERVFAIL, with an Extended DNS Error for askers who speak EDNS; returns whether `query` is one to answer.
pub(crate) fn fail(query: &[u8], error: (u16, &str), out: &mut Vec<u8>) -> bool {
    let Ok(query) = Query::parse(query) else { return false };
    Writer::new(out, &query, Rcode::ServFail, false, u16::MAX).finish(Some(error));
    true
}

#[cfg(test)]
mod tests;
