//! Problems of this host's workloads, in words, for as long as they last.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sidecar::Key;

/// Kind of a workload's problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// This agent cannot take it up from the one before.
    TakingUp,
    /// The sidecar is not heard of.
    Sidecar,
    /// The workload is paused.
    Paused,
    /// The container's health check fails.
    Unhealthy,
    /// The container has started again and is not attached.
    Container,
    /// The TAP device of a virtual machine does not stand.
    Tap,
    /// A virtual machine has another Ethernet address than it was given.
    Stranger,
}

impl Trouble {
    fn sentence(self, key: &Key, why: &str) -> String {
        match self {
            Self::TakingUp => format!(
                "workload {key} runs, but this agent has not taken it up from the one before, tried again all the \
                 time: {why}"
            ),
            Self::Paused => format!("workload {key} gets no calls while it is paused: {why}"),
            Self::Unhealthy => format!(
                "workload {key} gets no calls: {why}; `docker inspect` on its host shows what the check said"
            ),
            Self::Container => format!(
                "the container of workload {key} has started again and is not attached yet, tried again all the time: {why}"
            ),
            Self::Tap => format!(
                "workload {key} is cut off, its TAP device does not stand, tried again all the time: {why}"
            ),
            Self::Stranger => format!("workload {key} has no address: {why}"),
            Self::Sidecar => format!("workload {key} gets no calls, its sidecar does not work: {why}"),
        }
    }
}

/// The troubles that there are.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    known: Mutex<BTreeMap<(Key, Trouble), String>>,
}

impl Troubles {
    /// The workload is in this trouble, or in no such any more. What is new is logged.
    pub(crate) fn set(&self, key: &Key, trouble: Trouble, why: Option<String>) {
        let place = (key.clone(), trouble);
        match why {
            None => {
                if self.lock().remove(&place).is_some() {
                    tracing::info!(workload = %key, ?trouble, "a workload is out of its trouble");
                }
            }
            Some(why) => {
                if self.lock().insert(place, why.clone()).as_ref() != Some(&why) {
                    tracing::error!("{}", trouble.sentence(key, &why));
                }
            }
        }
    }

    /// The workload is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.lock().retain(|(troubled, _), _| troubled != key);
    }

    /// All of them, a sentence each.
    #[must_use]
    pub(super) fn sentences(&self) -> Vec<String> {
        self.lock().iter().map(|((key, trouble), why)| trouble.sentence(key, why)).collect()
    }

    /// Describes the problem of one workload.
    #[must_use]
    pub(super) fn of(&self, key: &Key) -> Option<String> {
        let known = self.lock();
        let mut own = known.iter().filter(|((troubled, _), _)| troubled == key);
        own.next().map(|((key, trouble), why)| trouble.sentence(key, why))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Key, Trouble), String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_said_as_long_as_it_lasts_and_goes_with_its_workload() {
        let key = |name: &str| Key { network: "shop".parse().unwrap(), workload: name.parse().unwrap() };
        let troubles = Troubles::default();
        troubles.set(&key("a"), Trouble::TakingUp, Some("no space".to_owned()));
        troubles.set(&key("b"), Trouble::Sidecar, Some("it does not start".to_owned()));
        assert_eq!(troubles.sentences().len(), 2);
        assert!(troubles.of(&key("a")).unwrap().ends_with("no space"));
        troubles.set(&key("a"), Trouble::TakingUp, None);
        assert_eq!(troubles.of(&key("a")), None);
        troubles.forget(&key("b"));
        assert!(troubles.sentences().is_empty());
    }
}
