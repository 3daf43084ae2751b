//! Workloads.

use crate::identity::Principal;
use crate::types::{
    Aliases, Finding, MacAddr, NetworkName, NodeName, OverlayIp, ServiceName, ServicePort, Weight,
    WorkloadName,
};
use crate::wire::{Fields, WireError, all, each, text, texts, v1, weight};

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
    /// The same of its IPv6 address, in a network that has IPv6.
    pub ready6: bool,
    /// Share of its service's new work.
    pub weight: Weight,
    /// Further names in the network.
    pub aliases: Aliases,
    /// Obstacle to the workload's readiness, as its host found.
    pub finding: Finding,
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

    /// Identity that its certificate has: its service's, or its own without one.
    #[must_use]
    pub fn principal(&self) -> Principal {
        let network = self.network.clone();
        match &self.service {
            Some(service) => Principal::Service(network, service.clone()),
            None => Principal::Workload(network, self.name.clone()),
        }
    }

    /// Returns true if its service may send it new work: it is ready and not drained.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.ready && !self.weight.is_drained()
    }

    /// The same for its IPv6 address.
    #[must_use]
    pub fn takes_work6(&self) -> bool {
        self.ready6 && !self.weight.is_drained()
    }
}

impl TryFrom<v1::Workload> for Workload {
    type Error = WireError;
    fn try_from(message: v1::Workload) -> Result<Self, WireError> {
        let at = Fields("Workload");
        Ok(Self {
            name: at.parse("name", &message.name)?,
            network: at.parse("network", &message.network)?,
            node: at.parse("node", &message.node)?,
            address: at.parse("address", &message.address)?,
            mac: at.parse("mac", &message.mac)?,
            service: at.parse_option("service", &message.service)?,
            ports: all(message.ports)?,
            sidecar: message.sidecar,
            ready: message.ready,
            // Older hosts know one readiness.
            ready6: message.ready6.unwrap_or(message.ready),
            weight: match message.kept_weight {
                Some(kept) => weight(Some(kept)).map(Weight::drain),
                None => weight(message.weight),
            }
            .map_err(|error| at.invalid("weight", &error))?,
            aliases: Aliases::parse(&message.aliases)
                .map_err(|error| at.invalid("aliases", &error))?
                .with_called(at.parse_option("called", &message.called)?)
                .with_group(at.parse_option("group", &message.group)?),
            finding: Finding::new(&message.finding),
        })
    }
}

impl From<&Workload> for v1::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            name: workload.name.to_string(),
            network: workload.network.to_string(),
            node: workload.node.to_string(),
            address: workload.address.to_string(),
            mac: workload.mac.to_string(),
            service: text(&workload.service),
            ports: each(&workload.ports),
            sidecar: workload.sidecar,
            ready: workload.ready,
            ready6: (workload.ready6 != workload.ready).then_some(workload.ready6),
            weight: Some(workload.weight.get().into()),
            kept_weight: workload.weight.kept().map(|kept| kept.get().into()),
            aliases: texts(workload.aliases.iter()),
            called: text(&workload.aliases.called()),
            group: text(&workload.aliases.group()),
            finding: workload.finding.to_string(),
        }
    }
}
