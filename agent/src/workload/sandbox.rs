//! Sandbox of one workload, from the request to the last trace: a namespace, and in it an attachment per network.
//!
//! The order of its steps is [`course`]'s; here is each of them.

mod course;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{join_all, try_join_all};
use sealane_fabric::seat::{DeviceName, Owner};
use sealane_proto::types::Check;
use sealane_sys::NetNs;
use tokio::sync::watch;

use super::admission::{self, Admitted};
use super::anchor::{Anchor, Lifeline};
use super::life::Life;
use super::names::Names;
use super::namespace::{self, NamespaceDns};
use super::plumbing::{netns_path, resolv_path};
use super::{AttachError, WorkloadContext, target};
use crate::attachment::{AttachSpec, Attached, Attachment, AttachmentId, Hold, Progress};
use crate::disk::{StoredAnchor, StoredWorkload};
use crate::host::HostNetwork;
use crate::tap::{self, Tap};
use crate::trouble::WorkloadTrouble;
use course::Steps;

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

/// Knowledge of a workload beside its attachments.
struct Known {
    /// True if control may know of it.
    registered: bool,
    /// By what its runtime tells of it, if one does.
    about: Option<String>,
    /// Check of its own.
    check: Option<Check>,
}

struct Sandbox {
    context: Arc<WorkloadContext>,
    origin: Origin,
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
    /// Time at which its end began.
    closed: Option<Instant>,
}

/// Beginning of a workload.
enum Origin {
    /// Somebody asked for it, for this container, if it is of one.
    Request(AttachSpec, Option<String>),
    /// A record of an earlier agent.
    Record(StoredAnchor),
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
    let SandboxRequest { spec, anchor, given, container } = request;
    let about = about(anchor.hold(), container.as_deref());
    let known = Known { registered: false, about, check: spec.wanted().health.clone() };
    let origin = Origin::Request(spec, container);
    let sandbox = Sandbox::new(&context, origin, attachments, known, anchor.hold());
    let refused = admission::refused(&context);
    course::begin(sandbox, given, Lifeline { anchor, dismissed }, refused, progress).await;
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
    let anchor = Anchor::reopen(&stored.anchor, &context.boot);
    let origin = Origin::Record(stored.anchor.clone());
    let known = Known { registered: true, about, check: stored.health };
    let sandbox = Sandbox::new(&context, origin, attachments, known, stored.anchor.hold());
    if let Err(reason) = &anchor {
        tracing::warn!(workload = %sandbox.name(), %reason, "a workload has ended meanwhile");
    }
    course::resume(sandbox, anchor, dismissed).await;
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

impl Sandbox {
    fn new(
        context: &Arc<WorkloadContext>,
        origin: Origin,
        attachments: Vec<(Attachment, watch::Receiver<Arc<HostNetwork>>)>,
        known: Known,
        hold: Option<&Hold>,
    ) -> Self {
        let zones = attachments.iter().map(|(_, host_network)| host_network.borrow().zone.clone()).collect();
        let owner = attachments.first().map(|(attachment, _)| attachment.seat.owner()).unwrap_or_default();
        let own = attachments.iter().map(|(attachment, _)| attachment.workload.name.clone()).collect();
        let names = Names::new(own, zones);
        let networks = attachments.iter().map(|(attachment, _)| attachment.workload.network.clone());
        let networks: Arc<BTreeSet<_>> = Arc::new(networks.collect());
        let machine = hold.and_then(tap::device_of);
        let life = |(place, (attachment, host_network))| {
            let named = (names.clone(), place);
            let life = Life::new(
                context.clone(),
                attachment,
                host_network,
                named,
                (known.registered, known.about.clone()),
            );
            let life = life.checked_by(known.check.clone()).among(networks.clone());
            if machine.is_some() { life.of_machine() } else { life }
        };
        let lives = attachments.into_iter().enumerate().map(life).collect();
        Self {
            context: context.clone(),
            origin,
            lives,
            names,
            owner,
            takes_over: hold.is_some_and(Hold::is_of_docker),
            namespace_dns: None,
            machine,
            tap: None,
            closed: None,
        }
    }

    fn ids(&self) -> Vec<AttachmentId> {
        self.lives.iter().map(|life| life.id().clone()).collect()
    }

    /// Returns its name in logs.
    fn name(&self) -> String {
        self.lives.iter().map(|life| life.id().to_string()).collect::<Vec<_>>().join(", ")
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
}

impl Steps for Sandbox {
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

    async fn set_aside(&self) {
        join_all(self.lives.iter().map(Life::set_aside)).await;
    }

    fn complaints(&self) -> impl Fn(Option<String>) + Send + 'static {
        let (context, first) = (self.context.clone(), self.lives.first().map(|life| life.id().clone()));
        move |why| {
            if let Some(first) = &first {
                context.troubles.set(first, WorkloadTrouble::TakingUp, why);
            }
        }
    }

    fn open(&self) -> Option<Attached> {
        let (first, attached) = (self.lives.first()?, self.attached()?);
        self.context.roster.set_up(first.id(), &attached);
        if let Origin::Request(..) = self.origin {
            let address = attached.seats.first().map(|seat| seat.address.addr());
            tracing::info!(workload = %self.name(), ?address, "workload attached");
        }
        Some(attached)
    }

    fn remember(&self, anchor: &Anchor) {
        if let (Origin::Request(spec, Some(container)), Some(pid), Some(first)) =
            (&self.origin, anchor.pid(), self.lives.first())
        {
            self.context.containers.remember(first.id(), pid, container.clone(), spec);
        }
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

    fn lose(&self) {
        let comes_back = self.lives.first().is_some_and(|life| self.context.containers.has(life.id()));
        if let Origin::Record(anchor) = &self.origin
            && self.owner == Owner::Other
            && !comes_back
        {
            self.context.roster.lose(&self.ids(), anchor);
        }
    }

    fn close(&mut self) {
        self.closed = Some(Instant::now());
        self.lives.first().into_iter().for_each(|first| self.context.roster.close(first.id()));
    }

    async fn retire(&mut self) {
        let drain = self.lives.first().and_then(|first| self.context.roster.drain_of(first.id()));
        join_all(self.lives.iter_mut().map(|life| life.retire(drain))).await;
    }

    fn clear(&mut self) {
        namespace::clear(&self.context.kernel, &self.ids(), self.namespace_dns.take(), &self.names);
        drop(self.tap.take());
    }

    async fn remove_device(&mut self) {
        if let Some(device) = self.machine
            && let Err(error) = self.context.machines.remove(device).await
        {
            tracing::error!(%error, %device, "cannot remove the TAP device of a machine that was dismissed");
        }
    }

    fn erase(&self) {
        let Some(first) = self.lives.first() else { return };
        if let Err(error) = self.context.records.remove(&first.id().record_name()) {
            tracing::error!(%error, workload = self.name(), "cannot forget a workload that ended");
        }
    }

    async fn forget(&self) {
        for life in &self.lives {
            life.forget().await;
        }
    }

    fn leave(&self) {
        let ids = self.ids();
        ids.iter().for_each(|id| {
            self.context.troubles.forget(id);
            self.context.roster.reasons.set(id, None);
        });
        ids.first().into_iter().for_each(|first| self.context.roster.leave(first));
        let took = self.closed.map(|closed| closed.elapsed()).unwrap_or_default();
        tracing::info!(workload = self.name(), ?took, "workload gone");
    }
}
