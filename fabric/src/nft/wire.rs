//! Rules that carry every frame that comes in by one device out of another, and back: neither device leads anywhere else. Pure.

use super::datum::FRAME_IP;
use super::rule::{Rule, rule};
use super::ruleset::{Chain, Family, Hook, Point, Table, TableName};
use super::selector::{End, Selector};

/// The port at which servers of DHCP listen (RFC 2131).
const DHCP: u16 = 67;

/// Device of a wire's end, and its number.
pub(super) type Device<'a> = (&'a str, u32);

pub(super) fn name(name: &str) -> TableName {
    TableName::new(Family::Netdev, name)
}

/// The table of this name that joins two devices. `answered`: questions to DHCP servers that come by the first one go no further.
pub(super) fn table(table: &str, [first, second]: [Device<'_>; 2], answered: bool) -> Table {
    let question = rule().is(Selector::Frame, FRAME_IP).is(Selector::UdpPort(End::Destination), DHCP).drop();
    let led = |chain: &str, from: Device<'_>, to: Device<'_>, before: Option<Rule>| {
        let rules = before.into_iter().chain([rule().forward(to.0, to.1)]);
        Chain::new(chain, rules).at(Hook::filter(Point::Ingress(from.0.to_owned()), 0).dropping())
    };
    let table = name(table).table().comment("a wire of Sealane");
    table
        .chain(led("there", first, second, answered.then_some(question)))
        .chain(led("back", second, first, None))
}
