//! Facts in a host's certificate beside its name. The handshake has checked it.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::CLOCK_SKEW;
use crate::core::Timestamp;

/// Key of a host, and its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub(crate) key: [u8; 32],
    /// Time at which it was issued, by the authority's clock.
    pub(crate) issued: Timestamp,
}

impl Proof {
    /// Reads the facts from the leaf of a chain.
    pub(crate) fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(chain?.first()?).ok()?;
        let begins = u64::try_from(certificate.validity().not_before.timestamp()).ok()?;
        // The authority dates certificates back, for hosts whose clocks are behind.
        let issued = Timestamp::from_unix(begins).after(CLOCK_SKEW);
        Some(Self { key: Sha256::digest(certificate.public_key().raw).into(), issued })
    }
}
