//! The newest committed state, shared without copying what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;
use sealane_proto::identity::{Principal, SerialPrefix};
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::{Generation, NetworkName, NodeName, ServiceName};

use sealane_proto::wire::v1;

use crate::core::{Affected, NodeRecord, RemovedNode, State, TokenRecord};

/// Committed state of one network, encoded when the first host is told of it.
#[derive(Debug)]
pub(crate) struct PublishedNetwork {
    snapshot: Arc<NetworkSnapshot>,
    encoded: OnceLock<Bytes>,
}

impl PublishedNetwork {
    /// The state, shared.
    #[cfg(feature = "simulation")]
    pub(crate) fn snapshot(&self) -> Arc<NetworkSnapshot> {
        self.snapshot.clone()
    }

    /// The state as [`v1::NetworkState`] on the wire, the same bytes for every host.
    pub(crate) fn encoded(&self) -> Bytes {
        let encode = || v1::NetworkState::from(self.snapshot.as_ref()).encode_to_vec().into();
        self.encoded.get_or_init(encode).clone()
    }
}

impl From<NetworkSnapshot> for PublishedNetwork {
    fn from(snapshot: NetworkSnapshot) -> Self {
        Self { snapshot: Arc::new(snapshot), encoded: OnceLock::new() }
    }
}

impl Deref for PublishedNetwork {
    type Target = NetworkSnapshot;

    fn deref(&self) -> &NetworkSnapshot {
        &self.snapshot
    }
}

/// Everything committed at one generation. Immutable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// The newest generation.
    pub(crate) generation: Generation,
    /// The networks; one whose content did not change keeps its snapshot and generation.
    pub(crate) networks: BTreeMap<NetworkName, Arc<PublishedNetwork>>,
    /// The hosts.
    pub(crate) nodes: Arc<BTreeMap<NodeName, NodeRecord>>,
    /// The hosts that were removed.
    pub(crate) removed: Arc<BTreeMap<SerialPrefix, RemovedNode>>,
    /// The networks in which addresses rest.
    pub(crate) resting: BTreeSet<NetworkName>,
    /// Carriers of which nobody knows where they are: snapshots leave them out. None for most networks.
    pub(crate) displaced: BTreeMap<NetworkName, BTreeSet<NodeName>>,
    /// The tokens.
    pub(crate) tokens: Arc<BTreeMap<String, TokenRecord>>,
}

impl Directory {
    /// The directory of a state without a past.
    pub(crate) fn first(state: &State, generation: Generation) -> Self {
        let networks = state.networks.keys().cloned().collect();
        let affected = Affected { networks, nodes: true, tokens: true };
        Self::default().next(state, generation, &affected)
    }

    /// The directory after changes that affected this much of the state.
    pub(crate) fn next(&self, state: &State, generation: Generation, affected: &Affected) -> Self {
        let mut next = Self { generation, ..self.clone() };
        for name in &affected.networks {
            match (state.snapshot(name, generation.epoch), next.networks.get(name)) {
                (Some(new), Some(old)) if new.content == old.content => {}
                (Some(new), _) => drop(next.networks.insert(name.clone(), Arc::new(new.into()))),
                (None, _) => drop(next.networks.remove(name)),
            }
            if state.networks.get(name).is_some_and(|network| !network.resting.is_empty()) {
                next.resting.insert(name.clone());
            } else {
                next.resting.remove(name);
            }
            match state.displaced_carriers(name) {
                none if none.is_empty() => drop(next.displaced.remove(name)),
                some => drop(next.displaced.insert(name.clone(), some)),
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
        let same = |name: &NetworkName, snapshot: &Arc<PublishedNetwork>| {
            previous.networks.get(name).is_some_and(|old| Arc::ptr_eq(old, snapshot))
        };
        let changed = self.networks.iter().filter(|(name, snapshot)| !same(name, snapshot));
        let gone = previous.networks.keys().filter(|name| !self.networks.contains_key(*name));
        changed.map(|(name, _)| name).chain(gone).cloned().collect()
    }

    /// Returns true if a host holds blocks of a network.
    pub(crate) fn carries(&self, snapshot: &NetworkSnapshot, node: &NodeName) -> bool {
        let placed = snapshot.nodes.binary_search_by(|carrier| carrier.name.cmp(node)).is_ok();
        placed || self.displaced.get(&snapshot.network.name).is_some_and(|names| names.contains(node))
    }

    /// The hosts that hold blocks of a network.
    pub(crate) fn carriers(&self, snapshot: &NetworkSnapshot) -> BTreeSet<NodeName> {
        let displaced = self.displaced.get(&snapshot.network.name).into_iter().flatten();
        snapshot.nodes.iter().map(|node| &node.name).chain(displaced).cloned().collect()
    }

    /// The networks in which a host holds blocks.
    pub(crate) fn carried_by(&self, node: &NodeName) -> BTreeMap<NetworkName, Arc<PublishedNetwork>> {
        let carried = self.networks.iter().filter(|(_, snapshot)| self.carries(snapshot, node));
        carried.map(|(name, snapshot)| (name.clone(), snapshot.clone())).collect()
    }

    /// Returns true if a network, and a service of it, are for a host.
    fn admits(&self, snapshot: &NetworkSnapshot, service: Option<&ServiceName>, node: &NodeName) -> bool {
        let by_token = self.nodes.get(node).is_some_and(|record| {
            record.networks.is_empty() || record.networks.contains(&snapshot.network.name)
        });
        let known = |name: &ServiceName| snapshot.services.iter().find(|service| service.name == *name);
        let by_service = service.and_then(known).is_none_or(|service| service.hosts.admit(node));
        by_token && snapshot.network.hosts.admit(node) && by_service
    }

    /// Returns true if a service's instance or a workload without a service is registered on a host that may run it.
    pub(crate) fn runs(&self, node: &NodeName, principal: &Principal) -> bool {
        let (network, service, workload) = match principal {
            Principal::Service(network, service) => (network, Some(service), None),
            Principal::Workload(network, workload) => (network, None, Some(workload)),
            Principal::Control | Principal::Node(_) => return false,
        };
        let network = self.networks.get(network);
        network.filter(|snapshot| self.admits(snapshot, service, node)).is_some_and(|snapshot| {
            snapshot.workloads.iter().any(|candidate| {
                candidate.node == *node
                    && candidate.service.as_ref() == service
                    && workload.is_none_or(|name| candidate.name == *name)
            })
        })
    }
}
