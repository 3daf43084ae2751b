//! Opening a store, or making one: whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::Database;
use sealane_proto::types::TrustDomain;

use super::record::RecordError;
use super::{Entry, Image, Meta, Opener, ReadError, SCHEMA, Store, read, write};
use crate::ca::{Authority, AuthorityError};
use crate::core::Timestamp;

const FILE: &str = "control.redb";
const LOCK: &str = "control.lock";

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another process has it.
    #[error("the store in {} is in use by another `sealane control` or `sealane up`; stop that one first", .0.display())]
    InUse(PathBuf),
    /// A later version wrote it.
    #[error(
        "store at {} was written by a newer Sealane (schema {schema}, this one knows {SCHEMA}); \
         upgrade Sealane or restore a backup", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        schema: u32,
    },
    /// It describes another mesh than was asked for.
    #[error(
        "store at {} is of trust domain {found}, not {wanted}; leave --trust-domain out, \
         or choose another --data-dir for a new mesh", path.display()
    )]
    Domain {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: TrustDomain,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// The file system does not let us.
    #[error("store at {} cannot be opened: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// What is there is no good store.
    #[error("store at {} cannot be read: {source}; restore a backup", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// The new store's authority could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Opens the store in a directory. Without one, makes it for this trust domain (default `fallback`) with a new
/// authority: under another name first, so that after a kill at any time there is a whole store or none.
pub(crate) fn open(
    directory: &Path,
    domain: Option<TrustDomain>,
    fallback: TrustDomain,
    now: Timestamp,
) -> Result<(Store, Image), OpenError> {
    let path = directory.join(FILE);
    let lock = lock(directory)?;
    if !path.try_exists().map_err(|source| OpenError::Io { path: path.clone(), source })? {
        create(directory, &path, domain.clone().unwrap_or(fallback), now)?;
    }
    let opener = opener(path.clone(), lock);
    let database = opener().map_err(|error| unopened(&path, error))?;
    let image = read(&database).and_then(|image| image.ok_or(RecordError::Missing("meta").into()));
    let image = image.map_err(|source| match source {
        ReadError::Record(RecordError::Newer(schema)) => OpenError::Newer { path: path.clone(), schema },
        ReadError::Record(_) | ReadError::Database(_) => OpenError::Unreadable { path: path.clone(), source },
    })?;
    match domain {
        Some(wanted) if wanted != image.meta.trust_domain => {
            let found = image.meta.trust_domain;
            Err(OpenError::Domain { path, found, wanted })
        }
        Some(_) | None => Ok((Store { path, opener, database: Some(database) }, image)),
    }
}

/// One process per directory, also while there is no store yet.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

fn create(directory: &Path, path: &Path, domain: TrustDomain, now: Timestamp) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let draft = path.with_extension("redb.new");
    match fs::remove_file(&draft) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(io(source)),
    }
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).clone();
    drop(options.open(&draft).map_err(io)?);
    let authority = Authority::generate(&domain, now)?;
    let epoch = rand::random::<u64>().max(1);
    let meta = Meta { epoch, revision: 0, trust_domain: domain };
    let database = Database::create(&draft).map_err(|error| unopened(path, error))?;
    write(&database, &meta, &[Entry::authority(&authority)]).map_err(|error| unopened(path, error))?;
    drop(database);
    fs::rename(&draft, path).map_err(io)?;
    // The rename is durable when the directory is.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
}

fn opener(path: PathBuf, lock: File) -> Opener {
    Box::new(move || {
        // Held as long as the store may be opened again.
        let _ = &lock;
        Database::open(&path)
    })
}

fn unopened(path: &Path, error: impl Into<redb::Error>) -> OpenError {
    let path = path.to_owned();
    let error = error.into();
    if let redb::Error::DatabaseAlreadyOpen = error {
        OpenError::InUse(path)
    } else if let redb::Error::Io(source) = error {
        OpenError::Io { path, source }
    } else {
        OpenError::Unreadable { path, source: error.into() }
    }
}
