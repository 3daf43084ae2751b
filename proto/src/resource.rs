//! Resources of a mesh, as every part sees them. Wire messages become these in [`crate::wire`], once.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use ipnet::{IpNet, Ipv4Net};

use crate::identity::SerialPrefix;
use crate::types::{
    Aliases, Check, ExternalAddr, Generation, Hosts, MacAddr, Mtls, Mtu, NetworkName, NodeName, OverlayIp,
    Port, ServiceName, ServicePort, Subnet, Subnet6, Transport, UnderlayAddr, Vni, Weight, WorkloadName,
};

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
    /// As people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// As the wire has it: a denial is what must be said.
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

/// A host of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name, unique in the mesh.
    pub name: NodeName,
    /// Destination address of its VXLAN packets.
    pub underlay: UnderlayAddr,
    /// Largest packet that its ways to the other hosts allow inside a tunnel, as far as that is known.
    pub mtu: Option<Mtu>,
}

/// Addresses of a network that one host assigns without asking; for services, control itself holds such blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The host that may assign from it; `None` for the block of service addresses.
    pub node: Option<NodeName>,
    /// The addresses.
    pub range: Ipv4Net,
}

/// A service: a name and an address in front of instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name, unique in the network.
    pub name: ServiceName,
    /// The hosts that may run its instances, as far as they may carry the network; only a document says so.
    pub hosts: Hosts,
    /// Virtual address.
    pub vip: OverlayIp,
    /// The ports that its document declares or, without one, that any of its instances offers, sorted by number and
    /// transport.
    pub ports: Vec<ServicePort>,
    /// True if a document declares it: then it is there without instances too.
    pub declared: bool,
    /// Callers that its ports accept unless they say otherwise; `None`: as its network says.
    pub mtls: Option<Mtls>,
    /// The instances outside every network.
    pub external: External,
}

/// The instances of a service that run outside every network, at addresses of their own. They are reached by the ways out of the
/// network, and called in plain: they have no sidecar to prove anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// The addresses of the instances, sorted, each once.
    pub instances: Vec<ExternalAddr>,
    /// The check by which each host finds out which of them work; without one, all are taken to.
    pub check: Option<Check>,
    /// The host that has registered the service; `None`: a document has, or there is nothing external.
    pub registrar: Option<NodeName>,
}

impl Service {
    /// The port of this number and transport, if the service has it.
    #[must_use]
    pub fn port(&self, key: (Port, Transport)) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.key() == key)
    }

    /// The addresses at which instances outside every network serve a port of the service.
    pub fn outside(&self, port: (Port, Transport)) -> impl Iterator<Item = SocketAddrV4> + '_ {
        let known = self.port(port).is_some();
        self.external.instances.iter().filter(move |_| known).map(move |instance| instance.serving(port.0))
    }

    /// Returns the callers that its ports accept in `network`, unless a port says otherwise.
    #[must_use]
    pub fn mtls_in(&self, network: &Network) -> Mtls {
        self.mtls.unwrap_or(network.mtls())
    }

    /// Returns the callers that this port accepts in `network`.
    #[must_use]
    pub fn port_mtls_in(&self, network: &Network, port: (Port, Transport)) -> Mtls {
        self.port(port).and_then(|port| port.mtls).unwrap_or(self.mtls_in(network))
    }
}

/// A workload: one network namespace with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Name, unique in the network.
    pub name: WorkloadName,
    /// The network it is attached to.
    pub network: NetworkName,
    /// The host it runs on.
    pub node: NodeName,
    /// Address in the network.
    pub address: OverlayIp,
    /// Ethernet address of the interface.
    pub mac: MacAddr,
    /// The service it is an instance of.
    pub service: Option<ServiceName>,
    /// The ports it offers; empty without a service.
    pub ports: Vec<ServicePort>,
    /// True if a sidecar accepts tunnels for it.
    pub sidecar: bool,
    /// True if new calls may be sent to it: its listening sockets are there and it is not ending. Namespace and
    /// interface exist either way.
    pub ready: bool,
    /// Share of its service's new work.
    pub weight: Weight,
    /// Further names in the network.
    pub aliases: Aliases,
}

impl Workload {
    /// The number of ports that one may offer.
    pub const MOST_PORTS: usize = 64;

    /// Name that people see and say: its own, or the one that its container was given since, as a workload's name is written.
    #[must_use]
    pub fn shown(&self) -> WorkloadName {
        let called = self.aliases.called().and_then(|called| called.as_str().replace('_', "-").parse().ok());
        called.unwrap_or_else(|| self.name.clone())
    }

    /// Returns true if its service may send it new work: it is ready and not drained.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.ready && !self.weight.is_drained()
    }
}

/// Everything that concerns one network at one generation. Immutable; published whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSnapshot {
    /// Position in the store's history.
    pub generation: Generation,
    /// The network itself.
    pub network: Network,
    /// The hosts that carry the network, sorted by name.
    pub nodes: Vec<Node>,
    /// The leased blocks, sorted by range.
    pub blocks: Vec<Block>,
    /// The services, sorted by name.
    pub services: Vec<Service>,
    /// The workloads, sorted by name.
    pub workloads: Vec<Workload>,
    /// The certificates that nobody accepts any more: those of removed hosts, sorted.
    pub revoked: Vec<SerialPrefix>,
    /// The hosts whose services' instances get no new calls, sorted. Other hosts see these as not ready.
    pub drained: Vec<NodeName>,
}

impl NetworkSnapshot {
    /// Returns the callers that a workload's ports accept unless they say otherwise: as its service says, or its
    /// network.
    #[must_use]
    pub fn mtls_of(&self, workload: &Workload) -> Mtls {
        self.service_of(workload).map_or(self.network.mtls(), |service| service.mtls_in(&self.network))
    }

    /// The ports that a workload offers, each with the mode that is in effect there.
    pub fn offered<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = ServicePort> + 'a {
        let service = self.service_of(workload);
        let mode = move |port: &ServicePort| match service {
            Some(service) => service.port_mtls_in(&self.network, port.key()),
            None => self.network.mtls(),
        };
        workload.ports.iter().map(move |port| ServicePort { mtls: Some(mode(port)), ..port.clone() })
    }

    /// The service that a workload is an instance of.
    #[must_use]
    pub fn service_of(&self, workload: &Workload) -> Option<&Service> {
        let name = workload.service.as_ref()?;
        self.services.iter().find(|service| service.name == *name)
    }

    /// Returns true if both say the same, whatever their generations are.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.network == other.network
            && self.nodes == other.nodes
            && self.blocks == other.blocks
            && self.services == other.services
            && self.workloads == other.workloads
            && self.revoked == other.revoked
            && self.drained == other.drained
    }
}

/// A control plane address as given on the command line: host or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAddr {
    /// `HOST:PORT` as it was written.
    pub text: String,
    /// The address, where it needs no resolving.
    pub literal: Option<SocketAddr>,
}

impl std::str::FromStr for ControlAddr {
    type Err = ControlAddrError;
    fn from_str(text: &str) -> Result<Self, ControlAddrError> {
        let literal = text.parse().ok();
        let named = text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(':') && port.parse::<Port>().is_ok()
        });
        if literal.is_some() || named {
            Ok(Self { text: text.to_owned(), literal })
        } else {
            Err(ControlAddrError(text.to_owned()))
        }
    }
}

impl std::fmt::Display for ControlAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.text)
    }
}

/// A text that is not `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control address {0:?} is not HOST:PORT like 192.0.2.10:7443")]
pub struct ControlAddrError(String);
