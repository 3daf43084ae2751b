//! Decision if calls may be sent to a workload. Pure.

use crate::attachment::Condition;

/// Facts that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// True if it listens; `None` before that was read.
    pub(super) listens: Option<bool>,
    /// True if its sidecar is heard of, where it is to have one.
    pub(super) sidecar: bool,
    /// Condition of its processes.
    pub(super) condition: Condition,
}

impl Standing {
    /// Returns true if it is ready; `None`: as it was before this agent.
    pub(super) fn is_ready(self) -> Option<bool> {
        match self.condition {
            Condition::Serves if self.sidecar => self.listens,
            Condition::Unknown if self.sidecar => None,
            Condition::Serves
            | Condition::Unknown
            | Condition::Starting
            | Condition::Unhealthy
            | Condition::Paused
            | Condition::Ended => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_ready_stays_so_until_it_is_read_unless_something_is_known_to_be_wrong() {
        let check = |listens, sidecar, condition, expected| {
            assert_eq!(Standing { listens, sidecar, condition }.is_ready(), expected);
        };
        check(None, true, Condition::Serves, None);
        check(None, false, Condition::Serves, Some(false));
        check(None, true, Condition::Paused, Some(false));
        check(Some(true), true, Condition::Serves, Some(true));
        check(Some(true), false, Condition::Serves, Some(false));
        check(Some(true), true, Condition::Starting, Some(false));
        check(Some(true), true, Condition::Unhealthy, Some(false));
        check(Some(true), true, Condition::Ended, Some(false));
        check(Some(false), true, Condition::Serves, Some(false));
        check(Some(false), true, Condition::Unknown, None);
        check(Some(true), false, Condition::Unknown, Some(false));
    }
}
