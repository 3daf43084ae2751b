//! Descriptors that must outlive this agent: in its own hands and, under the same key, with `sealane keep`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_base::task::{self, Task};
use sealane_fabric::async_fd;
use sealane_keep::{Keep, KeepError};
use sealane_sys::RunDir;

/// Pause before a keep that cannot be started is tried again, at first: one that is being killed may still have taken
/// the connection.
const SOON: Duration = Duration::from_millis(5);
/// And at most.
const RETRY: Duration = Duration::from_secs(1);
/// Number of times that a keep that ends while an agent starts is replaced before the agent gives up.
const TRIES: u32 = 10;

/// The descriptors by key.
#[derive(Debug)]
pub(crate) struct Keeper {
    run_dir: RunDir,
    binary: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    keep: Keep,
    fds: BTreeMap<String, Vec<OwnedFd>>,
}

impl Keeper {
    /// Finds or starts the keep of `run_dir` and takes up what it holds.
    ///
    /// # Errors
    /// When no keep can be started.
    pub(crate) fn start(run_dir: RunDir, binary: PathBuf) -> Result<Arc<Self>, KeepError> {
        let mut tried = 0;
        let inner = loop {
            match Inner::recall(&run_dir, &binary) {
                Err(KeepError::Broken(_)) if tried < TRIES => {
                    tried += 1;
                    std::thread::sleep(SOON * tried);
                }
                recalled => break recalled?,
            }
        };
        Ok(Arc::new(Self { run_dir, binary, inner: Mutex::new(inner) }))
    }

    /// Watches the keep; when it dies, starts another and hands it everything again.
    pub(crate) fn guard(self: &Arc<Self>) -> Task {
        let this = self.clone();
        task::spawn("keep-guard", async move {
            loop {
                this.death().await;
                tracing::warn!("the descriptor keeper ended, starting another");
                let mut backoff = Backoff::new(SOON, RETRY);
                while let Err(error) = this.clone().restart().await {
                    tracing::error!(%error, "cannot start the descriptor keeper, trying again");
                    tokio::time::sleep(backoff.next_wait(rand::random())).await;
                }
            }
        })
    }

    /// Holds these descriptors under `key`, in place of what was there. While there is no keep they are held here
    /// alone, and the next one gets them with all the rest.
    ///
    /// # Errors
    /// When the keep refuses them, at its bounds.
    pub(crate) fn put(&self, key: &str, fds: Vec<OwnedFd>) -> Result<(), KeepError> {
        let mut inner = self.lock();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        unless_gone(inner.keep.put(key, &borrowed))?;
        inner.fds.insert(key.to_owned(), fds);
        Ok(())
    }

    /// Copies of the descriptors under `key`.
    #[must_use]
    pub(crate) fn copies(&self, key: &str) -> Option<Vec<OwnedFd>> {
        let inner = self.lock();
        inner.fds.get(key)?.iter().map(|fd| fd.try_clone().ok()).collect()
    }

    /// Lets go of `key`. The next keep does not get what is removed while there is none.
    ///
    /// # Errors
    /// When the keep refuses.
    pub(crate) fn remove(&self, key: &str) -> Result<(), KeepError> {
        let mut inner = self.lock();
        inner.fds.remove(key);
        unless_gone(inner.keep.delete(key).map(drop))
    }

    /// Lets go of every key that `wanted` does not say yes to: what an earlier agent left behind.
    ///
    /// # Errors
    /// When the keep refuses.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) -> Result<(), KeepError> {
        let unwanted: Vec<String> = self.lock().fds.keys().filter(|key| !wanted(key)).cloned().collect();
        unwanted.iter().try_for_each(|key| self.remove(key))
    }

    /// Returns when the keep has closed its end.
    async fn death(&self) {
        let socket = self.lock().keep.as_fd().try_clone_to_owned();
        let Ok(socket) = socket.and_then(async_fd::socket) else {
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

    /// Finds or starts a keep, which may be the one before with a new connection, and makes it hold what is held here.
    async fn restart(self: Arc<Self>) -> Result<(), KeepError> {
        let restarted = task::blocking(move || {
            let keep = sealane_keep::ensure_running(&self.run_dir, &self.binary, None)?;
            let mut inner = self.lock();
            for kept in keep.list()? {
                if !inner.fds.contains_key(&kept.key) {
                    keep.delete(&kept.key)?;
                }
            }
            for (key, fds) in &inner.fds {
                let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                keep.put(key, &borrowed)?;
            }
            inner.keep = keep;
            Ok(())
        });
        restarted.await.map_err(KeepError::Broken)?
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn recall(run_dir: &RunDir, binary: &Path) -> Result<Self, KeepError> {
        let keep = sealane_keep::ensure_running(run_dir, binary, None)?;
        let mut fds = BTreeMap::new();
        for kept in keep.list()? {
            if let Some(found) = keep.get(&kept.key)? {
                fds.insert(kept.key, found);
            }
        }
        Ok(Self { keep, fds })
    }
}

/// A keep that is gone needs no word: whoever guards it starts another, which is told everything.
fn unless_gone(outcome: Result<(), KeepError>) -> Result<(), KeepError> {
    match outcome {
        Err(KeepError::Broken(_)) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keep_that_is_gone_is_no_error_and_one_that_refuses_is() {
        assert!(unless_gone(Err(KeepError::Broken(std::io::ErrorKind::BrokenPipe.into()))).is_ok());
        assert!(unless_gone(Err(KeepError::Refused("no room".to_owned()))).is_err());
    }
}
