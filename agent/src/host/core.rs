//! The host's state and what is to be done because of it: events and requests in, jobs and publications out. Pure.
//!
//! [`Mesh`] has what is known; here is what follows from it for the kernel, for the disk and for everybody who looks at the host.
//! The task around it is [`actor`](super::actor).

mod addresses;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use sealane_fabric::overlay::{Applied, Reason};
use sealane_proto::client::{Followed, Rejection};
use sealane_proto::resource::{Astray, NetworkDelta, NetworkSnapshot, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName, Weight, WorkloadName};

use super::carry_retry::CarryRetry;
use super::give_back::GiveBack;
use super::jobs::{Jobs, Work};
use super::kept_words::{KeptWords, NetworkWords};
use super::lease_ahead::LeaseAhead;
use super::mesh::Mesh;
use super::standing::Standing;
use super::told::ToldWords;
use super::trouble::{NetworkTrouble, creation};
use super::working::{WorkingWords, Works};
use super::{HostNetwork, Reported};
use crate::attachment::{Attachment, AttachmentId, AttachmentSpec};

/// Work on the kernel that somebody else does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Make the kernel have what this says.
    Program(Pass),
    /// Take the network off the host.
    Remove(NetworkName),
}

/// One network as the kernel is to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// The network with this host's workloads as they are.
    pub(crate) snapshot: Arc<NetworkSnapshot>,
    /// The workloads of this host that are to have a port.
    pub(crate) attachments: Vec<Attachment>,
    /// Reason for the pass.
    pub(crate) reason: Reason,
}

/// Outcome of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The kernel has what the pass said, or does not take it for this reason.
    Programmed(Arc<NetworkSnapshot>, Result<Applied, String>),
    /// The network is off the host, or its removal failed for this reason.
    Removed(Result<(), String>),
}

/// News for those who look at the host.
#[derive(Debug)]
pub(crate) enum News {
    /// A network as it is from now on.
    Network(NetworkName, Arc<HostNetwork>),
    /// A network is gone, and its record on disk is to go.
    Gone(NetworkName),
}

/// News of a network that are not on disk.
#[derive(Debug)]
pub(crate) enum Unsaved {
    /// The state.
    Whole,
    /// The deltas since that was written, in this order.
    Deltas(Vec<NetworkDelta>),
}

impl Unsaved {
    /// Adds one more delta to the news that are not on disk.
    fn after(before: Option<Self>, delta: NetworkDelta) -> Self {
        match before {
            // The addresses that this host gives back are written with the state alone, and follow from its blocks.
            _ if !delta.blocks.is_empty() => Self::Whole,
            Some(Self::Whole) => Self::Whole,
            Some(Self::Deltas(mut deltas)) => {
                deltas.push(delta);
                Self::Deltas(deltas)
            }
            None => Self::Deltas(vec![delta]),
        }
    }
}

/// The host.
#[derive(Debug)]
pub(crate) struct HostCore {
    pub(crate) mesh: Mesh,
    jobs: Jobs,
    published: BTreeMap<NetworkName, Arc<HostNetwork>>,
    sequence: u64,
    news: Vec<News>,
    /// Networks that control told anew while they were being taken off.
    returning: BTreeMap<NetworkName, NetworkSnapshot>,
    /// Networks of which a delta came that leads from nothing that is known here.
    astray: BTreeSet<NetworkName>,
    /// Networks whose newest state is not on disk.
    unsaved: BTreeMap<NetworkName, Unsaved>,
    problems: BTreeMap<(NetworkName, NetworkTrouble), String>,
    /// Workloads that were attached when the job that is under way began, by network.
    stood: BTreeMap<NetworkName, BTreeSet<WorkloadName>>,
    reported: Reported,
    again: CarryRetry,
    ahead: LeaseAhead,
    back: GiveBack,
    /// True if control takes addresses back.
    takes_blocks: bool,
    /// Networks of the start that nobody has tried to set up yet.
    untried: BTreeSet<NetworkName>,
    /// Networks of the start that have not been set up yet.
    missing: BTreeSet<NetworkName>,
    /// The version of the host's workloads that its words say; `None` if they are to be made anew for other reasons.
    said: Option<u64>,
    /// Progress of others with its words.
    pub(super) told: ToldWords,
    kept_words: KeptWords,
    working: WorkingWords,
}

impl HostCore {
    /// A host that knows this at its start.
    pub(crate) fn new(mesh: Mesh) -> Self {
        let untried: BTreeSet<NetworkName> = mesh.networks().into_iter().collect();
        let mut jobs = Jobs::default();
        untried.iter().for_each(|network| jobs.program(network.clone(), Reason::Change));
        let kept_words = KeptWords::of(&mesh);
        Self {
            kept_words,
            mesh,
            jobs,
            published: BTreeMap::new(),
            sequence: 0,
            news: Vec::new(),
            returning: BTreeMap::new(),
            astray: BTreeSet::new(),
            unsaved: BTreeMap::new(),
            problems: BTreeMap::new(),
            stood: BTreeMap::new(),
            reported: Reported::default(),
            again: CarryRetry::default(),
            ahead: LeaseAhead::default(),
            back: GiveBack::default(),
            takes_blocks: false,
            missing: untried.clone(),
            untried,
            said: None,
            told: ToldWords::default(),
            working: WorkingWords::default(),
        }
    }

    /// Something about the network is other than before.
    pub(crate) fn handle_change(&mut self, network: NetworkName) {
        if self.mesh.snapshot(&network).is_some() {
            self.jobs.program(network, Reason::Change);
        }
    }

    /// Has the kernel's state of these networks looked at.
    pub(crate) fn handle_doubt(&mut self, networks: impl IntoIterator<Item = NetworkName>) {
        for network in networks {
            if self.mesh.snapshot(&network).is_some() {
                self.jobs.program(network, Reason::Audit);
            }
        }
    }

    /// Has the networks of workloads that were taken in programmed.
    pub(crate) fn handle_admitted(&mut self, specs: &[AttachmentSpec]) {
        for spec in specs {
            self.ahead.note(spec.network.clone());
            self.handle_change(spec.network.clone());
        }
    }

    /// Says at which of its addresses calls may be sent to a workload; returns the report that says so.
    pub(crate) fn handle_ready(&mut self, id: &AttachmentId, standing: impl Into<Standing>) -> u64 {
        if self.mesh.set_ready(id, standing).is_some() {
            self.handle_change(id.network.clone());
        }
        self.mesh.version()
    }

    /// Gives workloads these weights; returns the report that says so.
    pub(crate) fn handle_weighed(&mut self, weighed: &[(AttachmentId, Weight)]) -> u64 {
        for (id, weight) in weighed {
            if self.mesh.set_weight(id, *weight) {
                self.handle_change(id.network.clone());
            }
        }
        self.mesh.version()
    }

    /// Takes a workload out of names and balancing; returns the report that says so.
    pub(crate) fn handle_end(&mut self, id: &AttachmentId) -> u64 {
        self.mesh.end(id);
        self.handle_change(id.network.clone());
        self.mesh.version()
    }

    /// Forgets a workload; returns the report that says so.
    pub(crate) fn handle_remove(&mut self, id: &AttachmentId, now: Instant) -> u64 {
        self.mesh.remove(id, now);
        self.handle_change(id.network.clone());
        self.mesh.version()
    }

    /// Another host says what it has.
    pub(crate) fn handle_facts(&mut self, owner: NodeName, facts: OwnerFacts, now: SystemTime) {
        self.mesh.note_channel(&owner, true);
        let network = facts.network.clone();
        let must_pass = self.working.hear(&network, &owner, facts.edition());
        let news = self.mesh.hear(owner, facts, now);
        if news {
            self.kept_words.touch(&network);
        }
        if news || must_pass {
            self.handle_change(network);
        }
    }

    /// Time has passed, or the clock was set: words that were ahead of it may count now.
    pub(crate) fn handle_clock(&mut self, now: SystemTime) {
        for network in self.mesh.weigh_doubts(now) {
            self.kept_words.touch(&network);
            self.handle_change(network);
        }
    }

    /// Another host is not heard any more.
    pub(crate) fn handle_silence(&mut self, owner: &NodeName) {
        self.told.part(owner);
        self.working.part(owner);
        self.mesh.note_channel(owner, false);
        self.mesh.fall_silent(owner).into_iter().for_each(|network| self.handle_change(network));
    }

    /// Brings what this host says of its workloads, and by which words of others it works, to what is, before anything is shown or told.
    pub(crate) fn refresh_facts(&mut self) {
        let version = self.mesh.version();
        if self.said.replace(version) != Some(version) {
            let news = self.mesh.refresh_facts(&self.reported.refused);
            news.iter().for_each(|network| self.kept_words.touch(network));
        }
        self.told.note(version, self.mesh.facts());
        self.working.handle_applied(|network| self.mesh.applied_by_all(network));
    }

    /// The stream to control is up: that control plane has heard no report yet. `takes_blocks` says whether it takes addresses back.
    pub(crate) fn handle_up(&mut self, takes_blocks: bool) {
        self.reported.version = 0;
        self.takes_blocks = takes_blocks;
    }

    /// The stream to control is gone: this host may need what it has.
    pub(crate) fn handle_down(&mut self) {
        self.takes_blocks = false;
    }

    /// Control said how a network is.
    pub(crate) fn handle_state(&mut self, snapshot: NetworkSnapshot) {
        let name = snapshot.network.name.clone();
        if self.jobs.is_leaving(&name) {
            self.astray.remove(&name);
            self.returning.insert(name, snapshot);
            return;
        }
        self.problems.remove(&(name.clone(), NetworkTrouble::Unknown));
        self.astray.remove(&name);
        let mut routed = self.mesh.routed_from(&name);
        if self.mesh.accept(snapshot) {
            routed.extend(self.mesh.routed_from(&name));
            routed.into_iter().for_each(|other| self.handle_change(other));
            self.evict(&name);
            self.said = None;
            self.kept_words.touch(&name);
            if self.again.arrives(&name) {
                self.mesh.tell_anew();
            }
            self.unsaved.insert(name.clone(), Unsaved::Whole);
            self.ahead.note(name.clone());
            self.handle_change(name);
        }
    }

    /// Control said what has changed in a network.
    pub(crate) fn handle_delta(&mut self, delta: NetworkDelta) {
        let network = &delta.name.clone();
        let known = self.returning.get(network).or_else(|| self.mesh.snapshot(network));
        match known.map_or(Err(Astray), |known| delta.applied(known)) {
            Ok(snapshot) => {
                let unsaved = self.unsaved.remove(network);
                self.handle_state(snapshot);
                if self.unsaved.contains_key(network) || unsaved.is_some() {
                    self.unsaved.insert(network.clone(), Unsaved::after(unsaved, delta));
                }
            }
            Err(error) => {
                if self.astray.insert(network.clone()) {
                    tracing::warn!(%network, "{error}: it asks for the whole");
                }
            }
        }
    }

    /// Progress of this host with what control tells.
    pub(crate) fn followed(&self) -> Followed {
        Followed { applied: self.mesh.applied(), astray: self.astray.clone() }
    }

    /// Editions of other hosts' words by which this host works, and the number of changes of them so far.
    pub(crate) fn works(&self) -> (&Works, u64) {
        (self.working.works(), self.working.version())
    }

    /// Control said that a network is no more, or not this host's. It stays as long as workloads are in it.
    pub(crate) fn handle_gone(&mut self, network: &NetworkName) {
        self.returning.remove(network);
        self.astray.remove(network);
        if self.mesh.drop_network(network) {
            self.said = None;
            self.working.drop_network(network);
            self.kept_words.touch(network);
            self.problems.retain(|(troubled, _), _| troubled != network);
            self.unsaved.remove(network);
            self.untried.remove(network);
            self.missing.remove(network);
            self.jobs.remove(network.clone());
        } else if let Some(known) = self.mesh.snapshot(network) {
            tracing::warn!(%network, "control has no such network, but workloads of this host are in it");
            self.problems.insert((network.clone(), NetworkTrouble::Unknown), creation(&known.network));
        }
    }

    /// A report is durable, but for what is refused.
    pub(crate) fn handle_reported(&mut self, version: u64, refused: Vec<Rejection>) {
        // A report follows another while a refusal lasts.
        for refused in refused.iter().filter(|refused| !self.reported.refused.contains(refused)) {
            tracing::warn!(network = %refused.network, workload = %refused.workload,
                reason = refused.reason, "control does not accept a workload");
        }
        self.reported.version = self.reported.version.max(version);
        if self.reported.refused != refused {
            let before = std::mem::replace(&mut self.reported.refused, refused);
            self.said = None;
            // Names that they have in common with others are no news any more, or are news.
            let concerned: BTreeSet<NetworkName> =
                before.iter().chain(&self.reported.refused).map(|it| it.network.clone()).collect();
            concerned.into_iter().for_each(|network| self.handle_change(network));
        }
    }

    /// The next job, which is under way from now on until [`HostCore::handle_done`].
    pub(crate) fn poll_job(&mut self, now: Instant) -> Option<Job> {
        self.drop_forsaken();
        self.mesh.settle_places(now).into_iter().for_each(|network| self.handle_change(network));
        loop {
            let (network, work) = self.jobs.begin(now)?;
            let reason = match work {
                Work::Remove => return Some(Job::Remove(network)),
                Work::Program(reason) => reason,
            };
            if let Some(snapshot) = self.mesh.overlay(&network) {
                let attachments = self.mesh.attached(&network);
                self.stood.insert(network.clone(), self.mesh.stood(&network));
                self.working.handle_pass(&network);
                return Some(Job::Program(Pass { snapshot, attachments, reason }));
            }
            self.jobs.done(&network);
        }
    }

    /// A network's job has ended.
    pub(crate) fn handle_done(&mut self, network: &NetworkName, outcome: Outcome, now: Instant) {
        self.jobs.done(network);
        match outcome {
            Outcome::Removed(removed) => self.handle_removed(network, removed),
            // One that goes meanwhile is nobody's to see.
            Outcome::Programmed(..) if self.mesh.snapshot(network).is_none() => {}
            Outcome::Programmed(snapshot, Ok(applied)) => self.handle_programmed(network, snapshot, applied),
            Outcome::Programmed(snapshot, Err(problem)) => {
                let key = (network.clone(), NetworkTrouble::Kernel);
                if self.problems.insert(key, problem.clone()).as_ref() != Some(&problem) {
                    tracing::error!(error = problem, %network, "cannot set up the network, trying again each second");
                }
                self.hinder(network.clone(), snapshot, problem);
                self.jobs.retry(network.clone(), now);
            }
        }
        self.untried.remove(network);
    }

    fn handle_programmed(&mut self, network: &NetworkName, snapshot: Arc<NetworkSnapshot>, applied: Applied) {
        self.missing.remove(network);
        self.problems.remove(&(network.clone(), NetworkTrouble::Kernel));
        self.note(network, NetworkTrouble::Egress, applied.egress_problem);
        self.note(network, NetworkTrouble::Rows, applied.refused_rows);
        self.note(network, NetworkTrouble::Packets, applied.too_long);
        // Who was attached while this job looked has not lost anything.
        let mut stood = self.stood.remove(network).unwrap_or_default();
        stood.retain(|workload| applied.unattached.contains(workload));
        let cut_off = self.mesh.cut_off(network, &stood);
        self.note(network, NetworkTrouble::CutOff, (!cut_off.is_empty()).then(|| cut_off.join(", ")));
        // Also where nothing else changes: its instances stay as they are.
        self.note(network, NetworkTrouble::OutOfReach, self.mesh.out_of_reach(&snapshot));
        let namesakes = self.mesh.namesakes(network, &self.reported.refused);
        self.note(network, NetworkTrouble::Namesakes, namesakes);
        self.note(network, NetworkTrouble::Evicted, self.mesh.evicted(network));
        let unchanged = self
            .published
            .get(network)
            .is_some_and(|published| published.hindrance.is_none() && published.snapshot == snapshot);
        if !unchanged {
            self.publish(network.clone(), snapshot);
        }
        if let Some(published) = self.published.get(network) {
            self.working.handle_published(network, published.sequence);
        }
    }

    fn handle_removed(&mut self, network: &NetworkName, removed: Result<(), String>) {
        if let Err(error) = removed {
            tracing::error!(error, %network, "cannot remove the network");
        }
        self.published.remove(network);
        self.news.push(News::Gone(network.clone()));
        tracing::info!(%network, "the network is gone");
        if let Some(snapshot) = self.returning.remove(network) {
            self.handle_state(snapshot);
        }
    }

    /// Lets go of networks that control does not know, once nothing runs in them here.
    fn drop_forsaken(&mut self) {
        let unknown = self.problems.keys().filter(|(_, trouble)| *trouble == NetworkTrouble::Unknown);
        let forsaken = unknown.map(|(network, _)| network).filter(|network| !self.mesh.uses(network));
        for network in forsaken.cloned().collect::<Vec<_>>() {
            self.handle_gone(&network);
        }
    }

    /// Notes an outcome that nobody waits for: it is looked at again with the next change or audit.
    fn note(&mut self, network: &NetworkName, trouble: NetworkTrouble, problem: Option<String>) {
        let key = (network.clone(), trouble);
        match problem {
            None => drop(self.problems.remove(&key)),
            Some(problem) => {
                if self.problems.insert(key, problem.clone()).as_ref() != Some(&problem) {
                    tracing::error!("{}", trouble.sentence(network, &problem));
                }
            }
        }
    }

    /// The states that are to be kept on disk: a lost one comes again.
    pub(crate) fn poll_unsaved(&mut self) -> BTreeMap<NetworkName, Unsaved> {
        std::mem::take(&mut self.unsaved)
    }

    /// Returns true if the words of other hosts on disk may be others than they should be.
    pub(crate) fn is_unkept(&self) -> bool {
        self.kept_words.is_due()
    }

    /// The words of other hosts that are to be kept on disk, per network in place of what is there.
    pub(crate) fn poll_words(&mut self) -> Vec<(NetworkName, NetworkWords)> {
        self.kept_words.poll(&self.mesh)
    }

    /// The words of a network are on disk, or are to be written once more.
    pub(crate) fn handle_kept(&mut self, network: NetworkName, words: &NetworkWords, kept: bool) {
        self.kept_words.handle_kept(network, words, kept);
    }

    /// A state was kept on disk, or cannot be for this reason and is to be once more.
    pub(crate) fn handle_saved(&mut self, network: NetworkName, saved: Result<(), String>) {
        let key = (network.clone(), NetworkTrouble::Disk);
        match saved {
            Ok(()) => drop(self.problems.remove(&key)),
            Err(error) => {
                if self.problems.insert(key, error.clone()).is_none() {
                    tracing::error!(error, %network, "cannot keep the network's state on disk");
                }
                self.unsaved.insert(network, Unsaved::Whole);
            }
        }
    }
}

#[cfg(test)]
mod tests;
