//! Findings of checks for which workloads are not ready, in words, as long as they hold.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::attachment::AttachmentId;

/// The last finding about each workload that its check keeps from being ready.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<BTreeMap<AttachmentId, String>>);

impl Reasons {
    /// Sets the reason of the workload, or that there is none any more.
    pub(super) fn set(&self, id: &AttachmentId, reason: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => drop(known.insert(id.clone(), reason)),
            None => drop(known.remove(id)),
        }
    }

    /// Returns the reason of the workload.
    pub(super) fn of(&self, id: &AttachmentId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}
