//! The task that owns [`Mesh`]: events in, kernel and publications out.

mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::ready::Part;
use sealane_base::task::{self, Task};
use sealane_fabric::overlay::{Overlay, Reason};
use sealane_proto::client::{CarriedNetworks, ClockPair, LinkEvent, LinkReport};
use sealane_proto::resource::ControlAddr;
use sealane_proto::types::{Generation, NetworkName};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

use super::carry_retry::CarryRetry;
use super::handle::{HostCommand, HostHandle};
use super::idle_memory::IdleMemory;
use super::mesh::Mesh;
use super::records::{admit, rename, reserve};
use super::trouble::{NetworkTrouble, creation};
use super::{HostNetwork, HostViews, LinkState, OutsideCheck, Reported};
use crate::attachment::Reservation;
use crate::disk::{Folder, network_to_bytes};
use views::show;

/// Interval at which the kernel is compared with its desired state.
const AUDIT: Duration = Duration::from_secs(60);
/// Pause before a network whose kernel state could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Interval at which it is looked whether refused workloads may be told again.
const AGAIN: Duration = Duration::from_secs(1);
/// Number of waiting events that are taken before their consequences are worked out together.
const BATCH: usize = 256;

/// Parts that the task is made of.
#[derive(Debug)]
pub(crate) struct HostParts {
    /// State that is known at the start: networks and workloads from disk.
    pub(crate) mesh: Mesh,
    /// The kernel.
    pub(crate) overlay: Arc<Overlay>,
    /// Folder of the networks' records.
    pub(crate) folder: Folder,
    /// Folder of the workloads' records.
    pub(crate) workloads: Folder,
    /// Folder of the reservations' records.
    pub(crate) reservations: Folder,
    /// From control.
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    /// To control.
    pub(crate) report: watch::Sender<Arc<LinkReport>>,
    /// To control.
    pub(crate) applied: watch::Sender<BTreeMap<NetworkName, Generation>>,
    /// To a control plane of another epoch.
    pub(crate) carried: watch::Sender<CarriedNetworks>,
    /// Said when every network known at the start stands.
    pub(crate) ready: Part,
}

/// Starts the task.
pub(crate) fn start(parts: HostParts) -> (HostHandle, Task) {
    let (requests, queue) = mpsc::channel(1024);
    let (networks, link, control, reported) = (
        watch::Sender::default(),
        watch::Sender::default(),
        watch::Sender::default(),
        watch::Sender::default(),
    );
    let (complaints, clocks, begun) =
        (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
    let (reservations, outside) = (watch::Sender::default(), watch::Sender::new(parts.mesh.outside()));
    let views = HostViews {
        begun: begun.subscribe(),
        networks: networks.subscribe(),
        link: link.subscribe(),
        control: control.subscribe(),
        reported: reported.subscribe(),
        clocks: clocks.subscribe(),
        reservations: reservations.subscribe(),
        outside: outside.subscribe(),
        complaints: complaints.subscribe(),
    };
    let dirty = parts.mesh.networks().into_iter().collect();
    let host = HostActor {
        parts,
        queue,
        published: BTreeMap::new(),
        sequence: 0,
        dirty,
        unsaved: BTreeSet::new(),
        networks,
        link,
        control,
        reported,
        problems: BTreeMap::new(),
        clocks,
        again: CarryRetry::default(),
        complaints,
        reservations,
        outside,
        begun,
        rest: IdleMemory::default(),
    };
    (HostHandle { requests, views }, task::spawn("host", host.run()))
}

struct HostActor {
    parts: HostParts,
    queue: mpsc::Receiver<HostCommand>,
    published: BTreeMap<NetworkName, watch::Sender<Arc<HostNetwork>>>,
    sequence: u64,
    dirty: BTreeSet<NetworkName>,
    unsaved: BTreeSet<NetworkName>,
    networks: watch::Sender<BTreeMap<NetworkName, watch::Receiver<Arc<HostNetwork>>>>,
    link: watch::Sender<LinkState>,
    control: watch::Sender<Option<Channel>>,
    reported: watch::Sender<Reported>,
    problems: BTreeMap<(NetworkName, NetworkTrouble), String>,
    clocks: watch::Sender<Option<ClockPair>>,
    again: CarryRetry,
    complaints: watch::Sender<Vec<String>>,
    reservations: watch::Sender<Vec<Reservation>>,
    outside: watch::Sender<Vec<OutsideCheck>>,
    begun: watch::Sender<bool>,
    rest: IdleMemory,
}

impl HostActor {
    async fn run(mut self) {
        let mut audit = tokio::time::interval_at(tokio::time::Instant::now() + AUDIT, AUDIT);
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_ready = false;
        let (mut mtu, mut doubted) = (self.parts.overlay.mtu(), self.parts.overlay.doubted());
        loop {
            self.drop_forsaken().await;
            // Control may hear of a workload while the kernel follows; what it has acknowledged is done.
            self.report();
            self.refresh(Reason::Change).await;
            self.tell();
            self.save();
            self.complain();
            show(&self.begun, true);
            if !said_ready && self.dirty.is_empty() {
                self.parts.ready.ready();
                said_ready = true;
            }
            let retry = !self.dirty.is_empty() || !self.unsaved.is_empty();
            tokio::select! {
                Some(event) = self.parts.events.recv() => self.handle_link(event).await,
                request = self.queue.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                _ = audit.tick() => {
                    self.dirty.extend(self.parts.mesh.networks());
                    if let Err(error) = self.parts.overlay.audit_host().await {
                        tracing::error!("{error}");
                    }
                    self.refresh(Reason::Audit).await;
                }
                Ok(()) = doubted.changed() => {
                    self.dirty.extend(doubted.borrow_and_update().iter().cloned());
                    self.refresh(Reason::Audit).await;
                }
                Ok(()) = mtu.changed() => self.dirty.extend(self.parts.mesh.networks()),
                () = tokio::time::sleep(RETRY), if retry => {}
                () = self.rest.over() => self.rest.release().await,
                _ = again.tick(), if self.is_refused() => {
                    self.ask_again();
                    if self.again.tells(Instant::now()) {
                        self.parts.mesh.tell_anew();
                    }
                }
            }
            for _ in 0..BATCH {
                if let Ok(event) = self.parts.events.try_recv() {
                    self.handle_link(event).await;
                } else if let Ok(request) = self.queue.try_recv() {
                    self.handle_request(request);
                } else {
                    break;
                }
            }
        }
    }

    fn handle_request(&mut self, request: HostCommand) {
        let mesh = &mut self.parts.mesh;
        // An asker that left gets no answer; what it asked for stands.
        match request {
            HostCommand::Admit(specs, anchor, answer) => {
                let admitted = admit(mesh, &self.parts.workloads, &specs, anchor);
                if admitted.is_ok() {
                    self.dirty.extend(specs.into_iter().map(|spec| spec.network));
                }
                let _ = answer.send(admitted);
            }
            HostCommand::Ready(id, ready, answer) => {
                if mesh.set_ready(&id, ready).is_some() {
                    self.dirty.insert(id.network);
                }
                let _ = answer.send(mesh.version());
            }
            HostCommand::Name(id, aliases, answer) => {
                let renamed = mesh.name_anew(&id, &aliases);
                let written = renamed.as_ref().map(|workload| rename(&self.parts.workloads, workload));
                if renamed.is_some() {
                    self.dirty.insert(id.network);
                }
                let _ = answer.send(written.transpose().map(|news| news.is_some()));
            }
            HostCommand::End(id, answer) => {
                mesh.end(&id);
                let _ = answer.send(mesh.version());
                self.dirty.insert(id.network);
            }
            HostCommand::Detach(id, answer) => {
                mesh.detach(&id);
                let _ = answer.send(());
            }
            HostCommand::Remove(id, answer) => {
                mesh.remove(&id, Instant::now());
                let _ = answer.send(mesh.version());
                self.dirty.insert(id.network);
            }
            HostCommand::Applied(id, plane, sequence) => mesh.set_applied(&id, plane, sequence),
            HostCommand::Reserve(claim, answer) => {
                let _ = answer.send(reserve(mesh, &self.parts.reservations, &claim));
            }
            HostCommand::Reserved(network, address, answer) => {
                let of = |kept: &Reservation| kept.network == network && kept.address == address;
                let _ = answer.send(mesh.reservations().find(|kept| of(kept)).cloned());
            }
            HostCommand::Down(down) => self.dirty.extend(mesh.set_down(down)),
            HostCommand::Release(hold, answer) => {
                let removed = self.parts.reservations.remove(&Reservation::record_name(&hold));
                if removed.is_ok() {
                    mesh.release(&hold, Instant::now());
                }
                let _ = answer.send(removed);
            }
        }
    }

    async fn handle_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { channel, address, roots: _ } => {
                tracing::info!(control = %address, "connected to control");
                self.find_control(&address);
                self.reported.send_modify(|reported| reported.version = 0);
                self.control.send_replace(Some(channel.clone()));
                let (channel, address) = (Some(channel), Some(address));
                self.link.send_replace(LinkState { channel, address, ..LinkState::default() });
            }
            LinkEvent::Down { reason, refused } => {
                if self.link.borrow().channel.is_some() || self.link.borrow().problem.is_empty() {
                    tracing::warn!(%reason, "there is no stream to control; everything goes on without it");
                }
                self.control.send_replace(None);
                self.link.send_modify(|link| *link = link.down(reason, refused));
            }
            LinkEvent::Clocks(pair) => {
                let known = self.clocks.send_replace(Some(pair));
                if pair.is_off() && !known.is_some_and(|known| known.is_off()) {
                    tracing::warn!("this host's clock {pair}, as control sees it; set it right (NTP)");
                }
            }
            LinkEvent::Lost(lost) => {
                self.link.send_if_modified(|link| link.lost.replace(lost.clone()) != Some(lost));
            }
            LinkEvent::State(snapshot) => {
                let name = snapshot.network.name.clone();
                self.problems.remove(&(name.clone(), NetworkTrouble::Unknown));
                if self.parts.mesh.accept(*snapshot) {
                    if self.again.arrives(&name) {
                        self.parts.mesh.tell_anew();
                    }
                    self.dirty.insert(name.clone());
                    self.unsaved.insert(name);
                    self.show_outside();
                }
            }
            LinkEvent::Gone(network) => self.drop_network(&network).await,
            LinkEvent::Reported { version, refused } => {
                for refused in &refused {
                    tracing::warn!(network = %refused.network, workload = %refused.workload,
                        reason = refused.reason, "control does not accept a workload");
                }
                self.reported.send_modify(|reported| {
                    reported.version = reported.version.max(version);
                    reported.refused = refused;
                });
                self.ask_again();
            }
            LinkEvent::Settled { version } => {
                self.reported.send_modify(|reported| reported.settled = reported.settled.max(version));
            }
        }
    }

    /// Workloads do not reach control, wherever its name leads.
    fn find_control(&self, address: &ControlAddr) {
        if address.literal.is_none() {
            let (overlay, text) = (self.parts.overlay.clone(), address.text.clone());
            let find = async move {
                match tokio::net::lookup_host(&text).await {
                    Ok(found) => overlay.learn_control(found),
                    Err(error) => tracing::debug!(%error, control = text, "cannot look up where control is"),
                }
            };
            // The look-up ends by itself.
            task::spawn("find-control", find).detach();
        }
    }

    async fn drop_network(&mut self, network: &NetworkName) {
        if !self.parts.mesh.drop_network(network) {
            if self.parts.mesh.snapshot(network).is_some() {
                tracing::warn!(%network, "control has no such network, but workloads of this host are in it");
                let line = self.parts.mesh.snapshot(network).map(|known| creation(&known.network));
                self.problems.insert((network.clone(), NetworkTrouble::Unknown), line.unwrap_or_default());
            }
            return;
        }
        self.problems.retain(|(troubled, _), _| troubled != network);
        self.dirty.remove(network);
        self.unsaved.remove(network);
        self.published.remove(network);
        // Links first; whoever holds sockets in the namespace closes them when the network leaves the views.
        if let Err(error) = self.parts.overlay.remove_network(network).await {
            tracing::error!(%error, %network, "cannot remove the network");
        }
        self.show_networks();
        self.show_outside();
        if let Err(error) = self.parts.folder.remove(network.as_str()) {
            tracing::error!(%error, %network, "cannot forget the network");
        }
        tracing::info!(%network, "the network is gone");
    }

    /// Lets go of networks that control does not know, once nothing runs in them here.
    async fn drop_forsaken(&mut self) {
        let unknown = self.problems.keys().filter(|(_, trouble)| *trouble == NetworkTrouble::Unknown);
        let forsaken = unknown.map(|(network, _)| network).filter(|network| !self.parts.mesh.uses(network));
        for network in forsaken.cloned().collect::<Vec<_>>() {
            self.drop_network(&network).await;
        }
    }

    /// Makes the kernel follow every dirty network, then publishes; what fails stays dirty.
    async fn refresh(&mut self, reason: Reason) {
        for network in std::mem::take(&mut self.dirty) {
            let Some(snapshot) = self.parts.mesh.overlaid(&network).map(Arc::new) else {
                continue;
            };
            let (attached, node) = (self.parts.mesh.attached(&network), &self.parts.mesh.node().name);
            let applied = match self.parts.overlay.ensure_network(&snapshot, node, &attached, reason).await {
                Ok(applied) => applied,
                Err(error) => {
                    let (key, problem) = ((network.clone(), NetworkTrouble::Kernel), error.to_string());
                    if self.problems.insert(key, problem.clone()).as_ref() != Some(&problem) {
                        tracing::error!(%error, %network, "cannot set up the network, trying again each second");
                    }
                    self.hinder(network.clone(), snapshot, problem);
                    self.dirty.insert(network);
                    continue;
                }
            };
            self.problems.remove(&(network.clone(), NetworkTrouble::Kernel));
            self.note(&network, NetworkTrouble::Egress, applied.egress_problem);
            self.note(&network, NetworkTrouble::Rows, applied.refused_rows);
            self.note(&network, NetworkTrouble::Packets, applied.too_long);
            let cut_off = self.parts.mesh.cut_off(&network, &applied.unattached);
            self.note(&network, NetworkTrouble::CutOff, (!cut_off.is_empty()).then(|| cut_off.join(", ")));
            let unchanged = self.published.get(&network).is_some_and(|published| {
                let published = published.borrow();
                published.hindrance.is_none() && published.snapshot == snapshot
            });
            if !unchanged {
                self.publish(network, snapshot);
            }
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

    /// Keeps new states on disk, after everybody works by them: a lost one comes again.
    fn save(&mut self) {
        for network in std::mem::take(&mut self.unsaved) {
            let Some(snapshot) = self.parts.mesh.snapshot(&network) else {
                continue;
            };
            if let Err(error) = self.parts.folder.write(network.as_str(), &network_to_bytes(snapshot)) {
                if self.problems.insert((network.clone(), NetworkTrouble::Disk), error.to_string()).is_none()
                {
                    tracing::error!(%error, %network, "cannot keep the network's state on disk");
                }
                self.unsaved.insert(network);
            } else {
                self.problems.remove(&(network, NetworkTrouble::Disk));
            }
        }
    }
}
