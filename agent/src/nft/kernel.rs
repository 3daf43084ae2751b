//! Questions to nf_tables that are asked too often for a process each: whether a ruleset has changed, and what its
//! counters say. Read only, by netlink (linux/netfilter/nf_tables.h).

use std::io;

use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;
const NEW_OBJECT: u16 = 18;
const GET_OBJECT: u16 = 19;
const TABLE_NAME: u16 = 1; // NFTA_TABLE_NAME
const GENERATION_ID: u16 = 1; // NFTA_GEN_ID
const OBJECT_TABLE: u16 = 1; // NFTA_OBJ_TABLE
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1; // NFT_OBJECT_COUNTER
const COUNTER_PACKETS: u16 = 2; // NFTA_COUNTER_PACKETS
const KIND_MASK: u16 = 0x3fff; // NLA_TYPE_MASK
/// A netlink header, then nfgenmsg: family, version, resource.
const HEADERS: usize = 16 + 4;

/// A number that grows by one with every change to the ruleset of `ns`.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn generation(hopper: &Hopper, ns: &NetNs) -> io::Result<u32> {
    let answers = ask(hopper, ns, GET_GENERATION, 0, &[])?;
    let answer = answers.iter().find(|answer| answer.kind == NEW_GENERATION);
    let id = answer.and_then(|answer| find(&answer.attributes, GENERATION_ID));
    let id = id.and_then(|id| <[u8; 4]>::try_from(id.as_slice()).ok());
    id.map(u32::from_be_bytes).ok_or_else(|| io::Error::other("nf_tables has no generation"))
}

/// Whether `ns` has a table of this name, of whatever family.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn has_table(hopper: &Hopper, ns: &NetNs, name: &str) -> io::Result<bool> {
    let answers = ask(hopper, ns, GET_TABLE, libc::NLM_F_DUMP as u16, &[])?;
    let mut tables = answers.iter().filter(|answer| answer.kind == NEW_TABLE);
    let is_named = |found: Vec<u8>| found.strip_suffix(b"\0").unwrap_or(&found) == name.as_bytes();
    Ok(tables.any(|table| find(&table.attributes, TABLE_NAME).is_some_and(is_named)))
}

/// Packets that each named counter of the tables of this name in `ns` has counted.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn counters(hopper: &Hopper, ns: &NetNs, table: &str) -> io::Result<Vec<(String, u64)>> {
    let answers = ask(
        hopper,
        ns,
        GET_OBJECT,
        libc::NLM_F_DUMP as u16,
        &attribute(OBJECT_TYPE, &COUNTER.to_be_bytes()),
    )?;
    let counters = answers.iter().filter(|answer| answer.kind == NEW_OBJECT).filter_map(|answer| {
        let text = |kind| {
            let bytes = find(&answer.attributes, kind)?;
            Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
        };
        let packets = find(&find(&answer.attributes, OBJECT_DATA)?, COUNTER_PACKETS)?;
        let packets = <[u8; 8]>::try_from(packets.as_slice()).ok().map(u64::from_be_bytes)?;
        (text(OBJECT_TABLE)? == table).then_some((text(OBJECT_NAME)?, packets))
    });
    Ok(counters.collect())
}

struct Answer {
    kind: u16,
    attributes: Vec<u8>,
}

fn ask(hopper: &Hopper, ns: &NetNs, kind: u16, flags: u16, attributes: &[u8]) -> io::Result<Vec<Answer>> {
    let socket = hopper.run(ns, || -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    })??;
    socket.send(&request(kind, flags, attributes), 0)?;
    let dump = flags != 0;
    let mut answers = Vec::new();
    let mut received: Vec<u8> = Vec::with_capacity(64 * 1024);
    loop {
        received.clear();
        socket.recv(&mut received, 0)?;
        let mut rest = received.as_slice();
        while let Some((length, kind)) = header(rest) {
            let Some(message) = rest.get(..length) else { break };
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(answers),
                libc::NLMSG_ERROR => {
                    let errno = message.get(16..20).and_then(|bytes| bytes.try_into().ok());
                    let errno = errno.map_or(0, i32::from_ne_bytes).saturating_neg();
                    return Err(io::Error::from_raw_os_error(errno));
                }
                _ => {
                    let attributes = message.get(HEADERS..).unwrap_or_default().to_vec();
                    answers.push(Answer { kind: kind & 0xff, attributes });
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        if !dump {
            return Ok(answers);
        }
    }
}

/// Length and kind of the first message.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (length >= 16).then_some((length, kind))
}

fn request(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADERS + attributes.len()) as u32;
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend(length.to_ne_bytes());
    message.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    message.extend([0; 8]); // Sequence and port.
    message.extend([libc::AF_UNSPEC as u8, 0, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn find(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .find_map(|nla| nla.ok().filter(|nla| nla.kind() & KIND_MASK == kind))
        .map(|nla| nla.value().to_vec())
}
