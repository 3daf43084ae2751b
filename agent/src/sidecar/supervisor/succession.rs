//! Another sidecar in the place of one that works: started beside it, it takes over, or the first one goes on.

use std::time::Duration;

use sealane_base::task;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Run;
use crate::sidecar::leaving::Leaving;
use crate::sidecar::process::SidecarProcess;
use crate::sidecar::registry::Connected;

/// Limit for a new sidecar to work, before the one that it was to follow goes on.
const START: Duration = Duration::from_secs(10);

/// A sidecar that another one is to follow.
#[derive(Debug)]
pub(super) struct Followed {
    process: SidecarProcess,
    connected: Connected,
    answer: oneshot::Sender<Result<(), String>>,
    /// Time by which the other one must work.
    until: Instant,
}

impl Run {
    /// Starts another sidecar beside this one; returns the one to go on with.
    pub(super) fn follow(
        &mut self,
        mut process: SidecarProcess,
        connected: Connected,
        answer: oneshot::Sender<Result<(), String>>,
    ) -> SidecarProcess {
        match process.set_aside().and_then(|()| self.parts.spawn()) {
            Ok(next) => {
                self.followed = Some(Followed { process, connected, answer, until: Instant::now() + START });
                next
            }
            Err(error) => {
                self.go_back(process, connected, answer, format!("no other can be started: {error}"))
            }
        }
    }

    /// Ends a sidecar that did not come to work, and goes on with the one that it was to follow.
    pub(super) async fn fall_back(
        &mut self,
        mut process: SidecarProcess,
        followed: Followed,
    ) -> SidecarProcess {
        process.cut_off().await;
        process.forget();
        let Followed { process, connected, answer, .. } = followed;
        self.go_back(
            process,
            connected,
            answer,
            "the other did not come to work; the agent's log says why".to_owned(),
        )
    }

    fn go_back(
        &mut self,
        mut process: SidecarProcess,
        connected: Connected,
        answer: oneshot::Sender<Result<(), String>>,
        why: String,
    ) -> SidecarProcess {
        if let Err(error) = process.come_back(&self.parts.key) {
            tracing::error!(%error, key = %self.parts.key, "the next agent will not find the sidecar");
        }
        // An asker that left has no use for it.
        let _ = answer.send(Err(why));
        self.resumed = Some(connected);
        process
    }

    /// The sidecar that was followed carries on what it has.
    pub(super) fn depart(&mut self, followed: Followed) {
        let Followed { process, connected, answer, .. } = followed;
        self.departed.retain(|(_, task)| !task.is_finished());
        let (end, ended) = oneshot::channel();
        let (registry, key) = (self.registry.clone(), self.parts.key.clone());
        let leaving = Leaving { process, connected, feed: self.feed.clone() };
        let task = task::spawn("sidecar-leaving", async move {
            let last = leaving.accompany(ended).await;
            registry.retire(&key, last);
        });
        self.departed.push((end, task));
        // An asker that left has no use for it.
        let _ = answer.send(Ok(()));
    }
}

/// Returns when a sidecar has had its time to take over from another; never, when it follows none.
pub(super) async fn overdue(followed: Option<&Followed>) {
    match followed {
        Some(followed) => tokio::time::sleep_until(followed.until).await,
        None => std::future::pending().await,
    }
}
