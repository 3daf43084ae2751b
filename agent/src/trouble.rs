//! Problems of this host's workloads, in words, for as long as they last.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::attachment::AttachmentId;

/// Kind of a workload's problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkloadTrouble {
    /// The agent cannot take the workload up from the agent before.
    TakingUp,
    /// The sidecar says nothing.
    Sidecar,
    /// The sidecar's sockets were closed by somebody, and there are no others.
    Deaf,
    /// The workload is paused.
    Paused,
    /// The container's health check fails.
    Unhealthy,
    /// The workload's check fails.
    Check,
    /// The container has started again and is not attached.
    Container,
    /// The TAP device of a virtual machine does not stand.
    Tap,
    /// A virtual machine has another Ethernet address than it was given.
    Stranger,
    /// Somebody in the namespace holds rules that lead calls past the sidecar.
    Redirect,
    /// Somebody in the namespace holds rules in the place of those of service addresses.
    Services,
    /// Somebody in the namespace holds rules that lead questions past our resolver.
    Names,
}

impl WorkloadTrouble {
    fn sentence(self, id: &AttachmentId, why: &str) -> String {
        match self {
            Self::TakingUp => format!(
                "this agent has not taken up workload {id} from the one before, tried again all the time: {why}"
            ),
            Self::Check => format!("workload {id} gets no calls: {why}"),
            Self::Paused => format!("workload {id} gets no calls: {why}"),
            Self::Unhealthy => format!(
                "workload {id} gets no calls: {why}; `docker inspect` on its host shows what the check said"
            ),
            Self::Container => format!(
                "the container of workload {id} has started again and is not attached yet, tried again all the time: {why}"
            ),
            Self::Tap => format!(
                "workload {id} is cut off, its TAP device does not stand, tried again all the time: {why}"
            ),
            Self::Stranger => format!("workload {id} has no address: {why}"),
            Self::Redirect => format!(
                "workload {id} passes its sidecar by, its rules cannot be put back, tried more and more seldom and once a minute at \
                 least: {why}"
            ),
            Self::Services => format!(
                "workload {id} does not reach services by their addresses, its rules cannot be put back, tried more and more seldom \
                 and once a minute at least: {why}"
            ),
            Self::Names => format!(
                "workload {id} does not ask our resolver, its rules cannot be put back, tried more and more seldom and once a minute \
                 at least: {why}"
            ),
            Self::Deaf => format!(
                "workload {id} takes no calls and makes none, somebody in its namespace has closed the sockets of its sidecar; \
                 new ones are tried again all the time: {why}"
            ),
            Self::Sidecar => format!("workload {id} gets no calls, its sidecar does not work: {why}"),
        }
    }
}

/// The problems of all workloads of this host.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    known: Mutex<BTreeMap<(AttachmentId, WorkloadTrouble), String>>,
}

impl Troubles {
    /// Notes that the workload has such a problem and why, or has it no more (`None`), and logs what is new.
    pub(crate) fn set(&self, id: &AttachmentId, trouble: WorkloadTrouble, why: Option<String>) {
        let place = (id.clone(), trouble);
        match why {
            None => {
                if self.lock().remove(&place).is_some() {
                    tracing::info!(workload = %id, ?trouble, "a workload is out of its trouble");
                }
            }
            Some(why) => {
                if self.lock().insert(place, why.clone()).as_ref() != Some(&why) {
                    tracing::error!("{}", trouble.sentence(id, &why));
                }
            }
        }
    }

    /// Forgets the problems of a workload that is gone.
    pub(crate) fn forget(&self, id: &AttachmentId) {
        self.lock().retain(|(troubled, _), _| troubled != id);
    }

    /// Describes all problems, a sentence each.
    #[must_use]
    pub(crate) fn sentences(&self) -> Vec<String> {
        self.lock().iter().map(|((id, trouble), why)| trouble.sentence(id, why)).collect()
    }

    /// Describes the problem of one workload, without its name.
    #[must_use]
    pub(crate) fn of(&self, id: &AttachmentId) -> Option<String> {
        let known = self.lock();
        let mut own = known.iter().filter(|((troubled, _), _)| troubled == id);
        let said = own.next().map(|((id, trouble), why)| trouble.sentence(id, why))?;
        Some(said.strip_prefix(&format!("workload {id} ")).unwrap_or(&said).to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(AttachmentId, WorkloadTrouble), String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_said_as_long_as_it_lasts_and_goes_with_its_workload() {
        let id =
            |name: &str| AttachmentId { network: "shop".parse().unwrap(), workload: name.parse().unwrap() };
        let troubles = Troubles::default();
        troubles.set(&id("a"), WorkloadTrouble::TakingUp, Some("no space".to_owned()));
        troubles.set(&id("b"), WorkloadTrouble::Sidecar, Some("it does not start".to_owned()));
        assert_eq!(troubles.sentences().len(), 2);
        assert!(troubles.of(&id("a")).unwrap().ends_with("no space"));
        troubles.set(&id("a"), WorkloadTrouble::TakingUp, None);
        assert_eq!(troubles.of(&id("a")), None);
        troubles.forget(&id("b"));
        assert!(troubles.sentences().is_empty());
    }
}
