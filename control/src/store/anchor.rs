//! The mesh that a control plane has known: in a store that is shared, none is made in its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::open::sync_directory;
use crate::ca::AuthorityRecord;

/// File in the data directory.
const FILE: &str = "control.mesh";

/// The authority that a control plane has worked by, in this process or an earlier one.
#[derive(Debug)]
pub(crate) struct Anchor {
    path: PathBuf,
    /// Hash of the authority's certificate.
    known: Mutex<Option<String>>,
}

/// Reason for which it is not known whether a control plane has worked for a mesh before.
#[derive(Debug, thiserror::Error)]
#[error("the note of this control plane's mesh at {} cannot be read: {source}", path.display())]
pub(crate) struct AnchorError {
    path: PathBuf,
    source: io::Error,
}

impl Anchor {
    /// Reads what earlier processes have noted in a data directory.
    ///
    /// # Errors
    /// When there is a note that cannot be read.
    pub(crate) fn open(directory: &Path) -> Result<Self, AnchorError> {
        let path = directory.join(FILE);
        let known = match fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(AnchorError { path, source }),
        };
        Ok(Self { path, known: Mutex::new(known) })
    }

    /// Returns true if a mesh was known before.
    pub(crate) fn is_set(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes in the authority of the mesh in the store; false if another one was known before.
    pub(crate) fn holds(&self, authority: &AuthorityRecord) -> bool {
        let found = HEXLOWER.encode(&Sha256::digest(&authority.certificate));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref() {
            return *known == found;
        }
        if let Err(error) = write(&self.path, &found) {
            tracing::warn!(path = %self.path.display(), %error, "the mesh of this control plane is not noted for its next start");
        }
        *known = Some(found);
        true
    }
}

/// A note that is durable when this returns.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("mesh.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    File::sync_all(&file)?;
    fs::rename(&draft, path)?;
    sync_directory(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_known_to_the_next_process_and_another_one_is_not_taken_for_it() {
        let directory = tempfile::TempDir::new().unwrap();
        let authority = |certificate| AuthorityRecord { key: vec![1], certificate: vec![certificate] };
        let first = Anchor::open(directory.path()).unwrap();
        assert!(!first.is_set());
        assert!(first.holds(&authority(1)) && first.is_set());
        let next = Anchor::open(directory.path()).unwrap();
        assert!(next.is_set() && next.holds(&authority(1)) && !next.holds(&authority(2)));
    }
}
