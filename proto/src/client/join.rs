//! A host becomes part of the mesh: with a token that pins the authority.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use sealane_base::text::one_line;

use super::connect::{ConnectError, tls_channel};
use super::ending::leader;
use super::words::of_loss;
use crate::identity::{Expected, PeerVerifier, Principal, Trust, TrustError, peer_identity, signatures};
use crate::resource::{ControlAddr, Node};
use crate::token::{JoinToken, Pin};
use crate::types::TrustDomain;
use crate::wire::{OLDEST_PROTOCOL, PROTOCOL, v1};

/// Result of joining, beside the key that the host made itself.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// The node certificate's chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The mesh's roots.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Reasons for which a host could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No connection, or to a control plane that the token was not made by.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Control says no; its text says why.
    #[error("control at {address} refuses node {node}: {reason}")]
    Refused {
        /// Address of control.
        address: ControlAddr,
        /// Name of the host that wanted to join.
        node: String,
        /// Control's words.
        reason: String,
        /// True if trying again unchanged may help (control was not ready).
        retry: bool,
        /// Address of the control plane that leads, in the words of one that does not.
        leader: Option<Box<ControlAddr>>,
    },
    /// An answer that makes no sense.
    #[error("control at {address} answered the join with {what}")]
    Answer {
        /// Address of control.
        address: ControlAddr,
        /// Fault of the answer.
        what: String,
    },
    /// The roots of the answer are none.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl JoinError {
    /// Returns the address of the control plane that leads, where one that does not has named it.
    #[must_use]
    pub fn leader(&self) -> Option<&ControlAddr> {
        match self {
            Self::Refused { leader, .. } => leader.as_deref(),
            Self::Connect(_) | Self::Answer { .. } | Self::Trust(_) => None,
        }
    }

    /// Returns true if trying again unchanged may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(ConnectError::Tcp { .. } | ConnectError::Http { .. }) => true,
            Self::Refused { retry, .. } => *retry,
            Self::Connect(ConnectError::Tls { source, .. }) => is_lost(source.kind()),
            Self::Connect(ConnectError::Unix { .. } | ConnectError::Identity(_))
            | Self::Answer { .. }
            | Self::Trust(_) => false,
        }
    }
}

/// Joins the mesh at `address` as `node`; `csr` (PKCS #10, DER) is signed by the host's new key.
///
/// # Errors
/// See [`JoinError`]; nothing is changed on this host.
pub async fn join(
    address: &ControlAddr,
    token: &JoinToken,
    node: &Node,
    csr: Vec<u8>,
    version: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<Joined, JoinError> {
    let verifier = Arc::new(PinVerifier { pin: token.pin, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConnectError::Identity)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let channel = tls_channel(address, config).await?;
    let (underlay, underlay_other) = node.underlay.to_wire();
    let request = v1::JoinRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.to_string(),
        node: node.name.to_string(),
        underlay,
        csr,
        protocol: PROTOCOL,
        oldest_protocol: OLDEST_PROTOCOL,
        underlay_other,
        version: version.to_owned(),
        unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    let answer = v1::control_client::ControlClient::new(channel).join(request).await;
    let answer = answer.map_err(|status| refused(address, node, &status))?.into_inner();
    accept(answer).map_err(|what| JoinError::Answer { address: address.clone(), what })
}

/// Returns true if a handshake ended because the connection did: control has much to do. What TLS itself refuses stays
/// so.
fn is_lost(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof)
}

fn refused(address: &ControlAddr, node: &Node, status: &tonic::Status) -> JoinError {
    let passing = matches!(
        status.code(),
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Aborted
    );
    // What has a cause is no word of control's: the connection was lost.
    let retry = passing || std::error::Error::source(status).is_some();
    let reason = if std::error::Error::source(status).is_some() {
        let why = of_loss(status).map(|why| format!(": {why}")).unwrap_or_default();
        format!("the connection was lost{why}")
    } else {
        one_line(status.message(), 2_048).into_owned()
    };
    JoinError::Refused {
        address: address.clone(),
        node: node.name.to_string(),
        reason,
        retry,
        leader: leader(status).map(Box::new),
    }
}

fn accept(answer: v1::JoinResponse) -> Result<Joined, String> {
    let certificate = answer.certificate.ok_or("no certificate")?;
    let trust_domain = answer.trust_domain.parse().map_err(|error| format!("a bad trust domain: {error}"))?;
    let (chain, roots) = certificate.into_parts();
    Ok(Joined { trust_domain, chain, roots })
}

/// Trusts the one authority whose certificate has the pin, as long as the server is its control plane.
#[derive(Debug)]
struct PinVerifier {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

/// No certificate of the chain has the pin.
#[derive(Debug)]
struct WrongAuthority(Pin);

impl fmt::Display for WrongAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token was made by another control plane (it pins the authority {})", self.0)
    }
}

impl std::error::Error for WrongAuthority {}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let other = |error| Error::from(CertificateError::Other(OtherError(error)));
        let root = intermediates.iter().find(|cert| Pin::of(cert) == self.pin);
        let root = root.ok_or_else(|| other(Arc::new(WrongAuthority(self.pin))))?;
        let id = peer_identity(Some(std::slice::from_ref(leaf))).ok_or(CertificateError::BadEncoding)?;
        let trust = Trust::new(id.trust_domain, std::slice::from_ref(root));
        let trust = trust.map_err(|error| other(Arc::new(error)))?;
        let expected = Expected::Exactly(Principal::Control);
        let verifier = PeerVerifier::new(trust, expected, &self.provider);
        ServerCertVerifier::verify_server_cert(&*verifier, leaf, intermediates, name, ocsp, now)
    }

    signatures!(provider.signature_verification_algorithms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_loses_the_connection_while_joining_tries_again_and_who_is_refused_does_not() {
        let address: ControlAddr = "192.0.2.1:7443".parse().unwrap();
        let tls = |kind: io::ErrorKind| {
            let source = io::Error::new(kind, "as TLS says");
            JoinError::Connect(ConnectError::Tls { address: address.clone(), source }).is_retryable()
        };
        assert!(tls(io::ErrorKind::UnexpectedEof) && tls(io::ErrorKind::ConnectionReset));
        assert!(
            tls(io::ErrorKind::TimedOut) && !tls(io::ErrorKind::InvalidData),
            "another authority stays so"
        );
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.2".parse().unwrap(), mtu: None };
        let answer = |status: tonic::Status| refused(&address, &node, &status).is_retryable();
        assert!(answer(tonic::Status::unavailable("the store is full")));
        assert!(answer(tonic::Status::from_error(io::Error::other("broken pipe").into())));
        assert!(!answer(tonic::Status::unauthenticated("token aaaaaaaa is not known")));
    }
}
