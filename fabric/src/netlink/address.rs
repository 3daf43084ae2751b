//! Addresses of devices.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{NetlinkError, NetlinkRequest, Socket};

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The device's number.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its network's prefix.
    pub prefix_len: u8,
}

impl Address {
    /// The request that gives the device the address.
    #[must_use]
    pub fn add(self) -> NetlinkRequest {
        NetlinkRequest::replace(RouteNetlinkMessage::NewAddress(self.message()))
    }

    /// The request that takes it away.
    #[must_use]
    pub fn remove(self) -> NetlinkRequest {
        NetlinkRequest::change(RouteNetlinkMessage::DelAddress(self.message()))
    }

    /// Reads an address. IFA_LOCAL is the own one; IPv6 has it as IFA_ADDRESS, which for IPv4 may be a peer's.
    pub(crate) fn read(message: &AddressMessage) -> Option<Self> {
        let local = message.attributes.iter().find_map(|attribute| {
            let AddressAttribute::Local(address) = attribute else { return None };
            Some(*address)
        });
        let other = message.attributes.iter().find_map(|attribute| {
            let AddressAttribute::Address(address) = attribute else { return None };
            Some(*address)
        });
        let address = local.or(other)?;
        Some(Self { index: message.header.index, address, prefix_len: message.header.prefix_len })
    }

    fn message(self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = self.index;
        message.header.prefix_len = self.prefix_len;
        message.attributes.push(AddressAttribute::Local(self.address));
        message.attributes.push(AddressAttribute::Address(self.address));
        message.header.family = match self.address {
            IpAddr::V4(address) => {
                let host_bits = u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
                let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
                message.attributes.push(AddressAttribute::Broadcast(broadcast));
                AddressFamily::Inet
            }
            IpAddr::V6(_) => {
                // Nobody else has it: control gave it, and nothing is lost to probing first.
                message.header.flags |= AddressHeaderFlags::Nodad;
                AddressFamily::Inet6
            }
        };
        message
    }
}

impl Socket {
    /// All addresses of the namespace.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        self.addresses_of(0)
    }

    /// The addresses of one device; of all, where the kernel does not choose, or for the number 0.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn addresses_of(&mut self, index: u32) -> Result<Vec<Address>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let entries = self.dump(RouteNetlinkMessage::GetAddress(message))?;
        let addresses = entries.into_iter().filter_map(|entry| {
            let RouteNetlinkMessage::NewAddress(message) = entry else { return None };
            Address::read(&message)
        });
        Ok(addresses.collect())
    }

    /// The addresses of the namespace that new connections may come from: none that is tried for duplicates (RFC 4862), has
    /// one, is deprecated, or is a temporary one of IPv6 (RFC 8981).
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn lasting_addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let entries = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let addresses = entries.into_iter().filter_map(|entry| {
            let RouteNetlinkMessage::NewAddress(message) = entry else { return None };
            lasts(&message).then(|| Address::read(&message)).flatten()
        });
        Ok(addresses.collect())
    }
}

fn lasts(message: &AddressMessage) -> bool {
    let mut passing =
        AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed | AddressHeaderFlags::Deprecated;
    if message.header.family == AddressFamily::Inet6 {
        // The same bit says of IPv4 that another address of its network came first.
        passing |= AddressHeaderFlags::Secondary;
    }
    !message.header.flags.intersects(passing)
}
