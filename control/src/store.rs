//! What must outlive control: one redb file with every record of the state, the authority and the store's age.
//!
//! Synchronous: [`writer`] runs it on a thread of its own. After a failed write redb accepts nothing more, so
//! the file is opened again before the next commit ([`Store::recover`]).

mod open;
mod record;
mod writer;

use std::path::PathBuf;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use sealane_proto::types::TrustDomain;

use crate::ca::AuthorityRecord;
use crate::core::State;

pub(crate) use open::{OpenError, open};
pub(crate) use record::{Entry, RecordError};
pub(crate) use writer::{Health, Publish, Stopped, SubmitError, Writer};

/// Keys are `<kind>/<names...>`, values prost messages: see [`record`].
const TABLE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("sealane");

/// The newest layout that this version knows.
pub(crate) const SCHEMA: u32 = 1;

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Its lifetime: random, never zero.
    pub(crate) epoch: u64,
    /// How many transactions it has seen.
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

/// Opens the file again after a failure; in tests, on a disk that can be full.
pub(crate) type Opener = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send>;

/// An open store.
pub(crate) struct Store {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failure.
    database: Option<Database>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A write that did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store {} cannot be written ({reason}), so nothing was changed; {}",
    path.display(),
    if *.full { "make space on its file system and try again" } else { "try again" }
)]
pub(crate) struct CommitError {
    path: PathBuf,
    reason: String,
    /// Whether space is what is missing.
    pub(crate) full: bool,
}

impl Store {
    /// Writes all entries and the new revision in one durable transaction.
    ///
    /// # Errors
    /// When it cannot be written; then [`Store::recover`] says what the store holds.
    pub(crate) fn commit(&mut self, meta: &Meta, entries: &[Entry]) -> Result<(), CommitError> {
        let written = match &self.database {
            Some(database) => write(database, meta, entries),
            None => Err(redb::Error::DatabaseClosed),
        };
        written.map_err(|error| {
            self.database = None;
            self.failure(&error)
        })
    }

    /// Whether a failure has closed the file.
    pub(crate) fn is_broken(&self) -> bool {
        self.database.is_none()
    }

    /// Opens the file again and reads all of it.
    ///
    /// # Errors
    /// When that still fails.
    pub(crate) fn recover(&mut self) -> Result<Image, CommitError> {
        let database = (self.opener)().map_err(|error| self.failure(&error.into()))?;
        let image = read(&database).map_err(|error| self.unreadable(&error))?;
        let image = image.ok_or_else(|| self.unreadable(&"it is empty"))?;
        self.database = Some(database);
        Ok(image)
    }

    fn failure(&self, error: &redb::Error) -> CommitError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let full =
            matches!(error, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded));
        CommitError { full, ..self.unreadable(error) }
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> CommitError {
        CommitError { path: self.path.clone(), reason: error.to_string(), full: false }
    }
}

/// Why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file.
    #[error(transparent)]
    Database(#[from] redb::Error),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

fn write(database: &Database, meta: &Meta, entries: &[Entry]) -> Result<(), redb::Error> {
    // A transaction is durable when commit returns: redb's default, Durability::Immediate.
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        let meta = Entry::meta(meta);
        for entry in entries.iter().chain([&meta]) {
            match &entry.value {
                Some(value) => table.insert(entry.key.as_str(), value.as_slice())?,
                None => table.remove(entry.key.as_str())?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

/// All records; `None` when there is no table yet.
fn read(database: &Database) -> Result<Option<Image>, ReadError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let table = match transaction.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(redb::Error::from(error).into()),
    };
    let mut loader = record::Loader::default();
    // First of all, because a newer version may have other kinds of records.
    let Some(meta) = table.get(record::META).map_err(redb::Error::from)? else { return Ok(None) };
    loader.load(record::META, meta.value())?;
    for row in table.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        loader.load(key.value(), value.value())?;
    }
    Ok(Some(loader.finish()?))
}

#[cfg(test)]
mod tests;
