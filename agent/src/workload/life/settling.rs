//! Decision how long what served a workload that has ended stays in the kernel. Pure.
//!
//! It stays until nobody sends to the workload any more. While control is not there, other hosts do not hear of the end: namespace and
//! sidecar stay and refuse their calls at once, instead of leaving them unanswered.

use std::time::{Duration, Instant};

/// Time for which the end of a workload waits for hosts that are slow to stop sending to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Wait of a workload that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settling {
    /// The report that tells of the end.
    version: u64,
    /// True if control may know of the workload.
    registered: bool,
    /// Time since which control is there.
    connected: Option<Instant>,
}

/// Result of a look at the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Every connected host has confirmed the end.
    Confirmed,
    /// Nobody else has heard of the workload.
    Unknown,
    /// Hosts have had their time.
    GivenUp,
    /// Something must happen, or this time come.
    Until(Option<Instant>),
}

impl Settling {
    /// The end that this report tells.
    pub(crate) fn new(version: u64, registered: bool) -> Self {
        Self { version, registered, connected: None }
    }

    /// Looks whether the wait is over: `settled` is the newest report that every connected host works by, `connected` says whether
    /// control is there.
    pub(crate) fn poll(&mut self, settled: u64, connected: bool, now: Instant) -> Wait {
        if settled >= self.version {
            return Wait::Confirmed;
        }
        if !connected {
            self.connected = None;
            return if self.registered { Wait::Until(None) } else { Wait::Unknown };
        }
        let due = *self.connected.get_or_insert(now) + PATIENCE;
        if due <= now { Wait::GivenUp } else { Wait::Until(Some(due)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_hosts_are_waited_for_as_long_as_control_is_there_for_a_while_and_without_it_for_ever() {
        let (mut settling, now) = (Settling::new(7, true), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(settling.poll(6, true, now), Wait::Until(Some(later(10))));
        assert_eq!(settling.poll(6, true, later(9)), Wait::Until(Some(later(10))));
        assert_eq!(settling.poll(6, false, later(9)), Wait::Until(None));
        assert_eq!(settling.poll(6, false, later(900)), Wait::Until(None));
        assert_eq!(
            settling.poll(6, true, later(901)),
            Wait::Until(Some(later(911))),
            "they begin anew with control"
        );
        assert_eq!(settling.poll(6, true, later(911)), Wait::GivenUp);
        assert_eq!(settling.poll(7, false, later(911)), Wait::Confirmed);
    }

    #[test]
    fn one_that_nobody_has_heard_of_waits_for_nobody_while_control_is_away() {
        let (mut settling, now) = (Settling::new(7, false), Instant::now());
        assert!(matches!(settling.poll(0, true, now), Wait::Until(Some(_))), "the report may be on its way");
        assert_eq!(settling.poll(0, false, now), Wait::Unknown);
    }
}
