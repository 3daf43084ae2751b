//! Network devices.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use sealane_proto::types::MacAddr;
use sealane_sys::NetNs;

use super::{NetlinkError, NetlinkRequest, Socket};

/// A device as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number in its namespace.
    pub index: u32,
    /// Name of the device.
    pub name: String,
    /// `bridge`, `vxlan`, `veth`; `None` for hardware and loopback.
    pub kind: Option<InfoKind>,
    /// True if it is up.
    pub up: bool,
    /// True if it carries packets, too: its other end is up, and its queues are open (`IFF_RUNNING`, netdevice(7)).
    pub running: bool,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// In bytes.
    pub mtu: u32,
    /// The number of its bridge.
    pub master: Option<u32>,
    /// For a veth: the number of its other end, in that one's namespace.
    pub peer: Option<u32>,
    /// Settings that are special to its kind.
    pub data: Option<InfoData>,
    /// Settings as a port of its bridge.
    pub port: Vec<InfoBridgePort>,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: None,
            up: message.header.flags.contains(LinkFlags::Up),
            running: message.header.flags.contains(LinkFlags::Running),
            mac: None,
            mtu: 0,
            master: None,
            peer: None,
            data: None,
            port: Vec::new(),
        };
        for attribute in message.attributes {
            link.read(attribute);
        }
        link
    }
}

impl Link {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the kernel tells much more than is needed here")]
    fn read(&mut self, attribute: LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name = name,
            LinkAttribute::Mtu(mtu) => self.mtu = mtu,
            LinkAttribute::Controller(index) => self.master = Some(index),
            LinkAttribute::Link(index) => self.peer = Some(index),
            LinkAttribute::Address(octets) => self.mac = <[u8; 6]>::try_from(octets).ok().map(MacAddr::new),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => self.kind = Some(kind),
                        LinkInfo::Data(data) => self.data = Some(data),
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => self.port = port,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Description of a device, piece by piece.
#[derive(Clone, Debug, Default)]
pub struct LinkRequest {
    message: LinkMessage,
}

impl LinkRequest {
    /// A device by its name: for a new one.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::default().with(LinkAttribute::IfName(name.to_owned()))
    }

    /// A device by its number: for one that is there.
    #[must_use]
    pub fn of(index: u32) -> Self {
        let mut request = Self::default();
        request.message.header.index = index;
        request
    }

    /// Sets the MTU in bytes.
    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        self.with(LinkAttribute::Mtu(mtu))
    }

    /// Sets the Ethernet address.
    #[must_use]
    pub fn mac(self, mac: MacAddr) -> Self {
        self.with(LinkAttribute::Address(mac.octets().to_vec()))
    }

    /// The bridge it is a port of.
    #[must_use]
    pub fn master(self, index: u32) -> Self {
        self.with(LinkAttribute::Controller(index))
    }

    /// Sets a new name, for a device that is there and down.
    #[must_use]
    pub fn rename(self, name: &str) -> Self {
        self.with(LinkAttribute::IfName(name.to_owned()))
    }

    /// A word for people, shown by `ip link`.
    #[must_use]
    pub fn alias(self, text: String) -> Self {
        self.with(LinkAttribute::IfAlias(text))
    }

    /// Up.
    #[must_use]
    pub fn up(mut self) -> Self {
        self.message.header.flags |= LinkFlags::Up;
        self.message.header.change_mask |= LinkFlags::Up;
        self
    }

    /// Born in `ns`, which must stay open until the request is done.
    #[must_use]
    pub fn in_namespace(self, ns: &NetNs) -> Self {
        self.with(LinkAttribute::NetNsFd(ns.as_fd().as_raw_fd()))
    }

    /// Sets the kind.
    #[must_use]
    pub fn kind(self, kind: InfoKind) -> Self {
        self.with(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]))
    }

    /// Sets the kind and its special settings.
    #[must_use]
    pub fn data(self, kind: InfoKind, data: InfoData) -> Self {
        self.with(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]))
    }

    /// Makes it one end of a veth pair, with the other.
    #[must_use]
    pub fn veth(self, peer: Self) -> Self {
        self.data(InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(peer.message)))
    }

    /// Sets its properties as a port of its bridge.
    #[must_use]
    pub fn port(self, settings: Vec<InfoBridgePort>) -> Self {
        let port = [
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(settings)),
        ];
        self.with(LinkAttribute::LinkInfo(port.into()))
    }

    /// The request that makes the device.
    #[must_use]
    pub fn create(self) -> NetlinkRequest {
        NetlinkRequest::create(RouteNetlinkMessage::NewLink(self.message))
    }

    /// The request that changes the device.
    #[must_use]
    pub fn change(self) -> NetlinkRequest {
        NetlinkRequest::change(RouteNetlinkMessage::NewLink(self.message))
    }

    /// The request that removes the device; a veth's other end goes with it.
    #[must_use]
    pub fn remove(self) -> NetlinkRequest {
        NetlinkRequest::change(RouteNetlinkMessage::DelLink(self.message))
    }

    fn with(mut self, attribute: LinkAttribute) -> Self {
        self.message.attributes.push(attribute);
        self
    }
}

impl Socket {
    /// Removes the device of this name; one that is gone is no error. `what` names the removal in the error, as an infinitive.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn remove_link(&mut self, name: &str, what: impl FnOnce() -> String) -> Result<(), NetlinkError> {
        match self.request(LinkRequest::named(name).remove(), what) {
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => Ok(()),
            outcome => outcome,
        }
    }

    /// All devices of the namespace.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let entries = self.dump(RouteNetlinkMessage::GetLink(message))?;
        let links = entries.into_iter().filter_map(|entry| {
            let RouteNetlinkMessage::NewLink(link) = entry else { return None };
            Some(Link::from(link))
        });
        Ok(links.collect())
    }

    /// The device of this name; `None` when there is none.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let found = self.find(RouteNetlinkMessage::GetLink(message))?;
        Ok(found.and_then(|found| {
            let RouteNetlinkMessage::NewLink(link) = found else { return None };
            Some(Link::from(link))
        }))
    }
}
