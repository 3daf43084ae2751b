//! The decisions: who may come, what is reported, what is acknowledged. Pure.

mod admit;
mod blocks;
mod eviction;
mod facts;
mod overlaid;
mod places;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use sealane_fabric::seat::Seat;
use sealane_proto::client::LinkReport;
use sealane_proto::resource::{NetworkSnapshot, Node, OwnerFacts, Workload};
use sealane_proto::types::{
    Aliases, Finding, Generation, NetworkName, NodeName, OverlayIp, Weight, WorkloadName,
};

use super::owners::{self, Words};
use super::standing::Standing;
use super::{Outside, Peer};
use crate::attachment::{Attachment, AttachmentId, Hold, Reservation, WeightChange};
use crate::ipam::{Ipam, Tenant};
pub(super) use admit::Addresses;
pub(crate) use admit::AdmitError;
use blocks::remembered;
use eviction::Eviction;
use overlaid::Overlaid;
use places::KnownPlaces;
use progress::Progress;

/// Everything that this host knows.
#[derive(Debug)]
pub(crate) struct Mesh {
    node: Node,
    networks: BTreeMap<NetworkName, CarriedNetwork>,
    hosted: BTreeMap<AttachmentId, HostedAttachment>,
    /// Addresses that are kept for somebody.
    pub(super) reserved: BTreeMap<Hold, Reservation>,
    /// The instances outside every network that do not work, seen from here.
    pub(super) down: BTreeSet<Outside>,
    /// The hosts that cannot be reached, seen from here.
    pub(super) unreachable: BTreeSet<NodeName>,
    version: u64,
    /// The run of this host's agent, as its words say.
    incarnation: u64,
    /// Counts the changes of its words.
    revision: u64,
    /// Facts that this host says of itself.
    facts: BTreeMap<NetworkName, Arc<OwnerFacts>>,
    /// Words of other hosts about themselves.
    words: Words,
    places: KnownPlaces,
}

#[derive(Debug)]
struct CarriedNetwork {
    snapshot: Arc<NetworkSnapshot>,
    /// The same without the addresses that this host gives back.
    remembered: Arc<NetworkSnapshot>,
    /// The same with its hosts where this one goes by.
    placed: Arc<NetworkSnapshot>,
    ipam: Ipam,
    /// The same as this host goes by it.
    overlaid: Option<Overlaid>,
    /// States that the kernel and the names have come to.
    progress: Progress,
}

#[derive(Debug)]
struct HostedAttachment {
    workload: Workload,
    seat: Seat,
    ending: bool,
    /// True if its port goes, or is gone: none is made again.
    detached: bool,
    /// The lifetime of control's state in which its addresses were its own.
    epoch: Option<u64>,
    /// Set once others have its address: it is cut off.
    evicted: Option<Eviction>,
    /// The sequences that its data planes work by; one that is not there is not waited for.
    applied: BTreeMap<DataPlane, u64>,
}

impl HostedAttachment {
    fn new(workload: Workload, seat: Seat, epoch: Option<u64>) -> Self {
        Self {
            workload,
            seat,
            ending: false,
            detached: false,
            epoch,
            evicted: None,
            applied: BTreeMap::new(),
        }
    }

    fn is_evicted(&self) -> bool {
        self.evicted.is_some()
    }
}

/// The sequence by which the data planes work of a workload that an earlier agent attached, until it is taken up.
pub(super) const RECALLED: u64 = 0;

/// Parts of a workload that must follow a change before it is acknowledged, beside the network's kernel state and
/// names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DataPlane {
    /// The workload's sidecar.
    Sidecar,
    /// The rules of service addresses in its namespace.
    Rules,
}

impl Mesh {
    /// A host that knows nothing yet, in this run of its agent.
    #[must_use]
    pub(crate) fn new(node: Node, incarnation: u64) -> Self {
        Self {
            places: KnownPlaces::of(&node, incarnation),
            node,
            networks: BTreeMap::new(),
            hosted: BTreeMap::new(),
            reserved: BTreeMap::new(),
            down: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            version: 1,
            incarnation,
            revision: 0,
            facts: BTreeMap::new(),
            words: Words::default(),
        }
    }

    /// This host.
    #[must_use]
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Takes a network's state. Returns whether it says anything new; older states of the same epoch do not.
    pub(crate) fn accept(&mut self, snapshot: NetworkSnapshot) -> bool {
        let name = snapshot.network.name.clone();
        let known = self.networks.get(&name);
        if known.is_some_and(|known| !snapshot.replaces(&known.snapshot)) {
            return false;
        }
        self.words.dismiss(known.map(|known| &known.snapshot.content), &snapshot.content);
        let subnet = snapshot.network.subnet;
        let known = self.networks.remove(&name);
        let moves = !known.as_ref().is_some_and(|known| known.has_places_of(&snapshot));
        let nodes = known.as_ref().map(|known| known.placed.nodes.clone());
        let known = known.map(|known| (known.ipam, known.overlaid, known.progress));
        let (mut ipam, overlaid, progress) =
            known.unwrap_or_else(|| (Ipam::new(subnet), None, Progress::default()));
        let offers = ipam.offered().len();
        ipam.lease(subnet, snapshot.own_blocks(&self.node.name));
        if ipam.offered().len() < offers {
            // Control has taken them, and need not hear of them again.
            self.version += 1;
        }
        let snapshot = Arc::new(snapshot);
        let remembered = remembered(&snapshot, &self.node.name, ipam.offered());
        let placed = match nodes.filter(|nodes| !moves && *nodes != remembered.nodes) {
            Some(nodes) => {
                let mut placed = NetworkSnapshot::clone(&remembered);
                placed.nodes = nodes;
                Arc::new(placed)
            }
            None => remembered.clone(),
        };
        let carried = CarriedNetwork { snapshot, remembered, placed, ipam, overlaid, progress };
        self.networks.insert(name, carried);
        if moves {
            self.places.touch();
        }
        true
    }

    /// Forgets a network that is no more. Refused (false) while workloads of it run here.
    pub(crate) fn drop_network(&mut self, network: &NetworkName) -> bool {
        let goes = !self.uses(network) && self.networks.remove(network).is_some();
        self.places.touch();
        goes
    }

    /// The networks that this host carries.
    #[must_use]
    pub(crate) fn networks(&self) -> Vec<NetworkName> {
        self.networks.keys().cloned().collect()
    }

    /// Returns control's last word on the network.
    #[must_use]
    pub(crate) fn snapshot(&self, network: &NetworkName) -> Option<&NetworkSnapshot> {
        self.networks.get(network).map(|carried| carried.snapshot.as_ref())
    }

    /// Returns control's last word on every network, without the addresses that this host gives back.
    #[must_use]
    pub(crate) fn carried(&self) -> sealane_proto::client::CarriedNetworks {
        self.networks.iter().map(|(name, carried)| (name.clone(), carried.remembered.clone())).collect()
    }

    /// Returns true if workloads of the network run here.
    #[must_use]
    pub(crate) fn uses(&self, network: &NetworkName) -> bool {
        self.hosted.keys().any(|id| id.network == *network)
    }

    /// This host's workloads in the network, by name.
    #[must_use]
    pub(crate) fn names_in(&self, network: &NetworkName) -> Vec<WorkloadName> {
        self.hosted_in(network).map(|hosted| hosted.workload.name.clone()).collect()
    }

    /// This host's workloads in the network that are to have a port.
    #[must_use]
    pub(crate) fn attached(&self, network: &NetworkName) -> Vec<Attachment> {
        let attached = self.hosted_in(network).filter(|hosted| !hosted.detached && !hosted.is_evicted());
        let attachment = |hosted: &HostedAttachment| Attachment {
            workload: hosted.workload.clone(),
            seat: hosted.seat,
            ending: hosted.ending,
        };
        attached.map(attachment).collect()
    }

    /// Returns the workloads that this agent has attached or taken up; the others are still on their way, some since before it
    /// started, or end.
    pub(crate) fn stood(&self, network: &NetworkName) -> BTreeSet<WorkloadName> {
        let stands = |hosted: &&HostedAttachment| {
            hosted.applied.get(&DataPlane::Rules).is_some_and(|&by| by > RECALLED)
                && !hosted.ending
                && !hosted.is_evicted()
        };
        self.hosted_in(network).filter(stands).map(|hosted| hosted.workload.name.clone()).collect()
    }

    /// Returns those of the workloads `unattached` that are not ending meanwhile.
    pub(crate) fn cut_off(&self, network: &NetworkName, unattached: &BTreeSet<WorkloadName>) -> Vec<String> {
        let stood = self.stood(network);
        unattached.intersection(&stood).map(ToString::to_string).collect()
    }

    fn hosted_in(&self, network: &NetworkName) -> impl Iterator<Item = &HostedAttachment> {
        let network = network.clone();
        self.hosted.iter().filter(move |(id, _)| id.network == network).map(|(_, hosted)| hosted)
    }

    /// Control's snapshot with the newer words of other hosts, and with this host's own workloads as they are now.
    #[must_use]
    pub(crate) fn overlaid(&self, network: &NetworkName) -> Option<NetworkSnapshot> {
        self.laid_over(network).map(|(snapshot, _)| snapshot)
    }

    /// The address, which the workload `after` had and nobody has any more, rests.
    pub(super) fn rest_address(
        &mut self,
        network: &NetworkName,
        address: OverlayIp,
        after: Option<Tenant>,
        now: Instant,
    ) {
        if let Some(carried) = self.networks.get_mut(network) {
            carried.ipam.release(address, after, now);
        }
    }

    /// Takes in a workload that has its addresses already: one that ran before this agent did.
    pub(crate) fn host(&mut self, attachment: Attachment) {
        let Attachment { workload, seat, .. } = attachment;
        let id = AttachmentId::of(&workload);
        let epoch = self.snapshot(&id.network).map(|known| known.generation.epoch);
        let hosted = HostedAttachment::new(workload, seat, epoch);
        self.hosted.insert(id, hosted);
        self.version += 1;
    }

    /// Takes in a workload that ran before this agent did, from its record; `gone` says that it has ended meanwhile.
    pub(crate) fn recall(&mut self, attachment: &mut Attachment, gone: bool) {
        // The name stays published over a restart: readiness is what it last was, until it is read anew.
        let known = self.last_known(&attachment.id());
        let standing = known.map(|known| (known.ready, known.ready6, known.finding.clone()));
        let own = &mut attachment.workload;
        (own.ready, own.ready6, own.finding) = standing.unwrap_or_default();
        self.host(attachment.clone());
        if gone {
            // Its port need not be made again, and is nobody's to miss.
            self.end(&attachment.id());
        }
        // What ended or was drained meanwhile must leave its rules, and its sidecar's balancing, before that is acknowledged.
        self.set_applied(&attachment.id(), DataPlane::Rules, Some(RECALLED));
        if attachment.workload.sidecar && !gone {
            self.set_applied(&attachment.id(), DataPlane::Sidecar, Some(RECALLED));
        }
    }

    /// Sets at which of its addresses calls may be sent to the workload; returns the new workload when that is news.
    pub(crate) fn set_ready(&mut self, id: &AttachmentId, standing: impl Into<Standing>) -> Option<Workload> {
        let HostedAttachment { workload, ending, .. } = self.hosted.get_mut(id)?;
        let Standing { ready, finding } = if *ending { Standing::default() } else { standing.into() };
        if (workload.ready, workload.ready6) == (ready.v4, ready.v6) && workload.finding == finding {
            return None;
        }
        (workload.ready, workload.ready6, workload.finding) = (ready.v4, ready.v6, finding);
        self.version += 1;
        Some(workload.clone())
    }

    /// The workload has these further names from now on; returns it as it is then, when that is news.
    pub(crate) fn name_anew(&mut self, id: &AttachmentId, aliases: &Aliases) -> Option<Workload> {
        let hosted = self.hosted.get_mut(id).filter(|hosted| hosted.workload.aliases != *aliases)?;
        hosted.workload.aliases = aliases.clone();
        self.version += 1;
        Some(hosted.workload.clone())
    }

    /// The weights that `change` gives these workloads, as far as they are there and not ending.
    pub(crate) fn weighed(&self, ids: &[AttachmentId], change: WeightChange) -> Vec<(AttachmentId, Weight)> {
        let lives = |id: &AttachmentId| self.hosted.get(id).filter(|hosted| !hosted.ending);
        let weighed = |id| Some((AttachmentId::clone(id), change.of(lives(id)?.workload.weight)));
        ids.iter().filter_map(weighed).collect()
    }

    /// The workload has this weight from now on; returns true when that is news.
    pub(crate) fn set_weight(&mut self, id: &AttachmentId, weight: Weight) -> bool {
        let hosted = self.hosted.get_mut(id).filter(|hosted| hosted.workload.weight != weight);
        if let Some(hosted) = hosted {
            hosted.workload.weight = weight;
            self.version += 1;
            return true;
        }
        false
    }

    /// The workload gets no new calls any more.
    pub(crate) fn end(&mut self, id: &AttachmentId) {
        if let Some(hosted) = self.hosted.get_mut(id).filter(|hosted| !hosted.ending) {
            // Without a share as well: one of no service is known to others before it is ready, and not any more now.
            let workload = &mut hosted.workload;
            (hosted.ending, workload.ready, workload.ready6) = (true, false, false);
            (workload.weight, workload.finding) = (Weight::NONE, Finding::default());
            self.version += 1;
        }
    }

    /// The workload's port goes before its namespace does; until it is gone altogether, its address stays its own.
    pub(crate) fn detach(&mut self, id: &AttachmentId) {
        if let Some(hosted) = self.hosted.get_mut(id) {
            hosted.detached = true;
        }
    }

    /// The workload is gone; its address rests.
    pub(crate) fn remove(&mut self, id: &AttachmentId, now: Instant) {
        if let Some(hosted) = self.hosted.remove(id) {
            self.version += 1;
            let Workload { name, service, address, .. } = hosted.workload;
            self.rest_address(&id.network, address, Some(Tenant { name, service }), now);
        }
    }

    /// A data plane of the workload works by this sequence; `None`: it is not there, and nobody waits for it.
    pub(crate) fn set_applied(&mut self, id: &AttachmentId, plane: DataPlane, sequence: Option<u64>) {
        if let Some(hosted) = self.hosted.get_mut(id) {
            match sequence {
                Some(sequence) => hosted.applied.insert(plane, sequence),
                None => hosted.applied.remove(&plane),
            };
        }
    }

    /// The sequence that every data plane of a network's workloads works by, or a newer one.
    pub(super) fn applied_by_all(&self, network: &NetworkName) -> u64 {
        let hosted = self.hosted_in(network).filter(|hosted| !hosted.is_evicted());
        hosted.flat_map(|hosted| hosted.applied.values()).copied().min().unwrap_or(u64::MAX)
    }

    /// Kernel and names work by this sequence of the network, which has what control said at this generation.
    pub(crate) fn set_published(&mut self, network: &NetworkName, sequence: u64, generation: Generation) {
        let applied = self.applied_by_all(network);
        if let Some(carried) = self.networks.get_mut(network) {
            carried.progress.handle_applied(applied);
            carried.progress.handle_published(sequence, generation);
        }
    }

    /// Makes the next report tell control anew what it knows of this host.
    pub(crate) fn tell_anew(&mut self) {
        self.version += 1;
    }

    /// Counts the changes that control should hear of.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Reports this host's state to control.
    #[must_use]
    pub(crate) fn report(&self) -> LinkReport {
        let told = self.hosted.values().filter(|hosted| !hosted.is_evicted());
        let workloads = told.map(|hosted| hosted.workload.clone()).collect();
        let networks = self.facts.iter().map(|(name, facts)| (name.clone(), facts.edition())).collect();
        let offers = self.networks.iter().filter(|(_, carried)| !carried.ipam.offered().is_empty());
        let offers = offers.map(|(name, carried)| (name.clone(), carried.ipam.offered().clone())).collect();
        LinkReport { version: self.version, workloads, networks, offers }
    }

    /// The generation per network that every data plane of this host works by.
    #[must_use]
    pub(crate) fn applied(&self) -> BTreeMap<NetworkName, Generation> {
        let applied = self.networks.iter().filter_map(|(name, carried)| {
            let generation = carried.progress.applied(self.applied_by_all(name))?;
            Some((name.clone(), generation))
        });
        applied.collect()
    }
}

#[cfg(test)]
mod tests;
