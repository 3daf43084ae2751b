//! The newest committed state, shared without copying what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealane_proto::identity::{Principal, SerialPrefix};
use sealane_proto::resource::{Route, RouteId, Service};
use sealane_proto::types::{Generation, NetworkName, NodeName, ServiceName};

use super::published::PublishedNetwork;
use crate::ca::Notary;
use crate::core::{Affected, NodeRecord, RemovedNode, Services, State, TokenRecord};

/// Everything committed at one generation. Immutable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// The newest generation.
    pub(crate) generation: Generation,
    /// The networks; one of which hosts are told the same keeps its generation.
    pub(crate) networks: BTreeMap<NetworkName, Arc<PublishedNetwork>>,
    /// The routes of each network that has some, as they are kept.
    pub(crate) routes: BTreeMap<NetworkName, Arc<BTreeMap<RouteId, Route>>>,
    /// The hosts.
    pub(crate) nodes: Arc<BTreeMap<NodeName, NodeRecord>>,
    /// The hosts that were removed.
    pub(crate) removed: Arc<BTreeMap<SerialPrefix, RemovedNode>>,
    /// The networks in which addresses rest.
    pub(crate) resting: BTreeSet<NetworkName>,
    /// The tokens.
    pub(crate) tokens: Arc<BTreeMap<String, TokenRecord>>,
    /// Vouches for what hosts are told.
    pub(crate) notary: Arc<Notary>,
}

impl Services for Directory {
    fn service(&self, network: &NetworkName, name: &ServiceName) -> Option<&Service> {
        self.networks.get(network)?.service(name)
    }
}

impl Directory {
    /// The routes of a network, as they are kept.
    pub(crate) fn routes_of(&self, network: &NetworkName) -> impl Iterator<Item = &Route> {
        self.routes.get(network).into_iter().flat_map(|routes| routes.values())
    }

    /// The directory of a state without a past.
    pub(crate) fn first(state: &State, generation: Generation, notary: &Arc<Notary>) -> Self {
        let nothing = Self { notary: notary.clone(), ..Self::default() };
        nothing.next(state, generation, &Affected::all(state.networks.keys().cloned()))
    }

    /// The directory after changes that affected this much of the state.
    pub(crate) fn next(&self, state: &State, generation: Generation, affected: &Affected) -> Self {
        let mut next = Self { generation, ..self.clone() };
        for (name, touched) in &affected.networks {
            let Some(known) = state.networks.get(name) else {
                next.networks.remove(name);
                next.resting.remove(name);
                next.routes.remove(name);
                continue;
            };
            let published = match next.networks.get(name) {
                Some(old) => old.next(state, known, (generation, touched), &self.notary),
                None => Some(PublishedNetwork::first(state, known, generation.epoch, &self.notary)),
            };
            if let Some(published) = published {
                next.networks.insert(name.clone(), Arc::new(published));
            }
            if known.routes.is_empty() {
                next.routes.remove(name);
            } else if touched.all || !touched.routes.is_empty() {
                next.routes.insert(name.clone(), Arc::new(known.routes.rows().clone()));
            }
            if known.resting.is_empty() {
                next.resting.remove(name);
            } else {
                next.resting.insert(name.clone());
            }
        }
        if affected.nodes {
            next.nodes = Arc::new(state.nodes.rows().clone());
            next.removed = Arc::new(state.removed.rows().clone());
        }
        if affected.tokens {
            next.tokens = Arc::new(state.tokens.rows().clone());
        }
        next
    }

    /// The networks that are new, other or gone.
    pub(crate) fn changed_since(&self, previous: &Self) -> BTreeSet<NetworkName> {
        let same = |name: &NetworkName, network: &Arc<PublishedNetwork>| {
            previous.networks.get(name).is_some_and(|old| Arc::ptr_eq(old, network))
        };
        let changed = self.networks.iter().filter(|(name, network)| !same(name, network));
        let gone = previous.networks.keys().filter(|name| !self.networks.contains_key(*name));
        changed.map(|(name, _)| name).chain(gone).cloned().collect()
    }

    /// The networks in which a host holds blocks.
    pub(crate) fn carried_by(&self, node: &NodeName) -> BTreeMap<NetworkName, Arc<PublishedNetwork>> {
        let carried = self.networks.iter().filter(|(_, network)| network.carriers().contains(node));
        carried.map(|(name, network)| (name.clone(), network.clone())).collect()
    }

    /// Returns true if a network, and a service of it, are for a host.
    fn admits(&self, network: &PublishedNetwork, service: Option<&ServiceName>, node: &NodeName) -> bool {
        let of = network.network();
        let by_token = self
            .nodes
            .get(node)
            .is_some_and(|record| record.networks.is_empty() || record.networks.contains(&of.name));
        let by_service = service.and_then(|name| network.service(name));
        by_token && of.hosts.admit(node) && by_service.is_none_or(|service| service.hosts.admit(node))
    }

    /// Returns true if a service's instance or a workload without a service is registered on a host that may run it.
    pub(crate) fn runs(&self, node: &NodeName, principal: &Principal) -> bool {
        let (network, service, workload) = match principal {
            Principal::Service(network, service) => (network, Some(service), None),
            Principal::Workload(network, workload) => (network, None, Some(workload)),
            Principal::Control | Principal::Node(_) => return false,
        };
        let network = self.networks.get(network);
        network.filter(|network| self.admits(network, service, node)).is_some_and(|network| {
            network.workloads().any(|candidate| {
                candidate.node == *node
                    && candidate.service.as_ref() == service
                    && workload.is_none_or(|name| candidate.name == *name)
            })
        })
    }
}
