//! Looks after the disk under the store: says when it is full, and finds out when it is not any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealane_base::disk::Disk;
use sealane_base::task::{self, Task};

use super::{Health, Writer};

/// The time between two tries of a store that could not be written.
const AGAIN: Duration = Duration::from_secs(2);

/// The store and the folder that it is in, as far as is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writability {
    health: Health,
    /// None under a store that is elsewhere.
    disk: Option<Arc<Disk>>,
}

impl Writability {
    /// Says why changes are refused, or would be; `None` while they are taken.
    pub(crate) fn problem(&self) -> Option<String> {
        let failed = self.health.problem().map(|problem| problem.to_string());
        let full = || {
            let problem = self.disk.as_ref()?.problem()?;
            Some(format!("{problem}; until then changes may be refused, hosts go on by what they have"))
        };
        failed.or_else(full)
    }
}

/// Watches the store and the folder that it is in, if it is in one.
pub(crate) fn watch(health: Health, folder: Option<PathBuf>, writer: &Writer) -> (Writability, Vec<Task>) {
    let disk = folder.map(Disk::new);
    let looking = disk.clone().map(|disk| task::spawn("disk", disk.watch()));
    let retrying = task::spawn("store-retry", retry(health.clone(), writer.clone()));
    (Writability { health, disk }, looking.into_iter().chain([retrying]).collect())
}

/// Tries a store that could not be written, until it can: nobody else may come for a long time.
async fn retry(health: Health, writer: Writer) {
    loop {
        tokio::time::sleep(AGAIN).await;
        if health.problem().is_some() {
            writer.probe().await;
        }
    }
}
