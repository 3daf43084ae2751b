//! Containers that were attached: remembered by their runtime's id for them, and attached again when they start again. A
//! container is another process, in another namespace, each time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sealane_base::task::{self, Task};
use sealane_proto::types::WorkloadRef;
use sealane_sys::{NetNs, Process};
use tokio::sync::watch;

use super::{Workloads, cgroup, target};
use crate::attachment::{AttachSpec, AttachmentId, FailureKind, Netns, NetnsTarget, RequestFailure};
use crate::disk::{DiskError, Folder, RecordError, StoredContainer};
use crate::trouble::WorkloadTrouble;

/// Interval at which it is looked at whether a container runs again.
const LOOK: Duration = Duration::from_millis(250);
/// Pause before one that could not be attached is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Time for which one that does not run is remembered: nobody says that it was removed.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// The remembered containers, by the first attachment of their workloads.
#[derive(Debug)]
pub(crate) struct Containers {
    folder: Folder,
    known: Mutex<BTreeMap<AttachmentId, Remembered>>,
    /// True if there are any.
    any: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Remembered {
    stored: StoredContainer,
    /// Time at which it ran last, as far as is known.
    seen: SystemTime,
}

impl Containers {
    /// Reads the records in `folder`. A record that cannot be read is as if it was not there.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn recall(folder: Folder) -> Result<Self, DiskError> {
        let mut known = BTreeMap::new();
        for name in folder.names()? {
            match recall(&folder, &name) {
                Ok(Some((id, stored))) => {
                    known.insert(id, Remembered { stored, seen: SystemTime::now() });
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, name, "cannot recall an attached container"),
            }
        }
        let any = watch::Sender::new(!known.is_empty());
        Ok(Self { folder, known: Mutex::new(known), any })
    }

    /// The workload `id` was attached to a container, which its process `pid` is of, as `spec` says.
    pub(super) fn remember(&self, id: &AttachmentId, pid: u32, container: String, spec: &AttachSpec) {
        let Some(group) = cgroup::of_container(pid, &container) else {
            tracing::warn!(workload = %id, "no control group is named after the container: when it restarts, it is not attached again");
            return;
        };
        let wanted = spec.clone().named(id.workload.clone()).wanted().clone();
        let stored = StoredContainer { wanted, container, group };
        if let Err(error) = self.folder.write(&id.record_name(), &stored.to_bytes()) {
            tracing::error!(%error, workload = %id, "cannot remember an attached container");
        }
        self.lock().insert(id.clone(), Remembered { stored, seen: SystemTime::now() });
        self.expect();
    }

    /// There is one, or is about to be.
    pub(crate) fn expect(&self) {
        self.any.send_if_modified(|any| !std::mem::replace(any, true));
    }

    /// Returns true, now or later, if there have been any since the start.
    pub(crate) fn any(&self) -> watch::Receiver<bool> {
        self.any.subscribe()
    }

    /// The id of the container that a workload is of.
    pub(super) fn id_of(&self, id: &AttachmentId) -> Option<String> {
        self.lock().get(id).map(|known| known.stored.container.clone())
    }

    /// Returns true if the workload is attached again by itself.
    pub(super) fn has(&self, id: &AttachmentId) -> bool {
        self.lock().contains_key(id)
    }

    /// Somebody detached it. Whether it was known.
    pub(super) fn forget(&self, wanted: &WorkloadRef) -> bool {
        let is_it = |id: &AttachmentId| {
            id.workload == wanted.name && wanted.network.as_ref().is_none_or(|network| id.network == *network)
        };
        let found: Vec<AttachmentId> = self.lock().keys().filter(|id| is_it(id)).cloned().collect();
        found.iter().for_each(|id| self.erase(id));
        !found.is_empty()
    }

    fn erase(&self, id: &AttachmentId) {
        self.lock().remove(id);
        if let Err(error) = self.folder.remove(&id.record_name()) {
            tracing::error!(%error, workload = %id, "cannot forget an attached container");
        }
    }

    fn all(&self) -> Vec<(AttachmentId, Remembered)> {
        self.lock().iter().map(|(id, known)| (id.clone(), known.clone())).collect()
    }

    fn saw(&self, id: &AttachmentId) {
        if let Some(known) = self.lock().get_mut(id) {
            known.seen = SystemTime::now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, Remembered>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn recall(folder: &Folder, name: &str) -> Result<Option<(AttachmentId, StoredContainer)>, RecallError> {
    let Some(bytes) = folder.read(name)? else { return Ok(None) };
    let stored = StoredContainer::from_bytes(&bytes)?;
    Ok(stored.id().map(|id| (id, stored)))
}

#[derive(Debug, thiserror::Error)]
enum RecallError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Attaches remembered containers that run again, for ever.
pub(crate) async fn follow(workloads: Arc<Workloads>) {
    let mut attaching: BTreeMap<AttachmentId, Task> = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        attaching.retain(|_, task| !task.is_finished());
        let context = &workloads.context;
        for (id, known) in context.containers.all() {
            if context.roster.has(&id) {
                context.containers.saw(&id);
            } else if !attaching.contains_key(&id)
                && let Some(pid) = first_process(&known.stored.group)
            {
                let again = attach(workloads.clone(), id.clone(), known.stored, pid);
                attaching.insert(id, task::spawn("container", again));
            } else if known.seen.elapsed().is_ok_and(|ago| ago > FORGOTTEN) {
                context.containers.erase(&id);
            }
        }
    }
}

async fn attach(workloads: Arc<Workloads>, id: AttachmentId, stored: StoredContainer, pid: u32) {
    let StoredContainer { wanted, container, .. } = stored;
    tracing::info!(workload = %id, pid, container, "an attached container has started again");
    let target = NetnsTarget {
        netns: Netns::Process(pid),
        inode: None,
        container: Some(container),
        hold: None,
        pid: None,
    };
    let attached = async {
        let spec = AttachSpec::new(wanted, workloads.ports());
        workloads
            .attach_whole(spec.map_err(|error| RequestFailure::new(FailureKind::Wrong, error))?, target)
            .await
    };
    let troubles = &&workloads.context.troubles;
    match attached.await {
        Ok(()) => troubles.set(&id, WorkloadTrouble::Container, None),
        // It ended again: what comes next is looked at anew.
        Err(_) if !is_alive(pid) => {}
        Err(error) => {
            troubles.set(&id, WorkloadTrouble::Container, Some(error.to_string()));
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn is_alive(pid: u32) -> bool {
    Process::open(pid).is_ok()
}

/// The first process of a group with a network namespace of its own: the one that is the first in its process namespace,
/// or else the oldest.
fn first_process(group: &Path) -> Option<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    let pids = text.lines().filter_map(|line| line.parse().ok());
    let own = |pid: &u32| {
        let netns = NetNs::open(proc(*pid, "ns/net"));
        netns.is_ok_and(|netns| !target::is_host(&netns)) && !is_helper(*pid)
    };
    pids.filter(own).min_by_key(|pid| {
        (!is_first(*pid), Process::open(*pid).map_or(u64::MAX, |process| process.started()))
    })
}

/// Returns true for a passing process of runc's, which sets the container up.
fn is_helper(pid: u32) -> bool {
    let name = fs::read_to_string(proc(pid, "comm")).unwrap_or_default();
    name.starts_with("runc:[0") || name.starts_with("runc:[1")
}

/// Returns true if it has a process namespace in which it is the first.
fn is_first(pid: u32) -> bool {
    let status = fs::read_to_string(proc(pid, "status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_ascii_whitespace().skip(1).last() == Some("1")
}

fn proc(pid: u32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}
