//! Opening a store, or making one: whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::Database;
use sealane_proto::types::TrustDomain;

use super::rows::{self, RecordError};
use super::{Image, Meta, ReadError, Rows, SCHEMA, Store, upgrade};
use crate::ca::{Authority, AuthorityError};
use crate::core::Timestamp;
use crate::kv::{self, Write};

pub(super) const FILE: &str = "control.redb";
const LOCK: &str = "control.lock";

/// Reasons for which there is no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another process has it.
    #[error("the data directory {} is in use by another `sealane control` or `sealane up`; stop that one first", .0.display())]
    InUse(PathBuf),
    /// A later version wrote it.
    #[error(
        "store at {} was written by a newer Sealane (schema {schema}, this one knows {SCHEMA}); \
         upgrade Sealane or restore a backup", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Schema of the store.
        schema: u32,
    },
    /// The store describes another mesh than was asked for.
    #[error(
        "store at {} is of trust domain {found}, not {wanted}; leave --trust-domain out, \
         or choose another --data-dir for a new mesh", path.display()
    )]
    Domain {
        /// The file.
        path: PathBuf,
        /// Trust domain of the store.
        found: TrustDomain,
        /// Trust domain that was asked for.
        wanted: TrustDomain,
    },
    /// The file system does not let us.
    #[error("store at {} cannot be opened: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The files are no good store.
    #[error("store at {} cannot be read: {source}; restore a backup", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Fault of the content.
        source: ReadError,
    },
    /// The new store's authority could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Opens the store in a directory, upgraded where an older version wrote it. Without one, makes it for this
/// trust domain (default `fallback`) with a new authority: under another name first, so that after a kill at
/// any time there is a whole store or none.
pub(crate) fn open(
    directory: &Path,
    domain: Option<TrustDomain>,
    fallback: TrustDomain,
    now: Timestamp,
) -> Result<(Store, Image), OpenError> {
    let path = directory.join(FILE);
    let lock = lock(directory)?;
    if !exists(&path)? {
        create(directory, &path, domain.clone().unwrap_or(fallback), now)?;
    }
    let (store, image) = load(&path, lock)?;
    match domain {
        Some(wanted) if wanted != image.meta.trust_domain => {
            let found = image.meta.trust_domain;
            Err(OpenError::Domain { path, found, wanted })
        }
        Some(_) | None => Ok((store, image)),
    }
}

/// The store in a file, whose lock is held as long as it may be opened again.
pub(super) fn load(path: &Path, lock: File) -> Result<(Store, Image), OpenError> {
    ensure_schema(path)?;
    let file = path.to_owned();
    let opener: kv::Opener = Box::new(move || {
        let _ = &lock;
        Database::open(&file)
    });
    let rows = kv::File::open(path.to_owned(), opener).map_err(|error| unopened(path, error))?;
    let mut store = Store::new(Box::new(rows));
    let image = store.load().map_err(|source| unreadable(path, source))?;
    Ok((store, image))
}

/// Upgrades a file that an older version wrote, after a copy of it is kept beside it.
fn ensure_schema(path: &Path) -> Result<(), OpenError> {
    let open = || Database::open(path).map_err(|error| unopened(path, error));
    let found = upgrade::schema(&open()?).map_err(|source| unreadable(path, source))?;
    match found {
        Some(SCHEMA) => Ok(()),
        Some(schema) if schema > SCHEMA => Err(OpenError::Newer { path: path.to_owned(), schema }),
        Some(schema) => {
            let kept = path.with_extension(format!("redb.v{schema}"));
            keep(path, &kept).map_err(|source| OpenError::Io { path: kept.clone(), source })?;
            upgrade::upgrade(&open()?, schema).map_err(|source| unreadable(path, source))?;
            tracing::info!(path = %path.display(), from = schema, to = SCHEMA, kept = %kept.display(), "store upgraded");
            Ok(())
        }
        None => Err(unreadable(path, RecordError::Missing("meta").into())),
    }
}

/// A durable copy.
fn keep(path: &Path, kept: &Path) -> io::Result<()> {
    let draft = kept.with_extension("new");
    fs::copy(path, &draft)?;
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, kept)?;
    sync_directory(kept)
}

/// Locks the directory for one process, also while there is no store yet, or none in it.
pub(crate) fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

/// Makes a folder that only its owner may enter, unless it is there.
pub(crate) fn ensure_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns true if a directory has a store.
pub(crate) fn is_there(directory: &Path) -> Result<bool, OpenError> {
    exists(&directory.join(FILE))
}

pub(super) fn exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

fn create(directory: &Path, path: &Path, domain: TrustDomain, now: Timestamp) -> Result<(), OpenError> {
    let authority = Authority::generate(&domain, now)?;
    let meta = Meta { epoch: new_epoch(), revision: 0, trust_domain: domain };
    let rows = [rows::meta(&meta), rows::authority(&authority)];
    let rows = rows.into_iter().filter_map(|write| match write {
        Write::Put(key, value) => Some((key, value)),
        Write::Delete(_) => None,
    });
    let draft = directory.join(format!("{FILE}.new"));
    write(&draft, 1, &rows.collect())?;
    put_in_place(&draft, path)
}

/// A store's lifetime: random, never zero.
pub(super) fn new_epoch() -> u64 {
    rand::random::<u64>().max(1)
}

/// Makes a file of these rows, durable when this returns.
pub(super) fn write(draft: &Path, revision: u64, rows: &Rows) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: draft.to_owned(), source };
    match fs::remove_file(draft) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(io(source)),
    }
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).clone();
    drop(options.open(draft).map_err(io)?);
    let fill = || -> Result<(), redb::Error> {
        let database = Database::create(draft)?;
        let transaction = database.begin_write()?;
        upgrade::fill(&transaction, revision, rows)?;
        transaction.commit()?;
        Ok(())
    };
    fill().map_err(|error| unopened(draft, error))
}

/// The draft takes its place at once, whatever was there.
pub(super) fn put_in_place(draft: &Path, path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    fs::rename(draft, path).map_err(io)?;
    sync_directory(path).map_err(io)
}

/// A rename is durable when the directory is.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn unreadable(path: &Path, source: ReadError) -> OpenError {
    let path = path.to_owned();
    match source {
        ReadError::Record(RecordError::Newer(schema)) => OpenError::Newer { path, schema },
        ReadError::Record(_) | ReadError::Failed(_) => OpenError::Unreadable { path, source },
    }
}

fn unopened(path: &Path, error: impl Into<redb::Error>) -> OpenError {
    let path = path.to_owned();
    let error = error.into();
    if let redb::Error::DatabaseAlreadyOpen = error {
        OpenError::InUse(path)
    } else if let redb::Error::Io(source) = error {
        OpenError::Io { path, source }
    } else {
        let failure =
            kv::Failure { place: "the file".to_owned(), reason: error.to_string(), full: false, lost: false };
        OpenError::Unreadable { path, source: failure.into() }
    }
}
