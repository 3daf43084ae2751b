//! Decision how long what served a workload that has ended stays in the kernel. Pure.
//!
//! Namespace and sidecar stay until nobody sends to the workload any more, and refuse calls at once, instead of leaving them unanswered.
//! While control is not there, nobody confirms that; the other hosts hear of the end from this one.

use std::time::{Duration, Instant};

/// Time for which the end of a workload waits for hosts that are slow to stop sending to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time within which other hosts have heard of an end from this one, and work by that.
const HEARD: Duration = Duration::from_secs(1);

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

/// Result of a look at the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Every connected host has confirmed the end.
    Confirmed,
    /// Nobody else has heard of the workload.
    Unknown,
    /// The other hosts have been told of the end by this one, and control is not there to confirm it.
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

    /// Looks whether the wait is over: `settled` is the newest report that every connected host works by, `connected` says whether
    /// control is there.
    pub(crate) fn poll(&mut self, settled: u64, connected: bool, now: Instant) -> Wait {
        if settled >= self.version {
            return Wait::Confirmed;
        }
        if !connected {
            self.connected = None;
            let due = *self.alone.get_or_insert(now) + HEARD;
            return match self.registered {
                false => Wait::Unknown,
                true if due <= now => Wait::Told,
                true => Wait::Until(due),
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

    #[test]
    fn slow_hosts_are_waited_for_as_long_as_control_is_there_for_a_while() {
        let (mut settling, now) = (Settling::new(7, true), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(settling.poll(6, true, now), Wait::Until(later(10)));
        assert_eq!(settling.poll(6, true, later(9)), Wait::Until(later(10)));
        assert_eq!(settling.poll(6, true, later(10)), Wait::GivenUp);
        assert_eq!(settling.poll(7, true, later(10)), Wait::Confirmed);
    }

    #[test]
    fn without_control_the_other_hosts_have_the_time_to_hear_it_from_this_one() {
        let (mut settling, now) = (Settling::new(7, true), Instant::now());
        let later = |millis| now + Duration::from_millis(millis);
        assert_eq!(settling.poll(6, false, now), Wait::Until(later(1_000)));
        assert_eq!(settling.poll(6, true, later(900)), Wait::Until(later(10_900)), "control is back");
        assert_eq!(settling.poll(6, false, later(950)), Wait::Until(later(1_950)), "and gone again");
        assert_eq!(settling.poll(6, false, later(1_950)), Wait::Told);
        assert_eq!(settling.poll(7, false, later(1_950)), Wait::Confirmed);
    }

    #[test]
    fn one_that_nobody_has_heard_of_waits_for_nobody_while_control_is_away() {
        let (mut settling, now) = (Settling::new(7, false), Instant::now());
        assert!(matches!(settling.poll(0, true, now), Wait::Until(_)), "the report may be on its way");
        assert_eq!(settling.poll(0, false, now), Wait::Unknown);
    }
}
