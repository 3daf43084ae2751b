//! Conformance of stores, as functions over the trait: each implementation calls them with a way to make a store and a
//! way to end its process and begin another one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use redb::Database;
use tempfile::TempDir;

use super::etcd::server::Server;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A store under test.
trait Subject {
    type Store: Kv;
    /// An empty one.
    fn new() -> Self;
    fn kv(&mut self) -> &mut Self::Store;
    /// The revision at which it was empty.
    fn origin(&self) -> u64 {
        0
    }
    /// The store, with revisions as if it had been empty at 0.
    fn store(&mut self) -> Counted<'_, Self::Store> {
        Counted { origin: self.origin(), kv: self.kv() }
    }
    /// Ends its process at once; another one opens what it left.
    fn crash(&mut self);
}

/// A store that was empty at revision 0, whoever else is in the same one.
struct Counted<'a, K> {
    kv: &'a mut K,
    origin: u64,
}

/// A watch of such a store.
#[derive(Debug)]
struct CountedWatch {
    watch: Watch,
    origin: u64,
}

impl<K: Kv> Counted<'_, K> {
    fn row(&self, row: Row) -> Row {
        Row { created: row.created - self.origin, modified: row.modified - self.origin, ..row }
    }

    fn get(&mut self, key: &str) -> Result<(u64, Option<Row>), Failure> {
        let (revision, row) = self.kv.get(key)?;
        Ok((revision - self.origin, row.map(|row| self.row(row))))
    }

    fn range(&mut self, prefix: &str) -> Result<Range, Failure> {
        let Range { revision, rows } = self.kv.range(prefix)?;
        let rows = rows.into_iter().map(|(key, row)| (key, self.row(row))).collect();
        Ok(Range { revision: revision - self.origin, rows })
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<u64, CommitError> {
        let when = transaction.when.iter().map(|condition| match condition {
            Condition::Modified(key, revision) if *revision > 0 => {
                Condition::Modified(key.clone(), revision + self.origin)
            }
            other @ (Condition::Modified(..) | Condition::Version(..)) => other.clone(),
        });
        let transaction = Transaction { when: when.collect(), then: transaction.then.clone() };
        Ok(self.kv.commit(&transaction)? - self.origin)
    }

    fn watch(&self, prefix: &str, from: u64) -> Result<CountedWatch, Compacted> {
        let from = if from == 0 { 0 } else { from + self.origin };
        let watch = self.kv.watch(prefix, from);
        let watch = watch.map_err(|compacted| Compacted { first: compacted.first - self.origin })?;
        Ok(CountedWatch { watch, origin: self.origin })
    }

    fn compact(&mut self, before: u64) {
        self.kv.compact(before + self.origin);
    }
}

impl CountedWatch {
    fn next(&mut self, patience: Duration) -> Result<Vec<Event>, Compacted> {
        let origin = self.origin;
        let events = self.watch.next(patience);
        let events = events.map_err(|compacted| Compacted { first: compacted.first - origin })?;
        let row = |row: Row| Row { created: row.created - origin, modified: row.modified - origin, ..row };
        let event = |event: Event| Event {
            revision: event.revision - origin,
            row: event.row.map(row),
            key: event.key,
        };
        Ok(events.into_iter().map(event).collect())
    }

    /// Waits until so many events have come: a store may tell of what was committed a moment later.
    fn all(&mut self, many: usize) -> Vec<Event> {
        let mut events = self.next(PATIENCE).unwrap();
        while events.len() < many {
            let more = self.next(PATIENCE).unwrap();
            assert!(!more.is_empty(), "events are missing: {events:?}");
            events.extend(more);
        }
        events
    }
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.to_owned(), value.as_bytes().to_vec())
}

fn delete(key: &str) -> Write {
    Write::Delete(key.to_owned())
}

fn then(writes: &[Write]) -> Transaction {
    Transaction { when: vec![], then: writes.to_vec() }
}

fn row(value: &str, created: u64, modified: u64, version: u64) -> Row {
    Row { value: value.as_bytes().to_vec(), created, modified, version }
}

/// All of it.
fn conforms<S: Subject>() {
    rows_know_when_they_were_made_and_written::<S>();
    a_transaction_happens_whole_or_not_at_all::<S>();
    what_changes_nothing_has_no_revision::<S>();
    ranges_are_of_one_moment_and_prefix::<S>();
    watches_tell_everything_in_order_from_any_revision::<S>();
    what_is_compacted_is_said::<S>();
    a_crash_loses_nothing_and_watches_begin_anew::<S>();
    agrees_with_a_model::<S>();
}

fn rows_know_when_they_were_made_and_written<S: Subject>() {
    let mut subject = S::new();
    let mut store = subject.store();
    assert_eq!(store.get("/a").unwrap(), (0, None));
    assert_eq!(store.commit(&then(&[put("/a", "1"), put("/b", "1")])).unwrap(), 1);
    assert_eq!(store.commit(&then(&[put("/a", "2")])).unwrap(), 2);
    assert_eq!(store.get("/a").unwrap(), (2, Some(row("2", 1, 2, 2))));
    assert_eq!(store.get("/b").unwrap(), (2, Some(row("1", 1, 1, 1))));
    store.commit(&then(&[delete("/a")])).unwrap();
    store.commit(&then(&[put("/a", "3")])).unwrap();
    assert_eq!(store.get("/a").unwrap(), (4, Some(row("3", 4, 4, 1))), "made again, it begins again");
}

fn a_transaction_happens_whole_or_not_at_all<S: Subject>() {
    let mut subject = S::new();
    let mut store = subject.store();
    store.commit(&then(&[put("/a", "1")])).unwrap();
    let if_all = |when: Vec<Condition>| Transaction { when, then: vec![put("/a", "x"), put("/b", "x")] };
    let (modified, version) = (
        |key: &str, is| Condition::Modified(key.into(), is),
        |key: &str, is| Condition::Version(key.into(), is),
    );
    let refused = [
        (vec![modified("/a", 0)], "/a"),
        (vec![modified("/a", 2)], "/a"),
        (vec![modified("/a", 1), modified("/b", 1)], "/b"),
        (vec![version("/a", 2)], "/a"),
        (vec![version("/a", 1), version("/b", 1)], "/b"),
    ];
    for (when, key) in refused {
        let conflict = CommitError::Conflict { key: key.to_owned() };
        assert_eq!(store.commit(&if_all(when.clone())), Err(conflict), "{when:?}");
        assert_eq!(store.range("").unwrap().rows, [("/a".to_owned(), row("1", 1, 1, 1))].into());
    }
    let twice = store.commit(&then(&[put("/c", "1"), delete("/c")]));
    assert_eq!(twice, Err(CommitError::Duplicate { key: "/c".to_owned() }));
    let holds = vec![modified("/a", 1), modified("/b", 0), version("/b", 0)];
    assert_eq!(store.commit(&if_all(holds)).unwrap(), 2);
    assert_eq!(store.get("/b").unwrap().1, Some(row("x", 2, 2, 1)));
}

fn what_changes_nothing_has_no_revision<S: Subject>() {
    let mut subject = S::new();
    let mut store = subject.store();
    store.commit(&then(&[put("/a", "1")])).unwrap();
    for nothing in [then(&[]), then(&[delete("/z")])] {
        assert_eq!(store.commit(&nothing).unwrap(), 1);
    }
    assert_eq!(store.commit(&then(&[delete("/z"), put("/a", "1")])).unwrap(), 2, "written is written");
}

fn ranges_are_of_one_moment_and_prefix<S: Subject>() {
    let mut subject = S::new();
    let mut store = subject.store();
    let keys = ["/a", "/a/1", "/a/2", "/ab", "/b/1"];
    store.commit(&then(&keys.map(|key| put(key, key)))).unwrap();
    let under = |store: &mut Counted<'_, S::Store>, prefix: &str| -> Vec<String> {
        let range = store.range(prefix).unwrap();
        assert_eq!(range.revision, 1);
        range.rows.into_keys().collect()
    };
    assert_eq!(under(&mut store, "/a/"), ["/a/1", "/a/2"]);
    assert_eq!(under(&mut store, "/a"), ["/a", "/a/1", "/a/2", "/ab"]);
    assert_eq!(under(&mut store, "").len(), 5);
    assert_eq!(under(&mut store, "/c"), [""; 0]);
}

fn watches_tell_everything_in_order_from_any_revision<S: Subject>() {
    let mut subject = S::new();
    let mut store = subject.store();
    let mut all = store.watch("/", 1).unwrap();
    let mut some = store.watch("/b", 0).unwrap();
    assert_eq!(all.next(Duration::ZERO).unwrap(), []);
    store.commit(&then(&[put("/a", "1"), put("/b", "1")])).unwrap();
    store.commit(&then(&[delete("/b"), put("/c", "1")])).unwrap();
    let event = |revision, key: &str, row| Event { revision, key: key.to_owned(), row };
    let (a, b) = (row("1", 1, 1, 1), row("1", 1, 1, 1));
    let first = [event(1, "/a", Some(a)), event(1, "/b", Some(b.clone()))];
    let second = [event(2, "/b", None), event(2, "/c", Some(row("1", 2, 2, 1)))];
    assert_eq!(all.all(4), [first, second.clone()].concat());
    assert_eq!(some.all(2), [event(1, "/b", Some(b)), event(2, "/b", None)]);
    assert_eq!(store.watch("/", 2).unwrap().all(2), second);
    let mut waiting = store.watch("/late", 3).unwrap();
    let waiter = thread::spawn(move || waiting.next(PATIENCE).unwrap());
    store.commit(&then(&[put("/other", "1")])).unwrap();
    store.commit(&then(&[put("/late", "1")])).unwrap();
    assert_eq!(waiter.join().unwrap(), [event(4, "/late", Some(row("1", 4, 4, 1)))]);
}

fn what_is_compacted_is_said<S: Subject>() {
    let mut subject = S::new();
    let mut store = subject.store();
    let mut slow = store.watch("/", 1).unwrap();
    for value in ["1", "2", "3"] {
        store.commit(&then(&[put("/a", value)])).unwrap();
    }
    store.compact(3);
    let compacted = Compacted { first: 3 };
    assert_eq!(slow.next(Duration::ZERO), Err(compacted));
    assert_eq!(store.watch("/", 2).unwrap_err(), compacted);
    assert_eq!(store.watch("/", 3).unwrap().next(PATIENCE).unwrap().len(), 1);
    assert_eq!(store.get("/a").unwrap(), (3, Some(row("3", 1, 3, 3))), "rows stay");
    let newest = store.range("/").unwrap().revision;
    let mut resynchronised = store.watch("/", newest + 1).unwrap();
    store.commit(&then(&[delete("/a")])).unwrap();
    assert_eq!(resynchronised.next(PATIENCE).unwrap().len(), 1);
}

fn a_crash_loses_nothing_and_watches_begin_anew<S: Subject>() {
    let mut subject = S::new();
    subject.store().commit(&then(&[put("/a", "1")])).unwrap();
    subject.store().commit(&then(&[put("/b", "1")])).unwrap();
    let before = subject.store().range("").unwrap();
    subject.crash();
    let mut store = subject.store();
    assert_eq!(store.range("").unwrap(), before);
    assert_eq!(store.watch("/", 1).unwrap_err(), Compacted { first: 3 });
    let mut watch = store.watch("/", before.revision + 1).unwrap();
    let when = vec![Condition::Modified("/b".into(), 2)];
    assert_eq!(store.commit(&Transaction { when, then: vec![put("/b", "2")] }).unwrap(), 3);
    assert_eq!(watch.next(PATIENCE).unwrap().len(), 1);
}

/// Conditions (key, number, whether that is a version), writes, and whether the process ends after it.
type Step = (Vec<(u8, u64, bool)>, BTreeMap<u8, Option<u8>>, bool);

/// A random transaction over few keys.
fn step() -> impl Strategy<Value = Step> {
    let condition = (0_u8..5, 0_u64..4, any::<bool>());
    let writes = prop::collection::btree_map(0_u8..5, prop::option::weighted(0.7, any::<u8>()), 0..4);
    (prop::collection::vec(condition, 0..2), writes, prop::bool::weighted(0.1))
}

/// The same in a few lines: a map, a counter, and all that happened.
fn agrees_with_a_model<S: Subject>() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..30))| {
        let (mut subject, mut revision, mut rows) = (S::new(), 0, BTreeMap::<String, Row>::new());
        let mut followed = rows.clone();
        let mut watch = subject.store().watch("", 0).unwrap();
        for (conditions, writes, crash) in steps {
            let key = |number: u8| format!("/k/{number}");
            let when: Vec<Condition> = conditions.into_iter().map(|(number, back, version)| match version {
                true => Condition::Version(key(number), back),
                false => Condition::Modified(key(number), u64::saturating_sub(revision, back)),
            }).collect();
            let holds = when.iter().all(|condition| match condition {
                Condition::Version(key, version) => rows.get(key).map_or(0, |row| row.version) == *version,
                Condition::Modified(key, modified) => rows.get(key).map_or(0, |row| row.modified) == *modified,
            });
            let changes = writes.iter().any(|(number, value)| value.is_some() || rows.contains_key(&key(*number)));
            let then = writes.iter().map(|(&number, value)| match value {
                Some(value) => Write::Put(key(number), vec![*value]),
                None => Write::Delete(key(number)),
            });
            let committed = subject.store().commit(&Transaction { when, then: then.collect() });
            prop_assert_eq!(committed.is_ok(), holds);
            if holds && changes {
                revision += 1;
                for (number, value) in writes {
                    let old = rows.remove(&key(number));
                    let Some(value) = value else { continue };
                    let row = Row {
                        value: vec![value],
                        created: old.as_ref().map_or(revision, |old| old.created),
                        modified: revision,
                        version: old.map_or(1, |old| old.version + 1),
                    };
                    rows.insert(key(number), row);
                }
            }
            if crash {
                subject.crash();
                watch = subject.store().watch("", revision + 1).unwrap();
                followed = subject.store().range("").unwrap().rows;
            }
            // Told a moment later, perhaps, and nothing when there was nothing.
            loop {
                let events = watch.next(if followed == rows { Duration::ZERO } else { PATIENCE }).unwrap();
                if events.is_empty() {
                    break;
                }
                for event in events {
                    match event.row {
                        Some(row) => drop(followed.insert(event.key, row)),
                        None => drop(followed.remove(&event.key)),
                    }
                }
            }
            prop_assert_eq!(&followed, &rows, "a watcher has the same");
            prop_assert_eq!(subject.store().range("").unwrap(), Range { revision, rows: rows.clone() });
        }
    });
}

struct InFile {
    directory: TempDir,
    file: Option<File>,
}

impl InFile {
    fn open(&self, make: bool) -> File {
        let path: PathBuf = self.directory.path().join("rows.redb");
        let opened = path.clone();
        let opener: Opener =
            Box::new(move || if make { Database::create(&opened) } else { Database::open(&opened) });
        File::open(path, opener).unwrap()
    }
}

impl Subject for InFile {
    type Store = File;

    fn new() -> Self {
        let mut subject = Self { directory: TempDir::new().unwrap(), file: None };
        subject.file = Some(subject.open(true));
        subject
    }

    fn kv(&mut self) -> &mut File {
        self.file.as_mut().unwrap()
    }

    fn crash(&mut self) {
        // What is on disk at this moment, as after a power cut: nothing is flushed or closed first.
        let left = TempDir::new().unwrap();
        std::fs::copy(self.directory.path().join("rows.redb"), left.path().join("rows.redb")).unwrap();
        self.file = None;
        self.directory = left;
        self.file = Some(self.open(false));
    }
}

struct InMemory(Memory);

impl Subject for InMemory {
    type Store = Memory;

    fn new() -> Self {
        Self(Memory::new())
    }

    fn kv(&mut self) -> &mut Memory {
        &mut self.0
    }

    fn crash(&mut self) {
        self.0 = Memory::from(self.0.range("").unwrap());
    }
}

#[test]
fn a_file_conforms() {
    conforms::<InFile>();
}

#[test]
fn memory_conforms() {
    conforms::<InMemory>();
}

/// A prefix of an etcd that all of them share.
struct InEtcd {
    prefix: String,
    etcd: Option<Etcd>,
    origin: u64,
}

/// The etcd of this process, as long as a test holds it.
fn server() -> Arc<Server> {
    static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap();
    server.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Server::start::<&str>(&[]));
        *server = Arc::downgrade(&started);
        started
    })
}

impl Subject for InEtcd {
    type Store = Etcd;

    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut etcd = server().open(&prefix);
        let origin = etcd.range("").unwrap().revision;
        Self { prefix, etcd: Some(etcd), origin }
    }

    fn kv(&mut self) -> &mut Etcd {
        self.etcd.as_mut().unwrap()
    }

    fn origin(&self) -> u64 {
        self.origin
    }

    fn crash(&mut self) {
        self.etcd = None;
        self.etcd = Some(server().open(&self.prefix));
    }
}

#[test]
fn etcd_conforms() {
    let _server = server();
    conforms::<InEtcd>();
}
