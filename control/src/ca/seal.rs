//! The authority's key under a key file: in a store that others can read, it is never in clear.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use sha2::{Digest, Sha256};

use super::AuthorityRecord;

/// Lengths that a key file may have.
const LENGTHS: std::ops::RangeInclusive<usize> = 32..=4_096;
/// Purpose of the key: the same file has another key for anything else.
const PURPOSE: &[u8] = b"sealane authority key 1";

/// Key by which the authority's own key is encrypted (AES-256-GCM).
pub(crate) struct SealKey {
    path: PathBuf,
    key: RandomizedNonceKey,
}

/// Reasons for which a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// The file cannot be read.
    #[error("key file {} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Others can read it.
    #[error("key file {} can be read by others than its owner; `chmod 600` it", .0.display())]
    Open(PathBuf),
    /// The key is too short, or too long.
    #[error(
        "key file {} has {found} bytes, not between 32 and 4096; `openssl rand -hex 32` makes a good one",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Length of its content.
        found: usize,
    },
    /// The authority's key was encrypted by another file's key, or changed since.
    #[error(
        "key file {} does not open the certificate authority's key in the store; every control plane of a mesh needs the same file",
        .0.display()
    )]
    Other(PathBuf),
    /// The cipher fails.
    #[error("the certificate authority's key cannot be encrypted")]
    Cipher,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SealKey {
    /// Reads a key file, which its owner alone may read.
    pub(crate) fn read(path: &Path) -> Result<Self, SealError> {
        let io = |source| SealError::Io { path: path.to_owned(), source };
        if fs::metadata(path).map_err(io)?.permissions().mode() & 0o077 != 0 {
            return Err(SealError::Open(path.to_owned()));
        }
        let content = fs::read(path).map_err(io)?;
        let content = content.trim_ascii_end();
        if !LENGTHS.contains(&content.len()) {
            return Err(SealError::Length { path: path.to_owned(), found: content.len() });
        }
        let digest = Sha256::new().chain_update(PURPOSE).chain_update(content).finalize();
        let key = RandomizedNonceKey::new(&AES_256_GCM, &digest).map_err(|_| SealError::Cipher)?;
        Ok(Self { path: path.to_owned(), key })
    }

    /// Encrypts an authority's key: the nonce, then the key with its tag. It belongs to its certificate.
    pub(crate) fn seal(&self, record: &AuthorityRecord) -> Result<Vec<u8>, SealError> {
        let mut sealed = record.key.clone();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(&record.certificate), &mut sealed);
        let nonce = nonce.map_err(|_| SealError::Cipher)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Decrypts the key of the authority with this certificate.
    pub(crate) fn open(&self, sealed: &[u8], certificate: Vec<u8>) -> Result<AuthorityRecord, SealError> {
        let other = || SealError::Other(self.path.clone());
        let (nonce, key) = sealed.split_at_checked(NONCE_LEN).ok_or_else(other)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| other())?;
        let mut key = key.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(&certificate), &mut key);
        let length = opened.map_err(|_| other())?.len();
        key.truncate(length);
        Ok(AuthorityRecord { key, certificate })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn file(directory: &TempDir, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_key_opens_by_the_same_file_alone_and_for_its_own_certificate() {
        let directory = TempDir::new().unwrap();
        let key = |name: &str, content: &str| SealKey::read(&file(&directory, name, content, 0o600)).unwrap();
        let (one, other) = (key("one", &"1".repeat(64)), key("other", &"2".repeat(64)));
        let copy = key("copy", &format!("{}\n", "1".repeat(64)));
        let record =
            AuthorityRecord { key: b"the private key".to_vec(), certificate: b"certificate".to_vec() };
        let sealed = one.seal(&record).unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"priv"));
        assert_ne!(sealed, one.seal(&record).unwrap(), "no nonce comes twice");
        assert!(copy.open(&sealed, record.certificate.clone()).unwrap() == record);
        let refused = other.open(&sealed, record.certificate.clone()).unwrap_err().to_string();
        assert!(refused.contains("other does not open the certificate authority's key"), "{refused}");
        assert!(one.open(&sealed, b"another".to_vec()).is_err());
        for length in 0..sealed.len() {
            assert!(one.open(&sealed[..length], record.certificate.clone()).is_err());
        }
    }

    #[test]
    fn a_key_file_that_is_short_or_open_to_others_is_refused_with_the_fix() {
        let directory = TempDir::new().unwrap();
        let said = |path: PathBuf| SealKey::read(&path).unwrap_err().to_string();
        assert!(said(file(&directory, "a", &"1".repeat(64), 0o640)).contains("`chmod 600` it"));
        assert!(
            said(file(&directory, "b", "short\n", 0o600)).contains("has 5 bytes, not between 32 and 4096")
        );
        assert!(said(directory.path().join("none")).contains("cannot be read"));
    }
}
