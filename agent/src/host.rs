//! State of this host: the networks as control last said, its own workloads as they are now.
//!
//! The task [`actor`] owns it all; decisions are pure ([`mesh`], and [`HostCore`] for what follows from them). A network as this host
//! has it is a [`HostNetwork`]: control's snapshot with this host's own workloads as this host knows them, which is newer.

mod actor;
mod addresses;
mod carry_retry;
mod core;
mod error;
mod fabric;
mod give_back;
mod handle;
mod idle_memory;
mod jobs;
mod kept_words;
mod lease_ahead;
mod mesh;
mod metrics;
mod outside;
mod owners;
mod places;
mod reach;
mod records;
mod reserve;
mod rounds;
mod standing;
mod steps;
mod told;
mod trouble;
mod working;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sealane_fabric::services::ServiceTables;
use sealane_fabric::transition::{Instances, Transition};
use sealane_proto::client::{CarriedNetworks, ClockPair, Rejection};
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{
    ControlAddr, HostPlaces, NetworkChange, NetworkSnapshot, OwnerFacts, Whereabouts,
};
use sealane_proto::sidecar::Told;
use sealane_proto::types::{NetworkName, NodeName, UnderlayAddr, UnderlayAddrs};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::attachment::{AttachmentId, Reservation};
use crate::dns::Zone;

pub(crate) use actor::{HostParts, start};
use addresses::Addresses;
#[cfg(feature = "simulation")]
pub(crate) use core::{HostCore, Job, News, Outcome, Pass, Unsaved};
pub(crate) use error::RequestError;
pub(crate) use handle::HostHandle;
pub(crate) use mesh::{AdmitError, DataPlane, Mesh};
pub(crate) use metrics::HostMetrics;
pub(crate) use outside::{Outside, OutsideCheck};
pub(crate) use standing::Standing;
pub(crate) use steps::Step;
use steps::Steps;
pub(crate) use told::{Acknowledged, Acknowledgement, HeardWords};
pub(crate) use working::Works;

/// One network as this host programs it: control's snapshot with local workloads overlaid.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    /// Grows with every one that this agent process publishes for the network.
    pub(crate) sequence: u64,
    /// The sequence of the first one that said the same: whoever works by that works by this.
    pub(crate) content: u64,
    /// Control's snapshot with this host's own workloads as they are now.
    pub(crate) snapshot: Arc<NetworkSnapshot>,
    /// The same for sidecars.
    pub(crate) told: Told,
    /// Steps that led to it from the states before.
    pub(crate) steps: Steps,
    /// The instances of its services.
    pub(crate) instances: Instances,
    /// The addresses of its workloads.
    addresses: Addresses,
    /// The names.
    pub(crate) zone: Arc<Zone>,
    /// Tables that lead to the services' endpoints in workloads' namespaces.
    pub(crate) services: ServiceTables,
    /// The reason why the kernel cannot be brought to what is newest, as long as it cannot. What runs already goes on by this one.
    pub(crate) hindrance: Option<String>,
}

impl HostNetwork {
    /// Derives names and rules from the snapshot; shares everything that it has in common with the one before.
    pub(crate) fn new(sequence: u64, snapshot: Arc<NetworkSnapshot>, before: Option<&Self>) -> Self {
        match before {
            None => Self::first(sequence, snapshot),
            Some(same) if same.snapshot.content == snapshot.content => Self {
                sequence,
                content: same.content,
                told: Told::from(snapshot.clone()),
                snapshot,
                steps: same.steps.clone(),
                instances: same.instances.clone(),
                addresses: same.addresses.clone(),
                zone: same.zone.clone(),
                services: same.services.clone(),
                hindrance: None,
            },
            Some(before) => before.next(sequence, snapshot),
        }
    }

    /// Derives everything from another snapshot.
    fn next(&self, sequence: u64, snapshot: Arc<NetworkSnapshot>) -> Self {
        let change = NetworkChange::between_clear(&self.snapshot, &snapshot);
        if let Some(change) = change.filter(|change| steps::is_short(change, &snapshot)) {
            let addresses = self.addresses.after(&self.snapshot, &change);
            // Whoever follows tells workloads apart by their addresses.
            if self.addresses.are_clear() && addresses.are_clear() {
                return self.follow(sequence, snapshot, change, addresses);
            }
        }
        let first = Self::first(sequence, snapshot);
        Self { services: first.services.after(&self.services), ..first }
    }

    /// Derives everything from the snapshot alone.
    fn first(sequence: u64, snapshot: Arc<NetworkSnapshot>) -> Self {
        Self {
            sequence,
            content: sequence,
            told: Told::from(snapshot.clone()),
            steps: Steps::default(),
            instances: Instances::in_network(&snapshot),
            addresses: Addresses::of(&snapshot),
            zone: Arc::new(Zone::build(&snapshot)),
            services: ServiceTables::build(&snapshot),
            snapshot,
            hindrance: None,
        }
    }

    /// Derives everything from the change that leads to the snapshot.
    fn follow(
        &self,
        sequence: u64,
        snapshot: Arc<NetworkSnapshot>,
        change: NetworkChange,
        addresses: Addresses,
    ) -> Self {
        let instances = self.instances.after(&self.snapshot, &change);
        let transition =
            Transition { before: &self.snapshot, after: &snapshot, change: &change, instances: &instances };
        let (zone, services) = (self.zone.follow(transition), self.services.follow(transition));
        Self {
            sequence,
            content: sequence,
            told: Told::from(snapshot.clone()),
            snapshot,
            steps: self.steps.with([self.content, sequence], change),
            instances,
            addresses,
            zone: Arc::new(zone),
            services,
            hindrance: None,
        }
    }
}

/// The link to control as the rest of the agent sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkState {
    /// For calls, while control is there.
    pub(crate) channel: Option<Channel>,
    /// Address of control, while it is there.
    pub(crate) address: Option<ControlAddr>,
    /// Reason for its absence.
    pub(crate) problem: String,
    /// Time since which it is known to be away.
    pub(crate) away_since: Option<Instant>,
    /// True if control wants nothing of this host any more.
    pub(crate) refused: bool,
    /// The hosts that control has lost, and since when, where it knows; `None` while it is not there or does not tell.
    pub(crate) lost: Option<BTreeMap<NodeName, Option<SystemTime>>>,
}

impl LinkState {
    /// The state once the stream broke or did not come up. That control wants nothing of this host stays so until it takes the
    /// host in again, whatever else keeps it from answering meanwhile.
    pub(crate) fn down(&self, reason: String, refused: bool, now: Instant) -> Self {
        let away_since = Some(self.away_since.unwrap_or(now));
        if self.refused && !refused {
            return Self { problem: self.problem.clone(), refused: true, away_since, ..Self::default() };
        }
        Self { problem: reason, refused, away_since, ..Self::default() }
    }

    /// Returns what is left of the time for which an answer of control is waited for.
    pub(crate) fn patience(&self, patience: Duration, now: Instant) -> Duration {
        let away = self.away_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        patience.saturating_sub(away)
    }

    /// Returns the obstacle that keeps control from answering, as far as is known; never empty.
    pub(crate) fn why_silent(&self) -> &str {
        match (&self.channel, self.problem.as_str()) {
            (Some(_), _) => "it has not answered so far",
            (None, "") => "connecting",
            (None, problem) => problem,
        }
    }
}

/// Progress of control with this host's reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    /// The newest report that the control plane of the present stream has made durable: one that was restored may not
    /// know what another one knew.
    pub(crate) version: u64,
    /// Workloads in it that were not accepted.
    pub(crate) refused: Vec<Rejection>,
    /// The newest report whose consequences every connected host works by.
    pub(crate) settled: u64,
}

impl Reported {
    /// Returns control's word for not accepting this workload.
    #[must_use]
    pub(crate) fn refusal(&self, id: &AttachmentId) -> Option<&Rejection> {
        self.refused.iter().find(|refused| refused.network == id.network && refused.workload == id.workload)
    }
}

/// Another host that shares a network with this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Place of the host: as it says itself, or control, whichever is newer.
    pub(crate) underlay: UnderlayAddrs,
    /// Further addresses at which it may be.
    pub(crate) elsewhere: BTreeSet<UnderlayAddr>,
    /// The networks that both carry.
    pub(crate) networks: BTreeSet<NetworkName>,
}

/// Words of this host about its own workloads, per network that it carries.
pub(crate) type OwnFacts = BTreeMap<NetworkName, Arc<OwnerFacts>>;

/// Views of the host for the rest of the agent; each is published when it changes.
#[derive(Clone, Debug)]
pub(crate) struct HostViews {
    /// True once everything that was known at the start has been made, as far as it can be: before, `networks` are not
    /// all there.
    pub(crate) begun: watch::Receiver<bool>,
    /// The networks that this host carries, also those that it cannot set up now.
    pub(crate) networks: watch::Receiver<BTreeMap<NetworkName, watch::Receiver<Arc<HostNetwork>>>>,
    /// The link.
    pub(crate) link: watch::Receiver<LinkState>,
    /// For calls to control.
    pub(crate) control: watch::Receiver<Option<Channel>>,
    /// The reports.
    pub(crate) reported: watch::Receiver<Reported>,
    /// Times of this host's clock and control's at their last comparison.
    pub(crate) clocks: watch::Receiver<Option<ClockPair>>,
    /// The addresses that are kept for somebody without a workload that has them.
    pub(crate) reservations: watch::Receiver<Vec<Reservation>>,
    /// The instances outside every network.
    pub(crate) outside: watch::Receiver<Vec<OutsideCheck>>,
    /// Problems of this host, a sentence each.
    pub(crate) complaints: watch::Receiver<Vec<String>>,
    /// Words of this host about its own workloads.
    pub(crate) facts: watch::Receiver<Arc<OwnFacts>>,
    /// This host's word about where it is.
    pub(crate) place: watch::Receiver<Whereabouts>,
    /// The same, and the words of others that say more than control does.
    pub(crate) places: watch::Receiver<Arc<HostPlaces>>,
    /// Control's last word on every network, with its hosts where this one goes by.
    pub(crate) placed: watch::Receiver<CarriedNetworks>,
    /// The hosts that share a network with this one.
    pub(crate) peers: watch::Receiver<Arc<BTreeMap<NodeName, Peer>>>,
    /// The certificates that nobody accepts any more, as control says.
    pub(crate) revoked: watch::Receiver<Arc<BTreeSet<SerialPrefix>>>,
    /// Progress of other hosts with this host's words, by network.
    pub(crate) told: watch::Receiver<BTreeMap<NetworkName, HeardWords>>,
    /// Editions of other hosts' words by which this host works.
    pub(crate) works: watch::Receiver<Works>,
    /// The hosts that cannot be reached from here.
    pub(crate) unreachable: watch::Receiver<Arc<BTreeSet<NodeName>>>,
}
