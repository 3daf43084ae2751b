//! Services.

pub(super) mod document;

use std::net::SocketAddrV4;

use super::Network;
use crate::types::{
    Check, ExternalAddr, Hosts, Mtls, NodeName, OverlayIp, Port, Probe, ServiceName, ServicePort, Transport,
};
use crate::wire::{Fields, WireError, all, each, text, texts, v1};

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
    /// The check by which each host finds out which of them work, and which of its own workloads that are instances are healthy;
    /// without one, all of these are taken to work, and a workload is when it listens.
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

impl TryFrom<v1::Service> for Service {
    type Error = WireError;
    fn try_from(message: v1::Service) -> Result<Self, WireError> {
        let at = Fields("Service");
        Ok(Self {
            name: at.parse("name", &message.name)?,
            hosts: at.names("hosts", &message.hosts)?,
            vip: at.parse("vip", &message.vip)?,
            ports: all(message.ports)?,
            declared: message.declared,
            mtls: at.parse_option("mtls", &message.mtls)?,
            external: External {
                instances: at.names("external", &message.external)?,
                check: message.check.map(|check| known_check(&at, check)).transpose()?,
                registrar: at.parse_option("registrar", &message.registrar)?,
            },
        })
    }
}

/// A check that a service may have: nobody but a workload's own host has commands run there.
fn known_check(at: &Fields, message: v1::Check) -> Result<Check, WireError> {
    let check = Check::try_from(message)?;
    match check.probe {
        Probe::Exec(_) => Err(at.invalid("check.exec", &"a service has no command run on its hosts")),
        Probe::Tcp | Probe::Http(..) | Probe::Grpc(_) => Ok(check),
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.to_string(),
            hosts: texts(service.hosts.iter()),
            vip: service.vip.to_string(),
            ports: each(&service.ports),
            declared: service.declared,
            mtls: text(&service.mtls),
            external: texts(&service.external.instances),
            check: service.external.check.as_ref().map(Into::into),
            registrar: text(&service.external.registrar),
        }
    }
}
