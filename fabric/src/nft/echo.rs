//! Mark of echoes on their way out, by which the host's routing knows them. Pure.

use super::rule::rule;
use super::ruleset::{Chain, Family, Hook, Point, Table, TableName};

/// The table that gives all packets of a namespace this mark.
pub(super) fn table(mark: u32) -> Table {
    let output = Chain::new("output", [rule().mark(mark)]).at(Hook::filter(Point::Output, 0));
    let table = TableName::new(Family::Inet, "sealane-echo").table();
    table.comment("echoes of Sealane try lengths that other packets are kept from").chain(output)
}
