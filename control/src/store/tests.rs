use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use redb::StorageBackend;
use redb::backends::FileBackend;
use tempfile::TempDir;

use super::*;
use crate::core::{Change, CreateNetwork, CreateToken, PurgeTokens, RemoveNetwork, Timestamp, model};
use crate::metrics::CommitMetrics;

const NOW: Timestamp = Timestamp::from_unix(1_000_000);

fn open_at(directory: &Path) -> Result<(Store, Image), OpenError> {
    open(directory, None, "sealane".parse().unwrap(), NOW)
}

fn start(store: Store, image: Image) -> (Writer, Stopped, Health) {
    let metrics = CommitMetrics::new(&prometheus::Registry::new()).unwrap();
    Writer::start(store, image.state, image.meta, Box::new(|_, _, _| {}), metrics, || NOW).unwrap()
}

fn network(name: &str, subnet: &str) -> CreateNetwork {
    CreateNetwork { name: name.parse().unwrap(), subnet: subnet.parse().unwrap(), mtu: None }
}

#[tokio::test]
async fn a_store_opened_again_has_the_same_state_epoch_revision_and_authority() {
    let directory = TempDir::new().unwrap();
    let (store, first) = open_at(directory.path()).unwrap();
    assert!(first.meta.epoch != 0 && first.meta.revision == 0);
    let (writer, stopped, _) = start(store, first.clone());
    writer.submit(network("a", "10.1.0.0/16")).await.unwrap();
    writer.submit(network("b", "10.2.0.0/16")).await.unwrap();
    writer.submit(RemoveNetwork("a".parse().unwrap())).await.unwrap();
    let token = CreateToken { id: "abcd2345".into(), hash: [7; 32], ttl: Duration::from_secs(60) };
    let token = writer.submit(token).await.unwrap();
    writer.submit(PurgeTokens).await.unwrap();
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
        let mut table = transaction.open_table(TABLE).unwrap();
        // Field 1 (varint) of the meta message, and a kind that only the newer version knows.
        table.insert("meta", [0x08, 3].as_slice()).unwrap();
        table.insert("aviary/1", [].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = open_at(directory.path()).unwrap_err().to_string();
    let end =
        "was written by a newer Sealane (schema 3, this one knows 1); upgrade Sealane or restore a backup";
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

#[tokio::test]
async fn a_full_disk_refuses_changes_until_there_is_space_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    drop(open_at(directory.path()).unwrap());
    let path = directory.path().join("control.redb");
    let full = Arc::new(AtomicBool::new(false));
    let opener: Opener = {
        let (path, full) = (path.clone(), full.clone());
        Box::new(move || {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
            let disk = Disk { file: FileBackend::new(file)?, full: full.clone() };
            Database::builder().create_with_backend(disk)
        })
    };
    let mut store = Store { path, opener, database: None };
    let image = store.recover().unwrap();
    let (writer, stopped, health) = start(store, image);
    writer.submit(network("a", "10.1.0.0/16")).await.unwrap();

    full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = writer.submit(network("b", "10.2.0.0/16")).await.unwrap_err();
        assert!(matches!(&error, SubmitError::Commit(_)), "{error}");
    }
    assert!(health.problem().is_some());

    full.store(false, Ordering::SeqCst);
    writer.submit(network("b", "10.2.0.0/16")).await.unwrap();
    assert!(health.problem().is_none());
    let error = writer.submit(network("a", "10.3.0.0/16")).await.unwrap_err().to_string();
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
        async move { writer.submit(network(&format!("n-{}", index / 2), &format!("10.{index}.0.0/16"))).await }
    });
    let results = futures_util::future::join_all(commands).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 32, "one per name");
    writer.stop().await;
    stopped.wait();
    let (_store, image) = open_at(directory.path()).unwrap();
    assert_eq!(image.state.networks.len(), 32);
    assert!(image.meta.revision <= 32);
}

proptest! {
    #[test]
    fn whatever_happened_the_records_load_to_the_same_state(steps in prop::collection::vec(model::step(), 1..40)) {
        let mut state = model::beginning();
        let mut rows: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let first = state.tokens.values().cloned().map(Change::PutToken).collect();
        let meta = Meta { epoch: 1, revision: 0, trust_domain: "sealane".parse().unwrap() };
        let authority = AuthorityRecord { key: vec![1], certificate: vec![2] };
        let mut entries = vec![Entry::meta(&meta), Entry::authority(&authority)];
        for changes in std::iter::once(first).chain(steps.iter().map(|step| {
            let changes = model::decide(&state, step);
            changes.iter().for_each(|change| state.apply(change));
            changes
        })) {
            entries.extend(changes.iter().map(Entry::change));
        }
        for Entry { key, value } in entries {
            match value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        let mut loader = record::Loader::default();
        rows.iter().for_each(|(key, value)| loader.load(key, value).unwrap());
        let image = loader.finish().unwrap();
        prop_assert_eq!(image.state, state);
        prop_assert_eq!((image.meta, image.authority), (meta, authority));
    }
}
