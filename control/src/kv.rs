//! Keys and values with etcd's semantics, behind one trait: what control must remember is kept through it alone.
//!
//! A store counts its transactions: each that changes something has one revision, and every row says at which
//! revisions it was made and last written. A [`Transaction`] is a compare-and-set: all of it happens when every
//! [`Condition`] holds, nothing otherwise. A [`Watch`] tells what changed from a revision on, as long as that is
//! remembered. Deliberately absent: leases, and reading the past.
//!
//! [`File`] keeps rows in one redb file, [`Etcd`] in etcd, [`Memory`] nowhere; `conformance` is what each must pass.

mod etcd;
mod file;
mod history;
mod memory;

#[cfg(test)]
mod conformance;

use std::collections::BTreeMap;
use std::fmt;

pub use etcd::{
    Candidate, Etcd, EtcdError, EtcdPlace, EtcdTls, EtcdTlsError, EtcdUrl, EtcdUrlError, Roll, RollLease,
    Tenure, Term,
};
pub use file::{File, Opener};
pub use history::{Compacted, Event, Watch};
pub use memory::Memory;

/// A row as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// Value of the row.
    pub value: Vec<u8>,
    /// The revision that made it.
    pub created: u64,
    /// The revision that last wrote it.
    pub modified: u64,
    /// Number of writes since it was made, from 1.
    pub version: u64,
}

/// Rows of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The store's newest revision in that moment.
    pub revision: u64,
    /// The rows by key.
    pub rows: BTreeMap<String, Row>,
}

/// Condition on a row; one that is not there has version 0 and was modified at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Demands that it was last written at this revision.
    Modified(String, u64),
    /// Demands that it has been written so often.
    Version(String, u64),
}

/// Write of a row.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// The row holds this from now on.
    Put(String, Vec<u8>),
    /// The row is no more. One that is not there stays so.
    Delete(String),
}

/// All or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Conditions that must hold.
    pub when: Vec<Condition>,
    /// Writes that happen then; no key twice.
    pub then: Vec<Write>,
}

/// Size of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of writes.
    pub writes: usize,
    /// Number of bytes in them.
    pub bytes: usize,
}

/// A store that could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Failure {
    /// The file, or the address.
    pub place: String,
    /// Cause of the failure.
    pub reason: String,
    /// True if space is missing.
    pub full: bool,
    /// True if what was asked for may have happened all the same.
    pub lost: bool,
}

/// Reasons for which a transaction is not known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A condition does not hold; nothing was changed.
    #[error("row {key} is not as it was expected to be")]
    Conflict {
        /// The condition's row.
        key: String,
    },
    /// Two writes of one key; nothing was changed.
    #[error("row {key} is written twice in one transaction")]
    Duplicate {
        /// The key.
        key: String,
    },
    /// More than the store takes in one transaction; nothing was changed.
    #[error("{0}")]
    TooLarge(String),
    /// The transaction may have happened or not: whoever needs to know reads again.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A store of rows.
pub trait Kv: Send + fmt::Debug {
    /// Reads one row, and the store's revision.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&mut self, key: &str) -> Result<(u64, Option<Row>), Failure>;

    /// All rows whose keys begin with `prefix`, as of one moment.
    ///
    /// # Errors
    /// When they cannot be read.
    fn range(&mut self, prefix: &str) -> Result<Range, Failure>;

    /// Makes a transaction happen, durable when this returns; its revision. One that changes nothing has none
    /// of its own and returns the newest.
    ///
    /// # Errors
    /// See [`CommitError`].
    fn commit(&mut self, transaction: &Transaction) -> Result<u64, CommitError>;

    /// Watches rows whose keys begin with `prefix`, from this revision on; 0: from now on.
    ///
    /// # Errors
    /// When that is not remembered (any longer): read everything and watch from there.
    fn watch(&self, prefix: &str, from: u64) -> Result<Watch, Compacted>;

    /// Forgets what happened before this revision; rows stay.
    fn compact(&mut self, before: u64);

    /// Returns the size of a transaction that is surely not too large.
    fn limits(&self) -> Limits {
        Limits { writes: usize::MAX, bytes: usize::MAX }
    }
}

impl Write {
    /// The row that it concerns.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Returns the number of bytes in it.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

impl Condition {
    /// The row that it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Modified(key, _) | Self::Version(key, _) => key,
        }
    }

    fn holds(&self, row: Option<&Row>) -> bool {
        match *self {
            Self::Modified(_, revision) => row.map_or(0, |row| row.modified) == revision,
            Self::Version(_, version) => row.map_or(0, |row| row.version) == version,
        }
    }
}

impl Transaction {
    /// Computes the rows' states when this happens at `revision`; none when it changes nothing.
    fn effects<E: Into<Failure>>(
        &self,
        revision: u64,
        mut row: impl FnMut(&str) -> Result<Option<Row>, E>,
    ) -> Result<BTreeMap<String, Option<Row>>, CommitError> {
        for condition in &self.when {
            if !condition.holds(row(condition.key()).map_err(Into::into)?.as_ref()) {
                return Err(CommitError::Conflict { key: condition.key().to_owned() });
            }
        }
        let mut effects = BTreeMap::new();
        for write in &self.then {
            let before = row(write.key()).map_err(Into::into)?;
            let after = match write {
                Write::Put(_, value) => Some(Row {
                    value: value.clone(),
                    created: before.as_ref().map_or(revision, |before| before.created),
                    modified: revision,
                    version: before.as_ref().map_or(1, |before| before.version + 1),
                }),
                Write::Delete(_) => None,
            };
            if effects.insert(write.key().to_owned(), (before.is_some(), after)).is_some() {
                return Err(CommitError::Duplicate { key: write.key().to_owned() });
            }
        }
        let changes = effects.into_iter().filter(|(_, (before, after))| *before || after.is_some());
        Ok(changes.map(|(key, (_, after))| (key, after)).collect())
    }
}

/// Values hold secrets: their size is shown.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, created, modified, version } = self;
        write!(f, "Row({} bytes, created {created}, modified {modified}, version {version})", value.len())
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "Put({key}, {} bytes)", value.len()),
            Self::Delete(key) => write!(f, "Delete({key})"),
        }
    }
}
