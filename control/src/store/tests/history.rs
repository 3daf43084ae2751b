//! The history beside the state: kept with each change, bounded, and read back.

use super::*;

/// Entries of the history, oldest first: revision, kind of change, name of the object.
fn history(store: &mut Store) -> Vec<(u64, String, String)> {
    let (mut entries, next) = store.history(&Filter::default(), None, (100, usize::MAX)).unwrap();
    assert_eq!(next, None);
    entries.reverse();
    entries.into_iter().map(|entry| (entry.revision, entry.deed, entry.name)).collect()
}

fn told(entries: &[(u64, &str, &str)]) -> Vec<(u64, String, String)> {
    entries.iter().map(|&(revision, deed, name)| (revision, deed.to_owned(), name.to_owned())).collect()
}

#[tokio::test]
async fn a_change_and_its_entry_are_there_together_wherever_control_is_killed() {
    let (directory, crashed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (store, image) = open_at(directory.path()).unwrap();
    let (writer, stopped, _) = start(store, image);
    let expected = told(&[(1, "created", "a"), (2, "created", "b"), (3, "deleted", "a")]);
    for revision in 1..=3 {
        match revision {
            1 => drop(writer.submit(Actor::Control, network("a", "10.1.0.0/16")).await.unwrap()),
            2 => drop(writer.submit(Actor::Control, network("b", "10.2.0.0/16")).await.unwrap()),
            _ => writer.submit(Actor::Control, RemoveNetwork("a".parse().unwrap())).await.unwrap(),
        }
        // As a machine that stops at once leaves it.
        std::fs::copy(directory.path().join("control.redb"), crashed.path().join("control.redb")).unwrap();
        let (mut store, image) = open_at(crashed.path()).unwrap();
        assert_eq!(image.meta.revision, revision as u64);
        assert_eq!(history(&mut store), expected[..revision], "after revision {revision}");
    }
    writer.stop().await;
    stopped.wait();
}

#[tokio::test]
async fn what_was_not_written_has_no_entry() {
    let directory = TempDir::new().unwrap();
    let (store, image, full) = on_disk(directory.path());
    let (writer, stopped, _) = start(store, image);
    writer.submit(Actor::Control, network("a", "10.1.0.0/16")).await.unwrap();
    full.store(true, Ordering::SeqCst);
    writer.submit(Actor::Control, network("b", "10.2.0.0/16")).await.unwrap_err();
    full.store(false, Ordering::SeqCst);
    let after = writer.submit(Actor::Control, RemoveNetwork("a".parse().unwrap())).await;
    after.unwrap();
    let kept = writer.read(|store| Ok(history(store))).await.unwrap();
    assert_eq!(kept, told(&[(1, "created", "a"), (2, "deleted", "a")]));
    writer.stop().await;
    stopped.wait();
}

/// Names of the networks after a revision, or the oldest one that can be told.
fn networks_after(store: &mut Store, image: &Image, revision: u64) -> Result<Vec<String>, u64> {
    match store.first_after(revision, image.meta.revision).unwrap() {
        Since::Known(since) => {
            let documents =
                crate::core::documents_after(crate::core::Declared::everywhere(&image.state), since);
            Ok(documents.keys().map(|id| id.name().to_owned()).collect())
        }
        Since::Unknown { known_from } => Err(known_from),
    }
}

#[tokio::test]
async fn what_a_version_without_a_history_has_changed_is_not_made_up() {
    let directory = TempDir::new().unwrap();
    let submit = async |name: &str, subnet: &str| {
        let (store, image) = open_at(directory.path()).unwrap();
        let (writer, stopped, _) = start(store, image);
        writer.submit(Actor::Control, network(name, subnet)).await.unwrap();
        writer.stop().await;
        stopped.wait();
    };
    submit("a", "10.1.0.0/16").await;
    submit("b", "10.2.0.0/16").await;
    let (mut store, image) = open_at(directory.path()).unwrap();
    assert_eq!(networks_after(&mut store, &image, 0), Ok(vec![]));
    assert_eq!(networks_after(&mut store, &image, 1), Ok(vec!["a".to_owned()]));
    assert_eq!(networks_after(&mut store, &image, 3), Err(0), "there is none yet");

    // An older version writes its own meta row, and no entry.
    let meta = Meta { revision: 3, ..image.meta };
    let then = vec![rows::meta(&meta)];
    store.kv.commit(&Transaction { when: vec![], then }).unwrap();
    drop(store);
    submit("c", "10.3.0.0/16").await;
    let (mut store, image) = open_at(directory.path()).unwrap();
    assert_eq!(networks_after(&mut store, &image, 2), Err(3));
    assert_eq!(networks_after(&mut store, &image, 3).unwrap(), ["a", "b"]);
    assert_eq!(history(&mut store).len(), 3, "what happened stays told");
}

#[tokio::test]
async fn a_backup_takes_the_history_along_and_one_without_it_is_restored_too() {
    let directory = TempDir::new().unwrap();
    let (store, image) = open_at(directory.path()).unwrap();
    let (writer, stopped, _) = start(store, image);
    writer.submit(Actor::Control, network("a", "10.1.0.0/16")).await.unwrap();
    writer.submit(Actor::Control, RemoveNetwork("a".parse().unwrap())).await.unwrap();
    let rows = writer.rows().await.unwrap();
    writer.stop().await;
    stopped.wait();
    assert_eq!(rows.keys().filter(|key| key.starts_with(HISTORY)).count(), 2);
    let restored = |rows: Rows| {
        let backup = Backup::from_bytes(&encode(rows, NOW)).unwrap();
        let directory = TempDir::new().unwrap();
        restore(&backup, directory.path(), false, NOW).unwrap();
        let (mut store, image) = open_at(directory.path()).unwrap();
        let known = networks_after(&mut store, &image, 1);
        (history(&mut store).len(), known, image.meta.revision)
    };
    assert_eq!(restored(rows.clone()), (2, Ok(vec!["a".to_owned()]), 3));
    let mut older = rows;
    older.retain(|key, _| !key.starts_with(HISTORY));
    let Write::Put(key, row) =
        rows::meta(&Meta { epoch: 1, revision: 2, trust_domain: "sealane".parse().unwrap() })
    else {
        unreachable!()
    };
    older.insert(key, row);
    assert_eq!(restored(older), (0, Err(2), 3));
}
