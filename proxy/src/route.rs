//! Routes of calls: from the address that the workload called to the endpoints that may serve it. Pure.
//!
//! [`Routes`] never change. Those that are made by a change share with the ones before what has not changed, and cost as much as what has:
//! a service that no change touches has the same [`ServiceRoute`] in all of them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use sealane_base::shared_map::SharedMap;
use sealane_proto::identity::Principal;
use sealane_proto::resource::{NetworkChange, NetworkContent, Service, Workload};
use sealane_proto::types::{
    Port, PortName, Protocol, ServiceName, ServicePort, Subnet6, Transport, Weight, WorkloadName,
};

use crate::rules::Rules;
use crate::telemetry::NO_SERVICE;
#[cfg(test)]
pub(crate) use attached::Attached;
use attached::AttachedRoutes;
use index::{Index, ServiceFront};

mod attached;
mod index;
#[cfg(test)]
mod tests;

/// Routes of a workload's calls, by the addresses that it calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    ports: SharedMap<(Ipv4Addr, u16), Arc<ServiceRoute>>,
    service_addresses: SharedMap<Ipv4Addr, ServiceName>,
    workloads: SharedMap<Ipv4Addr, Arc<WorkloadRoute>>,
    /// Routes of HTTP that are attached to services.
    attached: AttachedRoutes,
    /// The way from what a change names to what it is about.
    index: Index,
    subnet6: Option<Subnet6>,
}

/// A port of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServiceRoute {
    /// The service.
    pub(crate) service: ServiceName,
    /// Port, the same at the instances.
    pub(crate) port: Port,
    /// Protocol that is spoken there.
    pub(crate) protocol: Protocol,
    /// The instances that offer the port and take new work, in the order of their names, with their weights; then those outside
    /// every network.
    pub(crate) endpoints: Vec<(Endpoint, Weight)>,
    /// The rules for its requests, where routes are attached to it.
    pub(crate) rules: Option<Arc<Rules>>,
    /// The instances outside every network alone.
    outside: Vec<Endpoint>,
}

/// A workload that is called by its own address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WorkloadRoute {
    name: WorkloadName,
    address: Ipv4Addr,
    /// Address at which it is called: the IPv6 one if it is ready at that alone, and no sidecar finds it.
    pub(crate) place: IpAddr,
    /// Service that it is an instance of.
    pub(crate) service: Option<ServiceName>,
    /// Way to reach it.
    pub(crate) reach: Reach,
    /// Protocols of the ports that it offers.
    protocols: Vec<(Port, Protocol)>,
    /// The share of its service's new work; `None` while it takes none.
    weight: Option<Weight>,
}

/// Instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// The workload's address, or that of an instance outside every network, and the application's port.
    pub(crate) address: SocketAddr,
    /// Way to reach it.
    pub(crate) reach: Reach,
}

/// Way to reach an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// By a tunnel to its sidecar, which must be this principal; the instances of a service share it.
    Tunnel(Arc<Principal>),
    /// Directly: it has no sidecar, or is outside every network.
    Plain,
}

/// Meaning of an original destination.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// A port of a service: balance over its endpoints.
    Service(Arc<ServiceRoute>),
    /// A workload by its own address.
    Workload(Arc<WorkloadRoute>),
    /// A service's address, but not one of its ports.
    Unmapped(ServiceName),
    /// Nobody of the network: pass the bytes through as if there were no sidecar.
    Passthrough,
}

impl Routes {
    /// Routes to everything in a network.
    pub(crate) fn new(network: &NetworkContent) -> Self {
        let mut routes = Self {
            subnet6: network.network.subnet6,
            attached: attached::routes_of(network),
            ..Self::default()
        };
        let workloads: Vec<Workload> = network.workloads.iter().cloned().collect();
        let services: Vec<Service> = network.services.iter().cloned().collect();
        routes.take((&workloads, &[]), (&services, &[]));
        routes
    }

    /// The same, with the services' ports of `before` in the place of equal ones: who follows them sees at once that nothing changed.
    pub(crate) fn sharing(mut self, before: &Self) -> Self {
        let known = |(port, route): (&(Ipv4Addr, u16), &Arc<ServiceRoute>)| {
            Some((*port, before.ports.get(port).filter(|known| *known == route)?.clone()))
        };
        let same: Vec<_> = self.ports.iter().filter_map(known).collect();
        self.ports.extend(same);
        self
    }

    /// Takes a change in.
    pub(crate) fn change(&mut self, change: &NetworkChange) {
        let NetworkChange { services, services_gone, workloads, workloads_gone } = change;
        self.take((workloads, workloads_gone), (services, services_gone));
    }

    /// Takes in what is new of workloads and services, without those that are gone.
    fn take(
        &mut self,
        (workloads, workloads_gone): (&[Workload], &[WorkloadName]),
        (services, services_gone): (&[Service], &[ServiceName]),
    ) {
        let mut touched = self.take_workloads(workloads, workloads_gone);
        touched.extend(self.take_services(services, services_gone));
        touched.iter().for_each(|service| self.balance(service));
    }

    /// Takes in these workloads, in place of those of their names; answers whose instances are other than before.
    fn take_workloads(&mut self, news: &[Workload], gone: &[WorkloadName]) -> HashSet<ServiceName> {
        let mut newcomers: HashMap<ServiceName, Vec<Arc<WorkloadRoute>>> = HashMap::new();
        for name in news.iter().map(|workload| &workload.name).chain(gone) {
            let Some(before) = self.index.forget_workload(name) else { continue };
            if self.is_at_its_address(&before) {
                self.workloads.remove(&before.address);
            }
            newcomers.extend(before.service.iter().map(|service| (service.clone(), Vec::new())));
        }
        for workload in news {
            let route =
                Arc::new(WorkloadRoute::new(workload, self.subnet6, self.reach(workload, &newcomers)));
            self.workloads.insert(route.address, route.clone());
            self.index.note_workload(route.clone());
            if let Some(service) = &route.service {
                newcomers.entry(service.clone()).or_default().push(route);
            }
        }
        for (service, newcomers) in &newcomers {
            let instances = self.index.instances(service).iter().chain(newcomers);
            // Of two at one address, as there may be for a moment, the last is there.
            let instances = instances.filter(|instance| self.is_at_its_address(instance)).cloned();
            let instances = instances.collect();
            self.index.note_instances(service, instances);
        }
        newcomers.into_keys().collect()
    }

    fn is_at_its_address(&self, route: &Arc<WorkloadRoute>) -> bool {
        self.workloads.get(&route.address).is_some_and(|known| Arc::ptr_eq(known, route))
    }

    /// The way to a workload, whose principal is that of another instance of its service if there is one.
    fn reach(&self, workload: &Workload, newcomers: &HashMap<ServiceName, Vec<Arc<WorkloadRoute>>>) -> Reach {
        if !workload.sidecar {
            return Reach::Plain;
        }
        let others = workload.service.as_ref().and_then(|service| {
            let newcomers = newcomers.get(service).and_then(|newcomers| newcomers.last());
            newcomers.or_else(|| self.index.instances(service).first())
        });
        match others.map(|other| &other.reach) {
            Some(shared @ Reach::Tunnel(_)) => shared.clone(),
            Some(Reach::Plain) | None => Reach::Tunnel(Arc::new(workload.principal())),
        }
    }

    /// Takes in these services, in place of those of their names, yet without endpoints; answers which they are.
    fn take_services(&mut self, news: &[Service], gone: &[ServiceName]) -> HashSet<ServiceName> {
        let others: HashSet<&ServiceName> = news.iter().map(|service| &service.name).chain(gone).collect();
        for name in &others {
            let Some(before) = self.index.forget_service(name) else { continue };
            let is_its_own = |owner: Option<&ServiceName>| owner == Some(*name);
            for port in before.ports() {
                if is_its_own(self.ports.get(&port).map(|route| &route.service)) {
                    self.ports.remove(&port);
                }
            }
            if is_its_own(self.service_addresses.get(&before.vip)) {
                self.service_addresses.remove(&before.vip);
            }
        }
        for service in news {
            let front = Arc::new(ServiceFront::new(service));
            self.service_addresses.insert(front.vip, service.name.clone());
            let routes = carried(&service.ports).map(|offered| {
                let rules = self.rules(&service.name, offered.port, offered.name.as_ref());
                Arc::new(ServiceRoute::new(service, offered, rules))
            });
            let routes: Vec<_> = routes.collect();
            self.ports.extend(front.ports().zip(routes));
            self.index.note_service(&service.name, front);
        }
        others.into_iter().cloned().collect()
    }

    /// The routes of HTTP that are attached to this service from now on.
    #[cfg(test)]
    pub(crate) fn attach(&mut self, service: &ServiceName, attached: Vec<Attached>) {
        if attached.is_empty() {
            self.attached.remove(service);
        } else {
            self.attached.insert(service.clone(), attached.into());
        }
        let Some(front) = self.index.service(service).cloned() else { return };
        for port in front.ports() {
            let Some(before) = self.ports.get(&port).filter(|route| route.service == *service) else {
                continue;
            };
            let rules = self.rules(service, before.port, None);
            if rules != before.rules {
                let route = ServiceRoute { rules, ..before.with(before.endpoints.clone()) };
                self.ports.insert(port, Arc::new(route));
            }
        }
    }

    /// The rules for requests to this port of a service.
    fn rules(&self, service: &ServiceName, port: Port, name: Option<&PortName>) -> Option<Arc<Rules>> {
        let attached = self.attached.get(service)?;
        let here = attached.iter().filter(|attached| attached.is_for(port, name));
        let routes: Vec<_> = here.map(|attached| attached.route.clone()).collect();
        (!routes.is_empty()).then(|| Arc::new(Rules::new(routes.into())))
    }

    /// The names of the routes of HTTP that are attached to any service.
    pub(crate) fn names_of_attached(&self) -> impl Iterator<Item = &str> {
        let attached = self.attached.iter().flat_map(|(_, attached)| attached.iter());
        attached.map(|attached| attached.route.name.as_str())
    }

    /// The virtual address of this service.
    pub(crate) fn address_of(&self, service: &ServiceName) -> Option<Ipv4Addr> {
        self.index.service(service).map(|front| front.vip)
    }

    /// Finds the endpoints of this service anew; a port that has the same as before keeps its route.
    fn balance(&mut self, service: &ServiceName) {
        let Some(front) = self.index.service(service).cloned() else { return };
        let instances = self.index.instances(service);
        for port in front.ports() {
            let Some(before) = self.ports.get(&port).filter(|route| route.service == *service) else {
                continue;
            };
            let endpoints = before.endpoints_of(instances);
            if endpoints != before.endpoints {
                let route = Arc::new(before.with(endpoints));
                self.ports.insert(port, route);
            }
        }
    }

    /// Finds what a call to this address means.
    pub(crate) fn destination(&self, called: SocketAddr) -> Destination {
        let IpAddr::V4(address) = called.ip() else { return Destination::Passthrough };
        if let Some(route) = self.ports.get(&(address, called.port())) {
            return Destination::Service(route.clone());
        }
        if let Some(service) = self.service_addresses.get(&address) {
            return Destination::Unmapped(service.clone());
        }
        match self.workloads.get(&address) {
            Some(route) => Destination::Workload(route.clone()),
            None => Destination::Passthrough,
        }
    }

    /// Returns true if a service or a workload is known at this address.
    pub(crate) fn know(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.service_addresses.get(&address).is_some() || self.workloads.get(&address).is_some()
    }

    /// Returns true if a workload at this address has a sidecar that is this principal.
    pub(crate) fn has_sidecar(&self, address: IpAddr, principal: &Principal) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.workloads.get(&address).is_some_and(|route| match &route.reach {
            Reach::Tunnel(expected) => **expected == *principal,
            Reach::Plain => false,
        })
    }

    /// Returns true if nobody at this address takes new work: who is there may be about to go.
    pub(crate) fn is_leaving(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.workloads.get(&address).is_none_or(|route| route.weight.is_none())
    }

    /// The IPv4 address that one of the network's is or is made from; `None` for other IPv6 addresses.
    pub(crate) fn ipv4_of(&self, address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => self.subnet6?.to_ipv4(address),
        }
    }

    /// The IPv6 address that is made from this one, where the network has such.
    pub(crate) fn ipv6_of(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        self.subnet6.map(|subnet6| subnet6.of_ipv4(address))
    }

    /// The name in metrics of whoever has this address.
    pub(crate) fn label_of(&self, address: IpAddr) -> Option<&str> {
        self.workloads.get(&self.ipv4_of(address)?).map(|route| party(route.service.as_ref()))
    }
}

/// Filters the ports that sidecars carry: connections'.
pub(crate) fn carried(ports: &[ServicePort]) -> impl Iterator<Item = &ServicePort> {
    ports.iter().filter(|port| port.protocol.transport() == Transport::Tcp)
}

/// An instance without a sidecar.
fn plain(place: SocketAddrV4) -> Endpoint {
    Endpoint { address: place.into(), reach: Reach::Plain }
}

impl ServiceRoute {
    /// A port of a service, yet without endpoints.
    fn new(service: &Service, offered: &ServicePort, rules: Option<Arc<Rules>>) -> Self {
        Self {
            rules,
            service: service.name.clone(),
            port: offered.port,
            protocol: offered.protocol,
            outside: service.outside(offered.key()).map(plain).collect(),
            endpoints: Vec::new(),
        }
    }

    /// The endpoints that it has when these are the instances.
    fn endpoints_of(&self, instances: &[Arc<WorkloadRoute>]) -> Vec<(Endpoint, Weight)> {
        let inside = instances.iter().filter_map(|instance| instance.endpoint(self.port));
        inside.chain(self.outside.iter().map(|endpoint| (endpoint.clone(), Weight::default()))).collect()
    }

    /// The same port with these endpoints.
    fn with(&self, endpoints: Vec<(Endpoint, Weight)>) -> Self {
        let Self { service, port, protocol, rules, outside, .. } = self;
        Self {
            rules: rules.clone(),
            service: service.clone(),
            port: *port,
            protocol: *protocol,
            outside: outside.clone(),
            endpoints,
        }
    }
}

impl Destination {
    /// Returns true if it is the very same as before: nothing has changed of the service's port, or of the workload.
    pub(crate) fn is_still(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Service(now), Self::Service(before)) => Arc::ptr_eq(now, before),
            (Self::Workload(now), Self::Workload(before)) => Arc::ptr_eq(now, before),
            (Self::Service(_) | Self::Workload(_) | Self::Unmapped(_) | Self::Passthrough, _) => false,
        }
    }
}

impl WorkloadRoute {
    fn new(workload: &Workload, subnet6: Option<Subnet6>, reach: Reach) -> Self {
        let only6 = workload.ready6 && !workload.ready && !workload.sidecar;
        let ipv6 = subnet6.filter(|_| only6).map(|subnet6| subnet6.address(workload.address));
        Self {
            name: workload.name.clone(),
            address: workload.address.to_ipv4(),
            place: ipv6.map_or_else(|| workload.address.to_ipv4().into(), IpAddr::from),
            service: workload.service.clone(),
            reach,
            protocols: carried(&workload.ports).map(|port| (port.port, port.protocol)).collect(),
            weight: workload.takes_work().then_some(workload.weight),
        }
    }

    /// The name for people.
    pub(crate) fn label(&self) -> &str {
        label(self.service.as_ref(), &self.name)
    }

    /// Returns the protocol of `port`; on one that is not offered, nobody knows.
    pub(crate) fn protocol(&self, port: u16) -> Protocol {
        let offered = self.protocols.iter().find(|(number, _)| number.get() == port);
        offered.map_or(Protocol::Auto, |&(_, protocol)| protocol)
    }

    /// Makes the endpoint of its service that it is; `None` when it does not offer the port or takes no work.
    fn endpoint(&self, port: Port) -> Option<(Endpoint, Weight)> {
        let weight = self.weight.filter(|_| self.protocols.iter().any(|(offered, _)| *offered == port))?;
        let address = SocketAddr::new(self.address.into(), port.get());
        Some((Endpoint { address, reach: self.reach.clone() }, weight))
    }
}

/// Returns the name of a workload in metrics: that of its service.
pub(crate) fn party(service: Option<&ServiceName>) -> &str {
    service.map_or(NO_SERVICE, ServiceName::as_str)
}

/// The name of a workload for people: its service's, else its own.
pub(crate) fn label<'a>(service: Option<&'a ServiceName>, name: &'a WorkloadName) -> &'a str {
    service.map_or(name.as_str(), ServiceName::as_str)
}
