//! Names in a namespace of somebody else's: Docker's resolver begins there at any moment, by a rule that leads what is asked
//! of 127.0.0.11 to it. What is not tracked is not led astray. Pure.

use std::net::Ipv4Addr;

use super::datum::{TCP, UDP};
use super::rule::rule;
use super::ruleset::{Chain, Family, Hook, Point, Table, TableName};
use super::selector::{End, Ip, Selector};

/// Priority of `raw`: before conntrack.
const RAW: i32 = -300;
const DNS: u16 = 53;

/// The table's name.
pub(super) fn name() -> TableName {
    TableName::new(Family::Ip, "sealane-names")
}

/// The table that keeps the questions to our resolver at `address` ours, and its answers.
pub(super) fn table(address: Ipv4Addr) -> Table {
    let untracked = |end| {
        let ours = rule().is(Selector::Address(Ip::V4, end), address);
        ours.among(Selector::Protocol, [TCP, UDP]).is(Selector::AnyPort(end), DNS).untracked()
    };
    let output = Chain::new("output", [End::Destination, End::Source].map(untracked));
    let table = name().table().comment("names of Sealane's networks are answered here");
    table.chain(output.at(Hook::filter(Point::Output, RAW)))
}
