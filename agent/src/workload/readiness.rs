//! Decision whether calls may be sent to a workload. Pure.

use sealane_fabric::health::Families;

use crate::attachment::ContainerCondition;

/// Facts that a workload's readiness depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadinessFacts {
    /// Families at which the workload listens; `None` before that was read.
    pub(super) listens: Option<Families>,
    /// True if the sidecar answers, or the workload is to have none.
    pub(super) sidecar: bool,
    /// Condition of the processes.
    pub(super) condition: ContainerCondition,
    /// True if its check finds it healthy, or it has none; `None` before that is known of one of before.
    pub(super) healthy: Option<bool>,
}

impl ReadinessFacts {
    /// Returns where the workload is ready; `None` leaves it as it was before this agent.
    pub(super) fn ready(self) -> Option<Families> {
        let stands = self.sidecar && self.healthy != Some(false);
        match self.condition {
            ContainerCondition::Serves if stands => {
                self.listens.filter(|seen| self.healthy.is_some() || !seen.any())
            }
            ContainerCondition::Unknown if stands => None,
            ContainerCondition::Serves
            | ContainerCondition::Unknown
            | ContainerCondition::Starting
            | ContainerCondition::Unhealthy
            | ContainerCondition::Paused
            | ContainerCondition::Ended => Some(Families::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_ready_stays_so_until_it_is_read_unless_something_is_known_to_be_wrong() {
        let check = |listens: Option<bool>, sidecar, condition, expected: Option<bool>| {
            let listens = listens.map(Families::both);
            let facts = ReadinessFacts { listens, sidecar, condition, healthy: Some(true) };
            assert_eq!(facts.ready(), expected.map(Families::both));
            // One that is found unhealthy is never ready, and what only its check knows is waited for.
            let found = |healthy| ReadinessFacts { healthy, ..facts }.ready();
            assert_eq!(found(Some(false)), Some(Families::default()));
            assert_eq!(found(None), expected.filter(|ready| !ready).map(Families::both));
        };
        check(None, true, ContainerCondition::Serves, None);
        check(None, false, ContainerCondition::Serves, Some(false));
        check(None, true, ContainerCondition::Paused, Some(false));
        check(Some(true), true, ContainerCondition::Serves, Some(true));
        check(Some(true), false, ContainerCondition::Serves, Some(false));
        check(Some(true), true, ContainerCondition::Starting, Some(false));
        check(Some(true), true, ContainerCondition::Unhealthy, Some(false));
        check(Some(true), true, ContainerCondition::Ended, Some(false));
        check(Some(false), true, ContainerCondition::Serves, Some(false));
        check(Some(false), true, ContainerCondition::Unknown, None);
        check(Some(true), false, ContainerCondition::Unknown, Some(false));
    }
}
