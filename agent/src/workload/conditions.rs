//! Statements of runtimes about workloads, by the holders or containers that they are about.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::attachment::{ContainerCondition, Hold, RuntimeReport};

/// Last statements; watched by the workloads that they are about.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    known: Mutex<BTreeMap<String, watch::Sender<RuntimeReport>>>,
}

impl Conditions {
    /// Sets the condition of `about` from now on.
    pub(crate) fn set(&self, about: &str, condition: ContainerCondition) {
        self.change(about, |said| said.condition = condition);
    }

    /// Sets if one port of `about` is enough from now on.
    pub(crate) fn set_any_port(&self, about: &str, any_port: bool) {
        self.change(about, |said| said.any_port = any_port);
    }

    fn change(&self, about: &str, change: impl FnOnce(&mut RuntimeReport)) {
        let mut known = self.lock();
        known.entry(about.to_owned()).or_default().send_if_modified(|said| {
            let before = *said;
            change(said);
            *said != before
        });
    }

    /// Follows the statements about `about`, now and later.
    pub(crate) fn follow(&self, about: &str) -> watch::Receiver<RuntimeReport> {
        self.lock().entry(about.to_owned()).or_default().subscribe()
    }

    /// Returns the statements about `about`.
    pub(crate) fn of(&self, about: &str) -> RuntimeReport {
        self.lock().get(about).map(|said| *said.borrow()).unwrap_or_default()
    }

    /// Forgets the containers that do not `exist` any more by their ids, unless somebody follows them.
    pub(crate) fn retain(&self, exist: impl Fn(&str) -> bool) {
        let is_held = |about: &str| about.starts_with(Hold::DOCKER);
        self.lock().retain(|about, said| is_held(about) || exist(about) || said.receiver_count() > 0);
    }

    /// There is nothing of this name any more.
    pub(crate) fn forget(&self, about: &str) {
        self.lock().remove(about);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, watch::Sender<RuntimeReport>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_somebody_asked_is_known_and_what_is_new_is_heard_of() {
        let conditions = Conditions::default();
        conditions.set("a", ContainerCondition::Starting);
        let mut followed = conditions.follow("a");
        assert_eq!(followed.borrow_and_update().condition, ContainerCondition::Starting);
        conditions.set("a", ContainerCondition::Starting);
        assert!(!followed.has_changed().unwrap(), "nothing new");
        conditions.set("a", ContainerCondition::Serves);
        conditions.set_any_port("a", true);
        assert_eq!(
            *followed.borrow_and_update(),
            RuntimeReport { condition: ContainerCondition::Serves, any_port: true }
        );
        conditions.forget("a");
        assert_eq!(conditions.of("a"), RuntimeReport::default());

        let (there, gone) = ("3f2a".repeat(16), "3f2b".repeat(16));
        for about in [&there, &gone, &"docker/1".to_owned()] {
            conditions.set(about, ContainerCondition::Serves);
        }
        conditions.retain(|id| *id == *there);
        let knows = |about: &str| conditions.of(about).condition == ContainerCondition::Serves;
        assert!(knows(&there) && knows("docker/1") && !knows(&gone));
    }
}
