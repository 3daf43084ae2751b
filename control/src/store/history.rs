//! History in the store: a row per commit that adds to it, or several where it would be too large, beside the rows of the state; and
//! the ledger that bounds them.
//!
//! A row is written in the transaction of the change that it tells of, and the oldest rows go in the same one. Keys are outside
//! of the prefix that versions without a history read: these leave the rows alone. They also drop what [`rows`](super::rows) notes
//! in the meta row, so that the next version knows of the changes that nobody has noted.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use sealane_proto::resource::SubjectKind;
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;

use super::Rows;
use crate::core::Timestamp;
use crate::kv::Write;

/// Prefix of the rows' keys.
pub(super) const HISTORY: &str = "/sealane/history/";
/// Size of a row, in bytes; a single larger entry has one all the same.
const ROW: usize = 128 << 10;
/// Number of bytes around an entry in a row, at most.
const AROUND: usize = 24;

/// Bounds of what is kept; beyond any of them the oldest entries go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    entries: usize,
    bytes: usize,
    age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 10_000, bytes: 16 << 20, age: Duration::from_secs(90 * 24 * 3_600) }
    }
}

/// An entry's place: its revision, and its number among the entries of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) revision: u64,
    pub(crate) number: u32,
}

impl Place {
    /// Behind all entries of a revision.
    const fn after(revision: u64) -> Self {
        Self { revision, number: u32::MAX }
    }

    pub(super) fn key(self) -> String {
        format!("{HISTORY}{:020}-{:06}", self.revision, self.number)
    }

    pub(super) fn of_entry(entry: &v1::HistoryEntry) -> Self {
        Self { revision: entry.revision, number: entry.place }
    }

    fn of(key: &str) -> Option<Self> {
        let (revision, number) = key.strip_prefix(HISTORY)?.split_once('-')?;
        Some(Self { revision: revision.parse().ok()?, number: number.parse().ok()? })
    }
}

/// Entries that somebody asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) kind: Option<SubjectKind>,
    /// The network itself, and what belongs to it.
    pub(crate) network: Option<NetworkName>,
    pub(crate) name: Option<String>,
    /// No older ones.
    pub(crate) since: Timestamp,
}

/// Contents of the store's history, without its texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    bounds: Bounds,
    /// By the place of each row's first entry.
    rows: BTreeMap<Place, Entries>,
    entries: usize,
    bytes: usize,
    /// The state of every revision from this one on can be told.
    known_from: u64,
}

/// Entries that share a row, and so a time; their places follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entries {
    bytes: usize,
    at: Timestamp,
    lines: Vec<Line>,
}

/// The object of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    kind: String,
    network: String,
    name: String,
}

/// Rows that a commit adds to the history and takes from it.
#[derive(Debug)]
pub(super) struct Page {
    new: BTreeMap<Place, Entries>,
    gone: Vec<Place>,
    pub(super) known_from: u64,
    pub(super) writes: Vec<Write>,
}

/// Returns the size of entries in the store, in bytes.
pub(super) fn size(entries: &[v1::HistoryEntry]) -> usize {
    entries.iter().map(|entry| entry.encoded_len() + AROUND).sum()
}

/// Returns the number of rows that entries of this size need at most.
pub(super) fn rows(bytes: usize) -> usize {
    // A row is full when the next entry would make it larger, so that each two are larger than one.
    if bytes == 0 { 0 } else { 1 + 2 * bytes / ROW }
}

/// Reads a row. One that is damaged was named when the store was opened.
pub(super) fn read(row: Option<Vec<u8>>) -> Vec<v1::HistoryEntry> {
    let row = row.and_then(|row| v1::HistoryRow::decode(row.as_slice()).ok());
    row.unwrap_or_default().entries
}

impl Ledger {
    /// Reads the rows of a history that is whole from `known_from` on. Ones that cannot be read, and all before them, are of no
    /// use: they go with the next commit.
    pub(super) fn read(rows: &Rows, known_from: u64) -> Self {
        let mut ledger = Self { known_from, ..Self::default() };
        for (key, row) in rows {
            let Some(place) = Place::of(key) else {
                tracing::warn!(key, "a row of the history has a key of no known form, and is left alone");
                continue;
            };
            let bytes = key.len() + row.len();
            let entries = v1::HistoryRow::decode(row.as_slice()).map(|row| Entries::of(row.entries, bytes));
            let entries = entries.unwrap_or_else(|error| {
                tracing::warn!(key, %error, "a row of the history is damaged, and older ones are forgotten");
                ledger.rows.values_mut().for_each(|entries| entries.at = Timestamp::default());
                ledger.known_from = ledger.known_from.max(place.revision);
                Entries::of(vec![], bytes)
            });
            ledger.add(place, entries);
        }
        ledger
    }

    fn add(&mut self, place: Place, entries: Entries) {
        self.bytes += entries.bytes;
        self.entries += entries.lines.len();
        self.rows.insert(place, entries);
    }

    /// Writes up what a commit at this revision and time adds, and which of the oldest rows go for it: up to `room` writes.
    pub(super) fn page(
        &self,
        (revision, now): (u64, Timestamp),
        entries: Vec<v1::HistoryEntry>,
        room: usize,
    ) -> Page {
        let (new, writes) = written(revision, entries);
        let room = room.saturating_sub(writes.len());
        let mut page = Page { new, gone: vec![], known_from: self.known_from, writes };
        let mut bytes = self.bytes + page.new.values().map(|row| row.bytes).sum::<usize>();
        let mut count = self.entries + page.new.values().map(|row| row.lines.len()).sum::<usize>();
        for (place, row) in self.rows.iter().chain(&page.new).take(room) {
            let Bounds { entries, bytes: most, age } = self.bounds;
            if count <= entries && bytes <= most && now.since(row.at) <= age {
                break;
            }
            count -= row.lines.len();
            bytes -= row.bytes;
            page.gone.push(*place);
            page.writes.push(Write::Delete(place.key()));
            page.known_from = page.known_from.max(place.revision);
        }
        page
    }

    /// Takes in what has been committed.
    pub(super) fn turn(&mut self, page: Page) {
        for (place, row) in page.new {
            self.add(place, row);
        }
        for row in page.gone.iter().filter_map(|place| self.rows.remove(place)) {
            self.bytes -= row.bytes;
            self.entries -= row.lines.len();
        }
        self.known_from = page.known_from;
    }

    /// Returns the revision from which on the state of every one can be told.
    pub(super) fn known_from(&self) -> u64 {
        self.known_from
    }

    /// Finds entries that fit, newest first: up to `limit` of them, and about so many bytes, but at least one; the last one too if
    /// there are more.
    pub(super) fn newest(
        &self,
        filter: &Filter,
        before: Option<Place>,
        limit: (usize, usize),
    ) -> (Vec<Place>, Option<Place>) {
        let end = before.unwrap_or(Place::after(u64::MAX));
        let ((entries, bytes), mut found, mut sum) = (limit, vec![], 0);
        for (first, row) in self.rows.range(..end).rev().filter(|(_, row)| row.at >= filter.since) {
            let places = row.places(*first).rev().filter(|(place, line)| *place < end && line.fits(filter));
            for (place, _) in places {
                sum += row.bytes / row.lines.len();
                if found.len() == entries || (sum > bytes && !found.is_empty()) {
                    let last = found.last().copied();
                    return (found, last);
                }
                found.push(place);
            }
        }
        (found, None)
    }

    /// Finds the first entry of each object after one revision and up to another, oldest first.
    pub(super) fn first_after(&self, revision: u64, newest: u64) -> Vec<Place> {
        let between = self.rows.range(Place::after(revision)..Place::after(newest));
        let mut first = BTreeMap::new();
        for (place, line) in between.flat_map(|(first, row)| row.places(*first)) {
            first.entry((&line.kind, &line.network, &line.name)).or_insert(place);
        }
        let mut places: Vec<Place> = first.into_values().collect();
        places.sort_unstable();
        places
    }

    /// Returns the row of each entry, by its first one.
    pub(super) fn rows_of(&self, places: Vec<Place>) -> Vec<(Place, Place)> {
        let row = |place| self.rows.range(..=place).next_back().map(|(first, _)| (*first, place));
        places.into_iter().filter_map(row).collect()
    }
}

/// Entries of a revision as rows, each with the key of its first entry.
fn written(revision: u64, entries: Vec<v1::HistoryEntry>) -> (BTreeMap<Place, Entries>, Vec<Write>) {
    let (mut rows, mut full): (Vec<Vec<v1::HistoryEntry>>, usize) = (vec![], ROW);
    for (place, entry) in (0..).zip(entries) {
        let entry = v1::HistoryEntry { revision, place, ..entry };
        let bytes = entry.encoded_len() + AROUND;
        full += bytes;
        match rows.last_mut().filter(|_| full <= ROW) {
            Some(row) => row.push(entry),
            None => {
                rows.push(vec![entry]);
                full = bytes;
            }
        }
    }
    let written = rows.into_iter().filter_map(|entries| {
        let place = Place::of_entry(entries.first()?);
        let row = v1::HistoryRow { entries };
        let (key, bytes) = (place.key(), row.encode_to_vec());
        let entries = Entries::of(row.entries, key.len() + bytes.len());
        Some(((place, entries), Write::Put(key, bytes)))
    });
    written.unzip()
}

impl Entries {
    fn of(entries: Vec<v1::HistoryEntry>, bytes: usize) -> Self {
        let at = entries.first().map_or(0, |entry| entry.at_unix_seconds);
        Self { bytes, at: Timestamp::from_unix(at), lines: entries.into_iter().map(Line::of).collect() }
    }

    /// The entries with their places, of which this is the first.
    fn places(&self, first: Place) -> impl DoubleEndedIterator<Item = (Place, &Line)> {
        let place = move |(at, line)| {
            let number = first.number.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            (Place { number, ..first }, line)
        };
        self.lines.iter().enumerate().map(place)
    }
}

impl Line {
    fn of(entry: v1::HistoryEntry) -> Self {
        let v1::HistoryEntry { kind, network, name, .. } = entry;
        Self { kind, network, name }
    }

    fn fits(&self, filter: &Filter) -> bool {
        let Filter { kind, network, name, since: _ } = filter;
        kind.is_none_or(|kind| self.kind == kind.to_string())
            && network.as_ref().is_none_or(|network| self.network == network.as_str())
            && name.as_ref().is_none_or(|name| self.name == *name)
    }
}

#[cfg(test)]
mod tests;
