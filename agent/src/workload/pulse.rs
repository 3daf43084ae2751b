//! Condition of a workload's processes, apart from its sockets: frozen by the kernel or not, and described by their
//! runtime.

use std::time::Duration;

use sealane_base::task::Task;
use tokio::sync::watch;
use tokio::time::Instant;

use super::freezer;
use crate::attachment::{Condition, Said};

/// Time for which a runtime may say nothing of a workload of before, until it counts as one that serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Knowledge of a workload's processes.
pub(super) struct Pulse {
    frozen: Option<(watch::Receiver<bool>, Task)>,
    said: Option<watch::Receiver<Said>>,
    /// Until when it is waited for what the runtime says.
    until: Instant,
}

impl Pulse {
    /// Watches the process `pid`, of which `said` tells; one that was `adopted` is as it was until something is said.
    pub(super) fn of(pid: Option<u32>, said: Option<watch::Receiver<Said>>, adopted: bool) -> Self {
        let patience = if adopted { PATIENCE } else { Duration::ZERO };
        Self { frozen: pid.and_then(freezer::watch), said, until: Instant::now() + patience }
    }

    /// Returns their condition.
    pub(super) fn condition(&self) -> Condition {
        if self.frozen.as_ref().is_some_and(|(frozen, _)| *frozen.borrow()) {
            return Condition::Paused;
        }
        match self.said.as_ref().map(|said| said.borrow().condition) {
            None => Condition::Serves,
            Some(Condition::Unknown) if Instant::now() >= self.until => Condition::Serves,
            Some(condition) => condition,
        }
    }

    /// Returns true if one of the workload's ports is enough.
    pub(super) fn any_port(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.borrow().any_port)
    }

    /// Returns when something may be different. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let waits = self.condition() == Condition::Unknown;
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
        let (say, said) = watch::channel(Said::default());
        let mut pulse = Pulse::of(None, Some(said), true);
        assert_eq!(pulse.condition(), Condition::Unknown);
        say.send_modify(|said| said.condition = Condition::Unhealthy);
        pulse.changed().await;
        assert_eq!(pulse.condition(), Condition::Unhealthy);

        say.send_modify(|said| said.condition = Condition::Unknown);
        let mut pulse = Pulse::of(None, Some(say.subscribe()), true);
        pulse.changed().await;
        assert_eq!(pulse.condition(), Condition::Serves, "silent for long");
        assert_eq!(Pulse::of(None, Some(say.subscribe()), false).condition(), Condition::Serves, "a new one");
        assert_eq!(Pulse::of(None, None, true).condition(), Condition::Serves);
    }
}
