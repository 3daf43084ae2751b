//! Changes: each puts or removes one record, in memory and in the store alike.

use std::collections::{BTreeMap, BTreeSet};

use sealane_proto::resource::RouteId;
use sealane_proto::types::{NetworkName, NodeName, ServiceName, WorkloadName};

use super::Change;
use super::record::{Edit, Kept, Mesh};

/// Objects that changes touch: whatever is derived from these must be derived anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Networks of which something may be told otherwise.
    pub networks: BTreeMap<NetworkName, Touched>,
    /// True if hosts joined or moved.
    pub nodes: bool,
    /// True if there are other tokens.
    pub tokens: bool,
}

/// Records of a network that changes touch, as far as its hosts are told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// True if all of it may be another, as after a store was read anew.
    pub all: bool,
    /// True if the network's own record, its hosts or its blocks are touched.
    pub hosts: bool,
    /// Services that are touched.
    pub services: BTreeSet<ServiceName>,
    /// Workloads that are touched.
    pub workloads: BTreeSet<WorkloadName>,
    /// Hosts the age of whose word is touched.
    pub words: BTreeSet<NodeName>,
    /// Routes that are touched.
    pub routes: BTreeSet<RouteId>,
}

impl Affected {
    /// All that is derived from a state with these networks.
    pub fn all(networks: impl IntoIterator<Item = NetworkName>) -> Self {
        let all = |name| (name, Touched { all: true, ..Touched::default() });
        Self { networks: networks.into_iter().map(all).collect(), nodes: true, tokens: true }
    }

    /// The touched records of a network, to be added to.
    pub(super) fn network(&mut self, name: &NetworkName) -> &mut Touched {
        self.networks.entry(name.clone()).or_default()
    }
}

impl Change {
    /// A record of the mesh is there, and as this says.
    pub fn put<R: Kept<Home = Mesh>>(record: R) -> Self {
        R::change(Edit::Put(Mesh, record))
    }

    /// A record of the mesh is no more.
    #[must_use]
    pub fn remove<R: Kept<Home = Mesh>>(name: R::Name) -> Self {
        R::change(Edit::Remove(Mesh, name))
    }

    /// A record of a network is there, and as this says.
    pub fn put_in<R: Kept<Home = NetworkName>>(network: &NetworkName, record: R) -> Self {
        R::change(Edit::Put(network.clone(), record))
    }

    /// A record of a network is no more.
    #[must_use]
    pub fn remove_in<R: Kept<Home = NetworkName>>(network: &NetworkName, name: R::Name) -> Self {
        R::change(Edit::Remove(network.clone(), name))
    }
}
