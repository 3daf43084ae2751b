//! Views of askers: the names of the networks that they are in.

use std::sync::Arc;

use sealane_proto::types::WorkloadName;

use super::message::QueryName;
use super::reverse;
use super::targets::{NameSelector, Ports};
use super::zone::{Addresses, Lookup, Zone, ZoneEntry};

/// Names of ours have at most `_port._proto.tasks.service.network`.
const MAX_LABELS: usize = 5;

/// View of one asker: the networks that it is in, its own first.
#[derive(Clone, Debug, Default)]
pub struct NameView {
    /// The zones of its networks; the first that knows a bare name answers.
    pub zones: Vec<Arc<Zone>>,
    /// The workloads that ask, whose groups have names of two labels.
    pub own: Vec<WorkloadName>,
    /// True if service addresses lead somewhere in its namespace, by the kernel or a sidecar.
    pub balanced: bool,
}

impl NameView {
    /// Returns true if none of the asker's networks lets anything out: a question to others would carry words there and
    /// back.
    pub(crate) fn is_closed(&self) -> bool {
        !self.zones.is_empty() && self.zones.iter().all(|zone| zone.closed)
    }

    /// Looks `name` up for this asker; `None` if it is for others to answer.
    ///
    /// A name without a dot is ours even if nobody has it: forwarded, it would tell the world's root servers the
    /// names of services that are not up yet (and ICANN's SAC053 has dotless names never resolve there); the same
    /// with `_port._proto.` before it. So is everything under the name of a network, and every address in one:
    /// nothing exists below what does not exist (RFC 8020). `tasks.NAME` is ours where `NAME` is a service.
    pub(crate) fn lookup<'a>(&'a self, name: &'a QueryName) -> Option<Lookup<'a>> {
        match name.last().1 {
            b"" => None,
            b"localhost" => Some(Lookup::Loopback),
            b"arpa" if name.label_count() > 1 => reverse::lookup(&self.zones, name),
            network => {
                let zone = self.zones.iter().find(|zone| zone.is_named(network));
                let mut labels = [&[][..]; MAX_LABELS];
                let count = usize::from(name.label_count());
                labels.iter_mut().zip(name.labels()).for_each(|(place, (_, label))| *place = label);
                match (labels.get(..count), zone) {
                    (Some(labels), zone) => self.own(labels, zone.map(|zone| &**zone)),
                    (None, Some(_)) => Some(Lookup::Missing),
                    (None, None) => None,
                }
            }
        }
    }

    /// `zone` is the one that the last label names.
    fn own<'a>(&'a self, labels: &[&'a [u8]], zone: Option<&'a Zone>) -> Option<Lookup<'a>> {
        let (wanted, host) = match Ports::split(labels) {
            Some((ports, host)) => (NameSelector::Ports(ports), host),
            None => (NameSelector::Itself, labels),
        };
        let instances = match wanted {
            NameSelector::Ports(ports) => NameSelector::Ports(Ports { instances: true, ..ports }),
            NameSelector::Itself | NameSelector::Instances => NameSelector::Instances,
        };
        let found = |zone: &'a Zone, entry: &'a ZoneEntry, wanted| entry.found(wanted, zone, self.balanced);
        let bare = |label| self.choose(label);
        match *host {
            [label] => Some(match bare(label) {
                Some((zone, entry)) => found(zone, entry, wanted),
                // There are names below it, so it exists (RFC 8020, section 2).
                None if zone.is_some() && host.len() == labels.len() => {
                    Lookup::Addresses(Addresses::default())
                }
                None => Lookup::Missing,
            }),
            [b"tasks", service, _] if zone.is_some() => {
                let zone = zone?;
                Some(zone.find(service).map_or(Lookup::Missing, |entry| found(zone, entry, instances)))
            }
            [first, last] => {
                let full = zone.and_then(|zone| Some(found(zone, zone.find(first)?, wanted)));
                let tasks = || {
                    let (zone, entry) =
                        bare(last).filter(|(_, entry)| first == b"tasks" && entry.is_service())?;
                    Some(found(zone, entry, instances))
                };
                // Whoever could name a group could take the names of the world from everybody else.
                let grouped = || {
                    let mut own = self.zones.iter().filter(|zone| zone.are_in_group(&self.own, last));
                    own.find_map(|zone| Some(found(zone, zone.find_in_group(first, last)?, wanted)))
                };
                let full = full.filter(|found| !matches!(found, Lookup::Missing));
                full.or_else(tasks).or_else(grouped).or(zone.map(|_| Lookup::Missing))
            }
            [first, group, _] => {
                let zone = zone?;
                let entry = zone.find_in_group(first, group);
                Some(entry.map_or(Lookup::Missing, |entry| found(zone, entry, wanted)))
            }
            _ => zone.map(|_| Lookup::Missing),
        }
    }

    /// Chooses the owner of a bare name: a service before a workload before an alias, whoever else can be reached; of
    /// these, the first network in which it can be reached now, or else in which it is known.
    fn choose(&self, label: &[u8]) -> Option<(&Zone, &ZoneEntry)> {
        let known = self.zones.iter().filter_map(|zone| Some((&**zone, zone.find(label)?)));
        // The first of equals.
        known.min_by_key(|(_, entry)| (entry.rank(), entry.is_unreachable()))
    }
}
