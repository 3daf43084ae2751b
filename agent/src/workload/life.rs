//! One attachment of a workload, from what stands in the kernel until it is forgotten.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sealane_base::task::Task;
use sealane_proto::identity::Principal;
use sealane_proto::resource::Workload;
use sealane_proto::sidecar::{ROOM, SOCKET};
use sealane_proto::wire::v1;
use sealane_sys::NetNs;
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::{self, RETRY};
use super::anchor::Lifeline;
use super::names::Names;
use super::plumbing::{self, Plumbed};
use super::standing::Standing;
use super::trouble::Trouble;
use super::{AttachError, Context, freezer};
use crate::certs::{CertError, WorkloadIdentity};
use crate::health::{self, Target};
use crate::host::{DataPlane, Effective};
use crate::nft;
use crate::overlay::Local;
use crate::sidecar::{Command, Key, SidecarParts, Supervisor, stop_of};

/// How long a new sidecar may take to work by its first configuration.
const SIDECAR_START: Duration = Duration::from_secs(10);
/// How long a sidecar may be away, which is started again when it dies, until its workload gets no calls.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the end of a workload waits for hosts that are slow to stop sending to it.
const SETTLE: Duration = Duration::from_secs(10);
/// How long what still runs through a sidecar may take when its workload has ended.
const DRAIN: Duration = Duration::from_secs(1);
/// How long without control before a known service starts without it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the rules are compared with what they should be.
const AUDIT: Duration = Duration::from_secs(60);
/// After adoption, how long until a workload that does not listen counts as not ready.
const FIRST_READING: Duration = Duration::from_secs(1);

/// Tells whoever asked for the workload how it goes.
#[derive(Clone, Debug)]
pub(crate) struct Progress(pub mpsc::Sender<Result<v1::RunEvent, AttachError>>);

impl Progress {
    /// Something is waited for. An asker that left needs no word: its process tells.
    pub(super) async fn waiting(&self, what: String) {
        let event = v1::run_event::Event::Waiting(what);
        let _ = self.0.send(Ok(v1::RunEvent { event: Some(event) })).await;
    }

    /// It is there.
    pub(super) async fn attached(&self, location: v1::Location) {
        let event = v1::run_event::Event::Attached(location);
        let _ = self.0.send(Ok(v1::RunEvent { event: Some(event) })).await;
    }
}

/// One attachment.
pub(super) struct Life {
    context: Arc<Context>,
    key: Key,
    local: Local,
    effective: watch::Receiver<Arc<Effective>>,
    /// The workload's names, and the place of this network's among them.
    names: (Arc<Names>, usize),
    plumbed: Option<Plumbed>,
    supervisor: Option<Supervisor>,
    /// By what the rules of service addresses are.
    ruled: u64,
    /// Whether control may know of it.
    registered: bool,
    /// The report that tells control of it.
    report: u64,
}

impl Life {
    pub(super) fn new(
        context: Arc<Context>,
        local: Local,
        effective: watch::Receiver<Arc<Effective>>,
        names: (Arc<Names>, usize),
        registered: bool,
    ) -> Self {
        let key = Key::of(&local.workload);
        Self {
            context,
            key,
            local,
            effective,
            names,
            plumbed: None,
            supervisor: None,
            ruled: 0,
            registered,
            report: 1,
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn local(&self) -> &Local {
        &self.local
    }

    /// The network's own address.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.effective.borrow().snapshot.network.subnet.gateway().to_ipv4()
    }

    /// What whoever attached it should know of its network.
    pub(super) fn note(&self) -> Option<String> {
        let Workload { name, network, sidecar, .. } = &self.local.workload;
        let strict = self.effective.borrow().snapshot.network.mtls().is_strict();
        (strict && !sidecar).then(|| {
            format!(
                "network {network} is strict (mtls), and workload {name} has no sidecar: services of others refuse its \
                 calls, and what it serves itself is open to all of the network, in plain text"
            )
        })
    }

    fn principal(&self) -> Principal {
        let network = self.key.network.clone();
        match &self.local.workload.service {
            Some(service) => Principal::Service(network, service.clone()),
            None => Principal::Workload(network, self.key.workload.clone()),
        }
    }

    /// From what stands in the kernel to what works.
    pub(super) async fn set_up(&mut self, progress: &Progress) -> Result<(), AttachError> {
        // Its process starts while control hears of the workload.
        let waiting = self.local.workload.sidecar.then(|| self.start_sidecar());
        self.register(progress).await?;
        if let Some(waiting) = waiting {
            // One that does not wait any more does not start.
            let _ = waiting.send(self.identity(progress).await?);
            self.await_sidecar().await?;
        }
        self.follow().await;
        Ok(())
    }

    /// Takes up what runs: nothing is waited for that worked without this agent. Safe to repeat.
    pub(super) async fn adopt(&mut self, progress: &Progress) -> Result<(), AttachError> {
        if self.local.workload.sidecar && self.supervisor.is_none() {
            let identity = self.identity(progress).await?;
            // One that does not wait any more does not start.
            let _ = self.start_sidecar().send(identity);
        }
        Ok(())
    }

    /// It cannot be taken up: no calls are sent to it, and nobody waits until it follows a change.
    pub(super) async fn set_aside(&self) {
        self.context.host.set_ready(self.key.clone(), false).await;
        self.context.host.applied(self.key.clone(), DataPlane::Rules, None).await;
    }

    pub(super) async fn plumb(&mut self, netns: &NetNs) -> Result<(), AttachError> {
        let effective = self.effective.borrow_and_update().clone();
        let table = effective.services.of(self.local.workload.sidecar);
        let network = &effective.snapshot.network;
        let plumbed = plumbing::plumb(&self.context, network, &self.local, table, netns).await?;
        self.plumbed = Some(plumbed);
        Ok(())
    }

    /// Waits until control knows the workload, or until it is clear that control is not there and not needed.
    async fn register(&mut self, progress: &Progress) -> Result<(), AttachError> {
        let version = self.context.host.set_ready(self.key.clone(), false).await;
        self.report = version.ok_or(AttachError::Ending)?;
        let mut told = false;
        loop {
            if let Ok(known) = tokio::time::timeout(PATIENCE, self.reported()).await {
                known?;
                break;
            }
            let link = self.context.host.views.link.borrow().clone();
            if link.channel.is_none() && self.can_go_alone()? {
                tracing::warn!(workload = %self.key, problem = link.problem, "control is not there, going on without it");
                return Ok(());
            }
            if !told {
                let why = link.why_silent();
                progress
                    .waiting(format!("control, which does not know workload {} yet: {why}", self.key))
                    .await;
                told = true;
            }
        }
        self.registered = true;
        Ok(())
    }

    /// Waits until the control plane that the host is connected to knows the workload.
    async fn reported(&self) -> Result<(), AttachError> {
        let mut reported = self.context.host.views.reported.clone();
        let known = reported.wait_for(|reported| reported.version >= self.report).await;
        let known = known.map_err(|_| AttachError::Ending)?;
        known.refusal(&self.key).map_or(Ok(()), |reason| Err(AttachError::Refused(reason.to_owned())))
    }

    /// Whether this host can start the workload by itself: it carries its service and has its identity.
    fn can_go_alone(&self) -> Result<bool, AttachError> {
        let known_service = match &self.local.workload.service {
            Some(service) => {
                self.effective.borrow().snapshot.services.iter().any(|known| known.name == *service)
            }
            None => true,
        };
        Ok(known_service
            && (!self.local.workload.sidecar || self.context.certs.known(&self.principal())?.is_some()))
    }

    async fn identity(
        &self,
        progress: &Progress,
    ) -> Result<watch::Receiver<Arc<WorkloadIdentity>>, AttachError> {
        let principal = self.principal();
        let mut link = self.context.host.views.link.clone();
        loop {
            if let Some(known) = self.context.certs.known(&principal)? {
                return Ok(known);
            }
            link.mark_unchanged();
            let what_for = format!("the certificate of workload {}", self.key);
            let channel = admission::control(&self.context, &what_for, progress).await?;
            // Control signs for what it knows: one that was restored meanwhile must hear of the workload first.
            tokio::select! {
                known = self.reported() => known?,
                changed = link.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Err(AttachError::Ending),
                },
            }
            match self.context.certs.obtain(&principal, channel).await {
                Ok(identity) => return Ok(identity),
                Err(CertError::Unreachable(why)) => {
                    progress.waiting(format!("control, for {what_for}: {why}")).await;
                    tokio::time::sleep(RETRY).await;
                }
                // Another control plane than the one that knows of it may have been asked: then the link changes.
                Err(error @ CertError::Refused { .. }) => {
                    if tokio::time::timeout(RETRY, link.changed()).await.is_err() {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts the sidecar, which waits for its identity.
    fn start_sidecar(&mut self) -> oneshot::Sender<watch::Receiver<Arc<WorkloadIdentity>>> {
        let (sender, identity) = oneshot::channel();
        let Some(plumbed) = &mut self.plumbed else {
            return sender;
        };
        let Ok(netns) = plumbed.netns.try_clone() else {
            return sender;
        };
        let parts = SidecarParts {
            key: self.key.clone(),
            netns,
            run_dir: self.context.run_dir.clone(),
            binary: self.context.binary.clone(),
            hopper: self.context.hopper.clone(),
            listeners: std::mem::take(&mut plumbed.listeners),
            trust_domain: self.context.certs.trust_domain().clone(),
            identity,
            effective: self.effective.clone(),
        };
        self.supervisor = Some(Supervisor::start(parts, self.context.sidecars.clone()));
        sender
    }

    async fn await_sidecar(&mut self) -> Result<(), AttachError> {
        let sequence = self.effective.borrow().sequence;
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(());
        };
        let applied =
            supervisor.applied.wait_for(|applied| applied.is_some_and(|applied| applied >= sequence));
        match tokio::time::timeout(SIDECAR_START, applied).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(AttachError::Ending),
            Err(_) => {
                let what =
                    format!("its sidecar did not start within {SIDECAR_START:?}; the agent's log says why");
                Err(AttachError::setup(&self.key, what))
            }
        }
    }

    /// Follows everything that changes around the workload until it is to end.
    pub(super) async fn live(&mut self, lifeline: &Lifeline, adopted: bool) {
        self.follow().await;
        let (mut listening, portless) = (self.watch_health(), self.local.workload.ports.is_empty());
        let mut frozen = lifeline.anchor.pid().and_then(freezer::watch);
        let runs = frozen.as_ref().is_none_or(|(frozen, _)| !*frozen.borrow());
        let listens = (portless || !adopted).then_some(portless);
        let mut standing = Standing { listens, sidecar: true, runs };
        self.declare(standing).await;
        let mut applied = self.supervisor.as_ref().map(|supervisor| supervisor.applied.clone());
        let (first_reading, silence) = (tokio::time::sleep(FIRST_READING), tokio::time::sleep(SILENCE));
        let ended = lifeline.ended();
        tokio::pin!(first_reading, silence, ended);
        let mut audit = tokio::time::interval_at(tokio::time::Instant::now() + AUDIT, AUDIT);
        loop {
            tokio::select! {
                () = &mut ended => return,
                Some(listens) = next(listening.as_mut().map(|(receiver, _)| receiver)) => {
                    standing.listens = Some(listens);
                    self.declare(standing).await;
                }
                () = &mut first_reading, if standing.listens.is_none() && listening.is_some() => {
                    standing.listens = listening.as_ref().map(|(receiver, _)| *receiver.borrow());
                    self.declare(standing).await;
                }
                Some(sequence) = next(applied.as_mut()) => {
                    self.context.host.applied(self.key.clone(), DataPlane::Sidecar, sequence).await;
                    self.publish_names();
                    silence.as_mut().reset(tokio::time::Instant::now() + SILENCE);
                    if sequence.is_some() && !standing.sidecar {
                        standing.sidecar = true;
                        self.declare(standing).await;
                    }
                }
                () = &mut silence, if standing.sidecar && self.is_silent() => {
                    standing.sidecar = false;
                    self.declare(standing).await;
                }
                Some(frozen) = next(frozen.as_mut().map(|(receiver, _)| receiver)) => {
                    standing.runs = !frozen;
                    self.declare(standing).await;
                }
                Ok(()) = self.effective.changed() => self.follow().await,
                () = tokio::time::sleep(RETRY), if self.is_behind() => self.follow().await,
                () = tokio::time::sleep(RETRY), if listening.is_none() && !portless => {
                    listening = self.watch_health();
                }
                _ = audit.tick() => {
                    self.audit_rules().await;
                    self.audit_services().await;
                }
            }
        }
    }

    /// Says whether calls may be sent to it.
    async fn declare(&self, standing: Standing) {
        let silent = (!standing.sidecar).then(|| {
            let socket = self.context.run_dir.join(ROOM).join(SOCKET);
            let socket = socket.display();
            format!(
                "it has not been heard of at {socket} for {SILENCE:?}; the agent's log says whether it starts"
            )
        });
        self.context.troubles.set(&self.key, Trouble::Sidecar, silent);
        let paused = (!standing.runs).then(|| "its control group is frozen".to_owned());
        self.context.troubles.set(&self.key, Trouble::Paused, paused);
        if let Some(ready) = standing.is_ready() {
            self.context.host.set_ready(self.key.clone(), ready).await;
        }
    }

    /// Whether its sidecar is not connected.
    fn is_silent(&self) -> bool {
        self.supervisor.as_ref().is_some_and(|supervisor| supervisor.applied.borrow().is_none())
    }

    /// Puts back rules that somebody else took away; without them calls would pass the sidecar by.
    async fn audit_rules(&self) {
        let Some(plumbed) = self.plumbed.as_ref().filter(|_| self.local.workload.sidecar) else {
            return;
        };
        let network = self.effective.borrow().snapshot.network.clone();
        let (hopper, netns, ports) = (&self.context.hopper, &plumbed.netns, self.context.ports);
        let (address, seat) = (self.local.workload.address, self.local.seat);
        let context = &self.context;
        let path = nft::Path { subnet: network.subnet, address, seat, ports };
        let mut changed = nft::ensure_sidecar_rules(hopper, netns, path).await;
        if let (&Ok(before), Some(path)) = (&changed, plumbing::path6(&network, &self.local, ports)) {
            changed = nft::ensure_sidecar_rules6(hopper, netns, path).await.map(|changed| changed || before);
        }
        match changed {
            Ok(false) => {}
            Ok(true) => {
                context.overlay.count_rules_drift(&self.key);
            }
            Err(error) => tracing::error!(%error, workload = %self.key, "cannot see to the sidecar's rules"),
        }
    }

    /// The same of the rules of service addresses.
    async fn audit_services(&mut self) {
        let Some(plumbed) = &mut self.plumbed else { return };
        match plumbed.services.audit(&plumbed.netns).await {
            Ok(false) => {}
            Ok(true) => {
                self.context.overlay.count_rules_drift(&self.key);
            }
            Err(error) => {
                self.ruled = 0;
                tracing::error!(%error, workload = %self.key, "cannot see to the rules of service addresses");
            }
        }
    }

    fn watch_health(&self) -> Option<(watch::Receiver<bool>, Task)> {
        let netns = &self.plumbed.as_ref().filter(|_| !self.local.workload.ports.is_empty())?.netns;
        let (address, subnet6) =
            (self.local.workload.address, self.effective.borrow().snapshot.network.subnet6);
        let target = Target {
            address: address.to_ipv4(),
            ipv6: subnet6.map(|subnet6| subnet6.address(address)),
            ports: self.local.workload.ports.clone(),
            sidecar: self.local.workload.sidecar.then_some(self.context.ports),
        };
        let watched = health::watch(&self.context.hopper, netns, target);
        let complain =
            |error| tracing::error!(%error, workload = %self.key, "cannot see whether a workload listens");
        watched.map_err(complain).ok()
    }

    /// Lets rules and names follow the newest state, in this order.
    async fn follow(&mut self) {
        let effective = self.effective.borrow_and_update().clone();
        if let Some(plumbed) = &mut self.plumbed {
            let table = effective.services.of(self.local.workload.sidecar);
            match plumbed.services.ensure(&plumbed.netns, table).await {
                Ok(_) => self.ruled = effective.sequence,
                Err(error) => {
                    tracing::error!(%error, workload = %self.key, "cannot balance service addresses, trying again");
                }
            }
        }
        self.context
            .host
            .applied(self.key.clone(), DataPlane::Rules, self.plumbed.as_ref().map(|_| self.ruled))
            .await;
        self.publish_names();
    }

    /// Whether the rules of service addresses are to be tried again.
    fn is_behind(&self) -> bool {
        self.plumbed.is_some() && self.ruled < self.effective.borrow().sequence
    }

    /// Lets the workload's DNS answer by the newest state, once its sidecar and its rules are by it.
    fn publish_names(&self) {
        let effective = self.effective.borrow().clone();
        let applied = self.supervisor.as_ref().and_then(|supervisor| *supervisor.applied.borrow());
        let follows =
            applied.is_none_or(|applied| applied >= effective.sequence) && self.ruled >= effective.sequence;
        if follows {
            let (names, place) = &self.names;
            names.publish(*place, effective.zone.clone());
        }
    }

    /// Out of names and balancing, then out of the kernel.
    pub(super) async fn retire(&mut self) {
        // Nobody waits for what served a workload that is gone.
        for plane in [DataPlane::Sidecar, DataPlane::Rules] {
            self.context.host.applied(self.key.clone(), plane, None).await;
        }
        if let Some(version) = self.context.host.end(self.key.clone()).await {
            self.settle(version).await;
        }
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.commands.send(Command::Drain { deadline: DRAIN }).await.is_ok()
        {
            // A supervisor that panicked leaves a process that the next agent ends.
            let _ = supervisor.task.await;
        }
        self.stop_recorded_sidecar();
        // An agent that ends removes it too, and makes no other.
        let _ = self.context.host.detach(self.key.clone()).await;
        plumbing::unplumb(&self.context, &self.local, self.plumbed.take()).await;
    }

    /// Out of memory.
    pub(super) async fn forget(&self) {
        self.context.host.remove(self.key.clone()).await;
        self.forget_identity();
    }

    /// An identity that nobody on this host has any more is neither renewed nor watched over.
    fn forget_identity(&self) {
        let effective = self.effective.borrow().clone();
        let shared = effective.snapshot.workloads.iter().any(|known| {
            known.node == self.context.node
                && known.name != self.key.workload
                && known.service.is_some()
                && known.service == self.local.workload.service
        });
        if shared {
            return;
        }
        if let Err(error) = self.context.certs.forget(&self.principal()) {
            tracing::error!(%error, workload = %self.key, "cannot forget an identity");
        }
    }

    /// One that an earlier agent started for a workload that ended while no agent was there, so that none took it
    /// up. Otherwise its record went with it.
    fn stop_recorded_sidecar(&self) {
        if let Err(error) = stop_of(&self.context.run_dir, &self.key.record_name()) {
            tracing::error!(%error, workload = %self.key, "cannot end a sidecar");
        }
    }

    /// Waits until nobody sends to the workload any more. While control is not there, other hosts do not hear of
    /// the end: namespace and sidecar stay and refuse their calls at once, instead of leaving them unanswered.
    async fn settle(&self, version: u64) {
        let mut reported = self.context.host.views.reported.clone();
        let mut link = self.context.host.views.link.clone();
        loop {
            let connected = link.borrow_and_update().channel.is_some();
            if !connected && !self.registered {
                return;
            }
            tokio::select! {
                settled = reported.wait_for(|reported| reported.settled >= version) => {
                    return drop(settled);
                }
                () = tokio::time::sleep(SETTLE), if connected => {
                    tracing::warn!(workload = %self.key, "not every host has confirmed the end of a workload");
                    return;
                }
                changed = link.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// The next value of a watch that may not be there; never, when it is not or has ended.
async fn next<T: Clone>(receiver: Option<&mut watch::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => match receiver.changed().await {
            Ok(()) => Some(receiver.borrow_and_update().clone()),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
