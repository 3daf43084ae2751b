//! Readiness: each part says for itself that it is ready; a part that died is not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::mutex::lock;

/// The readiness of a process: that of all its parts.
#[derive(Clone, Debug)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, bool>>>,
    changed: watch::Sender<()>,
}

/// Readiness of one part. Dropping it makes the part unready: it has died.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { parts: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Readiness {
    /// A new part, not ready yet.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        self.set(name, false);
        Part { name, readiness: self.clone() }
    }

    /// The parts that are not ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let parts = lock(&self.parts);
        parts.iter().filter(|&(_, &ready)| !ready).map(|(&name, _)| name).collect()
    }

    /// Returns when every part is ready. Cancel safe.
    pub async fn ready(&self) {
        let mut changed = self.changed.subscribe();
        while !self.waiting_for().is_empty() {
            // The sender lives in `self`.
            let _ = changed.changed().await;
        }
    }

    fn set(&self, name: &'static str, ready: bool) {
        lock(&self.parts).insert(name, ready);
        self.changed.send_replace(());
    }
}

impl Part {
    /// The part is ready from now on (or again).
    pub fn ready(&self) {
        self.readiness.set(self.name, true);
    }

    /// The part is not ready for the time being.
    pub fn unready(&self) {
        self.readiness.set(self.name, false);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.unready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_ready_when_all_its_parts_are_and_not_after_one_died() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.part("first"), readiness.part("second"));
        first.ready();
        assert_eq!(readiness.waiting_for(), ["second"]);
        second.ready();
        readiness.ready().await;
        drop(first);
        assert_eq!(readiness.waiting_for(), ["first"]);
    }
}
