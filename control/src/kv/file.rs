//! Rows in one redb file, durable before a commit returns.
//!
//! Synchronous. After a failed write redb accepts nothing more, so the file is closed then and opened again by
//! the next call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::history::History;
use super::{CommitError, Compacted, Failure, Kv, Range, Row, Transaction, Watch};

/// Values are a row's three numbers (little endian, 8 bytes each), then what it holds.
const ROWS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("kv");
/// Table with the newest revision as its only row.
const REVISION: TableDefinition<'static, (), u64> = TableDefinition::new("revision");

/// Opens the file: at the start, and again after a failure.
pub type Opener = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send>;

/// A store in a file of its own.
pub struct File {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failure.
    database: Option<Database>,
    history: Arc<History>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl File {
    /// The store in this file, which the opener opens; without rows when there were none.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn open(path: PathBuf, opener: Opener) -> Result<Self, redb::Error> {
        let database = opener()?;
        let history = History::new(revision(&database)?);
        Ok(Self { path, opener, database: Some(database), history })
    }

    /// Takes rows over into a transaction of the file's owner, at a revision of their own.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn fill(
        transaction: &WriteTransaction,
        at: u64,
        rows: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(ROWS)?;
        for (key, value) in rows {
            let row = Row { value: value.clone(), created: at, modified: at, version: 1 };
            table.insert(key.as_str(), encode(&row).as_slice())?;
        }
        transaction.open_table(REVISION)?.insert((), at)?;
        Ok(())
    }

    fn database(&mut self) -> Result<&Database, redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = (self.opener)()?;
                let found = revision(&database)?;
                if found != self.history.revision() {
                    self.history.skip(found);
                }
                database
            }
        };
        Ok(self.database.insert(database))
    }

    fn read<T>(&mut self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
        let found = self.database().and_then(read);
        found.map_err(|error| {
            self.database = None;
            failure(&self.path, &error)
        })
    }

    fn write(&mut self, transaction: &Transaction) -> Result<u64, CommitError> {
        let path = self.path.clone();
        let failed = |error: redb::Error| failure(&path, &error);
        let database = self.database().map_err(&failed)?;
        // Durable when commit returns: redb's default, Durability::Immediate.
        let writing = database.begin_write().map_err(|error| failed(error.into()))?;
        let (revision, effects) = apply(&writing, transaction, &failed)?;
        if effects.is_empty() {
            // Dropped, it changes nothing.
            return Ok(revision);
        }
        writing.commit().map_err(|error| failed(error.into()))?;
        self.history.record(revision, effects);
        Ok(revision)
    }
}

impl Kv for File {
    fn get(&mut self, key: &str) -> Result<(u64, Option<Row>), Failure> {
        self.read(|database| get(database, key))
    }

    fn range(&mut self, prefix: &str) -> Result<Range, Failure> {
        self.read(|database| range(database, prefix))
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<u64, CommitError> {
        let written = self.write(transaction);
        if let Err(CommitError::Failed(_)) = &written {
            self.database = None;
        }
        written
    }

    fn watch(&self, prefix: &str, from: u64) -> Result<Watch, Compacted> {
        self.history.watch(prefix, from)
    }

    fn compact(&mut self, before: u64) {
        self.history.compact(before);
    }
}

type Effects = BTreeMap<String, Option<Row>>;

/// Works out what a transaction does and writes it into the file's.
fn apply(
    writing: &WriteTransaction,
    transaction: &Transaction,
    failed: &impl Fn(redb::Error) -> Failure,
) -> Result<(u64, Effects), CommitError> {
    let open =
        || -> Result<_, redb::Error> { Ok((writing.open_table(ROWS)?, writing.open_table(REVISION)?)) };
    let (mut rows, mut revisions): (Table<'_, _, _>, Table<'_, _, _>) = open().map_err(failed)?;
    let newest = revisions.get(()).map_err(|error| failed(error.into()))?.map_or(0, |row| row.value());
    let lookup = |key: &str| -> Result<Option<Row>, redb::Error> {
        rows.get(key)?.map(|row| decode(key, row.value())).transpose()
    };
    let effects = transaction.effects(newest + 1, |key| lookup(key).map_err(failed))?;
    if effects.is_empty() {
        return Ok((newest, effects));
    }
    let mut write = || -> Result<(), redb::Error> {
        for (key, row) in &effects {
            match row {
                Some(row) => drop(rows.insert(key.as_str(), encode(row).as_slice())?),
                None => drop(rows.remove(key.as_str())?),
            }
        }
        revisions.insert((), newest + 1)?;
        Ok(())
    };
    write().map_err(failed)?;
    Ok((newest + 1, effects))
}

fn revision(database: &Database) -> Result<u64, redb::Error> {
    match database.begin_read()?.open_table(REVISION) {
        Ok(table) => Ok(table.get(())?.map_or(0, |row| row.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn get(database: &Database, key: &str) -> Result<(u64, Option<Row>), redb::Error> {
    let reading = database.begin_read()?;
    let newest = match reading.open_table(REVISION) {
        Ok(table) => table.get(())?.map_or(0, |row| row.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok((0, None)),
        Err(error) => return Err(error.into()),
    };
    match reading.open_table(ROWS)?.get(key)? {
        Some(row) => Ok((newest, Some(decode(key, row.value())?))),
        None => Ok((newest, None)),
    }
}

fn range(database: &Database, prefix: &str) -> Result<Range, redb::Error> {
    let reading = database.begin_read()?;
    let mut range = Range::default();
    match reading.open_table(REVISION) {
        Ok(table) => range.revision = table.get(())?.map_or(0, |row| row.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(range),
        Err(error) => return Err(error.into()),
    }
    for row in reading.open_table(ROWS)?.range(prefix..)? {
        let (key, value) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        range.rows.insert(key.value().to_owned(), decode(key.value(), value.value())?);
    }
    Ok(range)
}

fn encode(row: &Row) -> Vec<u8> {
    let numbers = [row.created, row.modified, row.version].map(u64::to_le_bytes);
    [numbers.as_flattened(), &row.value].concat()
}

fn decode(key: &str, bytes: &[u8]) -> Result<Row, redb::Error> {
    match *bytes.as_chunks::<8>().0 {
        [created, modified, version, ..] => {
            let [created, modified, version] = [created, modified, version].map(u64::from_le_bytes);
            Ok(Row { value: bytes[24..].to_vec(), created, modified, version })
        }
        _ => Err(redb::Error::Corrupted(format!("row {key} is too short"))),
    }
}

fn failure(path: &Path, error: &redb::Error) -> Failure {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let full = matches!(error, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded));
    Failure { place: path.display().to_string(), reason: error.to_string(), full, lost: false }
}
