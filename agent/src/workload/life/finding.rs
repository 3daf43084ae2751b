//! Pace at which others hear what keeps a workload from being ready. Pure.

use std::time::{Duration, Instant};

use sealane_proto::types::Finding;

/// Time after words for which other ones wait: those of a command may be others each time, and go to every host.
const PACE: Duration = Duration::from_secs(10);

/// Words that are said, and those that should be.
#[derive(Debug)]
pub(super) struct FindingCore {
    said: Finding,
    found: Finding,
    /// Time from which other words may be said.
    again: Instant,
}

impl FindingCore {
    /// A workload of which nothing has been said.
    pub(super) fn new(now: Instant) -> Self {
        Self { said: Finding::default(), found: Finding::default(), again: now }
    }

    /// Takes what is so now; returns true if that is to be said now: the first and the last words at once, as all when something
    /// else is said too (`anyway`).
    pub(super) fn poll(&mut self, found: Finding, anyway: bool, now: Instant) -> bool {
        self.found = found;
        let is_first = self.said.is_empty() || self.found.is_empty();
        let is_due = self.found != self.said && (anyway || is_first || self.again <= now);
        if is_due {
            (self.said, self.again) = (self.found.clone(), now + PACE);
        }
        is_due
    }

    /// Words that were said last.
    pub(super) fn said(&self) -> &Finding {
        &self.said
    }

    /// Time at which words are to be said.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.found != self.said).then_some(self.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_words_are_said_at_once_and_others_seldom() {
        let began = Instant::now();
        let mut core = FindingCore::new(began);
        let mut check = |seconds: u64, found: &str, anyway: bool, said: &str, due: Option<u64>| {
            let before = core.said().clone();
            let is_said = core.poll(Finding::new(found), anyway, began + Duration::from_secs(seconds));
            assert_eq!((core.said().as_str(), is_said), (said, before.as_str() != said), "at {seconds}");
            assert_eq!(core.due(), due.map(|due| began + Duration::from_secs(due)), "at {seconds}");
        };
        check(0, "", false, "", None);
        check(1, "status 500", false, "status 500", None);
        check(2, "status 501", false, "status 500", Some(11));
        check(3, "status 500", false, "status 500", None);
        check(4, "status 502", false, "status 500", Some(11));
        check(11, "status 502", false, "status 502", None);
        check(12, "status 503", true, "status 503", None);
        check(13, "", false, "", None);
    }
}
