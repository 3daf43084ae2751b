//! Hints: hosts tell each other whose turn it is, above the number of peers that each asks all the time. Pure.
//!
//! A hint says that its sender has found a host changed. It decides nothing: whoever gets it sends that host one echo out of
//! turn, and judges by the answer as by any other. So one that is wrong, or a lie, costs an echo, and there are only so many
//! per sender and in all. Whoever finds the same passes it on, which reaches everybody within a few round trips (the
//! dissemination of SWIM, Das et al. 2002). A host that gets no processor, or hears nobody, gives no hints (the local health of
//! Lifeguard, Dadgar et al. 2018).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_proto::types::NodeName;

use super::SAMPLE;

/// Hosts that are told of a change: so many that, passed on by each, it misses nobody.
pub(super) const TOLD: usize = 16;
/// Echoes out of turn per interval that one host can bring about by its hints, and that all can.
const OF_ONE: usize = 8;
const OF_ALL: usize = SAMPLE;
/// Hosts that this one gives hints about per interval.
const ABOUT: usize = 2 * SAMPLE;

/// Hints under way, and the bounds to them.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Hints to send, by the host that gets them.
    going: BTreeMap<NodeName, BTreeSet<NodeName>>,
    /// Number of hosts that hints were given about in this interval.
    given: usize,
    /// Echoes that each host's hints have brought about in this interval.
    spent: BTreeMap<NodeName, usize>,
    /// The sum of these.
    spent_by_all: usize,
    /// Time until which this host gives none, as it was late.
    quiet: Option<Instant>,
}

impl Hints {
    /// An interval begins.
    pub(super) fn begin_round(&mut self) {
        (self.given, self.spent_by_all) = (0, 0);
        self.spent.clear();
    }

    /// Notes that this host got no processor: what it finds for a while may be its own fault.
    pub(super) fn handle_late(&mut self, until: Instant) {
        self.quiet = Some(until);
        self.going.clear();
    }

    /// Returns true if a host may bring about another echo by its hint, and counts that.
    pub(super) fn admit(&mut self, from: &NodeName) -> bool {
        let spent = self.spent.entry(from.clone()).or_default();
        let may = *spent < OF_ONE && self.spent_by_all < OF_ALL;
        *spent += usize::from(may);
        self.spent_by_all += usize::from(may);
        may
    }

    /// Returns true if this host may give a hint about another one now.
    pub(super) fn may_give(&self, now: Instant) -> bool {
        self.given < ABOUT && self.quiet.is_none_or(|until| now >= until)
    }

    /// Gives these hosts a hint about `about`.
    pub(super) fn give(&mut self, about: &NodeName, to: impl Iterator<Item = NodeName>) {
        self.given += 1;
        for to in to {
            self.going.entry(to).or_default().insert(about.clone());
        }
    }

    /// The next hint to send: the host that gets it, and whom it is about.
    pub(super) fn poll(&mut self) -> Option<(NodeName, BTreeSet<NodeName>)> {
        self.going.pop_first()
    }
}

/// Time for which a host that was late gives no hints, in timeouts.
pub(super) fn quiet_after_late(timeout: Duration) -> Duration {
    2 * timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> NodeName {
        format!("host-{number}").parse().unwrap()
    }

    #[test]
    fn one_host_brings_about_a_few_echoes_and_all_together_a_bounded_number() {
        let mut hints = Hints::default();
        for _ in 0..2 {
            hints.begin_round();
            let of = |hints: &mut Hints, from: usize| (0..1_000).filter(|_| hints.admit(&name(from))).count();
            assert_eq!(of(&mut hints, 1), OF_ONE);
            let all: usize = (1..1_000).map(|from| of(&mut hints, from)).sum();
            assert_eq!(all, OF_ALL - OF_ONE);
        }
    }

    #[test]
    fn hints_to_one_host_go_together_and_a_late_host_gives_none() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        hints.give(&name(1), [name(7), name(8)].into_iter());
        hints.give(&name(2), [name(7)].into_iter());
        assert_eq!(hints.poll(), Some((name(7), [name(1), name(2)].into())));
        assert!(hints.may_give(now));
        hints.handle_late(now + Duration::from_secs(1));
        assert_eq!(hints.poll(), None, "what it was about to say is taken back");
        assert!(!hints.may_give(now) && hints.may_give(now + Duration::from_secs(1)));
        (0..ABOUT).for_each(|about| hints.give(&name(about), std::iter::empty()));
        assert!(!hints.may_give(now + Duration::from_secs(1)));
        hints.begin_round();
        assert!(hints.may_give(now + Duration::from_secs(1)));
    }
}
