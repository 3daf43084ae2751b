//! Where a call goes: from the address that the workload called to the endpoints that may serve it. Pure.
//!
//! A [`Snapshot`] is built once per configuration and never changes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sealane_proto::identity::Principal;
use sealane_proto::resource::Workload;
use sealane_proto::sidecar::Config;
use sealane_proto::types::{NetworkName, Port, Protocol, ServiceName, Subnet6, Transport, Weight};

use crate::policy::Policy;
use crate::telemetry::NO_SERVICE;

#[cfg(test)]
mod tests;

/// One configuration, arranged for looking up.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The sidecar's own workload.
    pub(crate) own: Own,
    /// Which calls to it may pass.
    pub(crate) policy: Policy,
    ports: HashMap<(Ipv4Addr, u16), Arc<ServiceRoute>>,
    service_addresses: HashMap<Ipv4Addr, ServiceName>,
    workloads: HashMap<Ipv4Addr, Arc<WorkloadRoute>>,
    subnet6: Option<Subnet6>,
}

/// The workload that the sidecar serves.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// Its name in metrics.
    pub(crate) label: String,
    /// Its name for people: its service's, else its own.
    pub(crate) name: String,
}

/// A port of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServiceRoute {
    /// The service.
    pub(crate) service: ServiceName,
    /// Its port, the same at the instances.
    pub(crate) port: Port,
    /// What is spoken there.
    pub(crate) protocol: Protocol,
    /// The instances that offer the port and take new work, in the order of their names, with their weights.
    pub(crate) endpoints: Vec<(Endpoint, Weight)>,
}

/// A workload that is called by its own address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WorkloadRoute {
    /// Its name in metrics: its service's, else its own.
    pub(crate) label: String,
    /// Its service.
    pub(crate) service: Option<ServiceName>,
    /// How to reach it.
    pub(crate) reach: Reach,
    /// What is spoken on the ports it offers.
    protocols: Vec<(u16, Protocol)>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// The workload's address and the application's port.
    pub(crate) address: SocketAddr,
    /// How to reach it.
    pub(crate) reach: Reach,
}

/// How an instance is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// By a tunnel to its sidecar, which must be this principal.
    Tunnel(Principal),
    /// Directly: it has no sidecar.
    Plain,
}

/// What an original destination means.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A port of a service: balance over its endpoints.
    Service(Arc<ServiceRoute>),
    /// A workload by its own address.
    Workload(Arc<WorkloadRoute>),
    /// A service's address, but not one of its ports.
    Unmapped(ServiceName),
    /// Nobody of the network: pass the bytes through as if there were no sidecar.
    Passthrough,
}

impl Snapshot {
    /// Arranges a configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let network = &config.network;
        let mut ports = HashMap::new();
        for service in &network.services {
            for offered in
                service.ports.iter().filter(|offered| offered.protocol.transport() == Transport::Tcp)
            {
                let endpoints = network.endpoints(&service.name, offered.key());
                let route = ServiceRoute {
                    service: service.name.clone(),
                    port: offered.port,
                    protocol: offered.protocol,
                    endpoints: endpoints
                        .map(|workload| (endpoint(workload, offered.port), workload.weight))
                        .collect(),
                };
                ports.insert((service.vip.to_ipv4(), offered.port.get()), Arc::new(route));
            }
        }
        let addresses = network.services.iter().map(|service| (service.vip.to_ipv4(), service.name.clone()));
        let workloads = network.workloads.iter();
        Self {
            own: Own {
                address: config.workload.address.to_ipv4(),
                label: party(config.workload.service.as_ref()).to_owned(),
                name: label(&config.workload),
            },
            policy: Policy::new(config),
            ports,
            service_addresses: addresses.collect(),
            workloads: workloads
                .map(|workload| (workload.address.to_ipv4(), Arc::new(WorkloadRoute::new(workload))))
                .collect(),
            subnet6: network.network.subnet6,
        }
    }

    /// What a call to this address means.
    pub(crate) fn target(&self, destination: SocketAddr) -> Target {
        let IpAddr::V4(address) = destination.ip() else { return Target::Passthrough };
        if let Some(route) = self.ports.get(&(address, destination.port())) {
            return Target::Service(route.clone());
        }
        if let Some(service) = self.service_addresses.get(&address) {
            return Target::Unmapped(service.clone());
        }
        match self.workloads.get(&address) {
            Some(route) => Target::Workload(route.clone()),
            None => Target::Passthrough,
        }
    }

    /// Whether a workload at this address has a sidecar that is this principal.
    pub(crate) fn has_sidecar(&self, address: IpAddr, principal: &Principal) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.workloads.get(&address).is_some_and(|route| match &route.reach {
            Reach::Tunnel(expected) => expected == principal,
            Reach::Plain => false,
        })
    }

    /// The IPv4 address that one of the network's is or is made from; `None` for other IPv6 addresses.
    pub(crate) fn ipv4_of(&self, address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => self.subnet6?.to_ipv4(address),
        }
    }

    /// The IPv6 address that is made from the workload's own one, where the network has that.
    pub(crate) fn own_ipv6(&self, address: IpAddr) -> Option<Ipv6Addr> {
        self.subnet6.filter(|_| address == self.own.address).map(|subnet6| subnet6.of_ipv4(self.own.address))
    }

    /// The name in metrics of whoever has this address.
    pub(crate) fn label_of(&self, address: IpAddr) -> Option<&str> {
        self.workloads.get(&self.ipv4_of(address)?).map(|route| party(route.service.as_ref()))
    }
}

impl WorkloadRoute {
    fn new(workload: &Workload) -> Self {
        Self {
            label: label(workload),
            service: workload.service.clone(),
            reach: reach(workload),
            protocols: workload
                .ports
                .iter()
                .filter(|port| port.protocol.transport() == Transport::Tcp)
                .map(|port| (port.port.get(), port.protocol))
                .collect(),
        }
    }

    /// What is spoken on `port`; on one that is not offered, nobody knows.
    pub(crate) fn protocol(&self, port: u16) -> Protocol {
        let offered = self.protocols.iter().find(|(number, _)| *number == port);
        offered.map_or(Protocol::Auto, |&(_, protocol)| protocol)
    }
}

/// Who a workload's sidecar is: its service if it has one, else itself.
pub(crate) fn principal(
    network: &NetworkName,
    service: Option<&ServiceName>,
    workload: &Workload,
) -> Principal {
    match service {
        Some(service) => Principal::Service(network.clone(), service.clone()),
        None => Principal::Workload(network.clone(), workload.name.clone()),
    }
}

fn endpoint(workload: &Workload, port: Port) -> Endpoint {
    let address = SocketAddr::new(workload.address.to_ipv4().into(), port.get());
    Endpoint { address, reach: reach(workload) }
}

fn reach(workload: &Workload) -> Reach {
    if workload.sidecar {
        Reach::Tunnel(principal(&workload.network, workload.service.as_ref(), workload))
    } else {
        Reach::Plain
    }
}

/// What a workload is called in metrics: by its service.
pub(crate) fn party(service: Option<&ServiceName>) -> &str {
    service.map_or(NO_SERVICE, ServiceName::as_str)
}

fn label(workload: &Workload) -> String {
    match &workload.service {
        Some(service) => service.to_string(),
        None => workload.name.to_string(),
    }
}
