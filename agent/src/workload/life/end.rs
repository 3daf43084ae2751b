//! The end of an attachment: nobody sends to it any more, then it leaves the kernel and the memory.

use std::time::{Duration, Instant};

use super::super::plumbing;
use super::Life;
use super::settling::{Knowledge, Settling, Wait};
use crate::host::DataPlane;
use crate::sidecar::{Command, stop_of};

/// Limit for work that still runs through a sidecar when its workload has ended, where nobody says otherwise.
const DRAIN: Duration = Duration::from_secs(1);

impl Life {
    /// Out of names and balancing, then, when calls through its sidecar have ended or had the time `drain`, out of the kernel.
    pub(in crate::workload) async fn retire(&mut self, drain: Option<Duration>) {
        // Nobody waits for what served a workload that is gone.
        for plane in [DataPlane::Sidecar, DataPlane::Rules] {
            self.context.host.applied(self.id.clone(), plane, None).await;
        }
        if let Some(version) = self.context.host.end(self.id.clone()).await {
            self.settle(version).await;
        }
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.commands.send(Command::Drain { deadline: drain.unwrap_or(DRAIN) }).await.is_ok()
        {
            // A supervisor that panicked leaves a process that the next agent ends.
            let _ = supervisor.task.await;
        }
        self.stop_recorded_sidecar();
        // An agent that ends removes it too, and makes no other.
        let _ = self.context.host.detach(self.id.clone()).await;
        plumbing::unplumb(&self.context.kernel, &self.attachment, self.fixtures.take()).await;
    }

    /// Out of memory.
    pub(in crate::workload) async fn forget(&self) {
        self.context.host.remove(self.id.clone()).await;
        self.forget_identity();
    }

    /// An identity that nobody on this host has any more is neither renewed nor watched over.
    fn forget_identity(&self) {
        let host_network = self.host_network.borrow().clone();
        let shared = host_network.snapshot.workloads.iter().any(|known| {
            known.node == self.context.node
                && known.name != self.id.workload
                && known.service.is_some()
                && known.service == self.attachment.workload.service
        });
        if shared {
            return;
        }
        if let Err(error) = self.context.identities.forget(&self.principal()) {
            tracing::error!(%error, workload = %self.id, "cannot forget an identity");
        }
    }

    /// Stops the sidecar that an earlier agent started for a workload that ended while no agent was there, so that none
    /// took it up. Otherwise its record went with it.
    fn stop_recorded_sidecar(&self) {
        if let Err(error) = stop_of(&self.context.kernel.run_dir, &self.id.record_name()) {
            tracing::error!(%error, workload = %self.id, "cannot end a sidecar");
        }
    }

    /// Waits until nobody sends to the workload any more, as far as that is worth it.
    async fn settle(&self, version: u64) {
        let mut reported = self.context.host.views.reported.clone();
        let mut link = self.context.host.views.link.clone();
        let mut told = self.context.host.views.told.clone();
        let mut settling = Settling::new(version, self.registered);
        loop {
            let connected = link.borrow_and_update().channel.is_some();
            let settled = reported.borrow_and_update().settled;
            // Nobody hears of a network that this host does not carry any more.
            let told_all =
                told.borrow_and_update().get(&self.id.network).map_or(u64::MAX, |told| told.version);
            let due = match settling.poll(Knowledge { settled, told: told_all, connected }, Instant::now()) {
                Wait::Confirmed | Wait::Told => return,
                Wait::GivenUp => {
                    tracing::warn!(workload = %self.id, "not every host has confirmed the end of a workload");
                    return;
                }
                Wait::Until(due) => due,
            };
            tokio::select! {
                changed = reported.changed() => if changed.is_err() { return },
                changed = link.changed() => if changed.is_err() { return },
                changed = told.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }
}
