//! The certificate authority of the mesh: made at first start, kept in the store, pinned by join tokens.
//!
//! Certificates have identities, not wishes: of a request only the public key is taken, after its own signature has
//! proved that the asker holds the private half. Who may have which identity is decided elsewhere.

mod notary;
mod own;
mod seal;

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use sealane_proto::client::TlsIdentity;
use sealane_proto::identity::{Principal, SerialPrefix, SpiffeId, Trust, TrustError};
use sealane_proto::token::Pin;
use sealane_proto::types::TrustDomain;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::core::Timestamp;

pub(crate) use notary::Notary;
pub(crate) use own::{OwnCertificate, OwnError};
pub(crate) use seal::{SealError, SealKey};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Lifetime of an authority.
const ROOT_LIFETIME: Duration = DAY.saturating_mul(3_653);
/// Lifetime of certificates of control and of hosts; they renew them long before.
pub(crate) const HOST_LIFETIME: Duration = DAY.saturating_mul(30);
/// Lifetime of certificates of services and workloads: control may be away for a day and more.
const WORKLOAD_LIFETIME: Duration = DAY.saturating_mul(3);
/// Time by which a host's clock may be behind control's.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Record of an authority in the store.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AuthorityRecord {
    /// The private key, PKCS #8.
    pub(crate) key: Vec<u8>,
    /// The certificate, DER.
    pub(crate) certificate: Vec<u8>,
}

impl std::fmt::Debug for AuthorityRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityRecord").finish_non_exhaustive()
    }
}

/// Reasons for which a control plane has no identity towards another one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// Signing failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The root cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Signs the identities of one trust domain.
pub(crate) struct Authority {
    domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    /// End of the root's validity.
    expires: Timestamp,
    /// Lifetime of certificates of services and workloads.
    workload_lifetime: Duration,
    notary: Arc<Notary>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// A public key whose holder has proved to have the private one.
#[derive(Clone, Debug)]
pub(crate) struct ProvenKey(rcgen::PublicKey);

/// A signed certificate.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    /// Leaf first, the authority last.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// End of its validity.
    pub(crate) expires: Timestamp,
}

/// Reasons for which the authority cannot do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The stored certificate is none.
    #[error(
        "the certificate authority's certificate in the store cannot be read; restore a backup of the store"
    )]
    Certificate,
    /// The stored key or certificate cannot be read.
    #[error("the certificate authority in the store cannot be read: {0}; restore a backup of the store")]
    Stored(rcgen::Error),
    /// Making or signing failed.
    #[error("the certificate authority cannot sign: {0}")]
    Sign(rcgen::Error),
}

/// Reason for which a certificate request is refused.
#[derive(Debug, thiserror::Error)]
#[error("csr is not a PKCS #10 certificate request that proves its key: {0}")]
pub(crate) struct RequestError(rcgen::Error);

impl ProvenKey {
    /// The key of a certificate request (PKCS #10, DER) that is signed by it.
    pub(crate) fn of_request(csr: &[u8]) -> Result<Self, RequestError> {
        let csr = CertificateSigningRequestDer::from(csr);
        let request = CertificateSigningRequestParams::from_der(&csr).map_err(RequestError)?;
        Ok(Self(request.public_key))
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.0.subject_public_key_info()).into()
    }
}

impl Authority {
    /// A new authority for a new store.
    pub(crate) fn generate(domain: &TrustDomain, now: Timestamp) -> Result<AuthorityRecord, AuthorityError> {
        let key = new_key()?;
        let mut params = params(now, ROOT_LIFETIME);
        params.distinguished_name.push(DnType::CommonName, "Sealane authority");
        params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(AuthorityError::Sign)?;
        Ok(AuthorityRecord { key: key.serialize_der(), certificate: certificate.der().to_vec() })
    }

    /// The authority that a store keeps.
    pub(crate) fn load(domain: TrustDomain, record: AuthorityRecord) -> Result<Self, AuthorityError> {
        let notary = Arc::new(Notary::of(&record.key));
        let key = KeyPair::try_from(record.key).map_err(AuthorityError::Stored)?;
        let root = CertificateDer::from(record.certificate);
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(AuthorityError::Stored)?;
        let expires = end_of(&root)?;
        Ok(Self { domain, issuer, root, expires, workload_lifetime: WORKLOAD_LIFETIME, notary })
    }

    /// The same authority with another lifetime of services' and workloads' certificates, no longer than that of a host's.
    pub(crate) fn with_workload_lifetime(self, lifetime: Option<Duration>) -> Self {
        Self { workload_lifetime: lifetime.unwrap_or(WORKLOAD_LIFETIME).min(HOST_LIFETIME), ..self }
    }

    /// The trust domain.
    pub(crate) fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The authority's own certificate: the whole trust bundle.
    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Returns its end, which is that of everything that it has signed.
    pub(crate) fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Vouches for what hosts are told.
    pub(crate) fn notary(&self) -> &Arc<Notary> {
        &self.notary
    }

    /// Returns the pin in join tokens.
    pub(crate) fn pin(&self) -> Pin {
        Pin::of(&self.root)
    }

    /// A certificate for `principal` with this key, valid from a little before `now`, for a host whose
    /// certificates' serial numbers begin so.
    pub(crate) fn sign(
        &self,
        key: &ProvenKey,
        principal: Principal,
        host: SerialPrefix,
        now: Timestamp,
    ) -> Result<Signed, AuthorityError> {
        self.sign_key(&key.0, principal, Some(host), now)
    }

    fn sign_key(
        &self,
        key: &impl PublicKeyData,
        principal: Principal,
        host: Option<SerialPrefix>,
        now: Timestamp,
    ) -> Result<Signed, AuthorityError> {
        let lifetime = match principal {
            Principal::Control | Principal::Node(_) => HOST_LIFETIME,
            Principal::Service(..) | Principal::Workload(..) => self.workload_lifetime,
        };
        // Nothing outlives the authority: who renews by the end of a certificate must not be misled by it.
        let lifetime = lifetime.min(self.expires.since(now));
        let identity = SpiffeId { trust_domain: self.domain.clone(), principal };
        let mut params = params(now, lifetime);
        params.serial_number = Some(serial_number(host));
        let uri = identity.to_string().try_into().map_err(AuthorityError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer).map_err(AuthorityError::Sign)?;
        Ok(Signed { chain: vec![leaf.into(), self.root.clone()], expires: now.after(lifetime) })
    }
}

impl Authority {
    /// A control plane's identity with a key of its own, for a connection to another one.
    pub(crate) fn control_identity(&self, now: Timestamp) -> Result<TlsIdentity, IdentityError> {
        let key = new_key()?;
        let Signed { chain, .. } = self.sign_key(&key, Principal::Control, None, now)?;
        let trust = Trust::new(self.domain.clone(), std::slice::from_ref(&self.root))?;
        Ok(TlsIdentity { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), trust })
    }
}

fn end_of(certificate: &CertificateDer<'_>) -> Result<Timestamp, AuthorityError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| AuthorityError::Certificate)?;
    let end = parsed.validity().not_after.timestamp();
    Ok(Timestamp::from_unix(end.max(0).unsigned_abs()))
}

fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Sign)
}

fn params(now: Timestamp, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Renewal is counted from the beginning: a short life is not over a third when it begins.
    let before = CLOCK_SKEW.min(lifetime / 10);
    params.not_before = instant(now.unix().saturating_sub(before.as_secs()));
    params.not_after = instant(now.after(lifetime).unix());
    params.serial_number = Some(serial_number(None));
    params
}

/// RFC 5280, section 4.1.2.2: positive, at most 20 octets. At least 64 random bits: they cannot be guessed, and
/// one host's repeat no sooner than after billions.
fn serial_number(host: Option<SerialPrefix>) -> SerialNumber {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    if let Some(host) = host {
        serial[..SerialPrefix::LENGTH].copy_from_slice(&host.to_bytes());
    }
    SerialNumber::from_slice(&serial)
}

fn instant(unix: u64) -> OffsetDateTime {
    // Out of range only for clocks beyond the year 9999.
    i64::try_from(unix)
        .ok()
        .and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
