//! Another sidecar in the place of one that works, or does not any more: started beside it, it takes over, or the first one
//! goes on.

use std::time::Duration;

use sealane_base::task;
use sealane_base::timer::sleep_until;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Run};
use crate::sidecar::leaving::{self, Leaving};
use crate::sidecar::process::SidecarProcess;
use crate::sidecar::pulse::SidecarPulse;
use crate::sidecar::registry::Connected;
use crate::sidecar::telling::Telling;

/// Limit for a new sidecar to work, before the one that it was to follow goes on.
const START: Duration = Duration::from_secs(10);
/// Number of sidecars that were followed and still carry something at which no other one follows unasked.
const CROWD: usize = 3;

/// A sidecar that another one is to follow.
#[derive(Debug)]
pub(super) struct Followed {
    process: SidecarProcess,
    /// Channel by which it can be told what it has to do, where it is connected, what that has carried, and its pulse.
    connected: Option<(Connected, Telling, SidecarPulse)>,
    /// Whoever asked for it, where somebody did.
    answer: Option<Answer>,
    /// Time by which the other one must work.
    until: Instant,
}

impl Run {
    /// Starts another sidecar beside this one; returns the one to go on with.
    pub(super) fn follow(
        &mut self,
        mut process: SidecarProcess,
        connected: Option<Connected>,
        answer: Option<Answer>,
    ) -> SidecarProcess {
        let pulse = std::mem::take(&mut self.pulse);
        let telling = std::mem::replace(&mut self.telling, Telling::to_nobody());
        match process.set_aside().and_then(|()| self.parts.spawn()) {
            Ok(next) => {
                let connected = connected.map(|connected| (connected, telling, pulse));
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
            connected.map(|(connected, ..)| connected),
            answer,
            "the other did not come to work; the agent's log says why".to_owned(),
        )
    }

    fn go_back(
        &mut self,
        mut process: SidecarProcess,
        connected: Option<Connected>,
        answer: Option<Answer>,
        why: String,
    ) -> SidecarProcess {
        if let Err(error) = process.come_back(&self.parts.id) {
            tracing::error!(%error, workload = %self.parts.id, "the next agent will not find the sidecar");
        }
        tracing::warn!(workload = %self.parts.id, why, "the sidecar is not replaced");
        self.turn = None;
        // An asker that left has no use for it.
        let _ = answer.map(|answer| answer.send(Err(why)));
        self.resumed = connected;
        process
    }

    /// Tells whether another one may follow unasked: not while some that were followed are still there, so that a folder that is
    /// removed again and again makes no crowd, and only a few of a host's at a time.
    pub(super) fn may_follow(&mut self) -> bool {
        self.departed.retain(|(_, task)| !task.is_finished());
        if self.followed.is_some() || self.departed.len() >= CROWD {
            return false;
        }
        self.turn = self.registry.turn();
        self.turn.is_some()
    }

    /// The sidecar that was followed carries on what it has.
    pub(super) fn depart(&mut self, followed: Followed) {
        self.turn = None;
        let Followed { process, connected, answer, .. } = followed;
        self.departed.retain(|(_, task)| !task.is_finished());
        let (end, ended) = oneshot::channel();
        let (registry, id, feed) = (self.registry.clone(), self.parts.id.clone(), self.feed.clone());
        let task = task::spawn("sidecar-leaving", async move {
            let last = match connected {
                Some((connected, telling, pulse)) => {
                    Leaving { process, connected, telling, feed, pulse }.accompany(ended).await
                }
                None => {
                    leaving::end(process, ended).await;
                    Vec::new()
                }
            };
            registry.retire(&id, last);
        });
        self.departed.push((end, task));
        // An asker that left has no use for it.
        let _ = answer.map(|answer| answer.send(Ok(())));
    }
}

/// Returns when a sidecar has had its time to take over from another; never, when it follows none.
pub(super) async fn overdue(followed: Option<&Followed>) {
    sleep_until(followed.map(|followed| followed.until)).await;
}
