//! A backup becomes the store of control planes that share an etcd: a new lifetime, as in a file.
//!
//! A restored store does not fit into one transaction of etcd. So the row that says what the store is comes last; until then, one that says
//! nothing is in its place, by which no control plane opens the store or makes one, and each step has the condition that it is there.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sealane_base::task;
use tokio::runtime::Handle;

use super::history::HISTORY;
use super::open;
use super::restore::{self, Cause, RestoreError};
use super::{ALL, Backup, Image, LEADER, Rows, Store, encode, rows};
use crate::ca::{Authority, SealKey};
use crate::core::Timestamp;
use crate::kv::{CommitError, Condition, Etcd, EtcdPlace, Kv, Limits, Transaction, Write};

/// Result of a restoration into etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredShared {
    /// Backup of the store that was there, if it could be read.
    pub aside: Option<PathBuf>,
    /// The new lifetime.
    pub epoch: u64,
}

/// Makes a backup the store at a place in etcd, its authority's key encrypted by the key file. With `force`, a store that is there is
/// replaced, after a backup of it is written to `directory`, where no control plane may run.
///
/// # Errors
/// When a control plane leads by the store or runs on the directory, a store is there, or etcd or the file system does not let us.
pub async fn restore_shared(
    backup: Backup,
    (place, key_file): (EtcdPlace, PathBuf),
    directory: PathBuf,
    force: bool,
    now: Timestamp,
) -> Result<RestoredShared, RestoreError> {
    let runtime = Handle::current();
    let bringing = move || bring(&backup, (place, &key_file), &directory, force, (now, runtime));
    let brought = task::blocking(bringing).await.map_err(Cause::Thread)?;
    Ok(brought?)
}

fn bring(
    backup: &Backup,
    (place, key_file): (EtcdPlace, &Path),
    directory: &Path,
    force: bool,
    (now, runtime): (Timestamp, Handle),
) -> Result<RestoredShared, Cause> {
    let Image { meta, authority, .. } = &backup.image;
    // Before anything is touched: an authority that can sign.
    Authority::load(meta.trust_domain.clone(), authority.clone())?;
    open::ensure_directory(directory)
        .map_err(|source| Cause::Directory { path: directory.to_owned(), source })?;
    let _lock = open::lock(directory)?;
    let key = SealKey::read(key_file)?;
    let sealed = rows::sealed_authority(authority, &key)?;
    let mut store = Store::sealed(Box::new(Etcd::open(place, runtime)?), key);
    let found = store.kv.get(rows::META)?.1.map_or(0, |row| row.version);
    if found > 0 && !force {
        return Err(Cause::Shared);
    }
    let (replaced, aside) = set_aside(&mut store, backup, directory, now)?;
    let epoch = open::new_epoch();
    let mut brought = restore::rows(backup, epoch, replaced, now);
    if let Write::Put(key, row) = sealed {
        brought.insert(key, row);
    }
    replace(store.kv.as_mut(), brought, found)?;
    Ok(RestoredShared { aside, epoch })
}

/// Writes a backup of the store that is there, if it can be read; with its lifetimes, if it is of the same mesh.
fn set_aside(
    store: &mut Store,
    backup: &Backup,
    directory: &Path,
    now: Timestamp,
) -> Result<(BTreeSet<u64>, Option<PathBuf>), Cause> {
    let (Ok(image), Ok(there)) = (store.load(), store.rows()) else { return Ok((BTreeSet::new(), None)) };
    let path = directory.join(format!("control.etcd.before-restore-{}", now.unix()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&encode(there, now))?;
        fs::File::sync_all(&file)?;
        open::sync_directory(&path)
    };
    write().map_err(|source| Cause::Aside { path: path.clone(), source })?;
    let is_same = image.authority.certificate == backup.image.authority.certificate;
    let lifetimes = if is_same { restore::lifetimes(image) } else { BTreeSet::new() };
    Ok((lifetimes, Some(path)))
}

/// Puts rows in the place of those that are there; `found` is how often the row has been written that says what the store is.
fn replace(kv: &mut dyn Kv, mut rows: Rows, found: u64) -> Result<(), Cause> {
    let meta = rows.remove(rows::META).unwrap_or_default();
    let is_new = Condition::Version(rows::META.to_owned(), found);
    let claim = Transaction {
        when: vec![Condition::Version(LEADER.to_owned(), 0), is_new],
        then: vec![Write::Put(rows::META.to_owned(), rows::marker())],
    };
    let claimed = kv.commit(&claim).map_err(|error| match error {
        CommitError::Conflict { key } if key == LEADER => Cause::Led,
        CommitError::Conflict { .. } => Cause::Shared,
        other @ (CommitError::Duplicate { .. } | CommitError::TooLarge(_) | CommitError::Failed(_)) => {
            other.into()
        }
    })?;
    let is_ours = |key: &String| key.starts_with(rows::ROOT) || key.starts_with(HISTORY);
    let there = kv.range(ALL)?.rows.into_keys();
    let gone = there.filter(|key| is_ours(key) && key != rows::META && !rows.contains_key(key));
    let writes: Vec<Write> = gone.map(Write::Delete).collect();
    let writes = writes.into_iter().chain(rows.into_iter().map(|(key, row)| Write::Put(key, row)));
    let last = vec![Write::Put(rows::META.to_owned(), meta)];
    for then in portions(writes, kv.limits()).into_iter().chain([last]) {
        let when = vec![Condition::Modified(rows::META.to_owned(), claimed)];
        kv.commit(&Transaction { when, then })?;
    }
    Ok(())
}

/// Writes in portions that a store takes.
fn portions(writes: impl Iterator<Item = Write>, limits: Limits) -> Vec<Vec<Write>> {
    let (mut portions, mut bytes) = (vec![vec![]], 0_usize);
    for write in writes {
        bytes = bytes.saturating_add(write.size());
        let full = portions.last().is_some_and(|portion: &Vec<Write>| {
            !portion.is_empty() && (portion.len() >= limits.writes || bytes > limits.bytes)
        });
        if full {
            portions.push(vec![]);
            bytes = write.size();
        }
        if let Some(portion) = portions.last_mut() {
            portion.push(write);
        }
    }
    portions.retain(|portion| !portion.is_empty());
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Memory;

    fn rows(names: &[&str]) -> Rows {
        let key = |name: &&str| (format!("{}{name}", rows::ROOT), name.as_bytes().to_vec());
        names.iter().map(key).collect()
    }

    #[test]
    fn what_was_there_is_replaced_unless_somebody_leads() {
        let mut memory = Memory::new();
        let others = Write::Put("/sealane/members/a:1".to_owned(), vec![]);
        let then = vec![Write::Put(LEADER.to_owned(), vec![]), others];
        memory.commit(&Transaction { when: vec![], then }).unwrap();
        assert!(matches!(replace(&mut memory, rows(&["meta", "a"]), 0), Err(Cause::Led)));
        assert_eq!(memory.range("").unwrap().rows.len(), 2);
        let then = vec![Write::Delete(LEADER.to_owned())];
        memory.commit(&Transaction { when: vec![], then }).unwrap();
        replace(&mut memory, rows(&["meta", "a", "b"]), 0).unwrap();
        assert!(matches!(replace(&mut memory, rows(&["meta", "c"]), 0), Err(Cause::Shared)));
        let found = memory.get(rows::META).unwrap().1.unwrap().version;
        replace(&mut memory, rows(&["meta", "b", "c"]), found).unwrap();
        let there: Vec<String> = memory.range("").unwrap().rows.into_keys().collect();
        let expected = ["/sealane/members/a:1", "/sealane/v1/b", "/sealane/v1/c", "/sealane/v1/meta"];
        assert_eq!(there, expected);
    }

    #[test]
    fn portions_are_no_larger_than_a_store_takes() {
        let write = |bytes| Write::Put("k".to_owned(), vec![0; bytes]);
        let sizes = |sizes: &[usize], limits| -> Vec<usize> {
            portions(sizes.iter().map(|&bytes| write(bytes)), limits).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[1, 1, 1], Limits { writes: 2, bytes: 100 }), [2, 1]);
        assert_eq!(sizes(&[9, 9, 50, 1], Limits { writes: 9, bytes: 20 }), [2, 1, 1]);
        assert!(sizes(&[], Limits { writes: 9, bytes: 20 }).is_empty());
    }
}
