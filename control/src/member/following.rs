//! The mesh as whoever leads changes it, for a standby to show: it follows the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_proto::types::Generation;

use super::{AGAIN, MemberConfig, open};
use crate::core::Affected;
use crate::registry::Registry;
use crate::store::{Follower, Image, ReadError, Store};

/// Time for which transactions are waited for before a look whether this is to end.
const LOOK: Duration = Duration::from_millis(500);

/// Shows in a registry what the store says, until dropped.
pub(super) struct Following {
    ended: Arc<AtomicBool>,
    _task: Task,
}

impl Following {
    pub(super) fn start(config: MemberConfig, registry: Arc<Registry>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let task = task::spawn("follow-store", follow(config, registry, ended.clone()));
        Self { ended, _task: task }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

async fn follow(config: MemberConfig, registry: Arc<Registry>, ended: Arc<AtomicBool>) {
    loop {
        let reason = match open(&config).await {
            Ok(opened) => {
                let (registry, ended) = (registry.clone(), ended.clone());
                match task::blocking(move || show(opened, &registry, &ended)).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        tracing::debug!(reason, "the store is not followed; what is shown may be old");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Shows what an open store holds, and what others write there, until `ended` or an error.
fn show((store, image): (Store, Image), registry: &Registry, ended: &AtomicBool) -> Result<(), ReadError> {
    let mut follower = Follower::new(store, image)?;
    let known = registry.directory().networks.keys().cloned().collect::<Vec<_>>();
    let (state, _) = follower.state();
    let mut affected = Some(Affected::all(known.into_iter().chain(state.networks.keys().cloned())));
    while !ended.load(Ordering::Relaxed) {
        if let Some(affected) = affected {
            let (state, meta) = follower.state();
            let generation = Generation { epoch: meta.epoch, revision: meta.revision };
            registry.publish(registry.directory().next(state, generation, &affected));
        }
        affected = follower.follow(LOOK)?;
    }
    Ok(())
}
