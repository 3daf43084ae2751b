//! Overlay networks.

pub(super) mod document;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::types::{Hosts, MacAddr, Mtls, Mtu, NetworkName, OverlayIp, Subnet, Subnet6, Vni, addresses};
use crate::wire::{Fields, WireError, text, texts, v1};

/// An overlay network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name, unique in the mesh.
    pub name: NetworkName,
    /// The hosts that may carry it.
    pub hosts: Hosts,
    /// Prefix of the network's IPv4 addresses.
    pub subnet: Subnet,
    /// VXLAN network identifier, unique in the mesh.
    pub vni: Vni,
    /// The inner MTU in bytes; `None` takes what fits into the underlay's of every host, with the VXLAN headers (50 bytes
    /// over IPv4).
    pub mtu: Option<Mtu>,
    /// Treatment of packets to the world outside.
    pub egress: Egress,
    /// Prefix of the network's IPv6 addresses, each made from an IPv4 one; `None`: it has none.
    pub subnet6: Option<Subnet6>,
    /// Callers that its services accept unless they say otherwise; `None`: nobody has chosen, as in networks from
    /// before there was a choice.
    pub mtls: Option<Mtls>,
}

impl Network {
    /// The prefixes of the network: that of IPv4, and that of IPv6 if it has one.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> + use<> {
        let nets = [Some(self.subnet.to_net().into()), self.subnet6.map(|subnet6| subnet6.to_net().into())];
        nets.into_iter().flatten()
    }

    /// An address of the network, and its twin if the network has IPv6, each with the length of its prefix.
    pub fn addresses(&self, address: OverlayIp) -> impl Iterator<Item = IpNet> + use<> {
        addresses(self.subnet, self.subnet6, address)
    }

    /// The IPv6 address that goes with an IPv4 one, if the network has IPv6.
    #[must_use]
    pub fn twin(&self, address: OverlayIp) -> Option<Ipv6Addr> {
        self.subnet6.map(|subnet6| subnet6.address(address))
    }

    /// Returns the callers that its services accept unless they say otherwise.
    #[must_use]
    pub fn mtls(&self) -> Mtls {
        self.mtls.unwrap_or(Mtls::Permissive)
    }

    /// Describes the decision that is still open, in words for whoever runs the mesh; `None` once somebody has decided.
    #[must_use]
    pub fn undecided(&self) -> Option<String> {
        let name = &self.name;
        self.mtls.is_none().then(|| {
            format!(
                "network {name} is permissive because nobody has chosen: its sidecars take plain calls from anybody in \
                 it, at any port; on the control host, `sealane network set {name} --mtls strict` ends that, and \
                 `sealane network set {name} --mtls permissive` keeps it so"
            )
        })
    }

    /// The Ethernet address of whoever has this address and asked for no other.
    #[must_use]
    pub fn mac_of(&self, address: OverlayIp) -> MacAddr {
        MacAddr::derived(self.vni, address)
    }

    /// The address that this Ethernet address goes with, the gateway's among them: nobody else may ask for it.
    #[must_use]
    pub fn address_of(&self, mac: MacAddr) -> Option<OverlayIp> {
        let [_, _, a, b, c, d] = mac.octets();
        let address = OverlayIp::from(Ipv4Addr::from([a, b, c, d]));
        (self.subnet.contains(address) && self.mac_of(address) == mac).then_some(address)
    }
}

/// Treatment of a network's packets to addresses outside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Packets leave through the host that the workload runs on, with the host's address.
    #[default]
    Allow,
    /// Packets are refused at once with ICMP "administratively prohibited" (RFC 1812, section 5.2.7.1).
    Deny,
}

impl Egress {
    /// The word that people write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// Reads the wire's flag, which says a denial alone.
    #[must_use]
    pub const fn from_denied(denied: bool) -> Self {
        if denied { Self::Deny } else { Self::Allow }
    }

    /// Returns true if nothing may leave.
    #[must_use]
    pub const fn is_denied(self) -> bool {
        matches!(self, Self::Deny)
    }
}

impl TryFrom<v1::Network> for Network {
    type Error = WireError;
    fn try_from(message: v1::Network) -> Result<Self, WireError> {
        let at = Fields("Network");
        let mtu = Some(message.mtu).filter(|&mtu| mtu != 0).map(Mtu::try_from).transpose();
        Ok(Self {
            name: at.parse("name", &message.name)?,
            hosts: at.names("hosts", &message.hosts)?,
            subnet: at.parse("subnet", &message.subnet)?,
            vni: Vni::try_from(message.vni).map_err(|error| at.invalid("vni", &error))?,
            mtu: mtu.map_err(|error| at.invalid("mtu", &error))?,
            egress: Egress::from_denied(message.deny_egress),
            subnet6: at.parse_option("subnet6", &message.subnet6)?,
            mtls: at.parse_option("mtls", &message.mtls)?,
        })
    }
}

impl From<&Network> for v1::Network {
    fn from(network: &Network) -> Self {
        Self {
            name: network.name.to_string(),
            hosts: texts(network.hosts.iter()),
            subnet: network.subnet.to_string(),
            vni: network.vni.get(),
            mtu: network.mtu.map_or(0, Into::into),
            subnet6: text(&network.subnet6),
            deny_egress: network.egress.is_denied(),
            mtls: text(&network.mtls),
        }
    }
}
