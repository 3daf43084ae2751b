//! Decision how long what served a workload that has ended stays in the kernel. Pure.
//!
//! Namespace and sidecar stay until nobody sends to the workload any more, and refuse calls at once, instead of leaving them unanswered.
//! While control is not there, nobody confirms that; the other hosts hear of the end from this one, and say when they work by it.

use std::time::{Duration, Instant};

/// Time for which the end of a workload waits for hosts that are slow to stop sending to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same while control is away for a workload of which it does not know: other hosts know it from this one alone, if it ever worked.
const FEW: Duration = Duration::from_secs(1);

/// Wait of a workload that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settling {
    /// The report that tells of the end.
    version: u64,
    /// True if control may know of the workload.
    registered: bool,
    /// Time since which control is there.
    connected: Option<Instant>,
    /// Time since which it is not.
    alone: Option<Instant>,
}

/// Knowledge of others about a host's workloads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knowledge {
    /// The newest report that every connected host works by, as control says.
    pub(crate) settled: u64,
    /// The newest report whose content every host with a channel to this one works by.
    pub(crate) told: u64,
    /// True if control is there.
    pub(crate) connected: bool,
}

/// Result of a look at the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Every connected host has confirmed the end.
    Confirmed,
    /// The other hosts work by the end as they have heard it from this one, and control is not there to confirm it.
    Told,
    /// Hosts have had their time.
    GivenUp,
    /// Something must happen, or this time come.
    Until(Instant),
}

impl Settling {
    /// The end that this report tells.
    pub(crate) fn new(version: u64, registered: bool) -> Self {
        Self { version, registered, connected: None, alone: None }
    }

    /// Looks whether the wait is over.
    pub(crate) fn poll(&mut self, progress: Knowledge, now: Instant) -> Wait {
        if progress.settled >= self.version {
            return Wait::Confirmed;
        }
        if !progress.connected {
            self.connected = None;
            let patience = if self.registered { PATIENCE } else { FEW };
            let given_up = *self.alone.get_or_insert(now) + patience;
            return if progress.told >= self.version {
                Wait::Told
            } else if given_up <= now {
                Wait::GivenUp
            } else {
                Wait::Until(given_up)
            };
        }
        self.alone = None;
        let due = *self.connected.get_or_insert(now) + PATIENCE;
        if due <= now { Wait::GivenUp } else { Wait::Until(due) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settled: u64, told: u64, connected: bool) -> Knowledge {
        Knowledge { settled, told, connected }
    }

    #[test]
    fn slow_hosts_are_waited_for_as_long_as_control_is_there_for_a_while() {
        let (mut settling, now) = (Settling::new(7, true), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(settling.poll(of(6, 7, true), now), Wait::Until(later(10)), "control has the word");
        assert_eq!(settling.poll(of(6, 7, true), later(9)), Wait::Until(later(10)));
        assert_eq!(settling.poll(of(6, 7, true), later(10)), Wait::GivenUp);
        assert_eq!(settling.poll(of(7, 7, true), later(10)), Wait::Confirmed);
    }

    #[test]
    fn without_control_the_other_hosts_say_that_they_work_by_what_they_have_heard_from_this_one() {
        let (mut settling, now) = (Settling::new(7, true), Instant::now());
        let later = |millis| now + Duration::from_millis(millis);
        assert_eq!(settling.poll(of(6, 6, false), now), Wait::Until(later(10_000)));
        assert_eq!(settling.poll(of(6, 7, true), later(200)), Wait::Until(later(10_200)), "control is back");
        assert_eq!(settling.poll(of(6, 6, false), later(300)), Wait::Until(later(10_300)), "and gone again");
        assert_eq!(settling.poll(of(6, 7, false), later(400)), Wait::Told);
        assert_eq!(settling.poll(of(7, 7, false), later(400)), Wait::Confirmed);
        let mut deaf = Settling::new(7, true);
        deaf.poll(of(6, 6, false), now);
        assert_eq!(deaf.poll(of(6, 6, false), later(10_000)), Wait::GivenUp);
    }

    #[test]
    fn one_that_control_does_not_know_waits_for_the_other_hosts_for_a_second_while_control_is_away() {
        let (mut settling, now) = (Settling::new(7, false), Instant::now());
        assert!(matches!(settling.poll(of(0, 0, true), now), Wait::Until(_)), "the report may be on its way");
        let later = |millis| now + Duration::from_millis(millis);
        assert_eq!(settling.poll(of(0, 0, false), now), Wait::Until(later(1_000)));
        assert_eq!(settling.poll(of(0, 6, false), later(20)), Wait::Until(later(1_000)));
        assert_eq!(settling.poll(of(0, 7, false), later(320)), Wait::Told);
        let mut deaf = Settling::new(7, false);
        deaf.poll(of(0, 0, false), now);
        assert_eq!(deaf.poll(of(0, 0, false), later(1_000)), Wait::GivenUp);
    }
}
