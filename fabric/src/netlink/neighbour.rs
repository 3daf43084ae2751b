//! Neighbours (address to MAC) and forwarding tables (MAC to port or host); the kernel keeps all three as neighbours.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sealane_proto::types::MacAddr;

use super::{NetlinkError, NetlinkRequest, Socket};

/// The state of a static row in a VXLAN device's table: NUD_PERMANENT | NUD_NOARP, as `bridge fdb` writes it.
pub const VXLAN_STATE: u16 = libc::NUD_PERMANENT | libc::NUD_NOARP;

/// A row of a forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// The device: a bridge's port, or a VXLAN device.
    pub index: u32,
    /// The bridge whose table it is; `None` for a device's own table.
    pub bridge: Option<u32>,
    /// Ethernet address of the frames.
    pub mac: MacAddr,
    /// The host to send to, in a VXLAN device's own table.
    pub peer: Option<IpAddr>,
    /// True if it stays until it is removed and is not of a port's own address.
    pub fixed: bool,
}

/// A row of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The device.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Ethernet address of the neighbour.
    pub mac: MacAddr,
}

/// `mac` behind host `peer`, in the table of VXLAN device `index`.
#[must_use]
pub fn vxlan_fdb_entry(index: u32, mac: MacAddr, peer: IpAddr) -> NeighbourMessage {
    let mut message = row(AddressFamily::Bridge, index, mac);
    message.header.state = NeighbourState::Other(VXLAN_STATE);
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::Destination(peer.into()));
    message
}

/// `mac` behind the bridge's port `index`. The state is NUD_NOARP: NUD_PERMANENT would make it the bridge's own.
#[must_use]
pub fn bridge_fdb_entry(index: u32, mac: MacAddr) -> NeighbourMessage {
    let mut message = row(AddressFamily::Bridge, index, mac);
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message
}

/// `mac` is that of the bridge `index` itself: frames for it go up the stack.
#[must_use]
pub fn own_fdb_entry(index: u32, mac: MacAddr) -> NeighbourMessage {
    let mut message = row(AddressFamily::Bridge, index, mac);
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message
}

/// `address` has `mac`, for ever, on device `index`.
#[must_use]
pub fn neighbour_entry(index: u32, address: IpAddr, mac: MacAddr) -> NeighbourMessage {
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    let mut message = row(family, index, mac);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

fn row(family: AddressFamily, index: u32, mac: MacAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    message
}

impl NetlinkRequest {
    /// Adds a row, or replaces the one of the same MAC (or address).
    #[must_use]
    pub fn set_row(message: NeighbourMessage) -> Self {
        Self::replace(RouteNetlinkMessage::NewNeighbour(message))
    }

    /// Removes a row.
    #[must_use]
    pub fn remove_row(message: NeighbourMessage) -> Self {
        Self::change(RouteNetlinkMessage::DelNeighbour(message))
    }
}

impl Socket {
    /// All forwarding tables of the namespace.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn fdb(&mut self) -> Result<Vec<FdbEntry>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        Ok(self.rows(message)?.iter().filter_map(FdbEntry::read).collect())
    }

    /// The permanent neighbours of the namespace, of both families.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            neighbours.extend(self.rows(message)?.iter().filter_map(Neighbour::read));
        }
        Ok(neighbours)
    }

    fn rows(&mut self, message: NeighbourMessage) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let entries = self.dump(RouteNetlinkMessage::GetNeighbour(message))?;
        let rows = entries.into_iter().filter_map(|entry| {
            let RouteNetlinkMessage::NewNeighbour(message) = entry else { return None };
            Some(message)
        });
        Ok(rows.collect())
    }
}

impl FdbEntry {
    /// Reads a row of a forwarding table; `None` for one that no bridge of ours looks at.
    pub(crate) fn read(message: &NeighbourMessage) -> Option<Self> {
        let state = u16::from(message.header.state);
        let mut entry = Self {
            index: message.header.ifindex,
            bridge: None,
            mac: mac(message)?,
            peer: None,
            fixed: state & VXLAN_STATE != 0,
        };
        for attribute in &message.attributes {
            if let NeighbourAttribute::Controller(bridge) = attribute {
                entry.bridge = Some(*bridge);
                // A bridge marks what it owns itself (its ports' addresses) as permanent.
                entry.fixed = state == libc::NUD_NOARP || entry.index == *bridge;
            }
            // A bridge keeps each row for its VLANs as well, and looks at none of them unless it filters by VLAN.
            if let NeighbourAttribute::Vlan(_) = attribute {
                return None;
            }
            if let NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) = attribute {
                entry.peer = match bytes.len() {
                    4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
                };
            }
        }
        Some(entry)
    }
}

impl Neighbour {
    /// Reads a row that stays until somebody removes it.
    pub(crate) fn read(message: &NeighbourMessage) -> Option<Self> {
        let address = neighbour_address(message)?;
        let permanent = message.header.state == NeighbourState::Permanent;
        permanent.then_some(Self { index: message.header.ifindex, address, mac: mac(message)? })
    }
}

/// The address that a row is of.
#[allow(clippy::wildcard_enum_match_arm, reason = "neighbours of other families are none of ours")]
pub(crate) fn neighbour_address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| {
        let NeighbourAttribute::Destination(address) = attribute else { return None };
        match address {
            NeighbourAddress::Inet(address) => Some(IpAddr::V4(*address)),
            NeighbourAddress::Inet6(address) => Some(IpAddr::V6(*address)),
            _ => None,
        }
    })
}

fn mac(message: &NeighbourMessage) -> Option<MacAddr> {
    message.attributes.iter().find_map(|attribute| {
        let NeighbourAttribute::LinkLayerAddress(octets) = attribute else { return None };
        <[u8; 6]>::try_from(octets.as_slice()).ok().map(MacAddr::new)
    })
}
