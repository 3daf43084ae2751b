//! Anchors that workloads end with: a process, or a path that names its namespace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_fabric::async_fd;
use sealane_sys::{NetNs, NetNsError, Process};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use super::AttachError;
use super::target::pid_of;
use crate::attachment::Hold;
use crate::disk::{StoredAnchor, StoredHold, StoredPath, StoredProcess};

/// Interval at which a path is looked at: it ends without an event.
const LOOK: Duration = Duration::from_millis(500);

/// Interval at which the path of one that is held is looked at.
const SELDOM: Duration = Duration::from_secs(2);
/// Time for which that may be gone until nobody holds the workload any more.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Anchor that a workload ends with.
#[derive(Debug)]
pub(crate) enum Anchor {
    /// The process has ended.
    Process(AsyncFd<Process>),
    /// The path is gone, or names another namespace.
    Path {
        /// Path at which the namespace is bound.
        path: PathBuf,
        /// Inode number that names it as long as it lives.
        inode: u64,
    },
    /// Somebody dismisses it, or forgot to: its path is gone for long.
    Held {
        /// Holder of the workload.
        hold: Hold,
        /// Path at which the namespace is bound.
        path: PathBuf,
        /// A process of its, if one is known.
        process: Option<Process>,
    },
}

/// Reasons for which an anchor is not found again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Gone {
    /// With everything else.
    #[error("the machine was started again")]
    Rebooted,
    /// By itself.
    #[error("{0}")]
    Ended(String),
}

impl Anchor {
    /// The end of `process`.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub(crate) fn process(process: Process) -> Result<Self, AttachError> {
        let watched = async_fd::process(process);
        watched.map(Self::Process).map_err(|error| AttachError::Namespace(error.to_string()))
    }

    /// Returns the record by which the next agent finds it again.
    #[must_use]
    pub(super) fn stored(&self, boot: &str) -> StoredAnchor {
        let boot = boot.to_owned();
        match self {
            Self::Process(process) => {
                let (pid, started) = (process.get_ref().pid(), process.get_ref().started());
                StoredAnchor::Process(StoredProcess { pid, started, boot })
            }
            Self::Path { path, inode } => {
                StoredAnchor::Path(StoredPath { path: path.clone(), inode: *inode, boot })
            }
            Self::Held { hold, path, process } => {
                let process = process.as_ref().map(|process| (process.pid(), process.started()));
                StoredAnchor::Held(StoredHold { hold: hold.clone(), path: path.clone(), process, boot })
            }
        }
    }

    /// Finds it again, as long as it has not ended.
    ///
    /// # Errors
    /// With what has ended.
    pub(super) fn reopen(stored: &StoredAnchor, boot: &str) -> Result<Self, Gone> {
        if stored.boot() != boot {
            return Err(Gone::Rebooted);
        }
        let ended = |error: &dyn std::fmt::Display| Gone::Ended(error.to_string());
        match stored {
            StoredAnchor::Process(process) => {
                let process = Process::reopen(process.pid, process.started).map_err(|error| ended(&error))?;
                async_fd::process(process).map(Self::Process).map_err(|error| ended(&error))
            }
            StoredAnchor::Path(StoredPath { path, inode, .. }) => {
                if inode_at(path) == Some(*inode) {
                    Ok(Self::Path { path: path.clone(), inode: *inode })
                } else {
                    Err(Gone::Ended(format!("namespace {} is gone", path.display())))
                }
            }
            StoredAnchor::Held(StoredHold { hold, path, process, .. }) => {
                let process = process.and_then(|(pid, started)| Process::reopen(pid, started).ok());
                Ok(Self::Held { hold: hold.clone(), path: path.clone(), process })
            }
        }
    }

    /// The namespace that it names.
    ///
    /// # Errors
    /// When it has just ended.
    pub(super) fn netns(&self) -> Result<NetNs, NetNsError> {
        match self {
            Self::Process(process) => NetNs::open(format!("/proc/{}/ns/net", process.get_ref().pid())),
            Self::Path { path, .. } | Self::Held { path, .. } => NetNs::open(path),
        }
    }

    /// The process, if it is one.
    #[must_use]
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(process) => Some(process.get_ref().pid()),
            Self::Held { process, .. } => process.as_ref().map(Process::pid),
            Self::Path { .. } => None,
        }
    }

    /// Returns its holder, if it has one.
    #[must_use]
    pub(super) fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Held { hold, .. } => Some(hold),
            Self::Process(_) | Self::Path { .. } => None,
        }
    }

    /// Returns when it has ended. Cancel safe.
    pub(super) async fn gone(&self) {
        match self {
            // An error of the descriptor cannot be told from the end, and is treated as it.
            Self::Process(process) => drop(process.readable().await),
            Self::Path { path, inode } => {
                let mut look = tokio::time::interval(LOOK);
                while inode_at(path) == Some(*inode) {
                    look.tick().await;
                }
            }
            // Docker's are looked after by its door, which knows when one is coming back.
            Self::Held { hold, .. } if hold.is_of_docker() => std::future::pending().await,
            Self::Held { path, .. } => forgotten(path).await,
        }
    }
}

/// Returns when nothing is at `path` for so long that a runtime which removes what it has made would have said so. What was a
/// process's does not come back.
async fn forgotten(path: &Path) {
    let patience = if path.to_str().and_then(pid_of).is_some() { Duration::ZERO } else { FORGOTTEN };
    let (mut look, mut gone) = (tokio::time::interval(SELDOM), None);
    loop {
        look.tick().await;
        if inode_at(path).is_some() {
            gone = None;
            continue;
        }
        let since: &mut Instant = gone.get_or_insert_with(Instant::now);
        if since.elapsed() >= patience {
            return;
        }
    }
}

/// Returns true if the anchor of a workload has not ended yet.
#[must_use]
pub(crate) fn is_there(stored: &StoredAnchor, boot: &str) -> bool {
    Anchor::reopen(stored, boot).is_ok()
}

/// Opened rather than only looked at: a file that is left where a namespace was mounted is none.
fn inode_at(path: &Path) -> Option<u64> {
    NetNs::open(path).ok()?.inode().ok()
}

/// The anchor, and whether somebody asked for the end before.
#[derive(Debug)]
pub(super) struct Lifeline {
    pub(super) anchor: Anchor,
    pub(super) dismissed: watch::Receiver<bool>,
}

impl Lifeline {
    /// Returns when the workload is to end. Cancel safe.
    pub(super) async fn ended(&self) {
        let mut dismissed = self.dismissed.clone();
        let asked = async {
            if dismissed.wait_for(|dismissed| *dismissed).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.anchor.gone() => {}
            () = asked => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_forgets_what_it_holds_is_waited_for_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        forgotten(&folder.path().join("gone")).await;
        assert!(began.elapsed() >= FORGOTTEN && began.elapsed() < 2 * FORGOTTEN);
        let began = Instant::now();
        forgotten(Path::new("/proc/4000000000/ns/net")).await;
        assert!(began.elapsed() < SELDOM, "its process has ended");
        // What is there is held for ever.
        let own = Path::new("/proc/self/ns/net");
        assert!(tokio::time::timeout(10 * FORGOTTEN, forgotten(own)).await.is_err());
    }
}
