//! VXLAN device of a network: its settings, and the address that it sends from.

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan};

use super::pass::Pass;
use super::plan::Base;
use super::shape::vxlan_port_settings;
use super::{OverlayError, Table};
use crate::netlink::{LinkRequest, NetlinkError, NetlinkRequest, Socket, vxlan_fdb_entry};
use crate::nft::RulesCache;

pub(super) const VXLAN: &str = "vxlan0";

impl Pass<'_> {
    pub(super) fn ensure_vxlan(
        &mut self,
        base: &Base,
        bridge: u32,
        rules: &mut RulesCache,
    ) -> Result<u32, OverlayError> {
        let local = self.local;
        let known = self.link(VXLAN).map(|link| (link.index, self.kernel.vxlan_lacks(link, base, local)));
        let stands = match known {
            None => false,
            Some((_, wrong)) if wrong.is_empty() => true,
            Some((index, wrong)) => {
                let moved = self.moves(index, wrong)?;
                if !moved {
                    // Number, port and proxy cannot be changed.
                    self.change(LinkRequest::of(index).remove(), VXLAN)?;
                }
                moved
            }
        };
        if !stands {
            self.kernel.ensure_gate()?;
            self.create_vxlan(base, self.kernel.vxlan_settings(base, local))?;
            // Nobody's frame comes in before it is looked at.
            self.ensure_tunnel_rules(base, rules)?;
        }
        self.ensure_bridge_port(VXLAN, base.mtu, bridge, &vxlan_port_settings())?;
        self.index(VXLAN)
    }

    /// Has the device send from another address, with everything that it has, where that alone is wrong; returns false where
    /// the device must be made again.
    fn moves(&mut self, index: u32, wrong: Vec<InfoVxlan>) -> Result<bool, OverlayError> {
        if !matches!(wrong.as_slice(), [InfoVxlan::Local(_) | InfoVxlan::Local6(_)]) {
            return Ok(false);
        }
        let request = LinkRequest::of(index).data(InfoKind::Vxlan, InfoData::Vxlan(wrong)).change();
        match self.socket.request(request, || format!("move {VXLAN} of network {}", self.network.name)) {
            Ok(()) => {}
            // From another family than before, or a kernel from before 4.12.
            Err(NetlinkError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.applied.count(Table::Link, 1);
        self.forget_ways(index)?;
        self.refresh_link(VXLAN)?;
        Ok(true)
    }

    /// Makes the device's rows again: the kernel keeps the source address of each with its way (`dst_cache`), for as long as
    /// the host has that address.
    fn forget_ways(&mut self, index: u32) -> Result<(), OverlayError> {
        let table = self.socket.fdb()?;
        let rows = table.iter().filter(|entry| entry.fixed && entry.bridge.is_none() && entry.index == index);
        let rows = rows.filter_map(|entry| entry.peer.map(|peer| vxlan_fdb_entry(index, entry.mac, peer)));
        let again =
            rows.flat_map(|row| [NetlinkRequest::remove_row(row.clone()), NetlinkRequest::set_row(row)]);
        // A row that is refused here is missing where rows are compared, later in this pass.
        self.socket.batch(again).map(drop)?;
        Ok(())
    }

    /// Made by the host's socket and born in the network's namespace: the outer UDP socket is the host's.
    fn create_vxlan(&mut self, base: &Base, settings: Vec<InfoVxlan>) -> Result<(), OverlayError> {
        let mut host = Socket::open(&self.kernel.hopper, &self.kernel.host)?;
        let request = LinkRequest::named(VXLAN)
            .mtu(base.mtu)
            .in_namespace(&self.ns)
            .data(InfoKind::Vxlan, InfoData::Vxlan(settings))
            .create();
        match host.request(request, || format!("make {VXLAN} of network {}", self.network.name)) {
            Ok(()) => {}
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_already_there() => {
                return Err(OverlayError::VniTaken {
                    network: self.network.name.clone(),
                    vni: base.vni,
                    port: self.kernel.config.vxlan_port,
                });
            }
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_unsupported() => {
                return Err(OverlayError::NoSuchDevice { kind: "vxlan" });
            }
            Err(error) => return Err(error.into()),
        }
        self.applied.count(Table::Link, 1);
        self.refresh_link(VXLAN)
    }
}
