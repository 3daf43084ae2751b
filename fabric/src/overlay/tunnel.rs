//! VXLAN devices of a network: their settings, and the addresses that they send from. One device sends within one family; a second
//! one is there only while another host is reached by the other family alone.

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan};

use sealane_proto::types::{IpFamily, UnderlayAddr};

use super::pass::Pass;
use super::plan::{Base, Desired};
use super::shape::vxlan_port_settings;
use super::{OverlayError, Table};
use crate::netlink::{Link, LinkRequest, NetlinkError, NetlinkRequest, Socket, vxlan_fdb_entry};
use crate::nft::RulesCache;

/// The device of the host's main family.
pub(super) const VXLAN: &str = "vxlan0";
/// The device of the other family, which is there while another host is reached by that alone.
pub(super) const VXLAN_OTHER: &str = "vxlan1";

impl Pass<'_> {
    /// Makes the VXLAN devices what they should be; answers their numbers.
    pub(super) fn ensure_tunnels(
        &mut self,
        base: &Base,
        desired: Option<&Desired>,
        bridge: u32,
        rules: &mut RulesCache,
    ) -> Result<(u32, Option<u32>), OverlayError> {
        let local = self.local;
        let other = match desired {
            Some(desired) => desired.other,
            None => local.other().filter(|_| self.link(VXLAN_OTHER).is_some()),
        };
        // The family that becomes the main one is free of the other device by then.
        let stale = self.link(VXLAN_OTHER).filter(|link| {
            let sends_from = |address| is_local(link, address);
            other.is_none() || sends_from(local.first())
        });
        if let Some(index) = stale.map(|link| link.index) {
            self.change(LinkRequest::of(index).remove(), VXLAN_OTHER)?;
        }
        let are_two = other.is_some();
        let vxlan = self.ensure_vxlan(base, (VXLAN, local.first()), rules)?;
        self.ensure_bridge_port(VXLAN, base.mtu, bridge, &vxlan_port_settings(true, are_two))?;
        let Some(address) = other else { return Ok((vxlan, None)) };
        let other = self.ensure_vxlan(base, (VXLAN_OTHER, address), rules)?;
        self.ensure_bridge_port(VXLAN_OTHER, base.mtu, bridge, &vxlan_port_settings(false, true))?;
        Ok((vxlan, Some(other)))
    }

    fn ensure_vxlan(
        &mut self,
        base: &Base,
        (name, local): (&'static str, UnderlayAddr),
        rules: &mut RulesCache,
    ) -> Result<u32, OverlayError> {
        let known = self.link(name).map(|link| (link.index, self.kernel.vxlan_lacks(link, base, local)));
        let stands = match known {
            None => false,
            Some((_, wrong)) if wrong.is_empty() => true,
            Some((index, wrong)) => {
                let moved = self.moves((name, index), wrong)?;
                if !moved {
                    // Number, port and proxy cannot be changed.
                    self.change(LinkRequest::of(index).remove(), name)?;
                }
                moved
            }
        };
        if !stands {
            self.kernel.ensure_gate()?;
            self.create_vxlan(name, base, self.kernel.vxlan_settings(base, local))?;
            // Nobody's frame comes in before it is looked at.
            self.ensure_tunnel_rules(base, rules)?;
        }
        self.index(name)
    }

    /// Has the device send from another address, with everything that it has, where that alone is wrong; returns false where
    /// the device must be made again.
    fn moves(
        &mut self,
        (name, index): (&'static str, u32),
        wrong: Vec<InfoVxlan>,
    ) -> Result<bool, OverlayError> {
        if !matches!(wrong.as_slice(), [InfoVxlan::Local(_) | InfoVxlan::Local6(_)]) {
            return Ok(false);
        }
        let request = LinkRequest::of(index).data(InfoKind::Vxlan, InfoData::Vxlan(wrong)).change();
        match self.socket.request(request, || format!("move {name} of network {}", self.network.name)) {
            Ok(()) => {}
            // From another family than before, or a kernel from before 4.12.
            Err(NetlinkError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.applied.count(Table::Link, 1);
        self.forget_ways(index)?;
        self.refresh_link(name)?;
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
    fn create_vxlan(
        &mut self,
        name: &'static str,
        base: &Base,
        settings: Vec<InfoVxlan>,
    ) -> Result<(), OverlayError> {
        let mut host = Socket::open(&self.kernel.hopper, &self.kernel.host)?;
        let request = LinkRequest::named(name)
            .mtu(base.mtu)
            .in_namespace(&self.ns)
            .data(InfoKind::Vxlan, InfoData::Vxlan(settings))
            .create();
        match host.request(request, || format!("make {name} of network {}", self.network.name)) {
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
        self.refresh_link(name)
    }
}

/// Returns true if the device sends from this address, or from another one of its family.
fn is_local(link: &Link, address: UnderlayAddr) -> bool {
    let Some(InfoData::Vxlan(data)) = &link.data else { return false };
    data.iter().any(|setting| match address.family() {
        IpFamily::V4 => matches!(setting, InfoVxlan::Local(_)),
        IpFamily::V6 => matches!(setting, InfoVxlan::Local6(_)),
    })
}
