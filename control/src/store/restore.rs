//! A backup becomes the store of a control plane that does not run: a new epoch, and a note of what it is from,
//! so that hosts tell what they have got since.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealane_proto::types::Generation;

use super::open::{self, FILE, OpenError};
use super::{Backup, Image, Meta, rows};
use crate::ca::Authority;
use crate::core::{Change, Recovery, Timestamp};
use crate::kv::Write;

/// Result of a restoration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The store.
    pub path: PathBuf,
    /// New place of the store that was there.
    pub aside: Option<PathBuf>,
    /// The new lifetime.
    pub epoch: u64,
}

/// Reason for which nothing was restored; everything that was there is as it was.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RestoreError(#[from] Cause);

#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("there is a store at {} already; hint: --force moves it aside and takes the backup's place", .0.display())]
    Exists(PathBuf),
    #[error("the store at {} cannot be moved aside: {source}", path.display())]
    Aside { path: PathBuf, source: io::Error },
    #[error("directory {} cannot be made: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Authority(#[from] crate::ca::AuthorityError),
    #[error(
        "there is a store in etcd already; hint: --force replaces it, and writes a backup of it to the data directory first; another \
         --etcd-prefix leaves it alone"
    )]
    Shared,
    #[error(
        "a control plane leads by the store in etcd; stop every control plane that shares it first (`sealane control ls`)"
    )]
    Led,
    #[error("the store in etcd cannot be opened: {0}; see --etcd")]
    Etcd(#[from] crate::kv::EtcdError),
    #[error("etcd cannot be read: {0}; try again, with --force if it says that there is a store")]
    Read(#[from] crate::kv::Failure),
    #[error(
        "the store in etcd is not whole: {0}; no control plane opens it; type `sealane restore` again, with --force"
    )]
    Write(#[from] crate::kv::CommitError),
    #[error(transparent)]
    Seal(#[from] crate::ca::SealError),
    #[error("the restoration cannot be begun: {0}")]
    Thread(io::Error),
}

/// Makes a backup the store of a directory. With `force`, a store that is there is moved aside.
///
/// # Errors
/// When a control plane runs there, a store is there, or the file system does not let us.
pub fn restore(
    backup: &Backup,
    directory: &Path,
    force: bool,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    Ok(place(backup, directory, force, now)?)
}

fn place(backup: &Backup, directory: &Path, force: bool, now: Timestamp) -> Result<Restored, Cause> {
    let Image { meta, authority, .. } = &backup.image;
    // Before anything is touched: an authority that can sign.
    Authority::load(meta.trust_domain.clone(), authority.clone())?;
    open::ensure_directory(directory)
        .map_err(|source| Cause::Directory { path: directory.to_owned(), source })?;
    let (lock, path) = (open::lock(directory)?, directory.join(FILE));
    let there = open::exists(&path)?;
    if there && !force {
        return Err(Cause::Exists(path));
    }
    // Hosts may work by what the replaced store said; opening it takes the lock along.
    let (replaced, lock) =
        if there { (lineage(&path, lock, backup), open::lock(directory)?) } else { (BTreeSet::new(), lock) };
    let epoch = open::new_epoch();
    let draft = directory.join(format!("{FILE}.new"));
    open::write(&draft, 1, &rows(backup, epoch, replaced, now))?;
    let aside = there.then(|| directory.join(format!("{FILE}.before-restore-{}", now.unix())));
    if let Some(aside) = &aside {
        // A second name: at no moment is there no store.
        fs::hard_link(&path, aside).map_err(|source| Cause::Aside { path: path.clone(), source })?;
    }
    open::put_in_place(&draft, &path)?;
    drop(lock);
    Ok(Restored { path, aside, epoch })
}

/// The rows of the backup with a new lifetime.
pub(crate) fn rows(backup: &Backup, epoch: u64, replaced: BTreeSet<u64>, now: Timestamp) -> super::Rows {
    let Image { meta, state, .. } = &backup.image;
    let from = Generation { epoch: meta.epoch, revision: meta.revision };
    let mut recovery = Recovery::new(from, backup.taken, now, state);
    recovery.epochs.extend(replaced);
    let meta = Meta { epoch, revision: meta.revision + 1, ..meta.clone() };
    let mut rows = backup.rows.clone();
    // Its rows were read once already.
    let history_from = rows::history_from(&rows).ok();
    for write in [rows::meta_with(&meta, history_from), rows::change(&Change::put(recovery))] {
        if let Write::Put(key, value) = write {
            rows.insert(key, value);
        }
    }
    rows.extend(backup.history.clone());
    rows
}

/// The lifetimes of a store that is about to be replaced, if it is of the same mesh.
fn lineage(path: &Path, lock: fs::File, backup: &Backup) -> BTreeSet<u64> {
    match open::load(path, lock) {
        Ok((_, image)) if image.authority == backup.image.authority => lifetimes(image),
        // A broken store is a reason to restore a backup; its hosts are believed what the backup's epoch says.
        Ok(_) | Err(_) => BTreeSet::new(),
    }
}

/// The lifetimes that hosts of a store may have state of.
pub(crate) fn lifetimes(image: Image) -> BTreeSet<u64> {
    let before = image.state.recovery.map(|recovery| recovery.epochs).unwrap_or_default();
    before.into_iter().chain([image.meta.epoch]).collect()
}
