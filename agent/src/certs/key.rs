//! Keys made on this host and what a certificate says of its validity.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::disk::{DiskError, Folder};

/// Longest interval between two looks at certificates: the clock may have been set.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// And at most.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// A private key (ECDSA P-256) that can ask for a certificate.
#[derive(Debug)]
pub(crate) struct NewKey {
    pair: KeyPair,
}

/// Reasons for which a key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key could not be made or is none.
    #[error("the private key cannot be used: {0}")]
    Key(#[from] rcgen::Error),
    /// Control signed something that is no certificate.
    #[error("control answered without a certificate that can be read")]
    Certificate,
    /// The disk is full or faulty.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl NewKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn make() -> Result<Self, KeyError> {
        Ok(Self { pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    /// The key kept as `name`, or a new one that is kept there from now on.
    ///
    /// # Errors
    /// When it cannot be made, read or stored.
    pub(crate) fn load_or_make(folder: &Folder, name: &str) -> Result<Self, KeyError> {
        if let Some(bytes) = folder.read(name)? {
            return Self::from_private(&PrivatePkcs8KeyDer::from(bytes).into());
        }
        let key = Self::make()?;
        folder.write(name, key.pair.serialized_der())?;
        Ok(key)
    }

    /// A key that was made before.
    ///
    /// # Errors
    /// When it is no ECDSA P-256 key.
    pub(crate) fn from_private(key: &PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        Ok(Self { pair: KeyPair::try_from(key)? })
    }

    /// The private key (PKCS #8).
    #[must_use]
    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }

    /// A signing request (PKCS #10, DER). Control takes nothing from it but the public key.
    ///
    /// # Errors
    /// When signing fails.
    pub(crate) fn request(&self) -> Result<Vec<u8>, KeyError> {
        Ok(CertificateParams::default().serialize_request(&self.pair)?.der().to_vec())
    }
}

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The first moment.
    pub(crate) not_before: SystemTime,
    /// The last moment.
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// Reads the validity from a certificate.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, KeyError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| KeyError::Certificate)?;
        let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
        let validity = parsed.validity();
        Ok(Self {
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }

    /// Returns the time at which a third of its life is over: from then on it is renewed.
    #[must_use]
    pub(crate) fn due(&self) -> SystemTime {
        self.not_before + self.life() / 3
    }

    /// Returns true if a third of its life is over.
    #[must_use]
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        now >= self.due()
    }

    /// Returns the time until it is looked at again: until it is due, and when it is, some time before it is tried once
    /// more. Short lives are looked at more often.
    #[must_use]
    pub(crate) fn next_look(&self, now: SystemTime) -> Duration {
        let again = (self.life() / 60).max(SHORTEST_WAIT);
        let until = self.due().duration_since(now).unwrap_or_default();
        until.max(again).min(LONGEST_WAIT)
    }

    fn life(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_after_a_third_of_its_life() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let validity = Validity { not_before: start, not_after: start + Duration::from_secs(72 * 3600) };
        assert!(!validity.is_due(start + Duration::from_secs(24 * 3600 - 1)));
        assert!(validity.is_due(start + Duration::from_secs(24 * 3600)));
    }

    #[test]
    fn a_certificate_is_looked_at_when_it_is_due_and_again_while_it_is() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let lives = |seconds| Validity { not_before: start, not_after: start + Duration::from_secs(seconds) };
        let table = [
            (72 * 3600, 0, 30_000),
            (72 * 3600, 24 * 3600 - 7, 30_000),
            (72 * 3600, 25 * 3600, 30_000),
            (30, 0, 10_000),
            (30, 4, 6_000),
            (30, 11, 500),
            (300, 101, 5_000),
        ];
        for (life, passed, expected) in table {
            let look = lives(life).next_look(start + Duration::from_secs(passed));
            assert_eq!(look, Duration::from_millis(expected), "{passed} s into {life} s");
        }
    }

    #[test]
    fn a_key_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        let made = NewKey::load_or_make(&folder, "k").unwrap();
        let loaded = NewKey::load_or_make(&folder, "k").unwrap();
        assert_eq!(made.private(), loaded.private());
        assert!(!loaded.request().unwrap().is_empty());
    }
}
