//! The task around [`HostCore`]: events in, kernel and publications out.

mod calls;
mod deferred;
mod network_records;
mod place_record;
mod views;
mod word_records;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sealane_base::ready::Part;
use sealane_base::task::{self, Task};
use sealane_base::timer::sleep_until;
use sealane_fabric::overlay::Overlay;
use sealane_proto::client::{CarriedNetworks, Followed, LinkEvent, LinkReport};
use sealane_proto::types::NetworkName;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::core::{HostCore, Job, News, Outcome};
use super::fabric::Fabric;
use super::handle::{HostCommand, HostHandle};
use super::idle_memory::IdleMemory;
use super::mesh::Mesh;
use super::metrics::HostMetrics;
use super::records::{admit, rename, reserve, weigh};
use super::rounds::Rounds;
use crate::attachment::{Claim, Hold, Reservation};
use crate::disk::{DiskError, Folder, Incarnations, network_to_bytes};
use crate::host::RequestError;
use deferred::{Answer, Deferred};
use network_records::NetworkRecords;
use place_record::PlaceRecord;
use views::{Shown, show};
use word_records::WordRecords;

/// Interval at which the host's own part of the kernel is compared with its desired state.
const AUDIT: Duration = Duration::from_secs(60);
/// Pause before a state that could not be kept on disk is written again.
const RETRY: Duration = Duration::from_secs(1);
/// Interval at which it is looked whether refused workloads may be told again.
const AGAIN: Duration = Duration::from_secs(1);
/// Interval at which it is looked for addresses that this host does not need.
const SURPLUS: Duration = Duration::from_secs(5);
/// Interval at which it is looked which networks are due for a comparison.
const ROUNDS: Duration = Duration::from_secs(1);
/// Number of waiting events that are taken before their consequences are worked out together.
const BATCH: usize = 256;

/// Parts that the task is made of.
#[derive(Debug)]
pub(crate) struct HostParts<F = Overlay> {
    /// State that is known at the start: networks and workloads from disk.
    pub(crate) mesh: Mesh,
    /// The kernel.
    pub(crate) overlay: Arc<F>,
    /// Folder of the networks' records.
    pub(crate) folder: Folder,
    /// Folder of the workloads' records.
    pub(crate) workloads: Folder,
    /// Folder of the reservations' records.
    pub(crate) reservations: Folder,
    /// Record of the agent's runs.
    pub(crate) incarnations: Incarnations,
    /// Folder of other hosts' words.
    pub(crate) words: Folder,
    /// Folder with the record of where hosts are.
    pub(crate) places: Folder,
    /// Counters.
    pub(crate) metrics: HostMetrics,
    /// From control.
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    /// To control.
    pub(crate) report: watch::Sender<Arc<LinkReport>>,
    /// To control.
    pub(crate) followed: watch::Sender<Followed>,
    /// To a control plane of another epoch.
    pub(crate) carried: watch::Sender<CarriedNetworks>,
    /// Said when every network known at the start stands.
    pub(crate) ready: Part,
}

/// Starts the task.
pub(crate) fn start<F: Fabric>(parts: HostParts<F>) -> (HostHandle, Task) {
    let (requests, queue) = mpsc::channel(1024);
    let HostParts { mesh, overlay, folder, workloads, reservations, incarnations, words, .. } = parts;
    let HostParts { places, metrics, events, report, followed, carried, ready, .. } = parts;
    let shown = Shown::new(&mesh, (report, followed, carried));
    let views = shown.views();
    let host = HostActor {
        core: HostCore::new(mesh),
        overlay,
        network_records: NetworkRecords::new(folder),
        workloads,
        reservations,
        incarnations,
        word_records: WordRecords::new(words),
        place_record: PlaceRecord::new(places),
        metrics,
        events,
        queue,
        jobs: FuturesUnordered::new(),
        looking: None,
        deferred: Deferred::default(),
        shown,
        ready,
        said_ready: false,
        rest: IdleMemory::default(),
    };
    (HostHandle { requests, views }, task::spawn("host", host.run()))
}

struct HostActor<F> {
    core: HostCore,
    overlay: Arc<F>,
    network_records: NetworkRecords,
    workloads: Folder,
    reservations: Folder,
    incarnations: Incarnations,
    word_records: WordRecords,
    place_record: PlaceRecord,
    metrics: HostMetrics,
    events: mpsc::Receiver<LinkEvent>,
    queue: mpsc::Receiver<HostCommand>,
    /// Jobs under way.
    jobs: FuturesUnordered<BoxFuture<'static, (NetworkName, Outcome)>>,
    /// A look at the host itself.
    looking: Option<BoxFuture<'static, ()>>,
    deferred: Deferred,
    shown: Shown,
    ready: Part,
    said_ready: bool,
    rest: IdleMemory,
}

impl<F: Fabric> HostActor<F> {
    async fn run(mut self) {
        let mut audit = tokio::time::interval_at(tokio::time::Instant::now() + AUDIT, AUDIT);
        let mut again = tokio::time::interval(AGAIN);
        let mut surplus = tokio::time::interval(SURPLUS);
        let mut round = tokio::time::interval(ROUNDS);
        for interval in [&mut again, &mut surplus, &mut round] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut rounds = Rounds::new(Instant::now());
        let (mut mtu, mut underlay) = (self.overlay.mtu(), self.overlay.underlay());
        let mut doubted = self.overlay.doubted();
        loop {
            self.begin_jobs();
            self.publish();
            self.ask_ahead();
            let (due, unsaved) = (self.core.due(), self.core.is_unsaved());
            let unkept = self.word_records.due(&self.core, Instant::now());
            tokio::select! {
                Some(event) = self.events.recv() => self.handle_link(event),
                request = self.queue.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                Some((network, outcome)) = self.jobs.next() => {
                    self.core.handle_done(&network, outcome, Instant::now());
                    self.deferred.release(&network);
                }
                () = over(&mut self.looking) => self.looking = None,
                _ = audit.tick() => self.look(),
                _ = round.tick() => self.handle_round(&mut rounds),
                Ok(()) = doubted.changed() => {
                    let networks = doubted.borrow_and_update().clone();
                    self.core.handle_doubt(networks);
                }
                Ok(()) = mtu.changed() => self.handle_beneath(),
                Ok(()) = underlay.changed() => self.handle_beneath(),
                () = sleep_until(due) => {}
                () = sleep_until(unkept) => self.word_records.keep(&mut self.core),
                () = tokio::time::sleep(RETRY), if unsaved => {}
                () = self.rest.over() => self.rest.release().await,
                _ = surplus.tick() => self.give_back(),
                _ = again.tick(), if self.core.is_refused() => {
                    self.ask_again();
                    self.core.handle_refused_still(Instant::now());
                }
            }
            for _ in 0..BATCH {
                if let Ok(event) = self.events.try_recv() {
                    self.handle_link(event);
                } else if let Ok(request) = self.queue.try_recv() {
                    self.handle_request(request);
                } else {
                    break;
                }
            }
        }
    }

    /// Looks at what time alone may have changed.
    fn handle_round(&mut self, rounds: &mut Rounds) {
        let due = rounds.poll_due(self.core.mesh.networks(), Instant::now());
        self.core.handle_doubt(due);
        self.core.handle_clock(SystemTime::now());
        self.incarnations.keep();
    }

    /// The network beneath is another one than before.
    fn handle_beneath(&mut self) {
        self.core.mesh.set_underlay(*self.overlay.underlay().borrow());
        self.core.mesh.networks().into_iter().for_each(|network| self.core.handle_change(network));
    }

    /// Lets the kernel follow: networks do not wait for each other.
    fn begin_jobs(&mut self) {
        while let Some(job) = self.core.poll_job(Instant::now()) {
            let (overlay, node) = (self.overlay.clone(), self.core.mesh.node().name.clone());
            self.jobs.push(match job {
                Job::Program(pass) => Box::pin(async move {
                    let (snapshot, network) = (pass.snapshot.clone(), pass.snapshot.network.name.clone());
                    let applied = overlay.program(pass, node).await.map_err(|error| error.to_string());
                    (network, Outcome::Programmed(snapshot, applied))
                }),
                Job::Remove(network) => Box::pin(async move {
                    // Links first; whoever holds sockets in the namespace closes them when the network leaves the views.
                    let removed = overlay.remove(network.clone()).await.map_err(|error| error.to_string());
                    (network, Outcome::Removed(removed))
                }),
            });
        }
    }

    /// Looks at the host itself, unless that is under way.
    fn look(&mut self) {
        let overlay = self.overlay.clone();
        self.looking.get_or_insert_with(|| {
            Box::pin(async move {
                if let Err(error) = overlay.audit().await {
                    tracing::error!("{error}");
                }
            })
        });
    }

    /// Begins another incarnation if this one's words count for nothing, once that is written down.
    fn speak(&mut self) {
        if let Some(incarnation) = self.core.mesh.outdone() {
            match self.incarnations.begin(incarnation) {
                Ok(()) => self.core.mesh.begin_incarnation(incarnation),
                Err(error) => {
                    tracing::error!(%error, "other hosts take this host's newest words for old ones")
                }
            }
        }
        self.core.refresh_facts();
        self.metrics.refused_words.inc_by(self.core.mesh.poll_refused_words());
    }

    /// Shows what has changed to the rest of the agent and to control, and keeps it on disk.
    fn publish(&mut self) {
        self.speak();
        for news in self.core.poll_news() {
            match news {
                News::Network(network, host_network) => {
                    self.rest.disturb();
                    self.shown.network(network, host_network);
                }
                News::Gone(network) => {
                    self.shown.withdraw(&network);
                    self.shown.outside(&self.core);
                    if self.core.mesh.snapshot(&network).is_none()
                        && let Err(error) = self.network_records.remove(&network)
                    {
                        tracing::error!(%error, %network, "cannot forget the network");
                    }
                }
            }
        }
        self.place_record.keep(&self.core.mesh);
        self.shown.tell(&self.core);
        // After everybody works by them.
        for (network, unsaved) in self.core.poll_unsaved() {
            let saved = self.network_records.keep(&self.core, &network, &unsaved);
            self.core.handle_saved(network, saved.map_err(|error| error.to_string()));
        }
        self.shown.complain(&self.core, self.incarnations.problem());
        show(&self.shown.begun, self.core.has_begun());
        if !self.said_ready && self.core.has_all() {
            self.ready.ready();
            self.said_ready = true;
        }
    }

    /// Gives back addresses that this host does not need, once that is on disk.
    fn give_back(&mut self) {
        for (network, ranges) in self.core.poll_offers(Instant::now()) {
            let Some(snapshot) = self.core.mesh.snapshot(&network) else { continue };
            let written = self.network_records.write(&network, &network_to_bytes(snapshot, &ranges));
            match written {
                Ok(()) => self.core.handle_offered(&network, &ranges),
                Err(error) => tracing::error!(%error, %network, "cannot give addresses back"),
            }
        }
    }

    fn handle_request(&mut self, request: HostCommand) {
        let core = &mut self.core;
        // An asker that left gets no answer; what it asked for stands.
        match request {
            HostCommand::Admit(specs, anchor, answer) => {
                let admitted = admit(&mut core.mesh, &self.workloads, &specs, anchor);
                let mut passes = Default::default();
                if admitted.is_ok() {
                    // A pass that knows nothing of it would take its port for a stranger's.
                    passes = core.under_way(specs.iter().map(|spec| spec.network.clone()));
                    core.handle_admitted(&specs);
                }
                self.deferred.answer(passes, Answer::Admitted(answer, admitted));
            }
            HostCommand::Ready(id, standing, answer) => {
                let _ = answer.send(core.handle_ready(&id, standing));
            }
            HostCommand::Name(id, aliases, answer) => {
                let renamed = core.mesh.name_anew(&id, &aliases);
                let written = renamed.as_ref().map(|workload| rename(&self.workloads, workload));
                if renamed.is_some() {
                    core.handle_change(id.network);
                }
                let _ = answer.send(written.transpose().map(|news| news.is_some()));
            }
            HostCommand::Weigh { first, ids, change, answer } => {
                let weighed = weigh(&mut core.mesh, &self.workloads, (&first, &ids), change);
                let _ = answer.send(weighed.map(|weighed| (core.handle_weighed(&weighed), weighed)));
            }
            HostCommand::End(id, answer) => {
                let _ = answer.send(core.handle_end(&id));
            }
            HostCommand::Detach(id, answer) => {
                core.mesh.detach(&id);
                let passes = core.under_way([id.network]);
                self.deferred.answer(passes, Answer::Detached(answer));
            }
            HostCommand::Remove(id, answer) => {
                let _ = answer.send(core.handle_remove(&id, Instant::now()));
            }
            HostCommand::Applied(id, plane, sequence) => core.mesh.set_applied(&id, plane, sequence),
            HostCommand::Reserve(claim, answer) => {
                let _ = answer.send(self.reserve(&claim));
            }
            HostCommand::Reserved(network, address, answer) => {
                let of = |kept: &Reservation| kept.network == network && kept.address == address;
                let _ = answer.send(core.mesh.reservations().find(|kept| of(kept)).cloned());
            }
            HostCommand::Down(down) => core.handle_outside(down),
            HostCommand::Owns(id, answer) => {
                let _ = answer.send(core.mesh.owns_address(&id));
            }
            HostCommand::Heard(owner, facts) => core.handle_facts(owner, facts, SystemTime::now()),
            HostCommand::Silent(owner) => core.handle_silence(&owner),
            HostCommand::Placed(owner, place) => core.mesh.hear_place(owner, place, SystemTime::now()),
            HostCommand::Found(places) => core.mesh.hear_rumours(places),
            HostCommand::Acknowledged(peer, acknowledged) => core.handle_acknowledged(peer, acknowledged),
            HostCommand::Unreachable(hosts) => core.handle_unreachable(hosts),
            HostCommand::Release(hold, answer) => {
                let _ = answer.send(self.release(&hold));
            }
        }
    }

    fn reserve(&mut self, claim: &Claim) -> Result<Reservation, RequestError> {
        self.core.handle_reserved(claim.network.clone());
        reserve(&mut self.core.mesh, &self.reservations, claim)
    }

    fn release(&mut self, hold: &Hold) -> Result<(), DiskError> {
        self.reservations.remove(&Reservation::record_name(hold))?;
        self.core.mesh.release(hold, Instant::now());
        Ok(())
    }
}

/// Returns when this is over; never, when there is none.
async fn over(work: &mut Option<BoxFuture<'static, ()>>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
