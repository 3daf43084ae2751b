//! The mesh as whoever leads changes it, for a standby to show: it follows the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_proto::types::Generation;

use tokio::sync::watch;

use super::{AGAIN, MemberConfig, open};
use crate::core::Affected;
use crate::registry::Registry;
use crate::roster::Roster;
use crate::start::Cause;
use crate::store::{Anchor, Follower, Image, LastKnown, ReadError, SharedError, Store};

/// Time for which transactions are waited for before a look whether this is to end.
const LOOK: Duration = Duration::from_millis(500);

/// Shows in a registry what the store says, until dropped.
pub(super) struct Following {
    ended: Arc<AtomicBool>,
    _task: Task,
}

/// Parts of a control plane that go on by what is followed.
#[derive(Clone)]
pub(super) struct Heir {
    pub(super) registry: Arc<Registry>,
    pub(super) roster: Arc<watch::Sender<Roster>>,
    pub(super) anchor: Arc<Anchor>,
    pub(super) last: LastKnown,
}

impl Following {
    pub(super) fn start(config: MemberConfig, heir: Heir) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let task = task::spawn("follow-store", follow(config, heir, ended.clone()));
        Self { ended, _task: task }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Takes in that the mesh is not in the store any more, if that is why it cannot be opened.
pub(super) fn note_loss(roster: &watch::Sender<Roster>, error: &Cause) {
    let Cause::Shared(SharedError::Lost(_)) = error else { return };
    let lost = Some(error.to_string());
    let is_news =
        roster.send_if_modified(|roster| std::mem::replace(&mut roster.mesh_lost, lost.clone()) != lost);
    if is_news {
        tracing::error!(%error, "this control plane changes nothing, and keeps what it knows");
    }
}

async fn follow(config: MemberConfig, heir: Heir, ended: Arc<AtomicBool>) {
    loop {
        let reason = match open(&config, &heir.anchor).await {
            Ok(opened) => {
                let found = |roster: &mut Roster| roster.mesh_lost.take().is_some();
                if heir.roster.send_if_modified(found) {
                    tracing::info!("the mesh of this control plane is in the store again");
                }
                heir.last.forget();
                let (heir, ended) = (heir.clone(), ended.clone());
                match task::blocking(move || show(opened, &heir, &ended)).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => {
                note_loss(&heir.roster, &error);
                error.to_string()
            }
        };
        tracing::debug!(reason, "the store is not followed; what is shown may be old");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Shows what an open store holds, and what others write there, until `ended` or an error. What it held last stays known.
fn show((store, image): (Store, Image), heir: &Heir, ended: &AtomicBool) -> Result<(), ReadError> {
    let mut follower = Follower::new(store, image)?;
    let shown = follow_on(&mut follower, &heir.registry, ended);
    follower.leave_to(&heir.last);
    shown
}

fn follow_on(follower: &mut Follower, registry: &Registry, ended: &AtomicBool) -> Result<(), ReadError> {
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
