//! The signs of life of a workload's sidecar, without which it gets no calls.

use std::time::Duration;

use tokio::sync::watch;

use super::Life;
use crate::sidecar::{BEAT, LOST, SILENT};

/// Time for which a sidecar may be away, which is started again when it dies, until its workload gets no calls.
pub(super) const SILENCE: Duration = BEAT.saturating_mul(SILENT);

/// By what a sidecar is known to work.
pub(super) struct Signs {
    pub(super) applied: watch::Receiver<Option<u64>>,
    silent: watch::Receiver<Option<u32>>,
}

impl Life {
    pub(super) fn signs(&self) -> Option<Signs> {
        let supervisor = self.supervisor.as_ref()?;
        Some(Signs { applied: supervisor.applied.clone(), silent: supervisor.silent.clone() })
    }

    /// Says why its sidecar is not heard of.
    pub(super) fn why_silent(&self) -> String {
        if let Some(process) = self.supervisor.as_ref().and_then(|supervisor| *supervisor.silent.borrow()) {
            return format!(
                "its process {process} has not answered for {SILENCE:?}; one that is stopped goes on after `kill -CONT {process}`, \
                 and another one takes its place after {:?}",
                BEAT * LOST
            );
        }
        let socket = self.context.kernel.run_dir.sidecar_socket();
        let socket = socket.display();
        format!(
            "it has not been heard of at {socket} for {SILENCE:?}; the agent's log says whether it starts"
        )
    }
}

/// Returns when a sidecar is found not to answer; never, when there is none. Cancel safe.
pub(super) async fn silent(signs: Option<&mut Signs>) {
    let Some(signs) = signs else { return std::future::pending().await };
    loop {
        if signs.silent.changed().await.is_err() {
            return std::future::pending().await;
        }
        if signs.silent.borrow_and_update().is_some() {
            return;
        }
    }
}
