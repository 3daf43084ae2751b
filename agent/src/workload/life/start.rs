//! From what stands in the kernel to what works.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sealane_fabric::health::Families;
use sealane_proto::client::Rejection;
use sealane_proto::identity::Principal;
use sealane_sys::NetNs;
use tokio::sync::{oneshot, watch};

use super::super::admission::{self, RETRY};
use super::super::{AttachError, plumbing};
use super::Life;
use crate::attachment::Progress;
use crate::certs::{CertError, WorkloadIdentity};
use crate::host::{DataPlane, HostNetwork, Reported};
use crate::sidecar::{Equipment, SidecarParts, Supervisor};

/// Limit for a new sidecar to work by its first configuration.
const SIDECAR_START: Duration = Duration::from_secs(10);
/// Limit for this host to carry a network that it is told it does not carry: it asks for it within a second.
const CARRIED: Duration = Duration::from_secs(10);
/// Interval at which it is looked whether a certificate that had ended is good after all.
const CLOCK: Duration = Duration::from_secs(5);
/// Time without control after which a known service starts without it.
const PATIENCE: Duration = Duration::from_secs(1);

impl Life {
    /// From what stands in the kernel to what works.
    pub(in crate::workload) async fn set_up(&mut self, progress: &Progress) -> Result<(), AttachError> {
        if self.attachment.workload.sidecar {
            self.start_sidecar();
        }
        self.register(progress).await?;
        if self.attachment.workload.sidecar {
            let identity = self.identity(progress).await?;
            self.equip_sidecar(identity);
            self.await_sidecar(progress).await?;
        }
        self.follow().await;
        Ok(())
    }

    /// Takes up what runs: nothing is waited for that worked without this agent. Safe to repeat.
    pub(in crate::workload) async fn adopt(&mut self, progress: &Progress) -> Result<(), AttachError> {
        if self.attachment.workload.sidecar && self.fixtures.is_some() && self.supervisor.is_none() {
            let identity = self.identity(progress).await?;
            self.start_sidecar();
            self.equip_sidecar(identity);
        }
        Ok(())
    }

    /// Sets it aside, as it cannot be taken up: no calls are sent to it, and nobody waits until it follows a change.
    pub(in crate::workload) async fn set_aside(&self) {
        self.context.host.set_ready(self.id.clone(), Families::default()).await;
        self.context.host.applied(self.id.clone(), DataPlane::Rules, None).await;
    }

    /// Makes what stands in the kernel. A host that cannot set the network up now, which it may not know yet, is waited for.
    pub(in crate::workload) async fn plumb(
        &mut self,
        netns: &NetNs,
        progress: &Progress,
    ) -> Result<(), AttachError> {
        let mut told = None;
        loop {
            let host_network = self.host_network.borrow_and_update().clone();
            self.prepare(&host_network, netns).await?;
            let network = &host_network.snapshot.network;
            let hindrance = plumbing::connect(&self.context.kernel, network, &self.attachment, netns).await?;
            let Some(why) = hindrance else { return Ok(()) };
            if told.as_ref() != Some(&why) {
                progress.waiting(admission::hindered(&network.name, &why)).await;
                told = Some(why);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Finds what stood in the kernel, or makes it again. While the network cannot be set up, the interface is left to the pass
    /// that can.
    pub(in crate::workload) async fn plumb_again(&mut self, netns: &NetNs) -> Result<(), AttachError> {
        let host_network = self.host_network.borrow_and_update().clone();
        self.prepare(&host_network, netns).await?;
        if host_network.hindrance.is_none() {
            let network = &host_network.snapshot.network;
            plumbing::connect(&self.context.kernel, network, &self.attachment, netns).await?;
        }
        Ok(())
    }

    async fn prepare(&mut self, host_network: &HostNetwork, netns: &NetNs) -> Result<(), AttachError> {
        let table = host_network.services.of(self.attachment.workload.sidecar);
        let network = &host_network.snapshot.network;
        let fixtures = plumbing::plumb(&self.context, network, &self.attachment, table, netns).await?;
        self.fixtures = Some(fixtures);
        Ok(())
    }

    /// Waits until control knows the workload, or until it is clear that control is not there and not needed.
    async fn register(&mut self, progress: &Progress) -> Result<(), AttachError> {
        let version = self.context.host.set_ready(self.id.clone(), Families::default()).await;
        self.report = version.ok_or(AttachError::Ending)?;
        let mut told = false;
        let mut patience = self.context.host.views.link.borrow().patience(PATIENCE, Instant::now());
        loop {
            if let Ok(known) = tokio::time::timeout(patience, self.reported()).await {
                match known? {
                    None => break,
                    Some(refused) if refused.not_carried => self.await_carried(&refused, progress).await?,
                    Some(refused) => return Err(AttachError::Refused(refused.reason)),
                }
                continue;
            }
            patience = PATIENCE;
            let link = self.context.host.views.link.borrow().clone();
            let needed = match link.channel {
                Some(_) => Some(self.unknown()),
                None => self.needed().await?,
            };
            let Some(needed) = needed else {
                tracing::warn!(workload = %self.id, problem = link.problem, "control is not there, going on without it");
                return Ok(());
            };
            if !told {
                progress.waiting(format!("control, {needed}: {}", link.why_silent())).await;
                told = true;
            }
        }
        self.registered = true;
        Ok(())
    }

    /// Waits until the control plane that the host is connected to knows the workload, or has said why it does not.
    async fn reported(&self) -> Result<Option<Rejection>, AttachError> {
        let mut reported = self.context.host.views.reported.clone();
        let known = reported.wait_for(|reported| reported.version >= self.report).await;
        let known = known.map_err(|_| AttachError::Ending)?;
        Ok(known.refusal(&self.id).cloned())
    }

    /// Waits until control says anything else than that this host does not carry the network, as it does for one that was just
    /// created again: the host asks for it by itself.
    async fn await_carried(&self, refused: &Rejection, progress: &Progress) -> Result<(), AttachError> {
        progress.waiting(format!("control, which says: {}", refused.reason)).await;
        let mut reported = self.context.host.views.reported.clone();
        let is_over = |reported: &Reported| reported.refusal(&self.id) != Some(refused);
        match tokio::time::timeout(CARRIED, reported.wait_for(is_over)).await {
            Ok(over) => over.map(drop).map_err(|_| AttachError::Ending),
            Err(_) => Err(AttachError::Refused(refused.reason.clone())),
        }
    }

    /// Says what control is needed for; `None` where this host can start the workload by itself: its address is this host's to give,
    /// and its service and its identity are there.
    async fn needed(&self) -> Result<Option<String>, AttachError> {
        if self.context.host.owns_address(self.id.clone()).await != Some(true) {
            return Ok(Some(self.unknown()));
        }
        let workload = &self.attachment.workload;
        if !self.host_network.borrow().snapshot.may_start(workload, &self.context.node) {
            return Ok(Some(self.unknown()));
        }
        if !workload.sidecar || self.context.identities.good(&self.principal())?.is_some() {
            return Ok(None);
        }
        Ok(Some(match self.context.identities.ended(&self.principal(), SystemTime::now()) {
            Some(_) => format!("for {}", self.certificate()),
            None => self.unknown(),
        }))
    }

    fn unknown(&self) -> String {
        format!("which does not know workload {} yet", self.id)
    }

    /// Words for the certificate that the workload needs.
    fn certificate(&self) -> String {
        let whose = match &self.attachment.workload.service {
            Some(service) => format!("of service {service} for workload {}", self.id),
            None => format!("of workload {}", self.id),
        };
        match self.context.identities.ended(&self.principal(), SystemTime::now()) {
            Some(at) => {
                let at = humantime::format_rfc3339_seconds(at);
                format!(
                    "a new certificate {whose} (the one on this host ended at {at}, by this host's clock)"
                )
            }
            None => format!("the certificate {whose}"),
        }
    }

    async fn identity(
        &self,
        progress: &Progress,
    ) -> Result<watch::Receiver<Arc<WorkloadIdentity>>, AttachError> {
        let principal = self.principal();
        let mut link = self.context.host.views.link.clone();
        loop {
            if let Some(known) = self.context.identities.good(&principal)? {
                return Ok(known);
            }
            link.mark_unchanged();
            let what_for = self.certificate();
            let channel = admission::control(&self.context, &what_for, progress);
            let channel = tokio::select! {
                channel = channel => channel?,
                () = self.good_again(&principal) => continue,
            };
            // Control signs for what it knows: one that was restored meanwhile must hear of the workload first.
            tokio::select! {
                known = self.reported() => if let Some(refused) = known? {
                    return Err(AttachError::Refused(refused.reason));
                },
                changed = link.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Err(AttachError::Ending),
                },
            }
            let silent = || format!("control, for {what_for}: it has not answered so far");
            match progress.meanwhile(silent, self.context.identities.obtain(&principal, channel)).await {
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

    /// Returns when an identity that had ended is good: this host's clock has been set. Cancel safe.
    async fn good_again(&self, principal: &Principal) {
        while !matches!(self.context.identities.good(principal), Ok(Some(_))) {
            tokio::time::sleep(CLOCK).await;
        }
    }

    /// Starts the sidecar of a workload in a new namespace of its own: it comes up while that is furnished and control hears
    /// of the workload. (In a namespace that was there, another may have to end first.)
    pub(in crate::workload) fn start_sidecar_in(&mut self, netns: &NetNs) {
        if !self.attachment.workload.sidecar || self.supervisor.is_some() {
            return;
        }
        let Ok(netns) = netns.try_clone() else { return };
        let (sender, equipment) = oneshot::channel();
        let parts = SidecarParts {
            id: self.id.clone(),
            netns,
            run_dir: self.context.kernel.run_dir.clone(),
            binary: self.context.sidecars.binary.clone(),
            hopper: self.context.kernel.hopper.clone(),
            trust_domain: self.context.identities.trust_domain().clone(),
            equipment,
            host_network: self.host_network.clone(),
            unreachable: self.context.host.views.unreachable.clone(),
            told: self.context.sidecars.told.clone(),
            networks: self.networks.clone(),
        };
        self.supervisor = Some(Supervisor::start(parts, self.context.sidecars.registry.clone()));
        self.equipping = Some(sender);
    }

    /// Starts the sidecar, or finds it started.
    fn start_sidecar(&mut self) {
        let netns = self.fixtures.as_ref().and_then(|fixtures| fixtures.netns.try_clone().ok());
        if let Some(netns) = netns {
            self.start_sidecar_in(&netns);
        }
    }

    /// Gives the sidecar what it waits for.
    fn equip_sidecar(&mut self, identity: watch::Receiver<Arc<WorkloadIdentity>>) {
        if let (Some(sender), Some(fixtures)) = (self.equipping.take(), &mut self.fixtures) {
            let listeners = std::mem::take(&mut fixtures.listeners);
            // One that does not wait any more does not start.
            let _ = sender.send(Equipment { identity, listeners });
        }
    }

    async fn await_sidecar(&mut self, progress: &Progress) -> Result<(), AttachError> {
        let sequence = self.host_network.borrow().sequence;
        let starting = || format!("the sidecar of workload {}, which is starting", self.id);
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(());
        };
        let works = |applied: &Option<u64>| applied.is_some_and(|applied| applied >= sequence);
        let applied = async { supervisor.applied.wait_for(works).await.map(drop) };
        match progress.meanwhile(starting, tokio::time::timeout(SIDECAR_START, applied)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(AttachError::Ending),
            Err(_) => {
                let what =
                    format!("its sidecar did not start within {SIDECAR_START:?}; the agent's log says why");
                Err(AttachError::setup(&self.id, what))
            }
        }
    }
}
