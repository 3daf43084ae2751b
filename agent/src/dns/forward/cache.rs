//! Answers that hold still, and for a while those that do no longer (RFC 8767). Pure: the time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::message::Query;
use super::cached::{Age, CachedAnswer};

/// Memory for all answers, in bytes.
const MAX_SIZE: usize = 2 * 1024 * 1024;
/// Memory of an entry beside its answer: the question, and its places in both maps.
const OVERHEAD: usize = 256;
/// Time for which an answer is kept after it has run out.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Time for which nobody is asked again about a name for which there was no answer, where an old one is at hand.
const RECHECK: Duration = Duration::from_secs(5);

/// Answers by question, the one used longest ago first to go.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    /// Questions by their last use.
    order: BTreeMap<u64, Key>,
    uses: u64,
    size: usize,
}

/// A question: name in lower case, type and class.
type Key = Arc<[u8]>;

#[derive(Debug)]
struct Entry {
    answer: Arc<CachedAnswer>,
    received: Instant,
    used: u64,
    /// Time before which nobody is asked again.
    recheck: Option<Instant>,
}

/// Knowledge about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// An answer that is to be given.
    Answer(Arc<CachedAnswer>, Age),
    /// An answer that holds no longer: to be given, as `Age::Stale`, if nobody gives a newer one.
    Before(Arc<CachedAnswer>),
    /// None.
    Nothing,
}

impl Cache {
    /// Returns what is known of the question.
    pub(super) fn find(&mut self, query: &Query<'_>, now: Instant) -> Known {
        let key = key(query);
        self.uses += 1;
        let Some(entry) = self.entries.get_mut(&key[..]) else { return Known::Nothing };
        let age = now.saturating_duration_since(entry.received);
        if age >= entry.answer.lifetime() + STALE {
            self.remove(&key);
            return Known::Nothing;
        }
        if let Some(key) = self.order.remove(&entry.used) {
            entry.used = self.uses;
            self.order.insert(self.uses, key);
        }
        let answer = entry.answer.clone();
        if age < answer.lifetime() {
            Known::Answer(answer, Age::Fresh(age))
        } else if entry.recheck.is_some_and(|recheck| now < recheck) {
            Known::Answer(answer, Age::Stale)
        } else {
            Known::Before(answer)
        }
    }

    /// Keeps an answer; returns the number of others that had to go for it.
    pub(super) fn insert(&mut self, query: &Query<'_>, answer: Arc<CachedAnswer>, now: Instant) -> u64 {
        let key: Key = key(query).into();
        self.remove(&key);
        if answer.lifetime().is_zero() {
            return 0;
        }
        self.size += cost(&answer);
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { answer, received: now, used: self.uses, recheck: None });
        let mut evicted = 0;
        while self.size > MAX_SIZE
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
            evicted += 1;
        }
        evicted
    }

    /// Notes that nobody gave a newer answer.
    pub(super) fn failed(&mut self, query: &Query<'_>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&key(query)[..]) {
            entry.recheck = Some(now + RECHECK);
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.size -= cost(&entry.answer);
        }
    }
}

fn cost(answer: &CachedAnswer) -> usize {
    answer.size() + OVERHEAD
}

fn key(query: &Query<'_>) -> Vec<u8> {
    let (name, rest) = query.split();
    // Lengths of labels are no letters.
    [&name.to_ascii_lowercase()[..], rest].concat()
}

#[cfg(test)]
mod tests;
