//! Attachment of a workload, from its first trace in the kernel until it is forgotten.

mod audit;
mod core;
mod ears;
mod end;
mod finding;
mod follow;
mod healthy;
mod notes;
pub(crate) mod settling;
mod signs;
mod start;
mod waiting;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use sealane_base::task::Task;
use sealane_base::timer::sleep_until;
use sealane_fabric::health::{self, Families, ProbeTarget};
use sealane_fabric::services::TurnQueue;
use sealane_proto::identity::Principal;
use sealane_proto::types::{Check, Finding, MacAddr, NetworkName, Subnet};
use tokio::sync::{oneshot, watch};

use self::core::{ReadinessCore, RulesCore};
use super::WorkloadContext;
use super::admission::RETRY;
use super::anchor::Lifeline;
use super::meddling::Meddling;
use super::names::Names;
use super::plumbing::Fixtures;
use super::pulse::{ProcessPulse, next};
use super::readiness::ReadinessFacts;
use crate::attachment::{Attachment, AttachmentId, ContainerCondition, Seated};
use crate::host::{DataPlane, HostNetwork, Standing};
use crate::sidecar::{Equipment, Supervisor};
use crate::trouble::WorkloadTrouble;
use finding::FindingCore;
use waiting::PendingStates;

/// A watch over the ports of a workload.
struct PortWatch {
    seen: watch::Receiver<Families>,
    /// True if one of them is enough.
    any_port: bool,
    _task: Task,
}

/// Life of one attachment.
pub(super) struct Life {
    context: Arc<WorkloadContext>,
    id: AttachmentId,
    attachment: Attachment,
    host_network: watch::Receiver<Arc<HostNetwork>>,
    /// The addresses to which calls are led through the sidecar.
    subnet: Subnet,
    /// The workload's names, and the place of this network's among them.
    names: (Arc<Names>, usize),
    fixtures: Option<Fixtures>,
    supervisor: Option<Supervisor>,
    /// For what a started sidecar waits for.
    equipping: Option<oneshot::Sender<Equipment>>,
    /// Progress of the rules of service addresses.
    rules: RulesCore,
    /// State of the rules that is to be reported once flows have been freed.
    freeing: Option<follow::FreeingState>,
    /// True if the last comparison of them found something to mend, or to fail at.
    services_mended: bool,
    /// The states whose names are not told yet.
    waiting: PendingStates,
    /// True if control may know of it.
    registered: bool,
    /// The report that tells control of it.
    report: u64,
    /// By what its runtime tells of it, if one does.
    about: Option<String>,
    /// True for a virtual machine, whose sockets are not seen.
    machine: bool,
    /// Check of its own, in place of its service's.
    own_check: Option<Check>,
    /// The networks that its namespace is in.
    networks: Arc<BTreeSet<NetworkName>>,
}

impl Life {
    pub(super) fn new(
        context: Arc<WorkloadContext>,
        attachment: Attachment,
        host_network: watch::Receiver<Arc<HostNetwork>>,
        names: (Arc<Names>, usize),
        (registered, about): (bool, Option<String>),
    ) -> Self {
        let (id, subnet) = (attachment.id(), host_network.borrow().snapshot.network.subnet);
        Self {
            context,
            id,
            attachment,
            host_network,
            subnet,
            names,
            fixtures: None,
            supervisor: None,
            equipping: None,
            rules: RulesCore::default(),
            freeing: None,
            services_mended: false,
            waiting: PendingStates::default(),
            registered,
            report: 1,
            about,
            machine: false,
            own_check: None,
            networks: Arc::default(),
        }
    }

    /// The same in a namespace that is in these networks.
    pub(super) fn among(self, networks: Arc<BTreeSet<NetworkName>>) -> Self {
        Self { networks, ..self }
    }

    /// The same with a check of its own.
    pub(super) fn checked_by(self, own_check: Option<Check>) -> Self {
        Self { own_check, ..self }
    }

    /// The same of a virtual machine.
    pub(super) fn of_machine(self) -> Self {
        Self { machine: true, ..self }
    }

    pub(super) fn id(&self) -> &AttachmentId {
        &self.id
    }

    /// Returns the name of its interface.
    pub(super) fn interface(&self) -> String {
        self.attachment.seat.interface().to_string()
    }

    /// The Ethernet address of the network's own address.
    pub(super) fn gateway_mac(&self) -> MacAddr {
        let network = &self.host_network.borrow().snapshot.network;
        network.mac_of(network.subnet.gateway())
    }

    /// The network's own address.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.host_network.borrow().snapshot.network.subnet.gateway().to_ipv4()
    }

    /// Describes its seat, for whoever attached it.
    pub(super) fn seated(&self) -> Seated {
        let host_network = self.host_network.borrow();
        Seated::of(&self.attachment, &host_network.snapshot.network)
    }

    /// Returns notes about its network and its names there for whoever attached it.
    pub(super) fn notes(&self) -> Vec<String> {
        notes::notes(&self.attachment.workload, &self.host_network.borrow().snapshot)
    }

    fn principal(&self) -> Principal {
        self.attachment.workload.principal()
    }

    /// Follows everything that changes around the workload until it is to end.
    pub(super) async fn live(&mut self, lifeline: &Lifeline, adopted: bool) {
        self.note_newest().await;
        let mut pulse = self.pulse(lifeline, adopted);
        let portless = self.attachment.workload.ports.is_empty();
        let mut core = ReadinessCore::new(portless, adopted, pulse.condition(), Instant::now());
        let mut words = FindingCore::new(Instant::now());
        let (mut signs, mut applied) = (self.signs(), self.signs().map(|signs| signs.applied));
        if let Some(applied) = &applied {
            core.handle_sidecar(applied.borrow().is_some(), Instant::now());
        }
        let (mut watches, mut watch_again) = (self.watch_both(pulse.any_port(), adopted), None);
        core.handle_health(self.note_health(&watches));
        let (ended, mut queue) = (lifeline.ended(), TurnQueue::default());
        tokio::pin!(ended);
        let mut meddling = self.meddling();
        let mut ears = self.ears();
        loop {
            let news = core.poll_declaration().is_some();
            if words.poll(self.finding(core.facts()), news, Instant::now()) || news {
                self.declare(core.facts(), words.said()).await;
            }
            if !self.wants_turn() {
                queue.leave();
            }
            if watches.ports.is_none() && !portless {
                watch_again.get_or_insert_with(|| Instant::now() + RETRY);
            }
            let due = [core.due(watches.ports.is_some()), words.due(), self.rules.due(), watch_again];
            tokio::select! {
                () = &mut ended => return,
                listens = watches.news() => core.handle_seen(listens, self.note_health(&watches)),
                sequence = next(applied.as_mut()) => {
                    self.context.host.applied(self.id.clone(), DataPlane::Sidecar, sequence).await;
                    self.publish_names();
                    core.handle_sidecar(sequence.is_some(), Instant::now());
                }
                () = signs::silent(signs.as_mut()) => core.handle_silence(),
                () = pulse.changed() => {
                    core.handle_condition(pulse.condition());
                    self.renew_ports(&mut watches, pulse.any_port());
                }
                Ok(()) = self.host_network.changed() => {
                    self.note_newest().await;
                    core.handle_health(self.renew_check(&mut watches));
                }
                // Its place in the queue stays while it hears of other things.
                _turn = queue.turn(), if self.wants_turn() => self.follow().await,
                ruled = follow::freed(self.freeing.as_mut()) => self.handle_freed(ruled).await,
                () = meddling.told() => self.audit(&mut meddling).await,
                heard = ears.told() => self.handle_heard(&mut ears, heard),
                () = sleep_until(due.into_iter().flatten().min()) => {
                    let now = Instant::now();
                    core.handle_time(watches.ports.as_ref().map(|ports| *ports.seen.borrow()), now);
                    self.rules.handle_time(now);
                    if watch_again.take_if(|again| *again <= now).is_some() {
                        watches = self.watch_both(pulse.any_port(), adopted);
                    }
                }
            }
        }
    }

    /// Watches what somebody else changes of it.
    fn meddling(&self) -> Meddling {
        let netns = self.fixtures.as_ref().map(|fixtures| &fixtures.netns);
        Meddling::watch(&self.context.kernel.overlay, netns, &self.id)
    }

    /// Watches the condition of its processes.
    fn pulse(&self, lifeline: &Lifeline, adopted: bool) -> ProcessPulse {
        let said = self.about.as_ref().map(|about| self.context.roster.conditions.follow(about));
        ProcessPulse::of(lifeline.anchor.pid(), said, adopted)
    }

    /// Words about what keeps calls from it, but for its sockets.
    fn finding(&self, readiness: ReadinessFacts) -> Finding {
        let of_condition = readiness.condition.reason().map(str::to_owned);
        let silent = || (!readiness.sidecar).then(|| self.why_silent());
        let of_check = || self.context.roster.reasons.of(&self.id);
        of_condition.or_else(silent).or_else(of_check).map(|why| Finding::new(&why)).unwrap_or_default()
    }

    /// Says whether calls may be sent to it, and what keeps them.
    async fn declare(&self, readiness: ReadinessFacts, finding: &Finding) {
        let silent = (!readiness.sidecar).then(|| self.why_silent());
        self.context.troubles.set(&self.id, WorkloadTrouble::Sidecar, silent);
        let reason =
            |of| readiness.condition.reason().filter(|_| readiness.condition == of).map(str::to_owned);
        self.context.troubles.set(&self.id, WorkloadTrouble::Paused, reason(ContainerCondition::Paused));
        self.context.troubles.set(
            &self.id,
            WorkloadTrouble::Unhealthy,
            reason(ContainerCondition::Unhealthy),
        );
        if let Some(ready) = readiness.ready() {
            let standing = Standing { ready, finding: finding.clone() };
            self.context.host.set_ready(self.id.clone(), standing).await;
        }
    }

    fn watch_ports(&self, any_port: bool) -> Option<PortWatch> {
        let netns = &self.fixtures.as_ref().filter(|_| !self.attachment.workload.ports.is_empty())?.netns;
        let (address, subnet6) =
            (self.attachment.workload.address, self.host_network.borrow().snapshot.network.subnet6);
        let target = ProbeTarget {
            address: address.to_ipv4(),
            ipv6: subnet6.map(|subnet6| subnet6.address(address)),
            ports: self.attachment.workload.ports.clone(),
            sidecar: self.attachment.workload.sidecar.then_some(self.context.sidecars.ports),
            any_port,
        };
        let watched = match self.machine {
            true => Ok(health::dial(target, self.context.kernel.caller(&self.id.network))),
            false => health::watch(&self.context.kernel.hopper, netns, target),
        };
        let complain =
            |error| tracing::error!(%error, workload = %self.id, "cannot see whether a workload listens");
        let (seen, task) = watched.map_err(complain).ok()?;
        Some(PortWatch { seen, any_port, _task: task })
    }
}
