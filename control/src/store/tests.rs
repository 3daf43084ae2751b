mod history;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use redb::backends::FileBackend;
use redb::{Database, StorageBackend, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::core::{Actor, Change, CreateNetwork, CreateToken, PurgeTokens, RemoveNetwork, Timestamp, model};
use crate::kv;
use crate::metrics::CommitMetrics;

const NOW: Timestamp = Timestamp::from_unix(1_000_000_000);

fn open_at(directory: &Path) -> Result<(Store, Image), OpenError> {
    open(directory, None, "sealane".parse().unwrap(), NOW)
}

fn start(store: Store, image: Image) -> (Writer, Stopped, Health) {
    let metrics = CommitMetrics::new(&prometheus::Registry::new()).unwrap();
    Writer::start(store, image.state, image.meta, Box::new(|_, _, _| {}), metrics, || NOW).unwrap()
}

fn network(name: &str, subnet: &str) -> CreateNetwork {
    CreateNetwork {
        name: name.parse().unwrap(),
        hosts: Default::default(),
        subnet: subnet.parse().unwrap(),
        mtu: None,
        egress: sealane_proto::resource::Egress::Allow,
        subnet6: None,
        mtls: None,
    }
}

#[tokio::test]
async fn a_store_opened_again_has_the_same_state_epoch_revision_and_authority() {
    let directory = TempDir::new().unwrap();
    let (store, first) = open_at(directory.path()).unwrap();
    assert!(first.meta.epoch != 0 && first.meta.revision == 0);
    let (writer, stopped, _) = start(store, first.clone());
    writer.submit(Actor::Control, network("a", "10.1.0.0/16")).await.unwrap();
    writer.submit(Actor::Control, network("b", "10.2.0.0/16")).await.unwrap();
    writer.submit(Actor::Control, RemoveNetwork("a".parse().unwrap())).await.unwrap();
    let ttl = Duration::from_secs(60);
    let networks = ["b".parse().unwrap()].into();
    let token = CreateToken { id: "abcd2345".into(), hash: [7; 32], ttl, uses: None, node: None, networks };
    let token = writer.submit(Actor::Control, token).await.unwrap();
    writer.submit(Actor::Control, PurgeTokens).await.unwrap();
    writer.stop().await;
    stopped.wait();

    let (_store, second) = open_at(directory.path()).unwrap();
    assert_eq!(second.meta.epoch, first.meta.epoch);
    assert_eq!(second.meta.revision, 4, "a command without changes is no transaction");
    assert_eq!(second.authority, first.authority);
    let names: Vec<&str> = second.state.networks.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(second.state.networks[&"b".parse().unwrap()].changed, 2);
    assert_eq!(second.state.tokens["abcd2345"], token);
}

#[test]
fn one_process_at_a_time_has_the_store() {
    let directory = TempDir::new().unwrap();
    let first = open_at(directory.path()).unwrap();
    let error = open_at(directory.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another"), "{error}");
    drop(first);
    open_at(directory.path()).unwrap();
}

#[test]
fn a_store_of_a_newer_version_or_another_mesh_is_refused() {
    let directory = TempDir::new().unwrap();
    drop(open_at(directory.path()).unwrap());
    let wanted = Some("other".parse().unwrap());
    let error = open(directory.path(), wanted, "sealane".parse().unwrap(), NOW).unwrap_err().to_string();
    assert!(error.contains("is of trust domain sealane, not other"), "{error}");

    let path = directory.path().join("control.redb");
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        // The row that every version looks at first; field 1 (varint) of its message is the schema.
        let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sealane");
        transaction.open_table(table).unwrap().insert("meta", [0x08, 3].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = open_at(directory.path()).unwrap_err().to_string();
    let end =
        "was written by a newer Sealane (schema 3, this one knows 2); upgrade Sealane or restore a backup";
    assert!(error.contains(end), "{error}");
}

#[test]
fn what_is_no_store_is_named_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.redb");
    std::fs::write(&path, vec![7; 8_192]).unwrap();
    let error = open_at(directory.path()).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), vec![7; 8_192]);
}

/// A disk that can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), std::io::Error> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.write(offset, data)
    }
}

/// Opens a file on a disk that is full while that says so.
fn disk(path: &Path, full: &Arc<AtomicBool>) -> kv::Opener {
    let (path, full) = (path.to_owned(), full.clone());
    Box::new(move || {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
        let disk = Disk { file: FileBackend::new(file)?, full: full.clone() };
        Database::builder().create_with_backend(disk)
    })
}

/// A new store in this folder, on a disk that is full while the last one says so.
fn on_disk(directory: &Path) -> (Store, Image, Arc<AtomicBool>) {
    drop(open_at(directory).unwrap());
    let path = directory.join("control.redb");
    let full = Arc::new(AtomicBool::new(false));
    let mut store = Store::new(Box::new(kv::File::open(path.clone(), disk(&path, &full)).unwrap()));
    let image = store.load().unwrap();
    (store, image, full)
}

#[tokio::test]
async fn a_full_disk_refuses_changes_until_there_is_space_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let (store, image, full) = on_disk(directory.path());
    let (writer, stopped, health) = start(store, image);
    writer.submit(Actor::Control, network("a", "10.1.0.0/16")).await.unwrap();

    full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = writer.submit(Actor::Control, network("b", "10.2.0.0/16")).await.unwrap_err();
        assert!(matches!(&error, SubmitError::Commit(_)), "{error}");
    }
    assert!(health.problem().is_some());

    full.store(false, Ordering::SeqCst);
    writer.submit(Actor::Control, network("b", "10.2.0.0/16")).await.unwrap();
    assert!(health.problem().is_none());
    let error = writer.submit(Actor::Control, network("a", "10.3.0.0/16")).await.unwrap_err().to_string();
    assert!(error.contains("network a exists"), "{error}");
    writer.stop().await;
    stopped.wait();
    let (_store, image) = open_at(directory.path()).unwrap();
    assert_eq!((image.state.networks.len(), image.meta.revision), (2, 2));
}

#[tokio::test]
async fn many_commands_at_once_share_commits_and_are_decided_in_turn() {
    let directory = TempDir::new().unwrap();
    let (store, image) = open_at(directory.path()).unwrap();
    let (writer, stopped, _) = start(store, image);
    let commands = (0..64).map(|index| {
        let writer = writer.clone();
        async move {
            writer
                .submit(Actor::Control, network(&format!("n-{}", index / 2), &format!("10.{index}.0.0/16")))
                .await
        }
    });
    let results = futures_util::future::join_all(commands).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 32, "one per name");
    writer.stop().await;
    stopped.wait();
    let (_store, image) = open_at(directory.path()).unwrap();
    assert_eq!(image.state.networks.len(), 32);
    assert!(image.meta.revision <= 32);
}

/// A store that takes little at once.
#[derive(Debug)]
struct Narrow(kv::Memory, Arc<AtomicUsize>);

impl Kv for Narrow {
    fn get(&mut self, key: &str) -> Result<(u64, Option<kv::Row>), Failure> {
        self.0.get(key)
    }

    fn range(&mut self, prefix: &str) -> Result<kv::Range, Failure> {
        self.0.range(prefix)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<u64, CommitError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        if transaction.then.len() > self.limits().writes {
            return Err(CommitError::TooLarge(format!("{} rows", transaction.then.len())));
        }
        self.0.commit(transaction)
    }

    fn watch(&self, prefix: &str, from: u64) -> Result<kv::Watch, kv::Compacted> {
        self.0.watch(prefix, from)
    }

    fn compact(&mut self, before: u64) {
        self.0.compact(before);
    }

    fn limits(&self) -> Limits {
        Limits { writes: 8, bytes: usize::MAX }
    }
}

#[tokio::test]
async fn a_store_that_takes_little_at_once_gets_several_commits_and_what_is_too_large_alone_is_refused_alone()
{
    let authority = AuthorityRecord { key: vec![1], certificate: vec![2] };
    let meta = Meta { epoch: 1, revision: 0, trust_domain: "sealane".parse().unwrap() };
    let (mut memory, commits) = (kv::Memory::new(), Arc::new(AtomicUsize::new(0)));
    let first = vec![rows::meta(&meta), rows::authority(&authority)];
    memory.commit(&Transaction { when: vec![], then: first }).unwrap();
    let mut store = Store::new(Box::new(Narrow(memory, commits.clone())));
    let image = store.load().unwrap();
    let (writer, stopped, health) = start(store, image);
    let documents = |networks: std::ops::Range<u8>| {
        let network = |number| {
            let spec = serde_json::json!({"subnets": [format!("10.{number}.0.0/16")]});
            let metadata = serde_json::json!({"name": format!("n-{number}")});
            let document = serde_json::json!({
                "apiVersion": "sealane.dev/v1", "kind": "Network", "metadata": metadata, "spec": spec
            });
            sealane_proto::document::Document::from_json(&document.to_string()).unwrap()
        };
        crate::core::Apply { documents: networks.map(network).collect(), dry_run: false }
    };
    let fits = (0..20).map(|number| writer.submit(Actor::Control, documents(number..number + 1)));
    let too_large = writer.submit(Actor::Control, documents(100..120));
    let (fits, too_large) = tokio::join!(futures_util::future::join_all(fits), too_large);
    assert!(fits.iter().all(Result::is_ok), "{fits:?}");
    let error = too_large.unwrap_err().to_string();
    assert!(error.starts_with("the change is too large, so nothing was changed: "), "{error}");
    assert!(health.problem().is_none(), "the store has no fault");
    assert!(commits.load(Ordering::SeqCst) > 5);
    writer.stop().await;
    stopped.wait();
}

#[test]
fn whose_term_is_over_writes_nothing_and_hears_it() {
    let authority = AuthorityRecord { key: vec![1], certificate: vec![2] };
    let meta = Meta { epoch: 1, revision: 0, trust_domain: "sealane".parse().unwrap() };
    let mut memory = kv::Memory::new();
    let leads = |who: &str| Write::Put("/sealane/leader".to_owned(), who.as_bytes().to_vec());
    let first = vec![rows::meta(&meta), rows::authority(&authority), leads("this one")];
    let term = memory.commit(&Transaction { when: vec![], then: first }).unwrap();
    let shared = Arc::new(std::sync::Mutex::new(memory));
    let (mut store, tenure) = (Store::new(Box::new(Shared(shared.clone()))), kv::Tenure::default());
    store.load().unwrap();
    store.fence(Condition::Modified("/sealane/leader".to_owned(), term), tenure.clone());
    store.commit(&meta, vec![], (NOW, vec![])).unwrap();
    assert!(tenure.lasts());
    // The same value by another one: it is the row that counts, not what it says.
    shared.lock().unwrap().commit(&Transaction { when: vec![], then: vec![leads("this one")] }).unwrap();
    let before = shared.lock().unwrap().range("").unwrap();
    assert_eq!(store.commit(&meta, vec![], (NOW, vec![])), Err(WriteError::Deposed));
    assert!(!tenure.lasts());
    assert_eq!(shared.lock().unwrap().range("").unwrap(), before);
}

/// A store that others have as well.
#[derive(Debug)]
struct Shared(Arc<std::sync::Mutex<kv::Memory>>);

impl Kv for Shared {
    fn get(&mut self, key: &str) -> Result<(u64, Option<kv::Row>), Failure> {
        self.0.lock().unwrap().get(key)
    }

    fn range(&mut self, prefix: &str) -> Result<kv::Range, Failure> {
        self.0.lock().unwrap().range(prefix)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<u64, CommitError> {
        self.0.lock().unwrap().commit(transaction)
    }

    fn watch(&self, prefix: &str, from: u64) -> Result<kv::Watch, kv::Compacted> {
        self.0.lock().unwrap().watch(prefix, from)
    }

    fn compact(&mut self, before: u64) {
        self.0.lock().unwrap().compact(before);
    }
}

proptest! {
    #[test]
    fn whatever_happened_the_records_load_to_the_same_state(steps in prop::collection::vec(model::step(), 1..40)) {
        let mut state = model::beginning();
        let first = state.tokens.values().cloned().map(Change::put);
        let first = first.chain(state.recovery.clone().map(Change::put)).collect();
        let meta = Meta { epoch: 1, revision: 0, trust_domain: "sealane".parse().unwrap() };
        let authority = AuthorityRecord { key: vec![1], certificate: vec![2] };
        let mut writes = vec![rows::meta(&meta), rows::authority(&authority)];
        for changes in std::iter::once(first).chain(steps.iter().map(|step| {
            let changes = model::decide(&state, step);
            changes.iter().for_each(|change| state.apply(change));
            changes
        })) {
            writes.extend(changes.iter().map(rows::change));
        }
        let mut rows = Rows::new();
        for write in writes {
            match write {
                Write::Put(key, value) => drop(rows.insert(key, value)),
                Write::Delete(key) => drop(rows.remove(&key)),
            }
        }
        let image = rows::image(&rows).unwrap();
        prop_assert_eq!(image.state, state);
        prop_assert_eq!((image.meta, image.authority), (meta, authority));
    }
}

/// An engine whose store others have as well, and one who follows that.
fn followed() -> (engine::Engine, Follower) {
    let authority = AuthorityRecord { key: vec![1], certificate: vec![2] };
    let meta = Meta { epoch: 1, revision: 0, trust_domain: "sealane".parse().unwrap() };
    let mut memory = kv::Memory::new();
    let beginning = model::beginning();
    let first = beginning.tokens.values().cloned().map(Change::put);
    let first = first.chain(beginning.recovery.clone().map(Change::put));
    let first: Vec<Write> = first.map(|change| rows::change(&change)).collect();
    let then = [vec![rows::meta(&meta), rows::authority(&authority)], first].concat();
    memory.commit(&Transaction { when: vec![], then }).unwrap();
    let shared = Arc::new(std::sync::Mutex::new(memory));
    let [mut leads, mut follows] = [(); 2].map(|()| Store::new(Box::new(Shared(shared.clone()))));
    let (image, known) = (leads.load().unwrap(), follows.load().unwrap());
    let metrics = CommitMetrics::new(&prometheus::Registry::new()).unwrap();
    let engine = engine::Engine::new(leads, image.state, image.meta, Box::new(|_, _, _| {}), metrics);
    (engine, Follower::new(follows, known).unwrap())
}

proptest! {
    #[test]
    fn whoever_follows_a_store_has_the_state_of_whoever_writes_it(
        steps in prop::collection::vec((model::step(), any::<bool>()), 1..40)
    ) {
        let (mut engine, mut follower) = followed();
        for (step, looks) in steps {
            let changes = model::decide(engine.state(), &step);
            engine.write(changes, NOW);
            if looks {
                follower.follow(Duration::ZERO).unwrap();
                prop_assert_eq!(follower.state(), (engine.state(), engine.meta()));
            }
        }
        follower.follow(Duration::ZERO).unwrap();
        prop_assert_eq!(follower.state(), (engine.state(), engine.meta()));
    }
}

#[test]
fn whoever_has_followed_too_late_reads_everything() {
    let (mut engine, mut follower) = followed();
    let changes = model::decide(engine.state(), &model::Step::CreateNetwork(0, 0));
    engine.write(changes, NOW);
    engine.store().kv.compact(u64::MAX);
    let affected = follower.follow(Duration::ZERO).unwrap().unwrap();
    assert!(affected.nodes && affected.networks.values().all(|touched| touched.all));
    assert_eq!(follower.state(), (engine.state(), engine.meta()));
}

/// A store that the first version wrote: `shop` and `blog`, two hosts with two workloads each, a token.
const FIRST_VERSION: &[u8] = include_bytes!("../../tests/fixtures/control-v1.redb");

fn first_version() -> TempDir {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("control.redb"), FIRST_VERSION).unwrap();
    directory
}

#[tokio::test]
async fn a_store_of_the_first_version_is_upgraded_and_a_copy_is_kept() {
    let directory = first_version();
    let (store, image) = open_at(directory.path()).unwrap();
    assert_eq!((image.meta.epoch, image.meta.revision), (17_107_008_804_032_811_727, 9));
    let shop = &image.state.networks[&"shop".parse().unwrap()];
    let workloads: Vec<&str> = shop.workloads.keys().map(|name| name.as_str()).collect();
    assert_eq!(workloads, ["api-1", "api-2", "client-1", "client-2"]);
    assert_eq!((shop.blocks.len(), shop.services.len(), shop.changed), (3, 1, 9));
    assert_eq!(shop.network.mtls, None, "nobody could choose then");
    assert!(shop.network.undecided().unwrap().contains("network set shop --mtls strict"));
    assert_eq!((image.state.networks.len(), image.state.nodes.len(), image.state.tokens.len()), (2, 2, 1));
    crate::ca::Authority::load(image.meta.trust_domain.clone(), image.authority.clone()).unwrap();
    let kept = Database::open(directory.path().join("control.redb.v1")).unwrap();
    assert_eq!(upgrade::schema(&kept).unwrap(), Some(1));

    let (writer, stopped, _) = start(store, image.clone());
    writer.submit(Actor::Control, network("new", "10.1.0.0/16")).await.unwrap();
    writer.stop().await;
    stopped.wait();
    let (_store, again) = open_at(directory.path()).unwrap();
    assert_eq!((again.meta.epoch, again.meta.revision), (image.meta.epoch, 10));
    assert_eq!((again.authority, again.state.networks.len()), (image.authority, 3));
}

#[test]
fn a_store_that_cannot_be_upgraded_stays_as_it_was() {
    let directory = first_version();
    let path = directory.path().join("control.redb");
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sealane");
        transaction.open_table(table).unwrap().insert("aviary/1", [].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = open_at(directory.path()).unwrap_err().to_string();
    assert!(error.contains("record \"aviary/1\" is of no known kind; restore a backup"), "{error}");
    let database = Database::open(&path).unwrap();
    assert_eq!(upgrade::schema(&database).unwrap(), Some(1), "still what it was");
}

#[test]
fn two_writers_exclude_each_other() {
    let directory = TempDir::new().unwrap();
    let (mut store, image) = open_at(directory.path()).unwrap();
    let meta = Meta { revision: 1, ..image.meta };
    store.commit(&meta, vec![], (NOW, vec![])).unwrap();
    // Somebody else writes behind its back.
    let other = Transaction { when: vec![], then: vec![rows::meta(&meta)] };
    store.kv.commit(&other).unwrap();
    assert_eq!(store.commit(&meta, vec![], (NOW, vec![])), Err(WriteError::Raced));
    assert_eq!(
        store.commit(&meta, vec![], (NOW, vec![])),
        Err(WriteError::Raced),
        "until it has read what is there"
    );
    store.load().unwrap();
    store.commit(&meta, vec![], (NOW, vec![])).unwrap();
}
