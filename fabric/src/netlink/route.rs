//! IPv4 routes of the main table, and the ways that the kernel finds.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::narrow::{ip, mtu_of};
use super::{NetlinkError, NetlinkRequest, Socket};

/// A unicast route out of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The device's number.
    pub index: u32,
    /// Destination of the route.
    pub destination: Ipv4Net,
    /// The next hop; `None`: the destination is on the link.
    pub gateway: Option<Ipv4Addr>,
    /// The address that packets of this host carry when they have none yet.
    pub source: Option<Ipv4Addr>,
    /// Metric: of several routes to one destination the lowest counts.
    pub metric: u32,
}

impl Route {
    /// The way to everywhere else.
    #[must_use]
    pub fn default_via(index: u32, gateway: Ipv4Addr, metric: u32) -> Self {
        Self { index, destination: Ipv4Net::default(), gateway: Some(gateway), source: None, metric }
    }

    /// Describes the route that the kernel makes by itself when a device gets an address.
    #[must_use]
    pub fn connected(index: u32, address: Ipv4Addr, network: Ipv4Net) -> Self {
        Self { index, destination: network.trunc(), gateway: None, source: Some(address), metric: 0 }
    }

    /// The request that makes the route, in the place of another to the same destination with the same metric.
    #[must_use]
    pub fn set(self) -> NetlinkRequest {
        NetlinkRequest::replace(RouteNetlinkMessage::NewRoute(self.message()))
    }

    /// The request that removes the route; of several with other metrics the first one, if this one's is 0, which the kernel takes for any.
    #[must_use]
    pub fn remove(self) -> NetlinkRequest {
        NetlinkRequest::change(RouteNetlinkMessage::DelRoute(self.message()))
    }

    /// Reads a unicast route of the main table that has one next hop.
    pub(crate) fn read(message: &RouteMessage) -> Option<Self> {
        let (destination, metric) = Self::place(message)?;
        let (mut gateway, mut source, mut index) = (None, None, None);
        for attribute in &message.attributes {
            if let RouteAttribute::Gateway(RouteAddress::Inet(address)) = attribute {
                gateway = Some(*address);
            } else if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) = attribute {
                source = Some(*address);
            } else if let RouteAttribute::Oif(device) = attribute {
                index = Some(*device);
            }
        }
        let is_unicast = message.header.kind == RouteType::Unicast;
        is_unicast.then_some(Self { index: index?, destination, gateway, source, metric })
    }

    /// The place of a route in the main table, in which there is one of a kind: destination and metric.
    pub(crate) fn place(message: &RouteMessage) -> Option<(Ipv4Net, u32)> {
        let header = &message.header;
        if header.table != RouteHeader::RT_TABLE_MAIN || header.address_family != AddressFamily::Inet {
            return None;
        }
        let (mut destination, mut metric) = (Ipv4Addr::UNSPECIFIED, 0);
        for attribute in &message.attributes {
            if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
                destination = *address;
            } else if let RouteAttribute::Priority(priority) = attribute {
                metric = *priority;
            }
        }
        Some((Ipv4Net::new(destination, header.destination_prefix_length).ok()?, metric))
    }

    fn message(self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = self.destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        // On the link as the kernel does it, so that it goes with its address.
        (message.header.protocol, message.header.scope) = match self.gateway {
            Some(_) => (RouteProtocol::Static, RouteScope::Universe),
            None => (RouteProtocol::Kernel, RouteScope::Link),
        };
        let address = |address| RouteAddress::Inet(address);
        if self.destination.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(address(self.destination.addr())));
        }
        message.attributes.push(RouteAttribute::Oif(self.index));
        message.attributes.extend(self.gateway.map(address).map(RouteAttribute::Gateway));
        message.attributes.extend(self.source.map(address).map(RouteAttribute::PrefSource));
        if self.metric > 0 {
            message.attributes.push(RouteAttribute::Priority(self.metric));
        }
        message
    }
}

/// Way of packets to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedRoute {
    /// By this device.
    pub device: u32,
    /// By this next hop; `None`: the address is on the link.
    pub gateway: Option<IpAddr>,
    /// From this address.
    pub source: Option<IpAddr>,
    /// With this MTU, where the route has one of its own.
    pub mtu: Option<u32>,
    /// True if the address is neither this host's own nor that of many.
    pub unicast: bool,
}

impl Socket {
    /// Finds the way of this host's packets with this mark, or without one, to `address`; `None` when there is none. An MTU that
    /// the kernel was told of for a while (ICMP) is none of the route's own.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn way_to(
        &mut self,
        address: IpAddr,
        mark: Option<u32>,
    ) -> Result<Option<ResolvedRoute>, NetlinkError> {
        let mut message = RouteMessage::default();
        let (family, length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(address.into()));
        message.attributes.extend(mark.map(RouteAttribute::Mark));
        let found = match self.find(RouteNetlinkMessage::GetRoute(message)) {
            // Unreachable, in one of several ways.
            Err(NetlinkError::Refused { .. }) => return Ok(None),
            found => found?,
        };
        let Some(RouteNetlinkMessage::NewRoute(route)) = found else { return Ok(None) };
        Ok(resolved(&route))
    }

    /// The unicast IPv4 routes of the namespace's main table that have one next hop.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        Ok(self.ipv4_routes(None)?.iter().filter_map(Route::read).collect())
    }

    /// The same of those by one device, as far as the kernel chooses; the others cost nothing.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn routes_by(&mut self, device: u32) -> Result<Vec<Route>, NetlinkError> {
        self.unicast_by(device, |_| true)
    }

    /// The same of those that [`Route::set`] has made: others carry the protocol of whoever made them.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn set_routes_by(&mut self, device: u32) -> Result<Vec<Route>, NetlinkError> {
        self.unicast_by(device, |header| header.protocol == RouteProtocol::Static)
    }

    /// The unicast routes by a device, of those whose headers are fit.
    fn unicast_by(
        &mut self,
        device: u32,
        is_fit: impl Fn(&RouteHeader) -> bool,
    ) -> Result<Vec<Route>, NetlinkError> {
        let routes = self.ipv4_routes(Some(device))?;
        let routes = routes.iter().filter(|message| is_fit(&message.header)).filter_map(Route::read);
        Ok(routes.filter(|route| route.index == device).collect())
    }

    /// The IPv4 routes of all tables, as the kernel tells them.
    fn ipv4_routes(&mut self, device: Option<u32>) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.attributes.extend(device.map(RouteAttribute::Oif));
        let entries = self.dump(RouteNetlinkMessage::GetRoute(message))?;
        let routes = entries.into_iter().filter_map(|entry| {
            let RouteNetlinkMessage::NewRoute(message) = entry else { return None };
            Some(message)
        });
        Ok(routes.collect())
    }

    /// The devices that default routes of IPv4 leave by, of every table and with all their next hops.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn default_route_devices(&mut self) -> Result<BTreeSet<u32>, NetlinkError> {
        let routes = self.ipv4_routes(None)?.into_iter().filter(|route| {
            route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
        });
        let devices = routes.flat_map(|route| route.attributes).flat_map(|attribute| {
            if let RouteAttribute::MultiPath(hops) = attribute {
                return hops.iter().map(|hop| hop.interface_index).collect();
            }
            if let RouteAttribute::Oif(device) = attribute { vec![device] } else { vec![] }
        });
        Ok(devices.collect())
    }

    /// Makes those of `wanted` that are missing; answers how many were.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ensure_routes(
        &mut self,
        wanted: &[Route],
        what: impl Fn(&Route) -> String,
    ) -> Result<usize, NetlinkError> {
        let mut known = Vec::new();
        for device in wanted.iter().map(|route| route.index).collect::<BTreeSet<u32>>() {
            known.extend(self.routes_by(device)?);
        }
        let missing: Vec<&Route> = wanted.iter().filter(|route| !known.contains(route)).collect();
        for route in &missing {
            self.request(route.set(), || what(route))?;
        }
        Ok(missing.len())
    }
}

/// Reads the answer to a question for a way.
fn resolved(route: &RouteMessage) -> Option<ResolvedRoute> {
    let (mut device, mut gateway, mut source, mut mtu, mut expires) = (None, None, None, None, false);
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            device = Some(*index);
        } else if let RouteAttribute::Gateway(address) = attribute {
            gateway = ip(address);
        } else if let RouteAttribute::PrefSource(address) = attribute {
            source = ip(address);
        } else if let RouteAttribute::Metrics(metrics) = attribute {
            mtu = mtu_of(metrics);
        } else if let RouteAttribute::CacheInfo(info) = attribute {
            expires = info.expires > 0;
        }
    }
    // Every answer of IPv4 is such a copy of a route; routes of IPv6 that a router has told of expire as well.
    let is_told = expires && route.header.flags.contains(RouteFlags::Cloned);
    let unicast = route.header.kind == RouteType::Unicast;
    Some(ResolvedRoute { device: device?, gateway, source, mtu: mtu.filter(|_| !is_told), unicast })
}
