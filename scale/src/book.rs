//! Workloads of one simulated host, and how they change. Pure.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use sealane_proto::types::{MacAddr, OverlayIp, Subnet, Vni};
use sealane_proto::wire::v1;

use crate::plan::Plan;

/// Addresses of a host in its network.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    vni: Vni,
    addresses: Vec<OverlayIp>,
    /// Number of blocks that they are in.
    pub(crate) blocks: u32,
}

/// Answer of control about addresses that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("control answered Carry with {0}")]
pub(crate) struct BadPlace(String);

impl Place {
    /// Reads control's answer to a host that carries a network.
    ///
    /// # Errors
    /// When it makes no sense.
    pub(crate) fn of(answer: v1::CarryResponse) -> Result<Self, BadPlace> {
        let bad = |what: String| BadPlace(what);
        let network = answer.network.ok_or_else(|| bad("no network".into()))?;
        let vni = Vni::try_from(network.vni).map_err(|error| bad(error.to_string()))?;
        let subnet: Subnet = network.subnet.parse().map_err(|_| bad(format!("subnet {}", network.subnet)))?;
        let (reserved, mut addresses, blocks) = (subnet.reserved(), vec![], answer.blocks.len());
        for block in answer.blocks {
            let range: Ipv4Net = block.range.parse().map_err(|_| bad(format!("block {}", block.range)))?;
            let all = range.network().to_bits()..=range.broadcast().to_bits();
            addresses.extend(all.map(|bits| OverlayIp::from(Ipv4Addr::from_bits(bits))));
        }
        addresses.retain(|address| !reserved.contains(address));
        Ok(Self { vni, addresses, blocks: u32::try_from(blocks).unwrap_or(u32::MAX) })
    }

    /// Number of addresses that workloads can have.
    pub(crate) fn addresses(&self) -> usize {
        self.addresses.len()
    }
}

/// Workloads of one host. A change is one of three in turn: an endpoint more, the readiness of an endpoint that stays, the end
/// of the endpoint that came.
#[derive(Debug)]
pub(crate) struct Book {
    plan: Arc<Plan>,
    host: usize,
    place: Option<Place>,
    endpoints: Vec<v1::Workload>,
    /// The endpoint that comes and goes.
    guest: Option<v1::Workload>,
    changes: usize,
    incarnation: u64,
    revision: u64,
}

impl Book {
    /// Book of a host whose agent has started for this time.
    pub(crate) fn new(plan: Arc<Plan>, host: usize, incarnation: u64) -> Self {
        Self { plan, host, place: None, endpoints: vec![], guest: None, changes: 0, incarnation, revision: 0 }
    }

    /// The host has these addresses.
    pub(crate) fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Begins to run all endpoints of the plan.
    pub(crate) fn fill(&mut self) {
        let endpoints = (0..self.plan.endpoints_of_host()).filter_map(|index| {
            let name = format!("w-{:05}-{index}", self.host);
            self.workload(name, index, self.plan.service_of(self.host, index))
        });
        self.endpoints = endpoints.collect();
        self.revision += 1;
    }

    /// Makes the next change.
    pub(crate) fn change(&mut self) {
        let (turn, kind) = (self.changes / 3, self.changes % 3);
        self.changes += 1;
        self.revision += 1;
        match kind {
            0 => self.guest = self.newcomer(turn),
            1 => {
                let at = turn % self.endpoints.len().max(1);
                if let Some(endpoint) = self.endpoints.get_mut(at) {
                    endpoint.ready = !endpoint.ready;
                }
            }
            _ => self.guest = None,
        }
    }

    /// Returns true if the host runs endpoints.
    pub(crate) fn is_filled(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// All workloads as they are now.
    pub(crate) fn report(&self, sequence: u64) -> v1::Report {
        let edition = v1::NetworkEdition {
            network: self.plan.network_of(self.host),
            incarnation: self.incarnation,
            revision: self.revision,
        };
        let workloads = self.endpoints.iter().chain(&self.guest).cloned();
        v1::Report { sequence, workloads: workloads.collect(), networks: vec![edition], offers: vec![] }
    }

    /// An endpoint at one of the spare addresses, each of them in turn.
    fn newcomer(&self, turn: usize) -> Option<v1::Workload> {
        let resident = self.plan.endpoints_of_host();
        let spare = self.place.as_ref()?.addresses().checked_sub(resident).filter(|&spare| spare > 0)?;
        let name = format!("x-{:05}-{turn}", self.host);
        self.workload(name, resident + turn % spare, self.plan.service_of(self.host, turn))
    }

    fn workload(&self, name: String, slot: usize, service: String) -> Option<v1::Workload> {
        let place = self.place.as_ref()?;
        let address = *place.addresses.get(slot)?;
        let port = v1::ServicePort { port: 8080, protocol: "http".into(), ..v1::ServicePort::default() };
        Some(v1::Workload {
            name,
            network: self.plan.network_of(self.host),
            node: Plan::host(self.host),
            address: address.to_string(),
            mac: MacAddr::derived(place.vni, address).to_string(),
            service,
            ports: vec![port],
            sidecar: true,
            ready: true,
            weight: Some(1),
            ..v1::Workload::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealane_proto::resource::Workload;

    use super::*;
    use crate::plan::testing::small;

    fn place() -> Place {
        let block = |range: &str| v1::Block { node: "host-00000".into(), range: range.into() };
        let network = v1::Network { subnet: "10.0.0.0/16".into(), vni: 7, ..Default::default() };
        let blocks = vec![block("10.0.0.0/28"), block("10.0.1.0/30")];
        Place::of(v1::CarryResponse { network: Some(network), blocks }).unwrap()
    }

    fn book() -> Book {
        let mut book = Book::new(Arc::new(small()), 0, 5);
        book.hold(place());
        book.fill();
        book
    }

    #[test]
    fn nobody_gets_an_address_of_the_networks_own() {
        assert_eq!((place().addresses(), place().blocks), (14 + 4, 2));
        assert_eq!(place().addresses[0], "10.0.0.2".parse().unwrap());
    }

    #[test]
    fn a_change_is_an_endpoint_more_another_readiness_or_an_endpoint_less() {
        let mut book = book();
        let seen = |book: &Book| {
            let workloads = book.report(1).workloads;
            (workloads.len(), workloads.iter().filter(|workload| workload.ready).count())
        };
        assert_eq!(seen(&book), (3, 3));
        let changes: Vec<_> = (0..4).map(|_| (book.change(), seen(&book)).1).collect();
        assert_eq!(changes, [(4, 4), (4, 3), (3, 2), (4, 3)]);
        assert_eq!(book.report(9).networks[0].revision, 5, "each change is a newer word");
    }

    #[test]
    fn a_newcomer_has_a_name_and_an_address_that_are_not_used() {
        let (mut book, mut names) = (book(), BTreeSet::new());
        for _ in 0..90 {
            book.change();
            let workloads = book.report(1).workloads;
            let addresses: BTreeSet<_> = workloads.iter().map(|workload| &workload.address).collect();
            assert_eq!(addresses.len(), workloads.len());
            for workload in workloads {
                names.insert(workload.name.clone());
                assert!(Workload::try_from(workload).is_ok());
            }
        }
        assert_eq!(names.len(), 3 + 30);
    }

    #[test]
    fn an_answer_without_sense_is_refused_in_words() {
        let refused = |answer| Place::of(answer).unwrap_err().to_string();
        let network = v1::Network { subnet: "10.0.0.0/16".into(), vni: 7, ..Default::default() };
        let blocks = vec![v1::Block { range: "10.0.0.0".into(), ..Default::default() }];
        assert!(refused(v1::CarryResponse::default()).contains("no network"));
        let answer = v1::CarryResponse { network: Some(network), blocks };
        assert!(refused(answer).contains("block 10.0.0.0"));
    }
}
