//! State that must outlive the agent and a reboot: files in the data directory, checksummed, root only.
//!
//! A file is written beside its place under a name that no other writer has, synced, and renamed into it, so that a kill
//! or a power cut leaves the old or the new content, never half of one. A file whose checksum does not match is set aside and reported.

mod container;
mod controls;
mod incarnation;
mod log;
mod messages;
mod places;
mod records;
mod reservation;
mod words;
mod workload;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealane_base::disk::{Disk, listed};

pub(crate) use container::StoredContainer;
pub(crate) use controls::{CONTROLS, controls_from_bytes, controls_to_bytes};
pub(crate) use incarnation::Incarnations;
pub(crate) use places::{PLACES, places_from_bytes, places_to_bytes};
pub use records::RecordError;
pub(crate) use records::{
    NodeIdentity, StoredIdentity, delta_to_bytes, led_on, network_from_bytes, network_to_bytes,
};
pub(crate) use words::{words_from_bytes, words_to_bytes};
pub(crate) use workload::{StoredAnchor, StoredHold, StoredPath, StoredProcess, StoredWorkload};

/// `SLN1`, then the CRC-32 (IEEE 802.3) of what follows, big endian.
const MAGIC: [u8; 4] = *b"SLN1";
const HEADER: usize = 8;
/// Suffix of the names of half written files.
const DRAFT: &str = ".new";
/// Numbers the files that this process writes.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// A folder of checksummed files, one per name.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Disk that hears of writes that fail.
    disk: Option<Arc<Disk>>,
}

/// Reasons for which a file could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No space, or no right to it.
    #[error("cannot write {path}: {}", sealane_base::text::plain(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The file is there but cannot be read.
    #[error("cannot read {path}: {}", sealane_base::text::plain(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The file's checksum does not match: a disk fault, or somebody else's file.
    #[error("{path} is damaged (its checksum does not match); it was set aside as {aside}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// New place of the file.
        aside: PathBuf,
    },
}

impl Folder {
    /// The folder at `path`, made if it is not there, readable by root alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn open(path: PathBuf) -> Result<Self, DiskError> {
        let folder = Self::at(path);
        folder.make().map_err(|source| DiskError::Write { path: folder.path.clone(), source })?;
        Ok(folder)
    }

    /// The folder at `path`, which is empty where there is none, and made by the first write.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, disk: None }
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    /// Returns true if its disk is not known to refuse writing.
    pub(crate) fn may_be_written(&self) -> bool {
        self.disk.as_ref().is_none_or(|disk| disk.problem().is_none())
    }

    /// The same folder, which tells this disk of what it cannot write.
    pub(crate) fn on(self, disk: &Arc<Disk>) -> Self {
        Self { disk: Some(disk.clone()), ..self }
    }

    /// Writes `payload` as `name`, durably.
    ///
    /// # Errors
    /// When the disk is full or the folder cannot be written; the old content stays.
    pub(crate) fn write(&self, name: &str, payload: &[u8]) -> Result<(), DiskError> {
        let path = self.path.join(name);
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let new = self.path.join(format!(".{name}.{}-{number}{DRAFT}", process::id()));
        let write = || -> io::Result<()> {
            let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
            let mut file = match open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make().and_then(|()| open())?,
                opened => opened?,
            };
            file.write_all(&framed(payload))?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| {
            // The half-written file is of no use to anybody; that it cannot be removed changes nothing.
            let _ = fs::remove_file(&new);
            self.note_failed(payload.len(), &source);
            DiskError::Write { path, source }
        })
    }

    /// Tells the disk of a write that failed.
    fn note_failed(&self, octets: usize, source: &io::Error) {
        if let Some(disk) = &self.disk {
            disk.failed(octets, source);
        }
    }

    /// Writes `payload` in the place of a `name` that has as many bytes, durably: a disk that is full has room for it, unless its file
    /// system copies what is written. A power cut meanwhile may leave a file that is damaged.
    ///
    /// # Errors
    /// When there is no file of that length, or it cannot be written; the old content stays.
    pub(crate) fn overwrite(&self, name: &str, payload: &[u8]) -> Result<(), DiskError> {
        let path = self.path.join(name);
        let bytes = framed(payload);
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).open(&path)?;
            if file.metadata()?.len() != bytes.len() as u64 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            file.write_all_at(&bytes, 0)?;
            file.sync_all()
        };
        write().map_err(|source| DiskError::Write { path, source })
    }

    /// Reads `name`; `None` when there is no such file.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] when the checksum does not match; the file has been set aside then.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.path.join(name);
        let bytes = match read_file(&path, u64::MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DiskError::Read { path, source }),
        };
        match payload(&bytes) {
            Some(payload) => Ok(Some(payload.to_vec())),
            None => Err(self.set_aside(&path)),
        }
    }

    fn set_aside(&self, path: &Path) -> DiskError {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        let aside = PathBuf::from(aside);
        match fs::rename(path, &aside) {
            Ok(()) => DiskError::Damaged { path: path.to_owned(), aside },
            Err(source) => DiskError::Read { path: path.to_owned(), source },
        }
    }

    /// Removes what writers that were killed left half written, as far as the disk lets it. For the one process that writes to the
    /// folder, before it does.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn sweep(&self) -> Result<(), DiskError> {
        for path in self.listed()? {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.filter(|name| name.starts_with('.') && name.ends_with(DRAFT))
                && let Err(error) = self.remove(name)
            {
                tracing::warn!(%error, "what was left half written stays");
            }
        }
        Ok(())
    }

    fn listed(&self) -> Result<Vec<PathBuf>, DiskError> {
        listed(&self.path).map_err(|source| DiskError::Read { path: self.path.clone(), source })
    }

    /// Removes `name`; one that is not there is no error.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn remove(&self, name: &str) -> Result<(), DiskError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DiskError::Write { path, source }),
            _ => Ok(()),
        }
    }

    /// The names of all files, sorted, but for those set aside or half written.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn names(&self) -> Result<Vec<String>, DiskError> {
        let is_one = |name: &str| !name.starts_with('.') && !name.ends_with(".damaged");
        let name = |path: PathBuf| path.file_name()?.to_str().filter(|name| is_one(name)).map(str::to_owned);
        let mut names: Vec<String> = self.listed()?.into_iter().filter_map(name).collect();
        names.sort();
        Ok(names)
    }
}

/// A file's content: the payload behind its checksum.
fn framed(payload: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), &crc32fast::hash(payload).to_be_bytes(), payload].concat()
}

fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let (header, payload) = bytes.split_first_chunk::<HEADER>()?;
    let [a, b, c, d, checksum @ ..] = *header;
    let good = [a, b, c, d] == MAGIC && checksum == crc32fast::hash(payload).to_be_bytes();
    good.then_some(payload)
}

/// Reads the first octets of a file; anything else at its place is an error.
fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // A FIFO would be waited for.
    let file = File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("state")).unwrap();
        assert!(folder.read("shop").unwrap().is_none());
        folder.write("shop", b"one").unwrap();
        folder.write("shop", b"two").unwrap();
        assert_eq!(folder.read("shop").unwrap().unwrap(), b"two");
        assert_eq!(folder.names().unwrap(), ["shop"]);
        folder.remove("shop").unwrap();
        folder.remove("shop").unwrap();
        assert!(folder.names().unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_could_not_be_made_is_empty_and_made_by_the_first_write() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("data/state"));
        folder.sweep().unwrap();
        assert!(folder.names().unwrap().is_empty() && folder.read("shop").unwrap().is_none());
        folder.remove("shop").unwrap();
        folder.write("shop", b"one").unwrap();
        assert_eq!(folder.read("shop").unwrap().unwrap(), b"one");
    }

    #[test]
    fn a_file_is_overwritten_by_one_of_its_length_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        assert!(folder.overwrite("shop", b"one").is_err() && folder.names().unwrap().is_empty());
        folder.write("shop", b"one").unwrap();
        folder.overwrite("shop", b"two").unwrap();
        assert!(folder.overwrite("shop", b"three").is_err());
        assert_eq!(folder.read("shop").unwrap().unwrap(), b"two");
    }

    #[test]
    fn writers_of_one_file_do_not_meet_and_nothing_half_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        let written: Vec<Vec<u8>> = (0..8).map(|writer| vec![writer; 10_000]).collect();
        std::thread::scope(|scope| {
            for payload in &written {
                scope.spawn(|| (0..20).for_each(|_| folder.write("shop", payload).unwrap()));
            }
        });
        assert!(written.contains(&folder.read("shop").unwrap().unwrap()));
        fs::write(dir.path().join(".shop.1-1.new"), "half").unwrap();
        folder.sweep().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        folder.write("shop", b"content").unwrap();
        let path = dir.path().join("shop");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = folder.read("shop").unwrap_err().to_string();
        assert!(error.contains("shop is damaged"), "{error}");
        assert!(folder.read("shop").unwrap().is_none());
    }
}
