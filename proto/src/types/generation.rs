//! Versions of desired state.

use std::fmt;

/// State that a part has seen: an epoch (a store's lifetime) and a revision within it.
///
/// Revisions of one epoch are ordered; generations of different epochs are not, so there is no `Ord`: a
/// restored or new store has a new epoch, and whoever sees one takes the state as it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation {
    /// The store's lifetime: random, never zero in a real store.
    pub epoch: u64,
    /// Counts the committed changes of that store.
    pub revision: u64,
}

impl Generation {
    /// Returns true if state of this generation includes everything of `other`: the same epoch and no older revision.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        self.epoch == other.epoch && self.revision >= other.revision
    }

    /// Returns true if state of this generation should replace state of `current`: another epoch, or a newer revision.
    #[must_use]
    pub fn replaces(self, current: Self) -> bool {
        self.epoch != current.epoch || self.revision > current.revision
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}", self.epoch & 0xffff_ffff, self.revision)
    }
}
