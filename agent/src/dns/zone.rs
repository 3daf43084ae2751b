//! The names of a network, immutable, and what an asker sees of them.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::slice;
use std::sync::Arc;

use sealane_proto::resource::{NetworkSnapshot, Service, Workload};
use sealane_proto::types::{NetworkName, Protocol, Subnet};

use super::message::QueryName;

/// The names of one network at one generation: its services and workloads, bare and as `<name>.<network>`.
#[derive(Debug)]
pub struct Zone {
    network: NetworkName,
    subnet: Subnet,
    names: HashMap<Box<[u8]>, Entry>,
    /// Wire-format names by address.
    pointers: HashMap<Ipv4Addr, Box<[u8]>>,
}

/// What one asker sees: the networks that it is in, its own first.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The zones of its networks; the first that knows a bare name answers.
    pub zones: Vec<Arc<Zone>>,
    /// Whether a sidecar balances its calls, so that service addresses lead somewhere.
    pub sidecar: bool,
}

/// What a name is to an asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// Ours, with these addresses; with none, nothing can be reached under it now.
    Addresses(&'a [Ipv4Addr]),
    /// `localhost` or a name under it (RFC 6761, section 6.3).
    Loopback,
    /// An address of ours (in-addr.arpa) that belongs to this name, in wire format.
    Pointer(&'a [u8]),
    /// It would be ours, and does not exist.
    Missing,
}

#[derive(Debug)]
enum Entry {
    /// `vip` is `None` where it leads nowhere: only sidecars serve it, and they carry no datagrams.
    Service {
        vip: Option<Ipv4Addr>,
        ready: Box<[Ipv4Addr]>,
    },
    Workload {
        address: Option<Ipv4Addr>,
    },
}

impl Zone {
    /// The names that `snapshot` gives. A service's name stands before a workload's; a service is reachable with
    /// its first ready instance, a workload of no service from the start, an instance when it is ready.
    #[must_use]
    pub fn build(snapshot: &NetworkSnapshot) -> Self {
        let network = &snapshot.network.name;
        let (mut names, mut pointers) = (HashMap::new(), HashMap::new());
        let mut ready: HashMap<_, Vec<Ipv4Addr>> = HashMap::new();
        for workload in &snapshot.workloads {
            let address = workload.address.to_ipv4();
            names.insert(key(workload.name.as_str()), Entry::workload(workload));
            pointers.insert(address, wire_name(workload.name.as_str(), network));
            if let (true, Some(service)) = (workload.ready, &workload.service) {
                ready.entry(service).or_default().push(address);
            }
        }
        for service in &snapshot.services {
            let ready = ready.remove(&service.name).unwrap_or_default();
            names.insert(key(service.name.as_str()), Entry::service(service, ready));
            pointers.insert(service.vip.to_ipv4(), wire_name(service.name.as_str(), network));
        }
        Self { network: network.clone(), subnet: snapshot.network.subnet, names, pointers }
    }

    fn find(&self, label: &[u8], sidecar: bool) -> Option<&[Ipv4Addr]> {
        match self.names.get(label)? {
            Entry::Service { ready, .. } if ready.is_empty() => Some(&[]),
            Entry::Service { vip: Some(vip), .. } if sidecar => Some(slice::from_ref(vip)),
            Entry::Service { ready, .. } => Some(ready),
            Entry::Workload { address } => Some(address.as_slice()),
        }
    }

    fn is_named(&self, label: &[u8]) -> bool {
        self.network.as_str().as_bytes() == label
    }
}

impl Entry {
    fn service(service: &Service, ready: Vec<Ipv4Addr>) -> Self {
        let streams = service.ports.iter().any(|port| port.protocol != Protocol::Udp);
        Self::Service { vip: streams.then(|| service.vip.to_ipv4()), ready: ready.into() }
    }

    fn workload(workload: &Workload) -> Self {
        let reachable = workload.ready || workload.service.is_none();
        Self::Workload { address: reachable.then(|| workload.address.to_ipv4()) }
    }
}

impl View {
    /// What `name` is to this asker; `None` if it is for others to answer.
    ///
    /// A name without a dot is ours even if nobody has it: forwarded, it would tell the world's root servers the
    /// names of services that are not up yet (and ICANN's SAC053 has dotless names never resolve there). So is
    /// everything under the name of a network: nothing exists below what does not exist (RFC 8020).
    pub(crate) fn lookup(&self, name: &QueryName) -> Option<Found<'_>> {
        let (_, last) = name.last();
        match (name.label_count(), last) {
            (0, _) => None,
            (_, b"localhost") => Some(Found::Loopback),
            (1, label) => Some(self.bare(label)),
            (6, b"arpa") => self.reverse(name),
            (count, network) => {
                let zone = self.zones.iter().find(|zone| zone.is_named(network))?;
                let first = name.labels().next().filter(|_| count == 2);
                let found = first.and_then(|(_, label)| zone.find(label, self.sidecar));
                Some(found.map_or(Found::Missing, Found::Addresses))
            }
        }
    }

    fn bare(&self, label: &[u8]) -> Found<'_> {
        let mut known = self.zones.iter().filter_map(|zone| zone.find(label, self.sidecar));
        let reachable = known.clone().find(|addresses| !addresses.is_empty());
        match reachable.or_else(|| known.next()) {
            Some(addresses) => Found::Addresses(addresses),
            // There are names below it, so it exists (RFC 8020, section 2).
            None if self.zones.iter().any(|zone| zone.is_named(label)) => Found::Addresses(&[]),
            None => Found::Missing,
        }
    }

    fn reverse(&self, name: &QueryName) -> Option<Found<'_>> {
        let address = address_of(name)?;
        if address.is_loopback() {
            return Some(Found::Pointer(b"\x09localhost\x00"));
        }
        let zone = self.zones.iter().find(|zone| zone.subnet.contains(address.into()))?;
        Some(zone.pointers.get(&address).map_or(Found::Missing, |name| Found::Pointer(name)))
    }
}

/// The address that a name of six labels under in-addr.arpa stands for (RFC 1035, section 3.5).
fn address_of(name: &QueryName) -> Option<Ipv4Addr> {
    let mut labels = name.labels().map(|(_, label)| label);
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        let digits = std::str::from_utf8(labels.next()?).ok()?;
        *octet = digits.parse().ok().filter(|octet: &u8| octet.to_string() == digits)?;
    }
    (labels.next()? == b"in-addr").then_some(octets.into())
}

fn key(name: &str) -> Box<[u8]> {
    name.as_bytes().into()
}

fn wire_name(name: &str, network: &NetworkName) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + network.as_str().len() + 3);
    for label in [name, network.as_str()] {
        // Labels have at most 63 bytes.
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire.into()
}

#[cfg(test)]
pub(super) mod tests;
