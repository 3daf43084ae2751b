//! The ports of services as SRV records name them (RFC 2782).

use std::net::Ipv4Addr;
use std::slice;

use sealane_proto::resource::{Service, Workload};
use sealane_proto::types::{PortName, Protocol, ServicePort, Weight};

use super::zone::{Addresses, Zone};

/// Part of a name that is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum NameSelector<'a> {
    /// The place that the name leads to.
    Itself,
    /// `tasks.` before it: every ready instance.
    Instances,
    /// `_port._proto.` before it.
    Ports(Ports<'a>),
}

/// Ports of a service that are meant, and their owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports<'a> {
    /// A name or a number; `None` when only the transport is named, under which there are names.
    pub(super) label: Option<&'a [u8]>,
    pub(super) datagrams: bool,
    /// True if each instance is a target, false if the service itself is.
    pub(super) instances: bool,
}

/// A port of a service, and the ready instances that offer it; those outside every network have no name to be a target by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfferedPort {
    name: Option<PortName>,
    number: u16,
    datagrams: bool,
    ready: Box<[OfferingInstance]>,
}

/// A ready instance that offers a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OfferingInstance {
    address: Ipv4Addr,
    weight: u16,
    /// True if it is ready at this address, and at the IPv6 one that is made of it.
    families: (bool, bool),
}

/// The SRV records of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets<'a> {
    offers: &'a [OfferedPort],
    ports: Ports<'a>,
    itself: (&'a [u8], Addresses<'a>),
    zone: &'a Zone,
}

/// SRV record and the addresses of its target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SrvTarget<'a> {
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// In wire format.
    pub(crate) name: &'a [u8],
    pub(crate) addresses: Addresses<'a>,
}

impl<'a> Ports<'a> {
    /// Takes `_port._proto.` or `_proto.` off the beginning of a name, if it is there and something follows.
    pub(super) fn split<'b>(labels: &'b [&'a [u8]]) -> Option<(Self, &'b [&'a [u8]])> {
        let ports = |label, datagrams| Self { label, datagrams, instances: false };
        match labels {
            [label, transport, rest @ ..] if !rest.is_empty() && transport_of(transport).is_some() => {
                Some((ports(Some(label.strip_prefix(b"_")?), transport_of(transport)?), rest))
            }
            [transport, rest @ ..] if !rest.is_empty() => Some((ports(None, transport_of(transport)?), rest)),
            _ => None,
        }
    }

    fn meant(&self, offer: &OfferedPort) -> bool {
        offer.datagrams == self.datagrams
            && self.label.is_none_or(|label| {
                let named = offer.name.as_ref().is_some_and(|name| name.as_str().as_bytes() == label);
                named || offer.number.to_string().as_bytes() == label
            })
    }
}

/// Returns the transport that a label says: true for datagrams, false for streams.
fn transport_of(label: &[u8]) -> Option<bool> {
    match label {
        b"_tcp" => Some(false),
        b"_udp" => Some(true),
        _ => None,
    }
}

impl OfferedPort {
    /// `port`, as those of `ready` offer it that do, and those outside every network do.
    pub(super) fn new(port: &ServicePort, ready: &[&Workload], service: &Service) -> Self {
        let datagrams = |port: &ServicePort| port.protocol == Protocol::Udp;
        let same = |offered: &ServicePort| offered.port == port.port && datagrams(offered) == datagrams(port);
        let ready = ready.iter().filter(|workload| workload.ports.iter().any(same));
        Self {
            name: port.name.clone(),
            number: port.port.get(),
            datagrams: datagrams(port),
            ready: ready
                .map(|workload| OfferingInstance {
                    address: workload.address.to_ipv4(),
                    weight: workload.weight.get(),
                    families: (workload.ready, workload.ready6),
                })
                .chain(service.outside(port.key()).map(|place| OfferingInstance {
                    address: *place.ip(),
                    weight: Weight::default().get(),
                    families: (true, false),
                }))
                .collect(),
        }
    }
}

impl<'a> Targets<'a> {
    /// The records of those `offers` that are meant; `None` if there is no such port. `itself` is the service's name
    /// and where it leads, in `zone`.
    pub(super) fn new(
        offers: &'a [OfferedPort],
        ports: Ports<'a>,
        itself: (&'a [u8], Addresses<'a>),
        zone: &'a Zone,
    ) -> Option<Self> {
        let known = offers.iter().any(|offer| ports.meant(offer));
        known.then_some(Self { offers, ports, itself, zone })
    }

    /// The records: one per port and instance, or one per port whose target is the service, which balances by itself.
    /// None for a port that no instance is ready to serve.
    pub(crate) fn records(self) -> impl Iterator<Item = SrvTarget<'a>> + Clone {
        let ports = self.ports;
        // Below the transport alone there are names, and no records.
        let offers = self.offers.iter().filter(move |offer| ports.label.is_some() && ports.meant(offer));
        offers.flat_map(move |offer| {
            let ready =
                if ports.instances { &*offer.ready } else { offer.ready.get(..1).unwrap_or_default() };
            ready.iter().filter_map(move |instance| self.target(offer.number, instance))
        })
    }

    fn target(&self, port: u16, instance: &'a OfferingInstance) -> Option<SrvTarget<'a>> {
        if self.ports.instances {
            let OfferingInstance { address, weight, families } = instance;
            let (weight, name) = (*weight, self.zone.pointer(*address)?);
            let at = |ready: bool| if ready { slice::from_ref(address) } else { &[] };
            let addresses = self.zone.both(at(families.0), at(families.1));
            Some(SrvTarget { weight, port, name, addresses })
        } else {
            // 0: nothing to choose from (RFC 2782, Weight).
            Some(SrvTarget { weight: 0, port, name: self.itself.0, addresses: self.itself.1 })
        }
    }
}
