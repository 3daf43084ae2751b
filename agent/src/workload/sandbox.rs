//! Sandbox of one workload, from the request to the last trace: a namespace, and in it an attachment per network.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{join_all, try_join_all};
use sealane_base::backoff::Backoff;
use sealane_fabric::seat::{DeviceName, Owner};
use sealane_sys::NetNs;
use tokio::sync::{mpsc, watch};

use super::admission::{self, Admitted};
use super::anchor::{Anchor, Gone, Lifeline};
use super::life::Life;
use super::names::Names;
use super::namespace::{self, NamespaceDns};
use super::plumbing::{netns_path, resolv_path};
use super::{AttachError, WorkloadContext, target};
use crate::attachment::{
    AttachSpec, Attached, Attachment, AttachmentId, Event, Hold, Progress, RequestFailure,
};
use crate::disk::StoredWorkload;
use crate::host::HostNetwork;
use crate::tap::{self, Tap};
use crate::trouble::WorkloadTrouble;

/// Pause before a workload that could not be taken up is tried again, at first.
const SOON: Duration = Duration::from_millis(50);
/// And at last.
const SELDOM: Duration = Duration::from_secs(5);
/// Time for which calls go on to one that cannot be taken up: it works, as far as anybody knows.
const PATIENCE: Duration = Duration::from_secs(1);

/// Request for a workload.
#[derive(Debug)]
pub(super) struct SandboxRequest {
    /// The workload.
    pub(super) spec: AttachSpec,
    /// Anchor that it ends with.
    pub(super) anchor: Anchor,
    /// Namespace, if it is somebody else's.
    pub(super) given: Option<NetNs>,
    /// The container that it is of, by its runtime's id.
    pub(super) container: Option<String>,
}

struct Sandbox {
    context: Arc<WorkloadContext>,
    /// At least one.
    lives: Vec<Life>,
    names: Arc<Names>,
    owner: Owner,
    /// True if its names come before those of its runtime's resolver.
    takes_over: bool,
    namespace_dns: Option<NamespaceDns>,
    /// The device of a virtual machine, if it is one, and what serves it.
    machine: Option<DeviceName>,
    tap: Option<Tap>,
}

/// A new workload.
pub(super) async fn begin(context: Arc<WorkloadContext>, request: SandboxRequest, progress: Progress) {
    let admitted = match admission::admit(&context, &request, &progress).await {
        Ok(Some(admitted)) => admitted,
        Ok(None) => return leave_room(&context, &request.anchor).await,
        Err(error) => {
            leave_room(&context, &request.anchor).await;
            return progress.failed(error).await;
        }
    };
    let Admitted { attachments, dismissed } = admitted;
    let lifeline = Lifeline { anchor: request.anchor, dismissed };
    let about = about(lifeline.anchor.hold(), request.container.as_deref());
    let mut sandbox = Sandbox::new(&context, attachments, (false, about), lifeline.anchor.hold());
    let set_up = tokio::select! {
        set_up = sandbox.set_up(request.given, &progress) => set_up,
        refusal = admission::refused(&context) => Err(refusal),
        () = lifeline.ended() => Err(AttachError::Ending),
        () = progress.closed() => Err(AttachError::Ending),
    };
    match set_up {
        Ok(()) => {
            let attached = sandbox.open();
            let first = attached.as_ref().and_then(|attached| attached.seats.first());
            tracing::info!(workload = %sandbox.name(), address = ?first.map(|seat| seat.address.addr()), "workload attached");
            if let (Some(container), Some(pid), Some(first)) =
                (request.container, lifeline.anchor.pid(), sandbox.lives.first())
            {
                context.containers.remember(first.id(), pid, container, &request.spec);
            }
            if let Some(attached) = attached {
                progress.attached(attached).await;
            }
            drop(progress);
            sandbox.live(&lifeline, false).await;
        }
        Err(error) => progress.failed(error).await,
    }
    sandbox.tear_down().await;
}

/// A workload that an earlier agent attached; the host knows it already.
pub(super) async fn resume(
    context: Arc<WorkloadContext>,
    stored: StoredWorkload,
    dismissed: watch::Receiver<bool>,
) {
    let mut attachments = Vec::new();
    for attachment in stored.attachments {
        let Some(host_network) = recalled(&context, &attachment).await else { return };
        attachments.push((attachment, host_network));
    }
    let first = attachments.first().map(|(attachment, _)| attachment.id());
    let container = first.and_then(|id| context.containers.id_of(&id));
    let about = about(stored.anchor.hold(), container.as_deref());
    let mut sandbox = Sandbox::new(&context, attachments, (true, about), stored.anchor.hold());
    match Anchor::reopen(&stored.anchor, &context.boot) {
        Ok(anchor) => {
            let lifeline = Lifeline { anchor, dismissed };
            if sandbox.take_up(&lifeline).await {
                sandbox.open();
                sandbox.live(&lifeline, true).await;
            }
        }
        Err(reason) => {
            tracing::warn!(workload = %sandbox.name(), %reason, "a workload has ended meanwhile");
            let first = sandbox.lives.first();
            let comes_back = first.is_some_and(|life| context.containers.has(life.id()));
            if reason == Gone::Rebooted && sandbox.owner == Owner::Other && !comes_back {
                sandbox.context.roster.lose(&sandbox.ids(), &stored.anchor);
            }
        }
    }
    sandbox.tear_down().await;
}

/// By what a workload's runtime tells of it: who holds it, or its container.
pub(super) fn about(hold: Option<&Hold>, container: Option<&str>) -> Option<String> {
    hold.filter(|hold| hold.is_of_docker()).map(Hold::as_str).or(container).map(str::to_owned)
}

/// Removes the room of a virtual machine that was not taken in, unless another request has been.
async fn leave_room(context: &WorkloadContext, anchor: &Anchor) {
    let hold = anchor.hold().filter(|hold| context.roster.attachment_of(hold).is_none());
    if let Some(device) = hold.and_then(tap::device_of)
        && let Err(error) = context.machines.remove(device).await
    {
        tracing::error!(%error, %device, "cannot remove the room of a machine that was not attached");
    }
}

/// The publication of the attachment's network. Where the disk has lost that, control tells it again.
async fn recalled(
    context: &WorkloadContext,
    attachment: &Attachment,
) -> Option<watch::Receiver<Arc<HostNetwork>>> {
    let network = &attachment.workload.network;
    let mut begun = context.host.views.begun.clone();
    tokio::select! {
        known = admission::network(context, network) => return known,
        begun = begun.wait_for(|begun| *begun) => drop(begun.ok()?),
    }
    let id = attachment.id();
    let trouble = |why| context.troubles.set(&id, WorkloadTrouble::TakingUp, why);
    if !context.host.views.networks.borrow().contains_key(network) {
        trouble(Some(format!("this host has lost what it knew of network {network}, and waits for control")));
    }
    let known = admission::network(context, network).await;
    trouble(None);
    known
}

/// Hears what is waited for, for ever.
async fn hear(words: &mut mpsc::Receiver<Result<Event, RequestFailure>>, trouble: impl Fn(Option<String>)) {
    while let Some(word) = words.recv().await {
        if let Ok(Event::Waiting(what)) = word {
            trouble(Some(format!("it waits for {what}")));
        }
    }
    std::future::pending().await
}

impl Sandbox {
    fn new(
        context: &Arc<WorkloadContext>,
        attachments: Vec<(Attachment, watch::Receiver<Arc<HostNetwork>>)>,
        (registered, about): (bool, Option<String>),
        hold: Option<&Hold>,
    ) -> Self {
        let zones = attachments.iter().map(|(_, host_network)| host_network.borrow().zone.clone()).collect();
        let owner = attachments.first().map(|(attachment, _)| attachment.seat.owner()).unwrap_or_default();
        let own = attachments.iter().map(|(attachment, _)| attachment.workload.name.clone()).collect();
        let names = Names::new(own, zones);
        let machine = hold.and_then(tap::device_of);
        let life = |(place, (attachment, host_network))| {
            let named = (names.clone(), place);
            let life =
                Life::new(context.clone(), attachment, host_network, named, (registered, about.clone()));
            if machine.is_some() { life.of_machine() } else { life }
        };
        let lives = attachments.into_iter().enumerate().map(life).collect();
        Self {
            context: context.clone(),
            lives,
            names,
            owner,
            takes_over: hold.is_some_and(Hold::is_of_docker),
            namespace_dns: None,
            machine,
            tap: None,
        }
    }

    fn ids(&self) -> Vec<AttachmentId> {
        self.lives.iter().map(|life| life.id().clone()).collect()
    }

    /// Returns its name in logs.
    fn name(&self) -> String {
        self.lives.iter().map(|life| life.id().to_string()).collect::<Vec<_>>().join(", ")
    }

    async fn set_up(&mut self, given: Option<NetNs>, progress: &Progress) -> Result<(), AttachError> {
        let own = given.is_none();
        let netns = namespace::ensure_netns(&self.context.kernel, &self.ids(), given)?;
        if own {
            self.lives.iter_mut().for_each(|life| life.start_sidecar_in(&netns));
        }
        try_join_all(self.lives.iter_mut().map(|life| life.plumb(&netns, progress))).await?;
        self.serve_names(&netns)?;
        self.lay_tap(&netns).await?;
        try_join_all(self.lives.iter_mut().map(|life| life.set_up(progress))).await.map(drop)
    }

    /// Takes up what runs, however often that must be tried; false when the workload is to end before.
    async fn take_up(&mut self, lifeline: &Lifeline) -> bool {
        let (context, ids, began) = (self.context.clone(), self.ids(), Instant::now());
        let Some(first) = ids.first() else { return false };
        let trouble = |why| context.troubles.set(first, WorkloadTrouble::TakingUp, why);
        let mut backoff = Backoff::new(SOON, SELDOM);
        loop {
            let (progress, mut words) = Progress::channel(1);
            let adopted = tokio::select! {
                adopted = self.adopt(&lifeline.anchor, &progress) => adopted,
                () = lifeline.ended() => return false,
                () = hear(&mut words, trouble) => return false,
            };
            let Err(error) = adopted else {
                trouble(None);
                return true;
            };
            trouble(Some(error.to_string()));
            if began.elapsed() >= PATIENCE {
                join_all(self.lives.iter().map(Life::set_aside)).await;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait(rand::random())) => {}
                () = lifeline.ended() => return false,
            }
        }
    }

    /// Takes up what runs: nothing is waited for that worked without this agent. Safe to repeat.
    async fn adopt(&mut self, anchor: &Anchor, progress: &Progress) -> Result<(), AttachError> {
        let ids = self.ids();
        // Bound since it was attached; if somebody took that away, it is still there for the one it is of.
        let bound = ids.first().and_then(|id| NetNs::open(netns_path(&self.context.kernel.run_dir, id)).ok());
        let given = match (self.owner, bound) {
            (Owner::Agent, Some(_)) => None,
            // Of a command that has not entered it yet, nothing is lost with it.
            (Owner::Agent, None) => anchor.netns().ok().filter(|netns| !target::is_host(netns)),
            (Owner::Other, Some(bound)) => Some(bound),
            (Owner::Other, None) => {
                Some(anchor.netns().map_err(|error| AttachError::Namespace(error.to_string()))?)
            }
        };
        let netns = namespace::ensure_netns(&self.context.kernel, &ids, given)?;
        if let (Err(error), Some(id)) = (namespace::raise_loopback(&self.context.kernel, &netns), ids.first())
        {
            return Err(AttachError::setup(id, error));
        }
        // One thing that is missing takes nothing else from the workload, and its names least of all.
        let named = self.serve_names(&netns);
        if named.is_ok() {
            self.open();
        }
        let fixtures = join_all(self.lives.iter_mut().map(|life| life.plumb_again(&netns))).await;
        let served = join_all(self.lives.iter_mut().map(|life| life.adopt(progress))).await;
        named.or_else(|_| self.serve_names(&netns))?;
        self.lay_tap(&netns).await?;
        fixtures.into_iter().chain(served).collect()
    }

    fn serve_names(&mut self, netns: &NetNs) -> Result<(), AttachError> {
        if let Some(first) = self.lives.first().filter(|_| self.namespace_dns.is_none()) {
            let interface = first.interface();
            let names = (&*self.names, interface.as_str(), first.gateway());
            let ids = self.ids();
            self.namespace_dns =
                Some(NamespaceDns::start(&self.context, &ids, netns, (self.owner, self.takes_over), names)?);
        }
        Ok(())
    }

    /// Gives a virtual machine its device.
    async fn lay_tap(&mut self, netns: &NetNs) -> Result<(), AttachError> {
        if let (Some(device), Some(first), None) = (self.machine, self.lives.first(), &self.tap) {
            let seat = (&first.seated(), first.gateway_mac());
            let laid = self.context.machines.lay(first.id(), (device, netns), seat).await;
            self.tap = Some(laid.map_err(|error| AttachError::setup(first.id(), error))?);
        }
        Ok(())
    }

    /// Lets people in.
    fn open(&self) -> Option<Attached> {
        let (first, attached) = (self.lives.first()?, self.attached()?);
        self.context.roster.set_up(first.id(), &attached);
        Some(attached)
    }

    fn attached(&self) -> Option<Attached> {
        let (run_dir, namespace_dns) = (&self.context.kernel.run_dir, self.namespace_dns.as_ref());
        let first = self.lives.first()?.id();
        let mut notes = namespace_dns.map(|namespace_dns| namespace_dns.notes.clone()).unwrap_or_default();
        notes.extend(self.lives.iter().flat_map(Life::notes));
        Some(Attached {
            workload: first.workload.clone(),
            netns: netns_path(run_dir, first),
            resolv_conf: resolv_path(run_dir, first),
            seats: self.lives.iter().map(Life::seated).collect(),
            nameserver: namespace_dns.map(|namespace_dns| namespace_dns.nameserver),
            notes,
        })
    }

    async fn live(&mut self, lifeline: &Lifeline, adopted: bool) {
        let (context, names, ids) = (self.context.clone(), self.names.clone(), self.ids());
        let lives = join_all(self.lives.iter_mut().map(|life| life.live(lifeline, adopted)));
        let tended = async {
            match (&mut self.namespace_dns, ids.first()) {
                (Some(namespace_dns), Some(first)) => namespace_dns.tend(&context, first, &names).await,
                (_, _) => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = lives => {}
            () = tended => {}
        }
    }

    /// Out of names and balancing, then out of the kernel, then out of memory.
    async fn tear_down(mut self) {
        let ended = SystemTime::now();
        let (ids, name) = (self.ids(), self.name());
        let Some(first) = ids.first() else { return };
        self.context.roster.close(first);
        join_all(self.lives.iter_mut().map(Life::retire)).await;
        namespace::clear(&self.context.kernel, &ids, self.namespace_dns.take(), &self.names);
        drop(self.tap.take());
        if let Some(device) = self.machine
            && let Err(error) = self.context.machines.remove(device).await
        {
            tracing::error!(%error, %device, "cannot remove the TAP device of a machine that was dismissed");
        }
        if let Err(error) = self.context.records.remove(&first.record_name()) {
            tracing::error!(%error, workload = name, "cannot forget a workload that ended");
        }
        for life in &self.lives {
            life.forget().await;
        }
        ids.iter().for_each(|id| self.context.troubles.forget(id));
        self.context.roster.leave(first);
        let took = ended.elapsed().unwrap_or_default();
        tracing::info!(workload = name, ?took, "workload gone");
    }
}
