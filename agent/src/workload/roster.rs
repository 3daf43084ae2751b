//! Workloads on this host, by name, from their admission to their last trace.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealane_fabric::seat::Owner;
use sealane_proto::types::{Aliases, NetworkName, WorkloadName, WorkloadRef};
use sealane_sys::{NetNs, RunDir};
use tokio::sync::watch;

use super::conditions::Conditions;
use super::early::EarlySockets;
use super::instances::instances;
use super::names::SharedNamespaces;
use super::plumbing::netns_path;
use super::reasons::Reasons;
use crate::attachment::{Attached, Attachment, AttachmentId, Hold, Progress, Waits};
use crate::disk::StoredAnchor;

/// Time for which a workload that is being attached is waited for by whoever wants to enter it.
const ATTACHING: Duration = Duration::from_secs(10);
/// Time for which the end of a workload is waited for by whoever asked for it.
const ENDING: Duration = Duration::from_secs(15);

/// The workloads by their attachment in their first network.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    entries: watch::Sender<BTreeMap<AttachmentId, RosterEntry>>,
    lost: Mutex<BTreeMap<AttachmentId, LostWorkload>>,
    /// The namespaces in which several of them answer together.
    pub(super) rooms: SharedNamespaces,
    /// Sockets in which questions wait for somebody who answers.
    pub(super) early: EarlySockets,
    /// Statements of runtimes about them.
    pub(crate) conditions: Conditions,
    /// Findings of their checks.
    pub(super) reasons: Reasons,
    /// Holding while seats in a namespace are given.
    pub(super) admitting: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct RosterEntry {
    attachments: Vec<Attachment>,
    /// Process that it ends with, if it is one.
    pid: Option<u32>,
    /// Holder of the workload, if it has one.
    hold: Option<Hold>,
    /// Once it may be entered.
    attached: Option<Attached>,
    dismiss: watch::Sender<bool>,
    /// Time for open calls that whoever ended it has asked for.
    drain: Option<Duration>,
    /// Event that its attachment waits for.
    waits: Waits,
}

/// A workload that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldWorkload {
    /// Holder of the workload.
    pub(crate) hold: Hold,
    /// The workload.
    pub(crate) workload: WorkloadName,
    /// Networks, in the order in which it joined them.
    pub(crate) networks: Vec<NetworkName>,
}

/// An attached workload that ended with the machine: nobody but who attached it can do so again.
#[derive(Debug)]
struct LostWorkload {
    /// All that it was attached to.
    networks: Vec<NetworkName>,
    /// Container or process that was attached.
    what: String,
}

impl RosterEntry {
    fn is(&self, wanted: &WorkloadRef) -> bool {
        let in_network = |attachment: &Attachment| {
            wanted.network.as_ref().is_none_or(|network| attachment.workload.network == *network)
        };
        let mut own = self.attachments.iter();
        own.any(|attachment| attachment.workload.shown() == wanted.name && in_network(attachment))
    }

    fn begun_by(&self) -> &'static str {
        let of_runtime = |(id, hold): (&Attachment, &Hold)| hold.runtime(&id.workload.name).is_some();
        match self.owner() {
            Owner::Agent => "run",
            Owner::Other if self.attachments.first().zip(self.hold.as_ref()).is_some_and(of_runtime) => {
                "runtime"
            }
            Owner::Other => "attach",
        }
    }

    fn owner(&self) -> Owner {
        self.attachments.first().map(|attachment| attachment.seat.owner()).unwrap_or_default()
    }
}

impl Roster {
    /// A workload is here from now on; says when somebody asks for its end.
    #[must_use]
    pub(super) fn enter(&self, attachments: Vec<Attachment>, anchor: &StoredAnchor) -> watch::Receiver<bool> {
        let (dismiss, dismissed) = watch::channel(false);
        if let Some(first) = attachments.first() {
            let id = AttachmentId::of(&first.workload);
            self.lost().remove(&id);
            let (pid, hold) = (anchor.pid(), anchor.hold().cloned());
            let entry = RosterEntry {
                attachments,
                pid,
                hold,
                attached: None,
                dismiss,
                drain: None,
                waits: Waits::default(),
            };
            self.entries.send_modify(|entries| drop(entries.insert(id, entry)));
        }
        dismissed
    }

    /// Shows what its attachment waits for.
    pub(super) fn follow(&self, id: &AttachmentId, waits: Waits) {
        self.entries.send_modify(|entries| {
            if let Some(entry) = entries.get_mut(id) {
                entry.waits = waits;
            }
        });
    }

    /// Returns what the attachment of a workload waits for, in words; `None` when that is there.
    pub(super) fn waits_of(&self, id: &AttachmentId) -> Option<String> {
        let entries = self.entries.borrow();
        let of = |entry: &&RosterEntry| entry.attachments.iter().any(|attachment| attachment.id() == *id);
        entries.values().find(of).filter(|entry| entry.attached.is_none())?.waits.words()
    }

    /// Records that it may be entered.
    pub(super) fn set_up(&self, id: &AttachmentId, attached: &Attached) {
        self.entries.send_modify(|entries| {
            if let Some(entry) = entries.get_mut(id) {
                entry.attached = Some(attached.clone());
            }
        });
    }

    /// Records that it is ending: nobody enters it any more.
    pub(super) fn close(&self, id: &AttachmentId) {
        self.entries.send_modify(|entries| {
            if let Some(entry) = entries.get_mut(id) {
                entry.attached = None;
            }
        });
    }

    /// The owner of the namespace of each attachment.
    pub(super) fn beginnings(&self) -> BTreeMap<AttachmentId, &'static str> {
        let entries = self.entries.borrow();
        let beginnings = entries.values().flat_map(|entry| {
            let keys = entry.attachments.iter().map(Attachment::id);
            keys.map(|id| (id, entry.begun_by()))
        });
        beginnings.collect()
    }

    /// Returns true if it is here, from its admission to its last trace.
    pub(super) fn has(&self, id: &AttachmentId) -> bool {
        self.entries.borrow().contains_key(id)
    }

    /// Returns true if one of this name is here.
    pub(super) fn knows(&self, wanted: &WorkloadRef) -> bool {
        self.entries.borrow().values().any(|entry| entry.is(wanted))
    }

    /// Nothing of it is left.
    pub(super) fn leave(&self, id: &AttachmentId) {
        self.entries.send_modify(|entries| drop(entries.remove(id)));
    }

    /// An attached workload was not found again when the machine had started anew.
    pub(super) fn lose(&self, ids: &[AttachmentId], anchor: &StoredAnchor) {
        let Some(first) = ids.first() else { return };
        let what = match anchor {
            StoredAnchor::Path(path) => path.path.display().to_string(),
            StoredAnchor::Process(process) => format!("process {}", process.pid),
            // Who held it comes again by itself.
            StoredAnchor::Held(_) => return,
        };
        let networks = ids.iter().map(|id| id.network.clone()).collect();
        self.lost().insert(first.clone(), LostWorkload { networks, what });
    }

    /// Describes workloads that somebody should attach again.
    pub(super) fn complaints(&self) -> Vec<String> {
        let sentence = |(id, lost): (&AttachmentId, &LostWorkload)| {
            let networks: String =
                lost.networks.iter().map(|network| format!(" --network {network}")).collect();
            format!(
                "workload {id} ({}) was attached before this host was started anew; attach it again \
                 (`sealane attach NAMESPACE{networks} --name {}`), or forget it with `sealane detach {}`",
                lost.what, id.workload, id.workload
            )
        };
        self.lost().iter().map(sentence).collect()
    }

    fn lost(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, LostWorkload>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a lost workload of this name; returns true if there was one.
    fn forget(&self, wanted: &WorkloadRef) -> bool {
        let mut lost = self.lost();
        let before = lost.len();
        lost.retain(|id, lost| {
            id.workload != wanted.name
                || wanted.network.as_ref().is_some_and(|network| !lost.networks.contains(network))
        });
        lost.len() < before
    }

    /// The attachments of other workloads in the namespace `netns`.
    pub(super) fn sharing(&self, netns: &NetNs, run_dir: &RunDir) -> Vec<Attachment> {
        let Ok(inode) = netns.inode() else { return Vec::new() };
        let shares = |id: &AttachmentId| {
            let other = NetNs::open(netns_path(run_dir, id)).ok();
            other.and_then(|other| other.inode().ok()) == Some(inode)
        };
        let entries = self.entries.borrow();
        let sharing = entries.iter().filter(|(id, _)| shares(id));
        sharing.flat_map(|(_, entry)| entry.attachments.clone()).collect()
    }

    /// Returns the attachment of a workload; one that is still being attached is waited for.
    ///
    /// # Errors
    /// A sentence, when there is none on this host or more than one.
    pub(super) async fn locate(&self, wanted: &WorkloadRef, host: &str) -> Result<Attached, String> {
        let id = self.find(wanted, host)?;
        self.place(&id).await
    }

    /// Returns the place of the workload of this id; one that is still being attached is waited for.
    ///
    /// # Errors
    /// A sentence, when it is not there.
    pub(super) async fn place(&self, id: &AttachmentId) -> Result<Attached, String> {
        let mut entries = self.entries.subscribe();
        let ready = entries.wait_for(|entries| entries.get(id).is_none_or(|entry| entry.attached.is_some()));
        let found = match tokio::time::timeout(ATTACHING, ready).await {
            Ok(Ok(entries)) => entries.get(id).and_then(|entry| entry.attached.clone()),
            Ok(Err(_)) | Err(_) => None,
        };
        found.ok_or_else(|| {
            format!("workload {id} is just beginning or ending; the agent's log says what it waits for")
        })
    }

    /// Returns the key of the workload `wanted`, and its attachments in the networks that are meant.
    ///
    /// # Errors
    /// A sentence, when there is none on this host or more than one.
    pub(super) fn attachments(
        &self,
        wanted: &WorkloadRef,
        host: &str,
    ) -> Result<(AttachmentId, Vec<Attachment>), String> {
        let id = self.find(wanted, host)?;
        let entries = self.entries.borrow();
        let own = entries.get(&id).into_iter().flat_map(|entry| &entry.attachments);
        let meant = own.filter(|attachment| {
            wanted.network.as_ref().is_none_or(|network| attachment.workload.network == *network)
        });
        Ok((id, meant.cloned().collect()))
    }

    /// Gives the workload of this id other further names.
    pub(super) fn name_anew(&self, id: &AttachmentId, aliases: &Aliases) {
        self.entries.send_modify(|entries| {
            for attachment in entries.get_mut(id).into_iter().flat_map(|entry| &mut entry.attachments) {
                if attachment.id() == *id {
                    attachment.workload.aliases = aliases.clone();
                }
            }
        });
    }

    /// Name that people see and say of the workload of this id.
    pub(super) fn shown(&self, id: &AttachmentId) -> WorkloadName {
        let entries = self.entries.borrow();
        let mut attachments = entries.values().flat_map(|entry| &entry.attachments);
        let found = attachments.find(|attachment| attachment.id() == *id);
        found.map_or_else(|| id.workload.clone(), |attachment| attachment.workload.shown())
    }

    /// The workload of these networks that an earlier agent took in for process `pid`, once it may be entered; `None` when
    /// there is none.
    pub(super) async fn taken_up(
        &self,
        pid: u32,
        networks: &[&NetworkName],
        progress: &Progress,
    ) -> Option<Attached> {
        let is_it = |entry: &RosterEntry| {
            let own = entry.attachments.iter().map(|attachment| &attachment.workload.network);
            entry.pid == Some(pid) && entry.owner() == Owner::Agent && own.eq(networks.iter().copied())
        };
        let mut entries = self.entries.subscribe();
        let found = entries.borrow().iter().find(|(_, entry)| is_it(entry)).map(|(id, _)| id.clone());
        let id = found?;
        progress.waiting(format!("workload {id}, which the agent before had begun")).await;
        let there = entries.wait_for(|entries| entries.get(&id).is_none_or(|entry| entry.attached.is_some()));
        there.await.ok()?.get(&id)?.attached.clone()
    }

    /// Ends a workload that was attached; answers whether nothing of it is left.
    ///
    /// # Errors
    /// A sentence, when there is none to detach.
    pub(super) async fn dismiss(
        &self,
        wanted: &WorkloadRef,
        host: &str,
        drain: Option<Duration>,
    ) -> Result<bool, String> {
        let id = match self.find(wanted, host) {
            Ok(id) => id,
            Err(_) if self.forget(wanted) => return Ok(true),
            Err(error) => return Err(error),
        };
        let Some(entry) = self.entries.borrow().get(&id).cloned() else { return Ok(true) };
        if entry.owner() == Owner::Agent {
            let process = entry.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            return Err(format!(
                "workload {wanted} was started by `sealane run` and ends with its command{process}; hint: end that"
            ));
        }
        if let Some((runtime, fix)) = entry.hold.as_ref().and_then(|hold| hold.runtime(&wanted.name)) {
            return Err(format!(
                "workload {wanted} is attached by {runtime}, and its container would go on without a network; hint: {fix}"
            ));
        }
        Ok(self.end(&id, &entry, drain).await)
    }

    /// Ends what `hold` holds; answers whether nothing of it is left. What is not there is no error.
    pub(super) async fn release(&self, hold: &Hold, drain: Option<Duration>) -> bool {
        let held = self.of(hold);
        match held {
            Some((id, entry)) => self.end(&id, &entry, drain).await,
            None => true,
        }
    }

    async fn end(&self, id: &AttachmentId, entry: &RosterEntry, drain: Option<Duration>) -> bool {
        self.entries.send_if_modified(|entries| {
            // Nobody waits for a change of this.
            entries.get_mut(id).into_iter().for_each(|entry| entry.drain = drain.or(entry.drain));
            false
        });
        entry.dismiss.send_replace(true);
        let mut entries = self.entries.subscribe();
        let gone = entries.wait_for(|entries| !entries.contains_key(id));
        tokio::time::timeout(ENDING + drain.unwrap_or_default(), gone).await.is_ok()
    }

    fn of(&self, hold: &Hold) -> Option<(AttachmentId, RosterEntry)> {
        let entries = self.entries.borrow();
        let mut held = entries.iter().filter(|(_, entry)| entry.hold.as_ref() == Some(hold));
        held.next().map(|(id, entry)| (id.clone(), entry.clone()))
    }

    /// The workload that `hold` holds.
    pub(super) fn attachment_of(&self, hold: &Hold) -> Option<AttachmentId> {
        self.of(hold).map(|(id, _)| id)
    }

    /// Returns the time for open calls that whoever ended it has asked for.
    pub(super) fn drain_of(&self, id: &AttachmentId) -> Option<Duration> {
        self.entries.borrow().get(id)?.drain
    }

    /// Returns its holder, if it has one.
    pub(super) fn hold_of(&self, id: &AttachmentId) -> Option<Hold> {
        self.entries.borrow().get(id)?.hold.clone()
    }

    /// Everything that somebody holds.
    pub(super) fn held(&self) -> Vec<HeldWorkload> {
        let held = |(id, entry): (&AttachmentId, &RosterEntry)| {
            let networks = entry.attachments.iter().map(|attachment| attachment.workload.network.clone());
            Some(HeldWorkload {
                hold: entry.hold.clone()?,
                workload: id.workload.clone(),
                networks: networks.collect(),
            })
        };
        self.entries.borrow().iter().filter_map(held).collect()
    }

    /// See [`instances`], of those on this host.
    pub(super) fn instances_of(&self, wanted: &WorkloadRef) -> Option<String> {
        let entries = self.entries.borrow();
        let own = entries.values().flat_map(|entry| &entry.attachments);
        instances(wanted, own.map(|attachment| &attachment.workload))
    }

    fn find(&self, wanted: &WorkloadRef, host: &str) -> Result<AttachmentId, String> {
        let entries = self.entries.borrow();
        let mut found = entries.iter().filter(|(_, entry)| entry.is(wanted)).map(|(id, _)| id);
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(one), Some(other)) => Err(format!(
                "there are several workloads {wanted} on host {host}; hint: say which, {0}.{1} or {0}.{2}",
                wanted.name, one.network, other.network
            )),
            (None, _) => {
                let own = entries.values().flat_map(|entry| &entry.attachments);
                let hint = instances(wanted, own.map(|attachment| &attachment.workload));
                let hint = hint.unwrap_or_else(|| "see `sealane workload ls`".to_owned());
                Err(format!("there is no workload {wanted} on host {host}; hint: {hint}"))
            }
        }
    }
}
