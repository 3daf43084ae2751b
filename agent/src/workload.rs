//! The workloads of this host: one task per workload carries it from the request to the last trace.
//!
//! The order is what keeps promises: addresses are known everywhere before a name is; rules stand before the
//! command runs; names and balancing forget an instance before its namespace goes.

mod admission;
mod anchor;
mod available;
mod cgroup;
mod complaints;
mod conditions;
mod containers;
mod context;
mod early;
mod error;
mod freezer;
mod instances;
mod life;
mod meddling;
mod names;
mod namespace;
mod plumbing;
mod pulse;
mod readiness;
mod reasons;
mod reserve;
mod roster;
mod sandbox;
mod survey;
mod target;
mod weigh;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_proto::resource::Network;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::{Aliases, NetworkName, NodeName, WorkloadRef};
use sealane_sys::Process;
use tokio::sync::mpsc;

use crate::attachment::{
    AttachSpec, Attached, AttachmentId, Claim, Hold, NetnsTarget, Progress, RequestFailure, Reservation,
};
use crate::certs::Certs;
use crate::disk::StoredWorkload;
use crate::host::HostHandle;
use crate::kernel::KernelHandle;
use anchor::Anchor;
use complaints::Complaints;
use conditions::Conditions;
pub(crate) use containers::{Containers, follow as follow_containers};
pub(crate) use context::{Disks, WorkloadContext};
use sandbox::SandboxRequest;

pub(crate) use anchor::is_there;
pub(crate) use early::EarlyQuestions;
pub(crate) use error::AttachError;
pub(crate) use instances::instances;
#[cfg(feature = "simulation")]
pub(crate) use life::settling::{Knowledge, Settling, Wait};
pub(crate) use roster::HeldWorkload;
pub(crate) use weigh::Weighed;

/// Outcome of replacing a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restarted {
    /// Workload of the sidecar.
    pub(crate) id: AttachmentId,
    /// Reason for which the old one goes on; nothing when a new one works.
    pub(crate) problem: Option<String>,
}

/// The running tasks, one per workload.
#[derive(Debug)]
pub(crate) struct Workloads {
    context: Arc<WorkloadContext>,
    tasks: Mutex<BTreeMap<u64, Task>>,
    /// Complaints of other parts.
    complaints: Complaints,
}

impl Workloads {
    /// No workloads yet.
    #[must_use]
    pub(crate) fn new(context: Arc<WorkloadContext>) -> Arc<Self> {
        Arc::new(Self { context, tasks: Mutex::default(), complaints: Complaints::default() })
    }

    /// Name of this host.
    #[must_use]
    pub(crate) fn node(&self) -> &NodeName {
        &self.context.node
    }

    /// The boot that the machine is in.
    #[must_use]
    pub(crate) fn boot(&self) -> &str {
        &self.context.boot
    }

    /// Handle of this host's state.
    #[must_use]
    pub(crate) fn host(&self) -> &HostHandle {
        &self.context.host
    }

    /// Handle of the kernel.
    #[must_use]
    pub(crate) fn kernel(&self) -> &KernelHandle {
        &self.context.kernel
    }

    /// The identities.
    #[must_use]
    pub(crate) fn identities(&self) -> &Certs {
        &self.context.identities
    }

    /// Ports at which sidecars listen.
    #[must_use]
    pub(crate) fn ports(&self) -> SidecarPorts {
        self.context.sidecars.ports
    }

    /// Conditions of containers, by their runtimes' word.
    #[must_use]
    pub(crate) fn conditions(&self) -> &Conditions {
        &self.context.roster.conditions
    }

    /// Attaches a new workload that ends with `process`; what is waited for and what comes of it goes to `progress`. `again`:
    /// an earlier agent may have taken it in.
    ///
    /// # Errors
    /// When the process cannot be watched.
    pub(crate) fn run(
        self: &Arc<Self>,
        spec: AttachSpec,
        process: Process,
        again: bool,
        progress: Progress,
    ) -> Result<(), AttachError> {
        let pid = process.pid();
        let request =
            SandboxRequest { spec, anchor: Anchor::process(process)?, given: None, container: None };
        let context = self.context.clone();
        self.own(async move {
            if again {
                let networks: Vec<&NetworkName> = request.spec.networks().collect();
                if let Some(attached) = context.roster.taken_up(pid, &networks, &progress).await {
                    return progress.attached(attached).await;
                }
            }
            sandbox::begin(context, request, progress).await;
        });
        Ok(())
    }

    /// Attaches the namespace that `target` names.
    ///
    /// # Errors
    /// [`AttachError::Namespace`] and [`AttachError::Process`] when it cannot be.
    pub(crate) fn attach(
        self: &Arc<Self>,
        spec: AttachSpec,
        target: NetnsTarget,
        progress: Progress,
    ) -> Result<(), AttachError> {
        let (anchor, netns) = target::find(&self.context, &target)?;
        if target.container.is_some() {
            self.context.containers.expect();
        }
        self.begin(
            SandboxRequest { spec, anchor, given: Some(netns), container: target.container },
            progress,
        );
        Ok(())
    }

    /// Attaches as [`Workloads::attach`] does, and returns when that is done.
    ///
    /// # Errors
    /// When it cannot be.
    pub(crate) async fn attach_whole(
        self: &Arc<Self>,
        spec: AttachSpec,
        target: NetnsTarget,
    ) -> Result<(), RequestFailure> {
        let (progress, mut events) = Progress::channel(1);
        self.attach(spec, target, progress)?;
        // It is attached when the last word has come.
        while let Some(event) = events.recv().await {
            event?;
        }
        Ok(())
    }

    fn begin(self: &Arc<Self>, request: SandboxRequest, progress: Progress) {
        let context = self.context.clone();
        self.own(async move { sandbox::begin(context, request, progress).await });
    }

    /// Ends what was attached, when its open calls have ended or had the time `drain`; answers whether nothing of it is left.
    ///
    /// # Errors
    /// A sentence, when there is no such workload.
    pub(crate) async fn detach(&self, name: &WorkloadRef, drain: Option<Duration>) -> Result<bool, String> {
        if self.context.containers.forget(name) && !self.context.roster.knows(name) {
            return Ok(true);
        }
        self.context.roster.dismiss(name, self.context.node.as_str(), drain).await
    }

    /// The networks that this host carries.
    #[must_use]
    pub(crate) fn carried(&self) -> Vec<Network> {
        let networks = self.context.host.views.networks.borrow();
        networks.values().map(|known| known.borrow().snapshot.network.clone()).collect()
    }

    /// The network of this name, if this host carries it.
    fn carried_as(&self, name: &NetworkName) -> Option<Network> {
        let networks = self.context.host.views.networks.borrow();
        networks.get(name).map(|known| known.borrow().snapshot.network.clone())
    }

    /// The network, which this host carries from then on.
    ///
    /// # Errors
    /// When control does not know it, or refuses.
    pub(crate) async fn carry(
        &self,
        name: &NetworkName,
        progress: &Progress,
    ) -> Result<Network, RequestFailure> {
        if let Some(carried) = self.carried_as(name) {
            return Ok(carried);
        }
        let none = Default::default();
        tokio::select! {
            carried = admission::carry(&self.context, name, &none, progress) => carried?,
            refusal = admission::refused(&self.context) => return Err(refusal.into()),
        }
        self.carried_as(name).ok_or_else(|| AttachError::Ending.into())
    }

    /// Gives the workload that `hold` holds these further names from now on. One that is not there needs none.
    ///
    /// # Errors
    /// When they cannot be written down.
    pub(crate) async fn name_anew(&self, hold: &Hold, aliases: Aliases) -> Result<(), RequestFailure> {
        let Some(id) = self.context.roster.attachment_of(hold) else { return Ok(()) };
        let named = self.context.host.name_anew(id.clone(), aliases.clone()).await;
        self.context.roster.name_anew(&id, &aliases);
        if named.ok_or(AttachError::Ending)?.map_err(AttachError::from)? {
            tracing::info!(workload = %id, "a workload has other names");
        }
        Ok(())
    }

    /// Returns true if it holds a workload.
    #[must_use]
    pub(crate) fn holds(&self, hold: &Hold) -> bool {
        self.context.roster.attachment_of(hold).is_some()
    }

    /// Keeps an address for somebody until it is released, on disk before this answers.
    ///
    /// # Errors
    /// When the address is taken, or control refuses.
    pub(crate) async fn reserve(
        &self,
        claim: Claim,
        progress: &Progress,
    ) -> Result<Reservation, RequestFailure> {
        Ok(reserve::reserve(&self.context, claim, progress).await?)
    }

    /// Keeps the address for nobody any more; one that was not kept is no error.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub(crate) async fn release(&self, hold: &Hold) -> Result<(), RequestFailure> {
        let released = self.context.host.release(hold.clone()).await.ok_or(AttachError::Ending)?;
        Ok(released.map_err(AttachError::from)?)
    }

    /// Ends what `hold` holds; answers whether nothing of it is left. What is not there is no error.
    pub(crate) async fn dismiss(&self, hold: &Hold) -> bool {
        self.context.roster.release(hold, None).await
    }

    /// As [`Workloads::dismiss`], when its open calls have ended or had the time `drain`.
    pub(crate) async fn dismiss_after(&self, hold: &Hold, drain: Option<Duration>) -> bool {
        self.context.roster.release(hold, drain).await
    }

    /// Everything that somebody holds.
    #[must_use]
    pub(crate) fn held(&self) -> Vec<HeldWorkload> {
        self.context.roster.held()
    }

    /// Returns the attachment of the workload that `hold` holds; one that is still being attached is waited for.
    ///
    /// # Errors
    /// A sentence, when it holds none.
    pub(crate) async fn held_by(&self, hold: &Hold) -> Result<Attached, String> {
        let id = self
            .context
            .roster
            .attachment_of(hold)
            .ok_or_else(|| format!("{hold} holds no workload on this host"))?;
        self.context.roster.place(&id).await
    }

    /// Puts new sidecars in the place of those of `wanted`, or of all, one after another, and tells of each.
    ///
    /// # Errors
    /// A sentence, when there is no such sidecar.
    pub(crate) fn restart_sidecars(
        &self,
        wanted: Option<&WorkloadRef>,
    ) -> Result<mpsc::Receiver<Restarted>, String> {
        let is_wanted = |id: &AttachmentId| {
            wanted.is_none_or(|wanted| {
                let in_network = wanted.network.as_ref().is_none_or(|network| *network == id.network);
                in_network && self.context.roster.shown(id) == wanted.name
            })
        };
        let ids = self.context.sidecars.registry.served(is_wanted);
        if let (Some(wanted), []) = (wanted, ids.as_slice()) {
            let host = &self.context.node;
            let hint = self.context.roster.instances_of(wanted);
            let hint = hint.unwrap_or_else(|| "`sealane workload ls` says where it is".to_owned());
            return Err(format!("workload {wanted} has no sidecar on host {host}; hint: {hint}"));
        }
        let (tell, told) = mpsc::channel(1);
        let sidecars = self.context.sidecars.registry.clone();
        task::spawn("restart-sidecars", async move {
            for id in ids {
                let problem = sidecars.restart(&id).await.err();
                // Who asked for them and left wants no more.
                if tell.send(Restarted { id, problem }).await.is_err() {
                    return;
                }
            }
        })
        .detach();
        Ok(told)
    }

    /// Takes up a workload that an earlier agent attached.
    pub(crate) fn adopt(self: &Arc<Self>, stored: StoredWorkload) {
        let context = self.context.clone();
        // Before anybody may ask for it.
        let dismissed = context.roster.enter(stored.attachments.clone(), &stored.anchor);
        self.own(async move { sandbox::resume(context, stored, dismissed).await });
    }

    /// Returns the attachment of the workload of this name; one that is still being attached is waited for.
    ///
    /// # Errors
    /// A sentence, when there is none on this host or more than one.
    pub(crate) async fn locate(&self, name: &WorkloadRef) -> Result<Attached, String> {
        self.context.roster.locate(name, self.context.node.as_str()).await
    }

    fn own(self: &Arc<Self>, life: impl Future<Output = ()> + Send + 'static) {
        let id = rand::random();
        let this = Arc::downgrade(self);
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let task = task::spawn("workload", async move {
            // Not before it is owned, lest it ends before and is owned for ever.
            let _ = wait.await;
            life.await;
            if let Some(this) = this.upgrade() {
                let own = this.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                own.into_iter().for_each(Task::detach);
            }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(id, task);
        // The task waits for it.
        let _ = go.send(());
    }
}
