//! Ways to single addresses on which packets must be shorter than the device takes them: routes in a table of their own, and the
//! rule that leads there.

use std::net::IpAddr;

use netlink_packet_route::IpProtocol;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sealane_proto::types::IpFamily;

use super::{NetlinkError, NetlinkRequest, Socket};

/// Protocol of these routes and rules: they are told from others' by it (`/etc/iproute2/rt_protos` has no such number).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(94);
/// Priority of the rule: the table repeats the ways that the rules behind it find.
const PRIORITY: u32 = 47;

/// Table of such routes, and the packets that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NarrowTable {
    /// Number of the table.
    pub number: u32,
    /// Packets of UDP to this port look there, and no others.
    pub port: u16,
    /// Packets with this mark do not.
    pub except: u32,
}

/// Route to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NarrowRoute {
    /// The address.
    pub to: IpAddr,
    /// The device's number.
    pub device: u32,
    /// The next hop; `None`: the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The address that packets of this host carry when they have none yet.
    pub source: Option<IpAddr>,
    /// The longest packet in bytes.
    pub mtu: u32,
}

/// A family in messages of the kernel.
const fn address_family(family: IpFamily) -> AddressFamily {
    match family {
        IpFamily::V4 => AddressFamily::Inet,
        IpFamily::V6 => AddressFamily::Inet6,
    }
}

impl NarrowRoute {
    /// The request that makes the route, in the place of another one to the same address.
    #[must_use]
    pub fn set(self, table: NarrowTable) -> NetlinkRequest {
        NetlinkRequest::replace(RouteNetlinkMessage::NewRoute(self.message(table)))
    }

    /// The request that removes the route.
    #[must_use]
    pub fn remove(self, table: NarrowTable) -> NetlinkRequest {
        NetlinkRequest::change(RouteNetlinkMessage::DelRoute(self.message(table)))
    }

    fn message(self, table: NarrowTable) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = address_family(IpFamily::of(self.to));
        header.destination_prefix_length = if self.to.is_ipv4() { 32 } else { 128 };
        header.kind = RouteType::Unicast;
        header.protocol = PROTOCOL;
        header.scope = match (self.gateway, self.to) {
            (None, IpAddr::V4(_)) => RouteScope::Link,
            (Some(_), _) | (None, IpAddr::V6(_)) => RouteScope::Universe,
        };
        if self.gateway.is_some() {
            // As the way that it repeats, whose next hop need not be on a network of the device.
            header.flags |= RouteFlags::Onlink;
        }
        message.attributes = vec![
            RouteAttribute::Destination(self.to.into()),
            RouteAttribute::Table(table.number),
            RouteAttribute::Oif(self.device),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(self.mtu)]),
        ];
        message.attributes.extend(self.gateway.map(RouteAddress::from).map(RouteAttribute::Gateway));
        message.attributes.extend(self.source.map(RouteAddress::from).map(RouteAttribute::PrefSource));
        message
    }

    /// Reads a route of the table that this program has made; `None` for others.
    fn read(message: &RouteMessage, table: NarrowTable) -> Option<Self> {
        let (mut number, mut to, mut device) = (u32::from(message.header.table), None, None);
        let (mut gateway, mut source, mut mtu) = (None, None, 0);
        for attribute in &message.attributes {
            if let RouteAttribute::Table(table) = attribute {
                number = *table;
            } else if let RouteAttribute::Destination(address) = attribute {
                to = ip(address);
            } else if let RouteAttribute::Oif(index) = attribute {
                device = Some(*index);
            } else if let RouteAttribute::Gateway(address) = attribute {
                gateway = ip(address);
            } else if let RouteAttribute::PrefSource(address) = attribute {
                source = ip(address);
            } else if let RouteAttribute::Metrics(metrics) = attribute {
                mtu = mtu_of(metrics).unwrap_or_default();
            }
        }
        let is_ours = number == table.number && message.header.protocol == PROTOCOL;
        is_ours.then_some(Self { to: to?, device: device?, gateway, source, mtu })
    }
}

impl NarrowTable {
    /// The request that makes the rule that leads to the table: a rule is inverted as a whole or not at all, so it says which
    /// bits packets do not have.
    #[must_use]
    pub fn lead(self, family: IpFamily) -> NetlinkRequest {
        let mut message = self.rule(family);
        message.attributes.extend(self.conditions());
        message.attributes.extend([RuleAttribute::FwMark(0), RuleAttribute::Protocol(PROTOCOL)]);
        NetlinkRequest::create(RouteNetlinkMessage::NewRule(message))
    }

    /// The request that removes a rule that leads to the table.
    #[must_use]
    pub fn mislead(self, family: IpFamily) -> NetlinkRequest {
        NetlinkRequest::change(RouteNetlinkMessage::DelRule(self.rule(family)))
    }

    fn rule(self, family: IpFamily) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![RuleAttribute::Priority(PRIORITY), RuleAttribute::Table(self.number)];
        message
    }

    /// Judges a rule of the kernel's: `None` where it is another's, else whether it is as it should be.
    fn judge(self, rule: &RuleMessage) -> Option<bool> {
        let has = |wanted: RuleAttribute| rule.attributes.contains(&wanted);
        if !(has(RuleAttribute::Table(self.number)) && has(RuleAttribute::Priority(PRIORITY))) {
            return None;
        }
        let is_marked =
            rule.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::FwMark(1..)));
        let leads = self.conditions().into_iter().all(has) && !is_marked;
        Some(leads && !rule.header.flags.contains(RuleFlags::Invert))
    }

    /// Conditions on packets that look there.
    fn conditions(self) -> [RuleAttribute; 3] {
        [
            RuleAttribute::FwMask(self.except),
            RuleAttribute::IpProtocol(IpProtocol::Udp),
            RuleAttribute::DestinationPortRange(RulePortRange { start: self.port, end: self.port }),
        ]
    }
}

impl Socket {
    /// The routes of the table that this program has made.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn narrow_routes(
        &mut self,
        family: IpFamily,
        table: NarrowTable,
    ) -> Result<Vec<NarrowRoute>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.attributes.push(RouteAttribute::Table(table.number));
        let entries = match self.dump(RouteNetlinkMessage::GetRoute(message)) {
            // There is no such table.
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => return Ok(Vec::new()),
            entries => entries?,
        };
        let routes = entries.iter().filter_map(|entry| {
            let RouteNetlinkMessage::NewRoute(message) = entry else { return None };
            NarrowRoute::read(message, table)
        });
        Ok(routes.collect())
    }

    /// Rules that lead to the table: for each, whether it is as it should be.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn narrow_rules(&mut self, family: IpFamily, table: NarrowTable) -> Result<Vec<bool>, NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let entries = self.dump(RouteNetlinkMessage::GetRule(message))?;
        let rules = entries.iter().filter_map(|entry| {
            let RouteNetlinkMessage::NewRule(message) = entry else { return None };
            table.judge(message)
        });
        Ok(rules.collect())
    }
}

/// The MTU among a route's metrics.
pub(super) fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
}

/// The address of a route's attribute.
pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some((*address).into())
    } else if let RouteAddress::Inet6(address) = address {
        Some((*address).into())
    } else {
        None
    }
}
