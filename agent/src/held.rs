//! Descriptors that must outlive this agent: in its own hands and, under the same key, with `sealane keep`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_keep::{Keep, KeepError};

use crate::readable;

/// How long to wait before a keep that cannot be started is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The descriptors by key.
#[derive(Debug)]
pub(crate) struct Held {
    run_dir: PathBuf,
    binary: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    keep: Keep,
    fds: BTreeMap<String, Vec<OwnedFd>>,
}

impl Held {
    /// Finds or starts the keep of `run_dir` and takes up what it holds.
    ///
    /// # Errors
    /// When no keep can be started.
    pub(crate) fn start(run_dir: PathBuf, binary: PathBuf) -> Result<Arc<Self>, KeepError> {
        let keep = sealane_keep::ensure_running(&run_dir, &binary, None)?;
        let mut fds = BTreeMap::new();
        for kept in keep.list()? {
            if let Some(found) = keep.get(&kept.key)? {
                fds.insert(kept.key, found);
            }
        }
        Ok(Arc::new(Self { run_dir, binary, inner: Mutex::new(Inner { keep, fds }) }))
    }

    /// Watches the keep; when it dies, starts another and hands it everything again.
    pub(crate) fn guard(self: &Arc<Self>) -> Task {
        let this = self.clone();
        task::spawn("keep-guard", async move {
            loop {
                this.death().await;
                tracing::warn!("the descriptor keeper ended, starting another");
                while let Err(error) = this.restart() {
                    tracing::error!(%error, "cannot start the descriptor keeper");
                    tokio::time::sleep(RETRY).await;
                }
            }
        })
    }

    /// Holds these descriptors under `key`, in place of what was there.
    ///
    /// # Errors
    /// When the keep does not take them.
    pub(crate) fn put(&self, key: &str, fds: Vec<OwnedFd>) -> Result<(), KeepError> {
        let mut inner = self.lock();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        inner.keep.put(key, &borrowed)?;
        inner.fds.insert(key.to_owned(), fds);
        Ok(())
    }

    /// Copies of the descriptors under `key`.
    #[must_use]
    pub(crate) fn copies(&self, key: &str) -> Option<Vec<OwnedFd>> {
        let inner = self.lock();
        inner.fds.get(key)?.iter().map(|fd| fd.try_clone().ok()).collect()
    }

    /// Lets go of `key`.
    ///
    /// # Errors
    /// When the keep does not answer; our own copies are closed all the same.
    pub(crate) fn remove(&self, key: &str) -> Result<(), KeepError> {
        let mut inner = self.lock();
        inner.fds.remove(key);
        inner.keep.delete(key).map(drop)
    }

    /// Lets go of every key that `wanted` does not say yes to: what an earlier agent left behind.
    ///
    /// # Errors
    /// When the keep does not answer.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) -> Result<(), KeepError> {
        let unwanted: Vec<String> = self.lock().fds.keys().filter(|key| !wanted(key)).cloned().collect();
        unwanted.iter().try_for_each(|key| self.remove(key))
    }

    /// Returns when the keep has closed its end.
    async fn death(&self) {
        let socket = self.lock().keep.as_fd().try_clone_to_owned();
        let Ok(socket) = socket.and_then(readable::socket) else {
            return tokio::time::sleep(RETRY).await;
        };
        loop {
            let Ok(mut ready) = socket.readable().await else {
                return;
            };
            if ready.ready().is_read_closed() {
                return;
            }
            ready.clear_ready();
        }
    }

    fn restart(&self) -> Result<(), KeepError> {
        let keep = sealane_keep::ensure_running(&self.run_dir, &self.binary, None)?;
        let mut inner = self.lock();
        for (key, fds) in &inner.fds {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            keep.put(key, &borrowed)?;
        }
        inner.keep = keep;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
