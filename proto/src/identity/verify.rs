//! Certificate verification by SPIFFE identity instead of DNS name (X509-SVID, sections 4 and 5).
//!
//! Chains are validated to the mesh's own roots with the validity of now, then the leaf's one URI SAN is read.
//! Nothing is inherited from a verifier of DNS names, so that no path around the chain check exists.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};

use super::{Principal, SerialPrefix, SpiffeId};
use crate::types::TrustDomain;

/// Verifies signatures by the algorithms in a field: what both of rustls's traits ask for.
macro_rules! signatures {
    ($($field:ident).+) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(message, cert, dss, &self.$($field).+)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(message, cert, dss, &self.$($field).+)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$($field).+.supported_schemes()
        }
    };
}

pub(crate) use signatures;

/// Trust domain and roots that every certificate of the mesh is measured against.
#[derive(Clone, Debug)]
pub struct Trust {
    domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Arc<BTreeSet<SerialPrefix>>,
}

/// Roots that are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No root at all.
    #[error("the trust bundle of {0} is empty")]
    Empty(TrustDomain),
    /// A root that cannot be read.
    #[error("root {index} of the trust bundle of {domain} is not a certificate: {source}")]
    Root {
        /// Index of the root.
        index: usize,
        /// Trust domain of the bundle.
        domain: TrustDomain,
        /// Fault of the root.
        source: webpki::Error,
    },
}

impl Trust {
    /// Trust in these roots (DER) for identities of this domain, and for no others.
    ///
    /// # Errors
    /// When there is no root or one cannot be read.
    pub fn new(domain: TrustDomain, roots: &[CertificateDer<'_>]) -> Result<Self, TrustError> {
        if roots.is_empty() {
            return Err(TrustError::Empty(domain));
        }
        let anchor = |(index, root)| {
            anchor_from_trusted_cert(root)
                .map(|anchor| anchor.to_owned())
                .map_err(|source| TrustError::Root { index, domain: domain.clone(), source })
        };
        let anchors = roots.iter().enumerate().map(anchor).collect::<Result<_, _>>()?;
        Ok(Self { domain, anchors, revoked: Arc::default() })
    }

    /// The same trust, but in no certificate whose serial number begins like one of these.
    #[must_use]
    pub fn revoking(&self, revoked: Arc<BTreeSet<SerialPrefix>>) -> Self {
        Self { revoked, ..self.clone() }
    }

    fn is_revoked(&self, leaf: &CertificateDer<'_>) -> bool {
        !self.revoked.is_empty()
            && SerialPrefix::of(leaf).is_some_and(|serial| self.revoked.contains(&serial))
    }

    /// The trust domain.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }
}

/// Peers that are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Exactly this principal.
    Exactly(Principal),
    /// Any workload or service of the network of this principal.
    SameNetwork(Principal),
    /// Any host.
    AnyNode,
    /// Any host, or a control plane.
    NodeOrControl,
}

impl Expected {
    fn admits(&self, peer: &Principal) -> bool {
        match self {
            Self::Exactly(principal) => principal == peer,
            Self::SameNetwork(own) => peer.network().is_some() && peer.network() == own.network(),
            Self::AnyNode => matches!(peer, Principal::Node(_)),
            Self::NodeOrControl => matches!(peer, Principal::Node(_) | Principal::Control),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(principal) => write!(f, "{principal}"),
            Self::SameNetwork(own) => match own.network() {
                Some(network) => write!(f, "any of net/{network}"),
                None => write!(f, "nobody"),
            },
            Self::AnyNode => write!(f, "any node"),
            Self::NodeOrControl => write!(f, "any node, or control"),
        }
    }
}

/// A peer whose chain is good but whose identity is not.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Not exactly one URI SAN that is an identity of the mesh.
    #[error("the peer's certificate names no SPIFFE identity of a mesh")]
    NoIdentity,
    /// Another mesh.
    #[error("the peer is {peer}, of another trust domain than {expected}")]
    Domain {
        /// Identity of the peer.
        peer: SpiffeId,
        /// Our domain.
        expected: TrustDomain,
    },
    /// Another peer than was called.
    #[error("the peer is {peer}, expected {expected}")]
    Unexpected {
        /// Identity of the peer.
        peer: SpiffeId,
        /// Identity that was expected.
        expected: Expected,
    },
}

/// Checks peers in both directions; give it to rustls as server or client verifier.
#[derive(Debug)]
pub struct PeerVerifier {
    trust: Trust,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
    /// True if a client may come without a certificate (a host that joins).
    anonymous: bool,
}

impl PeerVerifier {
    /// A verifier that admits `expected` peers.
    #[must_use]
    pub fn new(trust: Trust, expected: Expected, provider: &CryptoProvider) -> Arc<Self> {
        let algorithms = provider.signature_verification_algorithms;
        Arc::new(Self { trust, expected, algorithms, anonymous: false })
    }

    /// The same, but clients may come without a certificate; the caller must check who did.
    #[must_use]
    pub fn or_anonymous(trust: Trust, expected: Expected, provider: &CryptoProvider) -> Arc<Self> {
        let algorithms = provider.signature_verification_algorithms;
        Arc::new(Self { trust, expected, algorithms, anonymous: true })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: impl ExtendedKeyUsageValidator,
    ) -> Result<(), Error> {
        let cert = EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        cert.verify_for_usage(
            self.algorithms.all,
            &self.trust.anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )
        .map_err(chain_error)?;
        if self.trust.is_revoked(leaf) {
            return Err(CertificateError::Revoked.into());
        }
        let peer = identity_of(&cert).ok_or_else(|| other(PeerError::NoIdentity))?;
        if peer.trust_domain != self.trust.domain {
            return Err(other(PeerError::Domain { peer, expected: self.trust.domain.clone() }));
        }
        if !self.expected.admits(&peer.principal) {
            return Err(other(PeerError::Unexpected { peer, expected: self.expected.clone() }));
        }
        Ok(())
    }
}

/// The identity that a verified peer's leaf certificate names.
///
/// Meaningful only for a chain that a [`PeerVerifier`] has accepted.
#[must_use]
pub fn peer_identity(chain: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    identity_of(&EndEntityCert::try_from(chain?.first()?).ok()?)
}

/// The SHA-256 of a peer's public key (SubjectPublicKeyInfo, DER).
///
/// Meaningful only for a chain that a [`PeerVerifier`] has accepted.
#[must_use]
pub fn peer_key(chain: Option<&[CertificateDer<'_>]>) -> Option<[u8; 32]> {
    let leaf = EndEntityCert::try_from(chain?.first()?).ok()?;
    Some(Sha256::digest(leaf.subject_public_key_info()).into())
}

fn identity_of(cert: &EndEntityCert<'_>) -> Option<SpiffeId> {
    let mut uris = cert.valid_uri_names();
    let only = uris.next()?;
    if uris.next().is_some() { None } else { only.parse().ok() }
}

fn other(error: PeerError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

#[allow(clippy::wildcard_enum_match_arm, reason = "a foreign enum of some fifty variants")]
fn chain_error(error: webpki::Error) -> Error {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }.into()
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }.into()
        }
        // Roots of two meshes may have one name; then the signature tells them apart.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CertificateError::UnknownIssuer.into()
        }
        error => CertificateError::Other(OtherError(Arc::new(error))).into(),
    }
}

/// Extended key usage for TLS servers and clients (RFC 5280, section 4.2.1.12).
#[derive(Clone, Copy)]
struct Usage(&'static [u8]);

impl Usage {
    /// id-kp-serverAuth, 1.3.6.1.5.5.7.3.1
    const SERVER: Self = Self(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
    /// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2
    const CLIENT: Self = Self(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, iter: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let wanted = webpki::KeyUsage::required(self.0);
        wanted.validate(iter)
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now, Usage::SERVER)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!(algorithms);
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.anonymous
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now, Usage::CLIENT)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!(algorithms);
}
