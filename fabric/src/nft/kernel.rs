//! Questions to nf_tables that are asked too often for a process each: whether a ruleset has changed, and what its
//! counters say. Read only, by netlink (linux/netfilter/nf_tables.h).

use std::io;

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use crate::netlink::NetlinkError;
use crate::netlink::netfilter::{Attributes, NetfilterSocket, Subsystem, Verb, attribute, text};

const GET_TABLE: u8 = 1;
const GET_GENERATION: u8 = 16;
const GET_OBJECT: u8 = 19;
const TABLE_NAME: u16 = 1; // NFTA_TABLE_NAME
const GENERATION_ID: u16 = 1; // NFTA_GEN_ID
const OBJECT_TABLE: u16 = 1; // NFTA_OBJ_TABLE
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1; // NFT_OBJECT_COUNTER
const COUNTER_PACKETS: u16 = 2; // NFTA_COUNTER_PACKETS

/// A number that grows by one with every change to the ruleset of `ns`.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn generation(hopper: &Hopper, ns: &NetNs) -> Result<u32, NetlinkError> {
    let id = |answer: &[u8]| attribute(answer, GENERATION_ID)?.try_into().ok().map(u32::from_be_bytes);
    let mut socket = NetfilterSocket::open(hopper, ns)?;
    let id = socket.ask(of_tables(GET_GENERATION), id, "tell the generation of its rules")?;
    id.ok_or_else(|| io::Error::other("nf_tables has no generation").into())
}

/// Returns true if `ns` has a table of this name, of whatever family.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn has_table(hopper: &Hopper, ns: &NetNs, name: &str) -> Result<bool, NetlinkError> {
    let named = |table: &[u8]| attribute(table, TABLE_NAME).map(text);
    let mut socket = NetfilterSocket::open(hopper, ns)?;
    let names = socket.dump(of_tables(GET_TABLE), &Attributes::default(), named)?;
    Ok(names.iter().any(|known| known == name))
}

/// Packets that each named counter of the tables of this name in `ns` has counted.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn counters(hopper: &Hopper, ns: &NetNs, table: &str) -> Result<Vec<(String, u64)>, NetlinkError> {
    let counter = |object: &[u8]| {
        let packets = attribute(attribute(object, OBJECT_DATA)?, COUNTER_PACKETS)?;
        let packets = packets.try_into().ok().map(u64::from_be_bytes)?;
        let name = |kind| attribute(object, kind).map(text);
        (name(OBJECT_TABLE)? == table).then_some((name(OBJECT_NAME)?, packets))
    };
    let of_kind = Attributes::of(|asked| asked.number(OBJECT_TYPE, COUNTER));
    NetfilterSocket::open(hopper, ns)?.dump(of_tables(GET_OBJECT), &of_kind, counter)
}

fn of_tables(number: u8) -> Verb {
    Verb { subsystem: Subsystem::Tables, number, flags: 0, family: libc::AF_UNSPEC as u8 }
}
