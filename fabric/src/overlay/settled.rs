//! Result of a whole pass in the kernel, by which the next change costs as much as it changes and not as much as there
//! is.
//!
//! The kernel is read as a whole by the first pass, by every look ([`Reason::Audit`](super::Reason)) and after an error.

use std::collections::{BTreeMap, BTreeSet};

use sealane_proto::resource::{Network, NetworkSnapshot};
use sealane_proto::types::{NetworkName, UnderlayAddrs, WorkloadName};
use sealane_sys::NetNs;

use super::pass::{Devices, Pass, WayOut};
use super::plan::{Base, Desired, Diff, FdbRow, Port, difference};
use super::tunnel::{VXLAN, VXLAN_OTHER};
use super::{Applied, KernelAccess, NetworkCache, OverlayError, Table};
use crate::netlink::{LinkRequest, NetlinkError, bridge_fdb_entry, neighbour_entry};

/// State of the kernel, as far as this process knows.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) network: Network,
    pub(super) desired: Desired,
    /// The underlay addresses that the tunnels start from.
    pub(super) local: UnderlayAddrs,
    pub(super) devices: Devices,
    /// The link to the host, where there is to be one.
    pub(super) way_out: Option<WayOut>,
    /// The ports that have a device.
    pub(super) ports: BTreeMap<String, StandingPort>,
    /// The names of ports that their workloads' namespaces kept from being mended.
    pub(super) obstructed: BTreeSet<String>,
}

/// A port that has a device.
#[derive(Debug)]
pub(super) struct StandingPort {
    pub(super) port: Port,
    /// The device's number.
    pub(super) device: u32,
}

impl Settled {
    /// Records the result of a pass; `None` when something of it is to be tried again.
    pub(super) fn of(pass: &Pass<'_>, desired: Desired, devices: Devices) -> Option<Self> {
        let made = desired.ports.iter().filter_map(|port| {
            let device = pass.link(&port.name)?.index;
            Some((port.name.clone(), StandingPort { port: port.clone(), device }))
        });
        let ports = made.collect();
        let again = pass.applied.egress_problem.is_some() || pass.applied.refused_rows.is_some();
        let (network, way_out, obstructed) = (pass.network.clone(), pass.way_out, pass.obstructed.clone());
        (!again).then_some(Self { network, desired, local: pass.local, devices, way_out, ports, obstructed })
    }

    /// The network's own part.
    pub(super) fn base(&self) -> Base {
        self.desired.base
    }

    /// The network's own devices, if they are of this shape.
    pub(super) fn devices(&self, base: &Base) -> Option<Devices> {
        (self.desired.base == *base).then_some(self.devices)
    }

    /// Leaves out the ports of workloads that are just coming: they are made with their workloads.
    pub(super) fn standing(&self, desired: &Desired) -> Desired {
        let mut standing = desired.clone();
        let stands = |name: &String| self.ports.contains_key(name) || self.obstructed.contains(name);
        standing.ports.retain(|port| stands(&port.name));
        standing
    }

    /// Keeps in mind the ports of `standing` that the pass could not make, as somebody removed their workloads' handles: the next one
    /// tries again.
    pub(super) fn miss(&mut self, standing: &Desired) {
        let names = standing.ports.iter().map(|port| &port.name);
        let missing =
            names.filter(|name| !self.ports.contains_key(*name) && !standing.ending.contains(*name));
        self.obstructed.extend(missing.cloned());
    }

    /// A port has its device, of this number.
    pub(super) fn enter(&mut self, port: Port, device: u32) {
        self.ports.insert(port.name.clone(), StandingPort { port, device });
    }

    /// A port's device is gone.
    pub(super) fn leave(&mut self, name: &str) {
        self.ports.remove(name);
    }

    /// The ports whose devices are to go; `None` when the difference is not one of ports and rows alone.
    fn gone(&self, desired: &Desired) -> Option<Vec<Port>> {
        let of_name: BTreeMap<&str, &Port> =
            desired.ports.iter().map(|port| (port.name.as_str(), port)).collect();
        let mut gone = Vec::new();
        for StandingPort { port, .. } in self.ports.values() {
            match of_name.get(port.name.as_str()) {
                Some(wanted) if *wanted == port => {}
                None if !desired.base.is_gateway(port) => gone.push(port.clone()),
                // Another address, or a row of the bridge's own that comes back.
                Some(_) | None => return None,
            }
        }
        let same_devices = (self.desired.base, self.desired.other) == (desired.base, desired.other);
        same_devices.then_some(gone)
    }
}

impl NetworkCache {
    /// Leads from what the last pass has left to `desired`, without a look at what is there; `None` when that takes a
    /// whole pass.
    pub(super) fn advance(
        &mut self,
        kernel: &KernelAccess,
        snapshot: &NetworkSnapshot,
        desired: &Desired,
    ) -> Option<Applied> {
        let mut settled = self.settled.take().filter(|settled| settled.local == kernel.underlay())?;
        let gone = settled.gone(desired)?;
        let names: BTreeSet<&String> = desired.ports.iter().map(|port| &port.name).collect();
        let is_gone =
            |device: &&String| *device != VXLAN && *device != VXLAN_OTHER && !names.contains(device);
        let freed: Vec<String> = self.rules.guarded().filter(is_gone).cloned().collect();
        let mut applied = Applied::default();
        let same_rows =
            settled.desired.fdb == desired.fdb && settled.desired.neighbours == desired.neighbours;
        let same_told =
            settled.desired.hosts == desired.hosts && settled.desired.services == desired.services;
        if !(gone.is_empty() && freed.is_empty() && same_rows && same_told) {
            let changed = Pass::resume(kernel, &snapshot.network, &[]).and_then(|mut pass| {
                pass.remove_ports(&gone)?;
                if !freed.is_empty() {
                    let ports = desired.ports.iter();
                    let staying = ports.flat_map(|port| desired.base.both(0, port.address));
                    let staying = staying.map(|both| both.address).collect();
                    pass.free_ports(&desired.base, freed, staying, &mut self.rules)?;
                }
                pass.change_rows(&settled, desired)?;
                if !same_told {
                    pass.ensure_told(desired, &mut self.rules)?;
                }
                Ok(pass.applied)
            });
            applied = changed
                .inspect_err(|error| {
                    tracing::debug!(%error, network = %snapshot.network.name, "a change takes a whole pass");
                })
                .ok()?;
        }
        gone.iter().for_each(|port| settled.leave(&port.name));
        let is_missing = |port: &Port| !settled.ports.contains_key(&port.name);
        applied.unattached = kernel.nowhere(&snapshot.network.name, desired, is_missing);
        settled.desired = desired.clone();
        // Of what was refused, the next change looks at everything again.
        self.settled = applied.refused_rows.is_none().then_some(settled);
        Some(applied)
    }
}

impl KernelAccess {
    /// The workloads of those ports that `is_missing` says yes to whose namespace is not at its path either.
    pub(super) fn nowhere(
        &self,
        network: &NetworkName,
        desired: &Desired,
        is_missing: impl Fn(&Port) -> bool,
    ) -> Vec<WorkloadName> {
        let missing = desired.ports.iter().filter(|port| is_missing(port)).map(|port| &port.workload);
        let nowhere = missing.filter(|workload| NetNs::open(self.workload_path(network, workload)).is_err());
        nowhere.cloned().collect()
    }
}

impl Pass<'_> {
    fn remove_ports(&mut self, gone: &[Port]) -> Result<(), OverlayError> {
        let refusals = self.socket.batch(gone.iter().map(|port| LinkRequest::named(&port.name).remove()))?;
        self.applied.count(Table::Link, gone.len() - refusals.len());
        match refusals.into_iter().find(|(_, refusal)| !refusal.is_gone()) {
            None => Ok(()),
            Some((place, refusal)) => {
                let what = format!("remove {} of network {}", gone[place].name, self.network.name);
                Err(NetlinkError::Refused { what, refusal }.into())
            }
        }
    }

    fn change_rows(&mut self, before: &Settled, desired: &Desired) -> Result<(), OverlayError> {
        let (devices, vxlan) = (before.devices, before.devices.vxlan);
        let fdb = difference(&desired.fdb, &before.desired.fdb);
        let beside = |rows: &[FdbRow]| rows.iter().filter_map(|row| devices.beside(row)).collect();
        let bridge = Diff { remove: beside(&fdb.remove), add: beside(&fdb.add) };
        self.mend(Table::BridgeFdb, &bridge, |row| bridge_fdb_entry(row.port, row.mac))?;
        self.mend(Table::Fdb, &fdb, |row| devices.fdb_entry(row))?;
        let neighbours = difference(&desired.neighbours, &before.desired.neighbours);
        self.mend(Table::Neighbour, &neighbours, |row| neighbour_entry(vxlan, row.address, row.mac))
    }
}
