//! The mesh as a control plane of several last knew it, whole: a backup of it can be taken when the store is gone.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Image, Meta, Rows, encode, rows};
use crate::ca::AuthorityRecord;
use crate::core::{State, Timestamp};
use crate::kv::Write;

/// The last state that was read or written.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastKnown(Arc<Mutex<Option<Image>>>);

impl LastKnown {
    /// Keeps a state, unless a later one of the same lifetime is kept.
    pub(crate) fn keep(&self, authority: AuthorityRecord, state: State, meta: Meta) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let later = |kept: &Image| kept.meta.epoch == meta.epoch && kept.meta.revision > meta.revision;
        if !kept.as_ref().is_some_and(later) {
            *kept = Some(Image { meta, authority, state });
        }
    }

    /// Forgets it: somebody follows the store.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes a backup of it, if there is one; without the history.
    pub(crate) fn backup(&self, taken: Timestamp) -> Option<Vec<u8>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Image { meta, authority, state } = kept.as_ref()?;
        let changes = state.changes();
        let writes = [rows::meta(meta), rows::authority(authority)].into_iter();
        let writes = writes.chain(changes.iter().map(rows::change));
        let put = writes.filter_map(|write| match write {
            Write::Put(key, row) => Some((key, row)),
            Write::Delete(_) => None,
        });
        Some(encode(put.collect::<Rows>(), taken))
    }
}
