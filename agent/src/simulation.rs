//! One host's agent without tasks, kernel and disk, for simulations: what it decides is real, and whoever runs it says what time it
//! is and when its work on the kernel ends.
//!
//! The kernel is a table of what each network's last pass left, by the real plan; the disk is a map. Both stay when the agent is
//! killed. Main type: [`SimulatedHost`].

mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use sealane_fabric::health::Families;
use sealane_fabric::overlay::Applied;
use sealane_fabric::overlay::plan::{self, Desired, Port};
use sealane_proto::client::{Followed, LinkEvent};
use sealane_proto::resource::{Edition, Node, OwnerFacts, Workload};
use sealane_proto::types::{
    Generation, NetworkName, NodeName, OverlayIp, ServiceName, ServicePort, WorkloadName,
};

use crate::attachment::{AttachmentId, AttachmentSpec};
use crate::disk::{
    StoredAnchor, StoredProcess, StoredWorkload, delta_to_bytes, led_on, network_from_bytes,
    network_to_bytes, words_from_bytes, words_to_bytes,
};
use crate::host::{AdmitError, DataPlane, HostCore, HostNetwork, Job, Mesh, News, Outcome, Pass, Unsaved};
use crate::ipam::IpamError;
pub use crate::liveness::simulation::SimulatedWatch;
pub use crate::peer::simulation::{Memory, SimulatedAcknowledgement, SimulatedTalk, Voice};
use crate::workload::{Knowledge, Settling, Wait};

/// MTU of the simulated underlay's tunnels.
const MTU: u32 = 1450;

/// A workload that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The network.
    pub network: NetworkName,
    /// Name of the workload.
    pub name: WorkloadName,
    /// The service that it is an instance of.
    pub service: Option<ServiceName>,
    /// The ports that it offers.
    pub ports: Vec<ServicePort>,
    /// A certain address.
    pub address: Option<OverlayIp>,
}

/// A reason for which a workload is not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The host needs more than so many blocks of the network's addresses.
    Blocks(usize),
    /// Something that may pass, or not.
    Refused(String),
}

/// Name of a workload in its network.
pub type Id = (NetworkName, WorkloadName);

/// Wait of a workload that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending(Settling);

/// One network in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    /// Devices, ports and rows.
    pub desired: Desired,
    /// Control's generation that they follow.
    pub generation: Generation,
}

/// State that a kill of the agent leaves.
#[derive(Clone, Debug, Default)]
struct Machine {
    kernel: BTreeMap<NetworkName, Programmed>,
    networks: BTreeMap<NetworkName, Vec<u8>>,
    /// What has changed since those were written, and before.
    logs: BTreeMap<NetworkName, Vec<Vec<u8>>>,
    workloads: BTreeMap<Id, Vec<u8>>,
    incarnation: u64,
    words: BTreeMap<NetworkName, Vec<u8>>,
}

/// A host with its agent.
#[derive(Debug)]
pub struct SimulatedHost {
    node: Node,
    machine: Machine,
    core: HostCore,
    published: BTreeMap<NetworkName, Arc<HostNetwork>>,
    under_way: BTreeMap<NetworkName, Job>,
}

impl SimulatedHost {
    /// A host that has just joined.
    #[must_use]
    pub fn new(node: Node, clock: SystemTime) -> Self {
        Self::start(node, Machine::default(), clock, &|_| false)
    }

    /// The host after kill -9 of its agent and the start of another one; these workloads have ended meanwhile.
    #[must_use]
    pub fn restarted(self, clock: SystemTime, gone: &dyn Fn(&Id) -> bool) -> Self {
        Self::start(self.node, self.machine, clock, gone)
    }

    /// The host after a reboot: nothing is left but its disk, and its workloads have ended.
    #[must_use]
    pub fn rebooted(mut self, clock: SystemTime) -> Self {
        self.machine.kernel.clear();
        self.restarted(clock, &|_| true)
    }

    fn start(node: Node, mut machine: Machine, clock: SystemTime, gone: &dyn Fn(&Id) -> bool) -> Self {
        let clock = clock.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        machine.incarnation = (machine.incarnation + 1).max(clock);
        let mut mesh = Mesh::new(node.clone(), machine.incarnation);
        for (name, bytes) in &machine.networks {
            let read = network_from_bytes(bytes).unwrap_or_else(|error| panic!("the disk: {error}"));
            let log = machine.logs.get(name).map_or(&[][..], Vec::as_slice);
            mesh.recall_network((led_on(read.0, log), read.1));
        }
        for bytes in machine.words.values() {
            let words = words_from_bytes(bytes).unwrap_or_else(|error| panic!("the disk: {error}"));
            words.into_iter().for_each(|(owner, facts)| mesh.recall_word(owner, facts));
        }
        for (id, bytes) in &machine.workloads {
            let stored =
                StoredWorkload::from_bytes(bytes).unwrap_or_else(|error| panic!("the disk: {error}"));
            stored.attachments.into_iter().for_each(|mut attachment| mesh.recall(&mut attachment, gone(id)));
        }
        // Networks that are in the kernel and not on disk go at the start.
        machine.kernel.retain(|network, _| mesh.snapshot(network).is_some());
        let core = HostCore::new(mesh);
        Self { node, machine, core, published: BTreeMap::new(), under_way: BTreeMap::new() }
    }

    /// The host.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The stream to control is up.
    pub fn handle_up(&mut self, takes_blocks: bool) {
        self.core.handle_up(takes_blocks);
    }

    /// The stream to control is down.
    pub fn handle_down(&mut self) {
        self.core.handle_down();
    }

    /// Handles an event of the stream.
    pub fn handle_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::State(snapshot) => self.core.handle_state(*snapshot),
            LinkEvent::Delta(delta) => self.core.handle_delta(*delta),
            LinkEvent::Gone(network) => self.core.handle_gone(&network),
            LinkEvent::Reported { version, refused } => self.core.handle_reported(version, refused),
            LinkEvent::Settled { version } => self.core.handle_settled(version),
            LinkEvent::Up { .. } | LinkEvent::Down { .. } | LinkEvent::Clocks(_) | LinkEvent::Lost(_) => {}
        }
    }

    /// Progress of this host with what control tells.
    #[must_use]
    pub fn followed(&self) -> Followed {
        self.core.followed()
    }

    /// Takes a workload in and writes it down.
    ///
    /// # Errors
    /// When it has no name or address to give it, or not yet.
    pub fn admit(&mut self, wish: Wish, now: Instant) -> Result<Workload, NotAdmitted> {
        let Wish { network, name, service, ports, address } = wish;
        let plain = AttachmentSpec::plain(network.clone(), name.clone());
        let specs = [AttachmentSpec { service, ports, address, ..plain }];
        let admitted = self.core.mesh.admit_all(&specs, now).map_err(|error| {
            if matches!(error, AdmitError::UnknownNetwork(_)) {
                NotAdmitted::Blocks(0)
            } else if matches!(error, AdmitError::Address { source: IpamError::Exhausted { .. }, .. }) {
                NotAdmitted::Blocks(self.blocks(&network))
            } else {
                NotAdmitted::Refused(error.to_string())
            }
        })?;
        let process = StoredProcess { pid: 1, started: 1, boot: "boot".to_owned() };
        let stored =
            StoredWorkload { attachments: admitted, anchor: StoredAnchor::Process(process), health: None };
        self.machine.workloads.insert((network, name), stored.to_bytes());
        self.core.handle_admitted(&specs);
        let workload = stored.attachments.into_iter().next().map(|attachment| attachment.workload);
        workload.ok_or_else(|| NotAdmitted::Refused("no network".to_owned()))
    }

    fn blocks(&self, network: &NetworkName) -> usize {
        let known = self.core.mesh.snapshot(network);
        let own = known.into_iter().flat_map(|known| &known.blocks);
        own.filter(|block| block.node.as_ref() == Some(&self.node.name)).count()
    }

    /// Gives a workload its port. False while a pass is under way that knows nothing of it, and while there is no network.
    pub fn plumb(&mut self, id: &Id) -> bool {
        let attached = self.core.mesh.attached(&id.0);
        let Some(attachment) = attached.iter().find(|attachment| attachment.workload.name == id.1) else {
            return false;
        };
        if self.is_under_way(&id.0) {
            return false;
        }
        let kernel = self.machine.kernel.get_mut(&id.0);
        kernel.is_some_and(|kernel| {
            kernel.desired.ports.insert(Port::of(attachment));
            true
        })
    }

    /// Gives a workload's port up. False while a pass is under way that would make it again.
    pub fn unplumb(&mut self, id: &Id) -> bool {
        self.core.mesh.detach(&attachment_id(id));
        if self.is_under_way(&id.0) {
            return false;
        }
        if let Some(kernel) = self.machine.kernel.get_mut(&id.0) {
            kernel.desired.ports.retain(|port| port.workload != id.1);
        }
        true
    }

    /// Says whether calls may be sent to a workload; returns the report that says so.
    pub fn set_ready(&mut self, id: &Id, ready: bool) -> u64 {
        self.core.handle_ready(&attachment_id(id), Families::both(ready))
    }

    /// Takes a workload out of names and balancing; `registered` says whether control may know of it.
    pub fn end(&mut self, id: &Id, registered: bool) -> Ending {
        let id = attachment_id(id);
        for plane in [DataPlane::Sidecar, DataPlane::Rules] {
            self.core.mesh.set_applied(&id, plane, None);
        }
        Ending(Settling::new(self.core.handle_end(&id), registered))
    }

    /// Returns whether every connected host has confirmed the end of a workload; `None` as long as that is waited for.
    pub fn is_over(&self, id: &Id, ending: &mut Ending, connected: bool, now: Instant) -> Option<bool> {
        let told = self.core.told().get(&id.0).map_or(u64::MAX, |told| told.version);
        let progress = Knowledge { settled: self.core.reported().settled, told, connected };
        match ending.0.poll(progress, now) {
            Wait::Confirmed => Some(true),
            Wait::Told | Wait::GivenUp => Some(false),
            Wait::Until(_) => None,
        }
    }

    /// Forgets a workload.
    pub fn remove(&mut self, id: &Id, now: Instant) {
        self.machine.workloads.remove(id);
        self.core.handle_remove(&attachment_id(id), now);
    }

    /// The sidecar and the rules of a workload work by the newest publication.
    pub fn follow(&mut self, id: &Id) {
        let Some(sequence) = self.published.get(&id.0).map(|published| published.sequence) else { return };
        for plane in [DataPlane::Sidecar, DataPlane::Rules] {
            self.core.mesh.set_applied(&attachment_id(id), plane, Some(sequence));
        }
    }

    /// Begins the next work on the kernel; the network that it is on.
    pub fn begin_job(&mut self, now: Instant) -> Option<NetworkName> {
        let job = self.core.poll_job(now)?;
        let network = match &job {
            Job::Program(Pass { snapshot, .. }) => snapshot.network.name.clone(),
            Job::Remove(network) => network.clone(),
        };
        self.under_way.insert(network.clone(), job);
        Some(network)
    }

    /// The networks on which work is under way.
    #[must_use]
    pub fn under_way(&self) -> Vec<NetworkName> {
        self.under_way.keys().cloned().collect()
    }

    fn is_under_way(&self, network: &NetworkName) -> bool {
        !self.core.under_way([network.clone()]).is_empty()
    }

    /// Ends the work on a network; `works` says whether the kernel took it.
    pub fn end_job(&mut self, network: &NetworkName, works: bool, now: Instant) {
        let Some(job) = self.under_way.remove(network) else { return };
        let outcome = match job {
            Job::Remove(_) => {
                self.machine.kernel.remove(network);
                Outcome::Removed(Ok(()))
            }
            Job::Program(Pass { snapshot, .. }) if !works => {
                Outcome::Programmed(snapshot, Err("the kernel refuses".to_owned()))
            }
            Job::Program(Pass { snapshot, attachments, .. }) => {
                let desired =
                    plan::desired(&snapshot, (&self.node.name, self.node.underlay), &attachments, MTU);
                let generation = snapshot.generation;
                self.machine.kernel.insert(network.clone(), Programmed { desired, generation });
                Outcome::Programmed(snapshot, Ok(Applied::default()))
            }
        };
        self.core.handle_done(network, outcome, now);
    }

    /// Shows what has changed and keeps it on disk, as the agent does after everything that happens.
    pub fn publish(&mut self) {
        if let Some(incarnation) = self.core.mesh.outdone() {
            self.machine.incarnation = incarnation;
            self.core.mesh.begin_incarnation(incarnation);
        }
        self.core.refresh_facts();
        for news in self.core.poll_news() {
            match news {
                News::Network(network, host_network) => {
                    self.published.insert(network, host_network);
                }
                News::Gone(network) => {
                    self.published.remove(&network);
                    if self.core.mesh.snapshot(&network).is_none() {
                        self.machine.networks.remove(&network);
                        self.machine.logs.remove(&network);
                    }
                }
            }
        }
        for (network, unsaved) in self.core.poll_unsaved() {
            let logs = &mut self.machine.logs;
            match (unsaved, self.core.mesh.snapshot(&network)) {
                (Unsaved::Deltas(deltas), Some(_)) => {
                    logs.entry(network.clone()).or_default().extend(deltas.iter().map(delta_to_bytes));
                }
                // The newest of the log stays until the next time, as after a kill between the two.
                (Unsaved::Whole, Some(snapshot)) => {
                    if let Some(log) = logs.get_mut(&network) {
                        log.drain(..log.len().saturating_sub(3));
                    }
                    let bytes = network_to_bytes(snapshot, &self.core.mesh.offered(&network));
                    self.machine.networks.insert(network.clone(), bytes);
                }
                (Unsaved::Deltas(_) | Unsaved::Whole, None) => {}
            }
            self.core.handle_saved(network, Ok(()));
        }
        for (network, words) in self.core.poll_words() {
            match words.is_empty() {
                true => self.machine.words.remove(&network),
                false => self.machine.words.insert(network.clone(), words_to_bytes(&words)),
            };
            self.core.handle_kept(network, &words, true);
        }
    }

    /// The networks for which control is to be asked again.
    pub fn asks_again(&mut self, now: Instant) -> Vec<NetworkName> {
        if self.core.is_refused() {
            self.core.handle_refused_still(now);
        }
        self.core.poll_carry(true, now)
    }

    /// Gives back addresses that this host does not need; `killed` says that it is killed once that is on disk.
    pub fn give_back(&mut self, killed: bool, now: Instant) {
        for (network, ranges) in self.core.poll_offers(now) {
            let Some(snapshot) = self.core.mesh.snapshot(&network) else { continue };
            self.machine.networks.insert(network.clone(), network_to_bytes(snapshot, &ranges));
            if !killed {
                self.core.handle_offered(&network, &ranges);
            }
        }
    }

    /// The ranges that this host assigns addresses from, by what it knows of a network, and the generation of that.
    #[must_use]
    pub fn assigns(&self, network: &NetworkName) -> Option<(Generation, Vec<Ipv4Net>)> {
        let snapshot = self.core.mesh.snapshot(network)?;
        Some((snapshot.generation, self.core.mesh.assigns(network)))
    }

    /// The networks of which control is to be asked for one more block than so many, before it is needed.
    pub fn asks_ahead(&mut self, now: Instant) -> Vec<(NetworkName, usize)> {
        self.core.poll_ahead(now)
    }

    /// Returns true if the kernel has everything that it should.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.core.is_idle()
    }

    /// Hears what another host says of its workloads.
    pub fn hear(&mut self, owner: NodeName, facts: OwnerFacts, clock: SystemTime) {
        self.core.handle_facts(owner, facts, clock);
    }

    /// Another host has acknowledged this of this host's words.
    pub fn acknowledged(&mut self, peer: NodeName, acknowledged: SimulatedAcknowledgement) {
        self.core.handle_acknowledged(peer, acknowledged.0);
    }

    /// Editions of another host's words by which this host works, by network.
    #[must_use]
    pub fn works(&self, owner: &NodeName) -> Arc<BTreeMap<NetworkName, Edition>> {
        self.core.works().0.get(owner).cloned().unwrap_or_default()
    }

    /// The number of changes so far of what [`Self::works`] returns.
    #[must_use]
    pub fn works_version(&self) -> u64 {
        self.core.works().1
    }

    /// The last channel to another host has ended.
    pub fn fall_silent(&mut self, owner: &NodeName) {
        self.core.handle_silence(owner);
    }

    /// Takes in which hosts cannot be reached, seen from here; all others can.
    pub fn handle_unreachable(&mut self, hosts: BTreeSet<NodeName>) {
        self.core.handle_unreachable(hosts);
    }
}

fn attachment_id((network, workload): &Id) -> AttachmentId {
    AttachmentId { network: network.clone(), workload: workload.clone() }
}
