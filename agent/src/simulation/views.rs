//! Views of a simulated host: what it knows, has told and has in its kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use sealane_fabric::overlay::plan::{self, Desired};
use sealane_proto::client::{CarriedNetworks, LinkReport};
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{Edition, NetworkSnapshot, OwnerFacts, Workload};
use sealane_proto::types::{Generation, NetworkName, NodeName};

use super::{Id, MTU, Programmed, SimulatedHost, attachment_id};

impl SimulatedHost {
    /// Report of this host's workloads.
    #[must_use]
    pub fn report(&self) -> LinkReport {
        self.core.mesh.report()
    }

    /// Generations that every data plane of this host works by.
    #[must_use]
    pub fn applied(&self) -> BTreeMap<NetworkName, Generation> {
        self.core.mesh.applied()
    }

    /// Networks as control last said.
    #[must_use]
    pub fn carried(&self) -> CarriedNetworks {
        self.core.mesh.carried()
    }

    /// Words of this host about its own workloads.
    #[must_use]
    pub fn facts(&self) -> &BTreeMap<NetworkName, Arc<OwnerFacts>> {
        self.core.mesh.facts()
    }

    /// The hosts that share networks with this one, as control says, each with these.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<NodeName, BTreeSet<NetworkName>> {
        self.core.mesh.peers().into_iter().map(|(name, peer)| (name, peer.networks)).collect()
    }

    /// The certificates that nobody accepts any more, as control says.
    #[must_use]
    pub fn revoked(&self) -> BTreeSet<SerialPrefix> {
        self.core.mesh.revoked()
    }

    /// The workloads of a network as this host knows them.
    #[must_use]
    pub fn seen(&self, network: &NetworkName) -> Option<Vec<Workload>> {
        self.core.mesh.overlaid(network).map(|overlaid| overlaid.workloads.iter().cloned().collect())
    }

    /// Returns true if this host can start a workload by itself, but for its identity: its address is this host's to give, and its
    /// service is known.
    #[must_use]
    pub fn can_go_alone(&self, id: &Id) -> bool {
        let known = self.core.mesh.overlaid(&id.0);
        let known = known.iter().any(|known| {
            let own = known.workloads.iter().find(|own| own.name == id.1);
            own.is_some_and(|own| known.may_start(own, &self.node.name))
        });
        known && self.core.mesh.owns_address(&attachment_id(id))
    }

    /// The newest word of another host by which this one goes in a network, its own or control's.
    #[must_use]
    pub fn goes_by(&self, network: &NetworkName, owner: &NodeName) -> Option<Edition> {
        self.core.mesh.goes_by(network, owner)
    }

    /// Reports that control knows, and that every connected host works by.
    #[must_use]
    pub fn reported(&self) -> [u64; 2] {
        [self.core.reported().version, self.core.reported().settled]
    }

    /// Workloads that control did not accept, or would not if it were told of them, each with its reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<Id, String> {
        let refused = self.core.reported().refused.iter();
        let refused = refused.map(|one| ((one.network.clone(), one.workload.clone()), one.reason.clone()));
        let evicted = self.evicted().into_iter().map(|id| (id, "others have its address".to_owned()));
        refused.chain(evicted).collect()
    }

    /// Workloads that are cut off since others have their addresses.
    #[must_use]
    pub fn evicted(&self) -> BTreeSet<Id> {
        self.core.mesh.all_evicted().map(|id| (id.network.clone(), id.workload.clone())).collect()
    }

    /// The network as it is in the kernel.
    #[must_use]
    pub fn kernel(&self) -> &BTreeMap<NetworkName, Programmed> {
        &self.machine.kernel
    }

    /// The kernel's state of a network as it should be by what the host knows.
    #[must_use]
    pub fn desired(&self, network: &NetworkName) -> Option<Desired> {
        self.desired_by(&self.core.mesh.overlaid(network)?)
    }

    /// The kernel's state of a network as it should be by what control says.
    #[must_use]
    pub fn desired_by(&self, snapshot: &NetworkSnapshot) -> Option<Desired> {
        let attached = self.core.mesh.attached(&snapshot.network.name);
        Some(plan::desired(snapshot, (&self.node.name, self.node.underlay), &attached, MTU))
    }

    /// Workloads on disk.
    #[must_use]
    pub fn stored(&self) -> BTreeSet<Id> {
        self.machine.workloads.keys().cloned().collect()
    }

    /// Addresses under a name of a network, as workloads of this host are told.
    #[must_use]
    pub fn reached(&self, network: &NetworkName, name: &str) -> Vec<Ipv4Addr> {
        self.published.get(network).map(|published| published.zone.reached(name)).unwrap_or_default()
    }

    /// Problems of this host, a sentence each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.core.complaints()
    }

    /// Returns true once everything that was known at the start has been made, as far as it can be.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.core.has_begun()
    }
}
