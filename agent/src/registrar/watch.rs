//! Watch of the folder by the kernel.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use sealane_sys::changes;
use tokio::io::unix::AsyncFd;

use sealane_fabric::async_fd;

/// A folder that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    folder: PathBuf,
    /// Descriptor by which the kernel tells of changes; `None` while it does not watch the folder.
    told: Option<AsyncFd<OwnedFd>>,
}

impl Watched {
    pub(super) fn new(folder: PathBuf) -> Self {
        let mut watched = Self { folder, told: None };
        watched.arm();
        watched
    }

    /// Watches the folder from here on, and forgets what was told before.
    pub(super) fn arm(&mut self) {
        let told = changes::watch(&self.folder).and_then(async_fd::socket);
        if let Err(error) = &told {
            tracing::debug!(%error, folder = %self.folder.display(), "a folder is not watched, but looked at");
        }
        self.told = told.ok();
    }

    /// Returns true while the kernel watches the folder.
    pub(super) fn is_armed(&self) -> bool {
        self.told.is_some()
    }

    /// Waits until something has changed. Cancel safe.
    pub(super) async fn changed(&self) {
        match &self.told {
            // An error of the descriptor is worth a look as well.
            Some(told) => drop(told.readable().await),
            None => std::future::pending().await,
        }
    }
}
