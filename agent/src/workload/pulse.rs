//! Condition of a workload's processes, apart from its sockets: frozen by the kernel or not, and described by their
//! runtime.

use std::time::Duration;

use sealane_base::task::Task;
use tokio::sync::watch;
use tokio::time::Instant;

use super::freezer;
use crate::attachment::{ContainerCondition, RuntimeReport};

/// Time for which a runtime may say nothing of a workload of before, until it counts as one that serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Knowledge of a workload's processes.
pub(super) struct ProcessPulse {
    frozen: Option<(watch::Receiver<bool>, Task)>,
    said: Option<watch::Receiver<RuntimeReport>>,
    /// Until when it is waited for what the runtime says.
    until: Instant,
}

impl ProcessPulse {
    /// Watches the process `pid`, of which `said` tells; one that was `adopted` is as it was until something is said.
    pub(super) fn of(pid: Option<u32>, said: Option<watch::Receiver<RuntimeReport>>, adopted: bool) -> Self {
        let patience = if adopted { PATIENCE } else { Duration::ZERO };
        Self { frozen: pid.and_then(freezer::watch), said, until: Instant::now() + patience }
    }

    /// Returns their condition.
    pub(super) fn condition(&self) -> ContainerCondition {
        if self.frozen.as_ref().is_some_and(|(frozen, _)| *frozen.borrow()) {
            return ContainerCondition::Paused;
        }
        match self.said.as_ref().map(|said| said.borrow().condition) {
            None => ContainerCondition::Serves,
            Some(ContainerCondition::Unknown) if Instant::now() >= self.until => ContainerCondition::Serves,
            Some(condition) => condition,
        }
    }

    /// Returns true if one of the workload's ports is enough.
    pub(super) fn any_port(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.borrow().any_port)
    }

    /// Returns when something may be different. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let waits = self.condition() == ContainerCondition::Unknown;
        tokio::select! {
            _frozen = next(self.frozen.as_mut().map(|(frozen, _)| frozen)) => {}
            _said = next(self.said.as_mut()) => {}
            () = tokio::time::sleep_until(self.until), if waits => {}
        }
    }
}

/// Returns the next value of a watch that may not be there; never, when it is not or has ended. Cancel safe.
pub(super) async fn next<T: Clone>(receiver: Option<&mut watch::Receiver<T>>) -> T {
    let Some(receiver) = receiver else { return std::future::pending().await };
    match receiver.changed().await {
        Ok(()) => receiver.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_of_before_is_as_it_was_until_its_runtime_says_more_or_has_been_silent_for_long() {
        let (say, said) = watch::channel(RuntimeReport::default());
        let mut pulse = ProcessPulse::of(None, Some(said), true);
        assert_eq!(pulse.condition(), ContainerCondition::Unknown);
        say.send_modify(|said| said.condition = ContainerCondition::Unhealthy);
        pulse.changed().await;
        assert_eq!(pulse.condition(), ContainerCondition::Unhealthy);

        say.send_modify(|said| said.condition = ContainerCondition::Unknown);
        let mut pulse = ProcessPulse::of(None, Some(say.subscribe()), true);
        pulse.changed().await;
        assert_eq!(pulse.condition(), ContainerCondition::Serves, "silent for long");
        assert_eq!(
            ProcessPulse::of(None, Some(say.subscribe()), false).condition(),
            ContainerCondition::Serves,
            "a new one"
        );
        assert_eq!(ProcessPulse::of(None, None, true).condition(), ContainerCondition::Serves);
    }
}
