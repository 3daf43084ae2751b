//! Meaning of the kernel's notices: whether they contradict what a namespace should have. Pure.
//!
//! Changes of this program's own are told as well, and lead to what is wanted: of several notices about one thing the last one
//! counts. Devices are named alone, as they have more to compare than a notice tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::Ipv4Net;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sealane_base::shared_list::SharedList;

use super::pass::Devices;
use super::plan::{BridgeFdbRow, FdbRow, NeighbourRow};
use crate::netlink::{Address, FdbEntry, Neighbour, Notice, Route, neighbour_address};

/// Content that a namespace should have, as far as notices tell of it.
#[derive(Debug, Default)]
pub(super) struct Expected<'a> {
    /// Addresses; those of a device that has one of these are of no others, of its family.
    pub(super) addresses: BTreeSet<Address>,
    /// Routes of the main table.
    pub(super) routes: Vec<Route>,
    /// A route beside which there is no other one like it with another metric.
    pub(super) alone: Option<Route>,
    /// Devices by number and family (true: IPv6) that forward, or do not.
    pub(super) forwarding: BTreeMap<(i32, bool), bool>,
    /// Rows of a network.
    pub(super) rows: Option<ExpectedRows<'a>>,
}

/// Rows that a network should have.
#[derive(Debug)]
pub(super) struct ExpectedRows<'a> {
    pub(super) devices: Devices,
    pub(super) fdb: &'a SharedList<FdbRow>,
    pub(super) neighbours: &'a SharedList<NeighbourRow>,
    pub(super) local: BTreeSet<BridgeFdbRow>,
}

/// Thing that a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Fdb(FdbRow),
    Bridge(BridgeFdbRow),
    Neighbour(IpAddr),
    Address(Address),
    Route(Ipv4Net, u32),
    Forwarding(i32, bool),
}

/// Sum of some notices.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// Things that are other than they should be.
    wrong: BTreeSet<Subject>,
    /// The names of devices that were told of.
    devices: BTreeSet<String>,
}

impl Hearing {
    /// Takes in the next notice.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the kernel tells of more than is looked after")]
    pub(super) fn handle(&mut self, notice: &Notice, expected: &Expected<'_>) {
        let entry = match notice {
            Notice::Entry(entry) => &**entry,
            Notice::Forwarding { index, ipv6, on } => {
                let place = (*index, *ipv6);
                if let Some(wanted) = expected.forwarding.get(&place) {
                    self.note(Subject::Forwarding(place.0, place.1), on != wanted);
                }
                return;
            }
        };
        match entry {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => self.device(link),
            RouteNetlinkMessage::NewAddress(message) => self.address(message, true, expected),
            RouteNetlinkMessage::DelAddress(message) => self.address(message, false, expected),
            RouteNetlinkMessage::NewRoute(message) => self.route(message, true, expected),
            RouteNetlinkMessage::DelRoute(message) => self.route(message, false, expected),
            RouteNetlinkMessage::NewNeighbour(message) => self.row(message, true, expected),
            RouteNetlinkMessage::DelNeighbour(message) => self.row(message, false, expected),
            _ => {}
        }
    }

    /// Returns true if something is other than it should be.
    pub(super) fn contradicts(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// The names of the devices that were told of.
    pub(super) fn into_devices(self) -> BTreeSet<String> {
        self.devices
    }

    fn note(&mut self, subject: Subject, wrong: bool) {
        match wrong {
            true => self.wrong.insert(subject),
            false => self.wrong.remove(&subject),
        };
    }

    fn device(&mut self, message: &LinkMessage) {
        let name = message.attributes.iter().find_map(|attribute| {
            let LinkAttribute::IfName(name) = attribute else { return None };
            Some(name)
        });
        self.devices.extend(name.cloned());
    }

    fn address(&mut self, message: &AddressMessage, there: bool, expected: &Expected<'_>) {
        let Some(told) = Address::read(message) else { return };
        let of_device = |wanted: &&Address| wanted.index == told.index;
        let mut wanted = expected.addresses.iter().filter(of_device);
        if wanted.any(|wanted| wanted.address.is_ipv4() == told.address.is_ipv4()) {
            self.note(Subject::Address(told), there != expected.addresses.contains(&told));
        }
    }

    fn route(&mut self, message: &RouteMessage, there: bool, expected: &Expected<'_>) {
        let Some((destination, metric)) = Route::place(message) else { return };
        let (subject, told) = (Subject::Route(destination, metric), Route::read(message));
        let in_place = |wanted: &&Route| (wanted.destination, wanted.metric) == (destination, metric);
        if let Some(wanted) = expected.routes.iter().find(in_place) {
            let is_it = told.as_ref() == Some(wanted);
            // One may be put into another's place, of which nothing is told then.
            if there || is_it {
                self.note(subject, there != is_it);
            }
            return;
        }
        let is_stale = |alone: Route| told == Some(Route { metric, ..alone });
        if expected.alone.is_some_and(is_stale) {
            self.note(subject, there);
        }
    }

    fn row(&mut self, message: &NeighbourMessage, there: bool, expected: &Expected<'_>) {
        let Some(rows) = &expected.rows else { return };
        if message.header.family != AddressFamily::Bridge {
            return self.neighbour(message, there, rows);
        }
        let Some(entry) = FdbEntry::read(message) else { return };
        let there = there && entry.fixed;
        if entry.bridge == Some(rows.devices.bridge) {
            let row = BridgeFdbRow { mac: entry.mac, port: entry.index };
            self.note(Subject::Bridge(row), there != rows.local.contains(&row));
        } else if let (None, Some(peer)) = (entry.bridge, entry.peer)
            && rows.devices.towards(peer) == Some(entry.index)
        {
            let row = FdbRow { mac: entry.mac, peer };
            self.note(Subject::Fdb(row), there != rows.fdb.find_by(|known| known.cmp(&row)).is_some());
        }
    }

    fn neighbour(&mut self, message: &NeighbourMessage, there: bool, rows: &ExpectedRows<'_>) {
        let Some(address) = neighbour_address(message) else { return };
        if message.header.ifindex != rows.devices.vxlan {
            return;
        }
        let told = Neighbour::read(message).filter(|_| there).map(|told| told.mac);
        let wanted = rows.neighbours.find_by(|row| row.address.cmp(&address)).map(|row| row.mac);
        self.note(Subject::Neighbour(address), told != wanted);
    }
}

#[cfg(test)]
#[path = "hearing_tests.rs"]
mod tests;
