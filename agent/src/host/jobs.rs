//! Order in which networks are programmed: several at a time, each by one job at a time. Pure.
//!
//! A network whose kernel is slow holds up itself alone: what is wanted of it meanwhile is done by its next job.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sealane_fabric::overlay::Reason;
use sealane_proto::types::NetworkName;

/// Number of networks that are programmed at a time.
pub(super) const AT_ONCE: usize = 4;
/// Pause before a network whose kernel state could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Kind of work on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Make the kernel have what it should, for this reason.
    Program(Reason),
    /// Take the network off the host.
    Remove,
}

/// Work that waits, and work under way.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: BTreeMap<NetworkName, Waiting>,
    under_way: BTreeMap<NetworkName, Work>,
    /// Orders what waits by its age.
    tickets: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    work: Work,
    ticket: u64,
    /// Time before which it is not begun.
    not_before: Option<Instant>,
}

impl Jobs {
    /// The network is to be programmed, at once. A look at everything says more than a change.
    pub(super) fn program(&mut self, network: NetworkName, reason: Reason) {
        let known = self.waiting.get(&network).map(|waiting| waiting.work);
        let reason = if known == Some(Work::Program(Reason::Audit)) { Reason::Audit } else { reason };
        self.wait(network, Work::Program(reason), None);
    }

    /// The network is to be taken off the host, whatever else was to be done with it.
    pub(super) fn remove(&mut self, network: NetworkName) {
        self.wait(network, Work::Remove, None);
    }

    /// The network is to be programmed again in a while.
    pub(super) fn retry(&mut self, network: NetworkName, now: Instant) {
        if !self.waiting.contains_key(&network) {
            self.wait(network, Work::Program(Reason::Change), Some(now + RETRY));
        }
    }

    fn wait(&mut self, network: NetworkName, work: Work, not_before: Option<Instant>) {
        self.tickets += 1;
        let ticket = self.waiting.get(&network).map_or(self.tickets, |waiting| waiting.ticket);
        self.waiting.insert(network, Waiting { work, ticket, not_before });
    }

    /// The next job, which is under way from now on until [`Jobs::done`].
    pub(super) fn begin(&mut self, now: Instant) -> Option<(NetworkName, Work)> {
        if self.under_way.len() >= AT_ONCE {
            return None;
        }
        let may = |(name, waiting): &(&NetworkName, &Waiting)| {
            !self.under_way.contains_key(*name) && waiting.not_before.is_none_or(|at| at <= now)
        };
        let next = self.waiting.iter().filter(may).min_by_key(|(_, waiting)| waiting.ticket);
        let network = next.map(|(name, _)| name.clone())?;
        let Waiting { work, .. } = self.waiting.remove(&network)?;
        self.under_way.insert(network.clone(), work);
        Some((network, work))
    }

    /// The job of this network has ended.
    pub(super) fn done(&mut self, network: &NetworkName) {
        self.under_way.remove(network);
    }

    /// Returns true if a job of this network is under way.
    pub(super) fn is_under_way(&self, network: &NetworkName) -> bool {
        self.under_way.contains_key(network)
    }

    /// Returns true if this network is being taken off the host, or is about to be.
    pub(super) fn is_leaving(&self, network: &NetworkName) -> bool {
        let waiting = self.waiting.get(network).map(|waiting| waiting.work);
        waiting == Some(Work::Remove) || self.under_way.get(network) == Some(&Work::Remove)
    }

    /// Returns true if nothing waits and nothing is under way.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Time at which the next job that is put off may begin; `None` also while another one has to end before.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.under_way.len() >= AT_ONCE {
            return None;
        }
        let put_off = self.waiting.iter().filter(|(name, _)| !self.under_way.contains_key(*name));
        put_off.filter_map(|(_, waiting)| waiting.not_before).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NetworkName {
        text.parse().unwrap()
    }

    fn begun(jobs: &mut Jobs, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| jobs.begin(now)).map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn several_networks_are_programmed_at_once_and_none_twice_at_a_time() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        for network in ["e", "d", "c", "b", "a"] {
            jobs.program(name(network), Reason::Change);
        }
        assert_eq!(begun(&mut jobs, now), ["e", "d", "c", "b"], "in the order in which they came");
        jobs.program(name("d"), Reason::Change);
        jobs.done(&name("c"));
        assert_eq!(begun(&mut jobs, now), ["a"]);
        jobs.done(&name("b"));
        assert_eq!(begun(&mut jobs, now), [""; 0], "d is under way");
        jobs.done(&name("d"));
        assert_eq!(begun(&mut jobs, now), ["d"]);
        assert!(!jobs.is_idle());
        for network in ["a", "d", "e"] {
            jobs.done(&name(network));
        }
        assert!(jobs.is_idle());
    }

    #[test]
    fn a_network_that_failed_waits_unless_it_changes() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        jobs.retry(name("shop"), now);
        assert_eq!((begun(&mut jobs, now).len(), jobs.due()), (0, Some(now + RETRY)));
        jobs.program(name("shop"), Reason::Change);
        assert_eq!((begun(&mut jobs, now), jobs.due()), (vec!["shop".to_owned()], None));
        jobs.program(name("shop"), Reason::Change);
        jobs.done(&name("shop"));
        jobs.retry(name("shop"), now);
        assert_eq!(begun(&mut jobs, now), ["shop"], "what has changed meanwhile is not put off");
        jobs.done(&name("shop"));
        jobs.retry(name("shop"), now);
        assert_eq!(begun(&mut jobs, now + RETRY), ["shop"]);
        jobs.retry(name("late"), now);
        for network in ["a", "b", "c"] {
            jobs.program(name(network), Reason::Change);
        }
        assert_eq!(begun(&mut jobs, now).len(), 3);
        assert_eq!(jobs.due(), None, "there is no room for it before another one ends");
        jobs.done(&name("a"));
        assert_eq!(jobs.due(), Some(now + RETRY));
    }

    #[test]
    fn a_look_at_everything_stays_one_and_a_removal_comes_before_both() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        jobs.program(name("shop"), Reason::Audit);
        jobs.program(name("shop"), Reason::Change);
        assert_eq!(jobs.begin(now), Some((name("shop"), Work::Program(Reason::Audit))));
        jobs.program(name("shop"), Reason::Change);
        jobs.remove(name("shop"));
        assert!(jobs.is_leaving(&name("shop")) && jobs.begin(now).is_none());
        jobs.done(&name("shop"));
        assert_eq!(jobs.begin(now), Some((name("shop"), Work::Remove)));
        assert!(jobs.is_leaving(&name("shop")));
        jobs.done(&name("shop"));
        assert!(!jobs.is_leaving(&name("shop")));
    }
}
