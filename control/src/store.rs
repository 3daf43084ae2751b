//! State that must outlive control, as rows of a key-value store: the mesh, the authority and the store's age.
//!
//! Everything goes through the [`Kv`] trait; [`open`](open::open) alone knows that it is a file. The row
//! [`rows::META`] is written by every commit and compared before it: two writers exclude each other.
//! Synchronous: [`writer`] runs it on a thread of its own.

mod anchor;
mod backup;
mod engine;
mod follow;
mod history;
mod last;
mod open;
mod restore;
mod restore_shared;
mod rows;
mod shared;
#[cfg(feature = "simulation")]
pub(crate) mod simulation;
mod upgrade;
mod watch;
mod writer;

use std::collections::BTreeMap;

use sealane_proto::types::TrustDomain;
use sealane_proto::wire::v1;

use crate::ca::{AuthorityRecord, SealKey};
use crate::core::{State, Timestamp};
use crate::kv::{CommitError, Condition, Failure, Kv, Limits, Tenure, Transaction, Write};
use history::{HISTORY, Ledger};

pub(crate) use anchor::{Anchor, AnchorError};
pub(crate) use backup::encode;
pub use backup::{Backup, BackupError};
#[cfg(feature = "simulation")]
pub(crate) use engine::Engine;
pub(crate) use engine::{Health, Publish};
pub(crate) use follow::Follower;
pub(crate) use history::{Filter, Place};
pub(crate) use last::LastKnown;
pub(crate) use open::{OpenError, ensure_directory, is_there, lock, open};
pub use restore::{RestoreError, Restored, restore};
pub use restore_shared::{RestoredShared, restore_shared};
pub(crate) use rows::RecordError;
pub(crate) use shared::{SharedError, open_shared};
pub(crate) use watch::{Writability, watch};
pub(crate) use writer::{Stopped, SubmitError, Writer};

/// Prefix of all keys, of the state and of the history.
const ALL: &str = "/sealane/";

/// Row of whoever leads, of control planes that share a store.
pub(crate) const LEADER: &str = "/sealane/leader";

/// The newest layout that this version knows: what keys and values look like.
pub(crate) const SCHEMA: u32 = 2;

/// Facts about a store itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Lifetime: random, never zero.
    pub(crate) epoch: u64,
    /// Number of commits that it has seen.
    pub(crate) revision: u64,
    /// The mesh that it describes.
    pub(crate) trust_domain: TrustDomain,
}

/// All that a store holds.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) meta: Meta,
    pub(crate) authority: AuthorityRecord,
    pub(crate) state: State,
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Store {
    kv: Box<dyn Kv>,
    /// At which of the store's own revisions [`rows::META`] was last written; `None` when that is not known.
    guard: Option<u64>,
    /// The store's own revision that was last read.
    read: u64,
    history: Ledger,
    /// Opens the authority's key, where that is encrypted.
    seal: Option<SealKey>,
    /// Of a store that several control planes share: the condition that this one leads, and the term that ends when it does not.
    fence: Option<(Condition, Tenure)>,
    /// Where the state goes when nobody writes the store by it any more.
    last: Option<(LastKnown, AuthorityRecord)>,
}

/// New entries of the history, of this time; their places follow from the commit.
pub(crate) type Entries = (Timestamp, Vec<v1::HistoryEntry>);

/// Keys and values without their revisions.
pub(crate) type Rows = BTreeMap<String, Vec<u8>>;

/// A write that is not known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The store does not take it.
    #[error(
        "the store {} cannot be written ({}), {}", .0.place, .0.reason,
        match .0 {
            Failure { lost: true, .. } => "and it is not known what has happened; look, and try again",
            Failure { full: true, .. } => "so nothing was changed; make space on its file system and try again",
            Failure { .. } => "so nothing was changed; try again",
        }
    )]
    Failed(Failure),
    /// Another control plane has been elected.
    #[error("this control plane leads no more, so nothing was changed; try again in a moment")]
    Deposed,
    /// Another process has written.
    #[error("another control plane has written to the store, so nothing was changed; try again")]
    Raced,
    /// More than the store takes at once.
    #[error("the change is too large, so nothing was changed: {0}")]
    TooLarge(String),
    /// The content cannot be read any more.
    #[error("the store cannot be read: {0}; restore a backup")]
    Unreadable(String),
}

/// Reasons for which a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Store {
    /// A store in these rows; [`Store::load`] comes first.
    pub(crate) fn new(kv: Box<dyn Kv>) -> Self {
        Self { kv, guard: None, read: 0, history: Ledger::default(), seal: None, fence: None, last: None }
    }

    /// The same, with an authority whose key is encrypted.
    pub(crate) fn sealed(kv: Box<dyn Kv>, seal: SealKey) -> Self {
        Self { seal: Some(seal), ..Self::new(kv) }
    }

    /// Writes under this condition alone from now on; the term is over when it does not hold.
    pub(crate) fn fence(&mut self, condition: Condition, tenure: Tenure) {
        self.fence = Some((condition, tenure));
    }

    /// Leaves the state to others when nobody writes the store by it any more.
    pub(crate) fn leave_to(&mut self, last: LastKnown, authority: AuthorityRecord) {
        self.last = Some((last, authority));
    }

    /// Writes all rows, the new revision and the history's entries in one durable transaction, if nobody else has written
    /// meanwhile.
    ///
    /// # Errors
    /// When it is not known to have happened; then [`Store::load`] says what the store holds.
    pub(crate) fn commit(
        &mut self,
        meta: &Meta,
        mut writes: Vec<Write>,
        entries: Entries,
    ) -> Result<(), WriteError> {
        let guard = self.guard.take().ok_or(WriteError::Raced)?;
        let (now, entries) = entries;
        let room = self.limits().writes.saturating_sub(writes.len());
        let mut page = self.history.page((meta.revision, now), entries, room);
        writes.append(&mut page.writes);
        // The last one of each key counts.
        let mut rows: BTreeMap<String, Write> =
            writes.into_iter().map(|write| (write.key().to_owned(), write)).collect();
        let meta = rows::meta_with(meta, Some(page.known_from));
        rows.insert(meta.key().to_owned(), meta);
        let own = Condition::Modified(rows::META.to_owned(), guard);
        let when = self.fence.iter().map(|(leads, _)| leads.clone()).chain([own]).collect();
        let transaction = Transaction { when, then: rows.into_values().collect() };
        self.guard = Some(self.kv.commit(&transaction).map_err(|error| match error {
            CommitError::Failed(failure) => WriteError::Failed(failure),
            CommitError::TooLarge(reason) => {
                // Nothing has happened: the row is as it was.
                self.guard = Some(guard);
                WriteError::TooLarge(reason)
            }
            CommitError::Conflict { key } => match &self.fence {
                Some((leads, tenure)) if leads.key() == key => {
                    tenure.end();
                    WriteError::Deposed
                }
                Some(_) | None => WriteError::Raced,
            },
            CommitError::Duplicate { .. } => WriteError::Raced,
        })?);
        self.history.turn(page);
        Ok(())
    }

    /// Returns the size of a commit that is surely not too large.
    pub(crate) fn limits(&self) -> Limits {
        let limits = self.kv.limits();
        // One row is that of the store itself.
        Limits { writes: limits.writes.saturating_sub(1), ..limits }
    }

    /// Returns true if [`Store::load`] must say what the store holds before the next commit.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.guard.is_none()
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn load(&mut self) -> Result<Image, ReadError> {
        let range = self.kv.range(rows::ROOT)?;
        let guard = range.rows.get(rows::META).map(|row| row.modified);
        let mut rows: Rows = range.rows.into_iter().map(|(key, row)| (key, row.value)).collect();
        if let Some(seal) = &self.seal {
            rows::open_authority(&mut rows, seal)?;
        }
        let image = rows::image(&rows)?;
        let history = self.kv.range(HISTORY)?.rows;
        let history = history.into_iter().map(|(key, row)| (key, row.value)).collect();
        self.history = Ledger::read(&history, rows::history_from(&rows)?);
        (self.guard, self.read) = (guard, range.revision);
        Ok(image)
    }

    /// All rows of one moment, those of the history as well, the authority's key in clear.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn rows(&mut self) -> Result<Rows, ReadError> {
        let range = self.kv.range(ALL)?;
        let ours = range
            .rows
            .into_iter()
            .filter(|(key, _)| [rows::ROOT, HISTORY].iter().any(|root| key.starts_with(root)));
        let mut ours = ours.map(|(key, row)| (key, row.value)).collect();
        if let Some(seal) = &self.seal {
            rows::open_authority(&mut ours, seal)?;
        }
        Ok(ours)
    }

    /// Reads entries of the history that fit, newest first: up to `limit` of them, and up to so many bytes, but at least one; and
    /// where to go on if there are more.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn history(
        &mut self,
        filter: &Filter,
        before: Option<Place>,
        limit: (usize, usize),
    ) -> Result<(Vec<v1::HistoryEntry>, Option<Place>), Failure> {
        let (places, next) = self.history.newest(filter, before, limit);
        Ok((self.entries(places)?, next))
    }

    /// Reads the first entry of each object after one revision and up to another, oldest first; `None` where the state of the
    /// former cannot be told.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn first_after(&mut self, revision: u64, newest: u64) -> Result<Since, Failure> {
        let known_from = self.history.known_from();
        if !(known_from..=newest).contains(&revision) {
            return Ok(Since::Unknown { known_from });
        }
        let places = self.history.first_after(revision, newest);
        self.entries(places).map(Since::Known)
    }

    fn entries(&mut self, places: Vec<Place>) -> Result<Vec<v1::HistoryEntry>, Failure> {
        let (mut entries, mut row) = (vec![], None);
        for (at, place) in self.history.rows_of(places) {
            if row.as_ref().is_none_or(|(known, _)| *known != at) {
                row = Some((at, history::read(self.kv.get(&at.key())?.1.map(|row| row.value))));
            }
            let known = row.iter().flat_map(|(_, known)| known);
            entries.extend(known.filter(|entry| Place::of_entry(entry) == place).cloned());
        }
        Ok(entries)
    }
}

/// Entries since a revision.
#[derive(Debug)]
pub(crate) enum Since {
    /// The entries, none left out.
    Known(Vec<v1::HistoryEntry>),
    /// The revision is older than what is known, or newer than the newest.
    Unknown {
        /// The oldest revision whose state can be told.
        known_from: u64,
    },
}

impl WriteError {
    /// Returns true if the store takes less at once.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge(_))
    }

    /// Returns true if space is missing.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.full)
    }
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Failed(failure) => Self::Failed(failure),
            ReadError::Record(error) => Self::Unreadable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
