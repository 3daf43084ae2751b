//! Service ports of a network and their endpoints, as the kernel is to know them. Immutable, pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use sealane_proto::resource::{NetworkContent, Service, Workload};
use sealane_proto::types::{ServiceName, ServicePort, Transport, Weight};

use crate::transition::Transition;

/// A port at a service's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mapped {
    /// The service's address.
    pub vip: IpAddr,
    /// Over which transport.
    pub transport: Transport,
    /// The number, the same at the endpoints that are workloads.
    pub port: u16,
}

/// Endpoints of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backends {
    /// The name of the chain that chooses one: it says everything that the chain does, so that a chain of this name
    /// is never changed, only replaced.
    pub(super) chain: String,
    /// None of them weighs 0; sorted, not empty.
    pub(super) endpoints: Vec<Endpoint>,
    /// True if one of them listens at another port than the service's.
    pub(super) elsewhere: bool,
}

/// Endpoint of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    /// Address of the endpoint.
    pub(super) address: IpAddr,
    /// At which port.
    pub(super) port: u16,
    /// Share of the endpoint.
    pub(super) weight: Weight,
}

impl Endpoint {
    pub(super) fn place(&self) -> SocketAddr {
        (self.address, self.port).into()
    }
}

/// The services of one network for one kind of workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    /// The addresses that only services have.
    pub(super) blocks: BTreeSet<IpNet>,
    /// The services' addresses.
    pub(super) vips: BTreeSet<IpAddr>,
    /// The ports that can be reached. Any other port of a service's address is refused. A table that is made by a change shares with
    /// the one before the ports that are as they were.
    pub(super) ports: BTreeMap<Mapped, Arc<Backends>>,
}

/// A port, and those who serve it in one table and in another.
pub(super) type Difference<'a> = (&'a Mapped, Option<&'a Arc<Backends>>, Option<&'a Arc<Backends>>);

/// The tables of one network.
#[derive(Clone, Debug, Default)]
pub struct ServiceTables {
    /// Of workloads without a sidecar.
    every: Arc<ServiceTable>,
    /// Of workloads whose sidecar carries what goes over TCP.
    datagrams: Arc<ServiceTable>,
}

impl ServiceTables {
    /// The tables that a network's state asks for.
    #[must_use]
    pub fn build(content: &NetworkContent) -> Self {
        ServiceTable::build(content).into()
    }

    /// The tables after a change; nothing is done for services that it does not touch.
    #[must_use]
    pub fn follow(&self, transition: Transition<'_>) -> Self {
        let (before, after) = (transition.before, transition.after);
        if before.services.is_empty() || after.services.is_empty() {
            return Self::from(ServiceTable::build(after)).after(self);
        }
        let mut table = (*self.every).clone();
        transition.services().filter_map(|(before, _)| before).for_each(|before| table.remove(before));
        for after in transition.services().filter_map(|(_, after)| after) {
            let instances = transition.instances_of(&after.name).filter(|instance| instance.takes_work());
            table.add(after, &instances.collect::<Vec<_>>(), &self.every);
        }
        Self::from(table).after(self)
    }

    /// The same, with the tables of `before` in the place of equal ones: who follows them sees at once that nothing
    /// changed.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let newer =
            |new: Arc<ServiceTable>, old: &Arc<ServiceTable>| if new == *old { old.clone() } else { new };
        Self { every: newer(self.every, &before.every), datagrams: newer(self.datagrams, &before.datagrams) }
    }

    /// The table of a workload.
    #[must_use]
    pub fn of(&self, sidecar: bool) -> &Arc<ServiceTable> {
        if sidecar { &self.datagrams } else { &self.every }
    }
}

impl From<ServiceTable> for ServiceTables {
    fn from(every: ServiceTable) -> Self {
        let ports = every.ports.iter().filter(|(mapped, _)| mapped.transport == Transport::Udp);
        let ports = ports.map(|(mapped, backends)| (*mapped, backends.clone())).collect();
        let datagrams = ServiceTable { blocks: every.blocks.clone(), vips: every.vips.clone(), ports };
        Self { every: Arc::new(every), datagrams: Arc::new(datagrams) }
    }
}

impl ServiceTable {
    fn build(content: &NetworkContent) -> Self {
        let mut instances: BTreeMap<&ServiceName, Vec<&Workload>> = BTreeMap::new();
        for workload in content.workloads.iter().filter(|workload| workload.takes_work()) {
            if let Some(service) = &workload.service {
                instances.entry(service).or_default().push(workload);
            }
        }
        if content.services.is_empty() {
            return Self::default();
        }
        let services = content.blocks.iter().filter(|block| block.node.is_none());
        let mut table =
            Self { blocks: services.map(|block| block.range.into()).collect(), ..Self::default() };
        for service in &content.services {
            let instances = instances.get(&service.name).map(Vec::as_slice).unwrap_or_default();
            table.add(service, instances, &Self::default());
        }
        table
    }

    fn remove(&mut self, service: &Service) {
        let vip = IpAddr::from(service.vip.to_ipv4());
        self.vips.remove(&vip);
        for (port, transport) in service.ports.iter().map(ServicePort::key) {
            self.ports.remove(&Mapped { vip, transport, port: port.get() });
        }
    }

    /// Adds the ports of a service; those that are as in `before` are shared with that.
    fn add(&mut self, service: &Service, instances: &[&Workload], before: &Self) {
        let vip = IpAddr::from(service.vip.to_ipv4());
        self.vips.insert(vip);
        for offered in &service.ports {
            let (port, transport) = offered.key();
            let offers = |workload: &&&Workload| workload.ports.iter().any(|own| own.key() == offered.key());
            let endpoints = instances.iter().filter(offers);
            let endpoints = endpoints.map(|known| Endpoint {
                address: known.address.to_ipv4().into(),
                port: port.get(),
                weight: known.weight,
            });
            let outside = service.outside(offered.key()).map(|place| Endpoint {
                address: (*place.ip()).into(),
                port: place.port(),
                weight: Weight::default(),
            });
            let endpoints = endpoints.chain(outside);
            let mapped = Mapped { vip, transport, port: port.get() };
            let Some(backends) = Backends::new(&service.name, transport, port.get(), endpoints) else {
                continue;
            };
            let same = before.ports.get(&mapped).filter(|before| ***before == backends);
            self.ports.insert(mapped, same.cloned().unwrap_or_else(|| Arc::new(backends)));
        }
    }

    /// A table with one port, to try what the kernel has.
    pub(super) fn sample(vip: IpAddr) -> Self {
        let (weight, port) = (Weight::default(), 9);
        let endpoints = vec![Endpoint { address: vip, weight, port }];
        let backends = Backends { chain: "svc/probe".to_owned(), endpoints, elsewhere: false };
        let mapped = Mapped { vip, transport: Transport::Udp, port };
        Self { vips: [vip].into(), ports: [(mapped, Arc::new(backends))].into(), ..Self::default() }
    }

    /// Returns true if the network has no services.
    pub(super) fn is_idle(&self) -> bool {
        self.vips.is_empty()
    }

    /// Returns the number of ports that can be reached.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// Returns true if no port can be reached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Returns true if a flow to `mapped` may go on to `answerer`: it serves the port there, or the port is no
    /// service's.
    #[must_use]
    pub fn serves(&self, mapped: Mapped, answerer: SocketAddr) -> bool {
        match self.ports.get(&mapped) {
            Some(backends) => backends.has(answerer),
            None => !self.vips.contains(&mapped.vip),
        }
    }

    /// Returns true if each port of `other` leads here to some of those who serve it there and to nobody else, and no
    /// address is missing: the names of that state can be told.
    #[must_use]
    pub(super) fn leads_where(&self, other: &Self) -> bool {
        let leads = |(_, known, wanted): Difference<'_>| match (known, wanted) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(known), Some(wanted)) => known.chain == wanted.chain || known.meets(wanted),
        };
        self.blocks == other.blocks && other.vips.is_subset(&self.vips) && self.differences(other).all(leads)
    }

    /// The ports that are other in `newer`, each with those who serve it here and there.
    pub(super) fn differences<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = Difference<'a>> {
        let (mut old, mut new) = (self.ports.iter().peekable(), newer.ports.iter().peekable());
        let pairs = iter::from_fn(move || {
            let order = match (old.peek(), new.peek()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let one = if order.is_le() { old.next() } else { None };
            let other = if order.is_ge() { new.next() } else { None };
            let (mapped, _) = one.or(other)?;
            Some((mapped, one.map(|(_, backends)| backends), other.map(|(_, backends)| backends)))
        });
        pairs.filter(|(_, old, new)| old != new)
    }

    /// Returns true if one of those who served a port before, in a difference from then, does not serve it here.
    fn strands_any(&self, (mapped, before, _): Difference<'_>) -> bool {
        let mut endpoints = before.into_iter().flat_map(|backends| &backends.endpoints);
        endpoints.any(|known| !self.serves(*mapped, known.place()))
    }

    /// Returns true if connections that began under `before` may lead to an endpoint that left: nobody answers those that are
    /// not established yet, and a closed one leads a new connection from its port there.
    #[must_use]
    pub fn strands_connections(&self, before: &Self) -> bool {
        let mut streams = before.differences(self).filter(|(mapped, ..)| mapped.transport == Transport::Tcp);
        streams.any(|difference| self.strands_any(difference))
    }

    /// Returns true if flows of datagrams that began under `before` may have to leave who answers them: an endpoint
    /// left, or a port is served that was not.
    #[must_use]
    pub fn strands(&self, before: &Self) -> bool {
        let mut datagrams =
            before.differences(self).filter(|(mapped, ..)| mapped.transport == Transport::Udp);
        datagrams.any(|difference| difference.1.is_none() || self.strands_any(difference))
    }
}

impl Backends {
    fn new(
        service: &ServiceName,
        transport: Transport,
        port: u16,
        endpoints: impl Iterator<Item = Endpoint>,
    ) -> Option<Self> {
        let mut endpoints: Vec<_> = endpoints.collect();
        endpoints.sort_unstable();
        if endpoints.is_empty() {
            return None;
        }
        let (mut content, mut line) = (crc32fast::Hasher::new(), String::new());
        for Endpoint { address, weight, port: own } in &endpoints {
            line.clear();
            // Writing to a text does not fail.
            let _ = if *own == port {
                writeln!(line, "{address} {weight}")
            } else {
                writeln!(line, "{address}:{own} {weight}")
            };
            content.update(line.as_bytes());
        }
        let chain = format!("svc/{service}/{transport}/{port}/{:08x}", content.finalize());
        let elsewhere = endpoints.iter().any(|known| known.port != port);
        Some(Self { chain, endpoints, elsewhere })
    }

    /// Returns true if all of these endpoints are among the others.
    fn meets(&self, others: &Self) -> bool {
        self.endpoints.iter().all(|known| others.has(known.place()))
    }

    fn has(&self, place: SocketAddr) -> bool {
        self.endpoints.binary_search_by_key(&place, |known| known.place()).is_ok()
    }
}

#[cfg(test)]
pub(super) mod tests;
