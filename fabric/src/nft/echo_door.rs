//! The door of the namespace of echoes: questions and answers enter, datagrams that try checksums and the answers to them, and
//! nothing else that a host might send there, such as a word that its packets are too long (RFC 8201), a redirect or an
//! advertisement. Pure.
//!
//! Neighbours there are written by the agent, so that neither questions for them nor answers are needed. An extension header, of a
//! fragment too, is none of an echo.

use super::datum::{ECHO_REPLY6, ECHO_REQUEST6, ICMPV6, UDP, UNREACHABLE6};
use super::rule::rule;
use super::ruleset::{Chain, Family, Hook, Point, Table, TableName};
use super::selector::{End, Ip, Selector};
use crate::netlink::DISCARD;

/// Priority of `raw`: before everything else.
const RAW: i32 = -300;

/// The table that lets echoes in.
pub(super) fn table() -> Table {
    let echoes = rule().is(Selector::NextHeader, ICMPV6);
    let echoes = echoes.among(Selector::Message(Ip::V6), [UNREACHABLE6, ECHO_REQUEST6, ECHO_REPLY6]).accept();
    let datagrams = rule().is(Selector::NextHeader, UDP).is(Selector::UdpPort(End::Destination), DISCARD);
    let hook = Hook::filter(Point::Prerouting, RAW).dropping();
    let table = TableName::new(Family::Inet, "sealane-echo-door").table();
    table
        .comment("echoes of Sealane's hosts, and nothing else")
        .chain(Chain::new("prerouting", [echoes, datagrams.accept()]).at(hook))
}
