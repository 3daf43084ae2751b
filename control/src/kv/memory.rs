//! Rows in memory: the twin of the real stores, for tests and for whoever needs no more.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use super::history::History;
use super::{CommitError, Compacted, Failure, Kv, Range, Row, Transaction, Watch};

/// A store that lives as long as its process.
#[derive(Debug)]
pub struct Memory {
    range: Range,
    history: Arc<History>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::from(Range::default())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Range> for Memory {
    /// A store of these rows; it remembers nothing that happened before.
    fn from(range: Range) -> Self {
        let history = History::new(range.revision);
        Self { range, history }
    }
}

impl Kv for Memory {
    fn get(&mut self, key: &str) -> Result<(u64, Option<Row>), Failure> {
        Ok((self.range.revision, self.range.rows.get(key).cloned()))
    }

    fn range(&mut self, prefix: &str) -> Result<Range, Failure> {
        let rows = self.range.rows.range(prefix.to_owned()..);
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix));
        let rows: BTreeMap<String, Row> = rows.map(|(key, row)| (key.clone(), row.clone())).collect();
        Ok(Range { revision: self.range.revision, rows })
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<u64, CommitError> {
        let revision = self.range.revision + 1;
        let effects =
            transaction.effects(revision, |key| Ok::<_, Infallible>(self.range.rows.get(key).cloned()))?;
        if effects.is_empty() {
            return Ok(self.range.revision);
        }
        for (key, row) in effects.clone() {
            match row {
                Some(row) => drop(self.range.rows.insert(key, row)),
                None => drop(self.range.rows.remove(&key)),
            }
        }
        self.range.revision = revision;
        self.history.record(revision, effects);
        Ok(revision)
    }

    fn watch(&self, prefix: &str, from: u64) -> Result<Watch, Compacted> {
        self.history.watch(prefix, from)
    }

    fn compact(&mut self, before: u64) {
        self.history.compact(before);
    }
}

impl From<Infallible> for Failure {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
