//! Whether calls may be sent to a workload. Pure.

/// What must hold for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether it listens; `None` before that was read.
    pub(super) listens: Option<bool>,
    /// Whether its sidecar is heard of, if it is to have one.
    pub(super) sidecar: bool,
    /// Whether it runs, and is not paused.
    pub(super) runs: bool,
}

impl Standing {
    /// Whether it is ready; `None`: as it was before this agent.
    pub(super) fn is_ready(self) -> Option<bool> {
        if self.sidecar && self.runs { self.listens } else { Some(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_ready_stays_so_until_it_is_read_unless_something_is_known_to_be_wrong() {
        let check = |listens, sidecar, runs, expected| {
            assert_eq!(Standing { listens, sidecar, runs }.is_ready(), expected);
        };
        check(None, true, true, None);
        check(None, false, true, Some(false));
        check(None, true, false, Some(false));
        check(Some(true), true, true, Some(true));
        check(Some(true), false, true, Some(false));
        check(Some(true), true, false, Some(false));
        check(Some(false), true, true, Some(false));
    }
}
