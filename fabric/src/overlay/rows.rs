//! Rows: who is behind which host and which port.

use std::collections::BTreeSet;

use sealane_base::shared_list::SharedList;

use super::announce::{Known, announced};
use super::pass::{Devices, Pass};
use super::plan::{BridgeFdbRow, Desired, Diff, FdbRow, NeighbourRow, Row, diff, difference};
use super::{OverlayError, Table};
use crate::netlink::{
    NetlinkError, NetlinkRequest, bridge_fdb_entry, neighbour_entry, own_fdb_entry, vxlan_fdb_entry,
};
use netlink_packet_route::neighbour::NeighbourMessage;

/// The rows of the kernel, in their order.
fn sorted<R: Row>(rows: impl Iterator<Item = R>) -> SharedList<R> {
    let mut rows: Vec<R> = rows.collect();
    rows.sort_unstable();
    rows.dedup();
    rows.into()
}

impl Devices {
    /// A row of the forwarding table of its family's device.
    pub(super) fn fdb_entry(&self, row: &FdbRow) -> NeighbourMessage {
        vxlan_fdb_entry(self.towards(row.peer).unwrap_or(self.vxlan), row.mac, row.peer)
    }
}

impl Pass<'_> {
    /// Brings both forwarding tables and the neighbours to their state, in one batch each.
    pub(super) fn ensure_rows(
        &mut self,
        desired: &Desired,
        devices: Devices,
        known: &mut Known,
    ) -> Result<(), OverlayError> {
        let table = self.socket.fdb()?;
        let fixed = || table.iter().filter(|entry| entry.fixed);
        let bridge_fdb: BTreeSet<BridgeFdbRow> = fixed()
            .filter(|entry| entry.bridge == Some(devices.bridge))
            .map(|entry| BridgeFdbRow { mac: entry.mac, port: entry.index })
            .collect();
        let fdb = fixed()
            .filter(|entry| entry.bridge.is_none())
            .filter_map(|entry| Some((entry.peer?, entry)))
            .filter(|(peer, entry)| devices.towards(*peer) == Some(entry.index))
            .map(|(peer, entry)| FdbRow { mac: entry.mac, peer });
        let fdb = sorted(fdb);
        let neighbours = self.socket.neighbours()?.into_iter().filter(|row| row.index == devices.vxlan);
        let neighbours = sorted(neighbours.map(|row| NeighbourRow { address: row.address, mac: row.mac }));
        known.remember(neighbours.iter().filter_map(announced));

        let ports = desired.ports.iter().filter(|port| !desired.base.is_gateway(port));
        let ports = ports.filter_map(|port| self.link(&port.name).map(|link| (port.mac, link.index)));
        // The kernel makes the bridge's own row, and takes it away with a port that had it for a while.
        let own = (desired.base.gateway_mac, devices.bridge);
        let local = ports.chain([own]).map(|(mac, port)| BridgeFdbRow { mac, port });
        let local = local.chain(devices.all_beside(&desired.fdb)).collect();
        self.mend(Table::BridgeFdb, &diff(&local, &bridge_fdb), |row| {
            let entry = if row.port == devices.bridge { own_fdb_entry } else { bridge_fdb_entry };
            entry(row.port, row.mac)
        })?;
        self.mend(Table::Fdb, &difference(&desired.fdb, &fdb), |row| devices.fdb_entry(row))?;
        self.mend(Table::Neighbour, &difference(&desired.neighbours, &neighbours), |row| {
            neighbour_entry(devices.vxlan, row.address, row.mac)
        })
    }

    pub(super) fn mend<R: Row + std::fmt::Debug>(
        &mut self,
        table: Table,
        changes: &Diff<R>,
        message: impl Fn(&R) -> NeighbourMessage,
    ) -> Result<(), OverlayError> {
        if changes.remove.is_empty() && changes.add.is_empty() {
            return Ok(());
        }
        let remove = changes.remove.iter().map(|row| NetlinkRequest::remove_row(message(row)));
        let add = changes.add.iter().map(|row| NetlinkRequest::set_row(message(row)));
        let refusals = self.socket.batch(remove.chain(add))?;
        let removed = changes.remove.len();
        let (mut first, mut of_rows) = (None, None);
        let mut refused = 0;
        for (place, refusal) in refusals {
            if refusal.is_gone() && (place < removed || table == Table::BridgeFdb) {
                continue; // With its port, or by another hand.
            }
            refused += 1;
            let row = if place < removed { &changes.remove[place] } else { &changes.add[place - removed] };
            let what = format!("change {row:?} of network {}", self.network.name);
            // A row about a workload elsewhere costs that workload's host alone.
            let of_row = table != Table::BridgeFdb && refusal.is_of_the_request();
            let kept = if of_row { &mut of_rows } else { &mut first };
            kept.get_or_insert(NetlinkError::Refused { what, refusal });
        }
        if let Some(error) = of_rows {
            self.applied.refused_rows.get_or_insert_with(|| match refused {
                1 => error.to_string(),
                _ => format!("{error}, and {} more", refused - 1),
            });
        }
        self.applied.count(table, removed + changes.add.len() - refused);
        first.map_or(Ok(()), |error| Err(error.into()))
    }
}
