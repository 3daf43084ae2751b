//! History of recent events, for those who watch: kept in memory, bounded, and told in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Row;

/// Number of events that are remembered.
const REMEMBERED: usize = 10_000;

/// Event: a row was written or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The transaction.
    pub revision: u64,
    /// The row's key.
    pub key: String,
    /// The row since then; `None`: it is no more.
    pub row: Option<Row>,
}

/// The requested history is forgotten: read everything and watch from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what happened before revision {first} is compacted; read everything and watch from there")]
pub struct Compacted {
    /// The first revision that is remembered.
    pub first: u64,
}

/// Events from a revision on, in order, each transaction whole. Slow watchers hold nobody up: they hear
/// [`Compacted`].
#[derive(Debug)]
pub struct Watch {
    history: Arc<History>,
    prefix: String,
    next: u64,
    /// The age of the history that it is of.
    age: u64,
}

/// The events of one store since it was opened.
#[derive(Debug, Default)]
pub(super) struct History {
    past: Mutex<Past>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Past {
    /// All events from this revision on are here.
    first: u64,
    /// The newest revision.
    revision: u64,
    events: VecDeque<Event>,
    /// Number of times that the store went back to an earlier revision.
    age: u64,
}

impl History {
    /// Nothing before and up to this revision is known.
    pub(super) fn new(revision: u64) -> Arc<Self> {
        let history = Self::default();
        history.skip(revision);
        Arc::new(history)
    }

    /// The newest revision that it knows of.
    pub(super) fn revision(&self) -> u64 {
        self.past().revision
    }

    /// Something unknown has happened, up to this revision.
    pub(super) fn skip(&self, revision: u64) {
        let mut past = self.past();
        past.events.clear();
        (past.first, past.revision) = (revision + 1, revision);
        self.news.notify_all();
    }

    /// The store is an earlier copy, of this revision: whoever watches has to read everything.
    pub(super) fn go_back(&self, revision: u64) {
        self.past().age += 1;
        self.skip(revision);
    }

    /// Takes in what a transaction has done.
    pub(super) fn record(&self, revision: u64, effects: BTreeMap<String, Option<Row>>) {
        let mut past = self.past();
        past.events.extend(effects.into_iter().map(|(key, row)| Event { revision, key, row }));
        past.revision = revision;
        while past.events.len() > REMEMBERED
            && let Some(oldest) = past.events.front().map(|event| event.revision)
        {
            past.forget(oldest + 1);
        }
        self.news.notify_all();
    }

    /// Forgets what happened before this revision.
    pub(super) fn compact(&self, before: u64) {
        let mut past = self.past();
        let before = before.min(past.revision + 1);
        past.forget(before);
        self.news.notify_all();
    }

    /// Waits until it knows of this revision, no longer than `patience`; true if it does.
    pub(super) fn knows(&self, revision: u64, patience: Duration) -> bool {
        let waited = self.news.wait_timeout_while(self.past(), patience, |past| past.revision < revision);
        waited.unwrap_or_else(PoisonError::into_inner).0.revision >= revision
    }

    /// A watch of the rows with this prefix.
    pub(super) fn watch(self: &Arc<Self>, prefix: &str, from: u64) -> Result<Watch, Compacted> {
        let past = self.past();
        let next = if from == 0 { past.revision + 1 } else { from };
        if next < past.first {
            return Err(Compacted { first: past.first });
        }
        Ok(Watch { history: self.clone(), prefix: prefix.to_owned(), next, age: past.age })
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn forget(&mut self, before: u64) {
        while self.events.front().is_some_and(|event| event.revision < before) {
            self.events.pop_front();
        }
        self.first = self.first.max(before);
    }
}

impl Watch {
    /// Waits for events until there are some or the time is over: then none.
    ///
    /// # Errors
    /// When events that were not told yet are forgotten.
    pub fn next(&mut self, patience: Duration) -> Result<Vec<Event>, Compacted> {
        let deadline = Instant::now() + patience;
        let mut past = self.history.past();
        loop {
            if self.next < past.first || self.age != past.age {
                return Err(Compacted { first: past.first });
            }
            let told = past.events.iter().filter(|event| event.revision >= self.next);
            let told: Vec<Event> =
                told.filter(|event| event.key.starts_with(&self.prefix)).cloned().collect();
            self.next = self.next.max(past.revision + 1);
            let left = deadline.saturating_duration_since(Instant::now());
            if !told.is_empty() || left.is_zero() {
                return Ok(told);
            }
            let waited = self.history.news.wait_timeout(past, left);
            past = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
