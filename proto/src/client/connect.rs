//! Connections for tonic: unix sockets, and TCP with the mesh's own TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig};
use sealane_base::dial::dial_name;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::words;
use crate::identity::{Expected, PeerVerifier, Principal, Trust};
use crate::resource::ControlAddr;

/// Limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for the TLS handshake, which has to wait for its turn when all hosts return at once.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval of keepalives on a silent connection, and the limit for the answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(6));

/// Reasons for which there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The unix socket does not answer.
    #[error("cannot reach {path}: {}", sealane_base::text::plain(source))]
    Unix {
        /// The socket.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The address does not answer, or not in time.
    #[error("cannot reach control at {address}: {}", words::of_connecting(source))]
    Tcp {
        /// The address.
        address: ControlAddr,
        /// Underlying error.
        source: io::Error,
    },
    /// Control answers, but TLS fails: another authority, an expired certificate, a clock that is off.
    #[error("no secure connection to control at {address}: {}", words::of_handshake(source))]
    Tls {
        /// The address.
        address: ControlAddr,
        /// Error of TLS.
        source: io::Error,
    },
    /// TLS stands, but HTTP/2 does not.
    #[error(
        "what answers at {address} ends the conversation at once; see that this is control's port, and control's log"
    )]
    Http {
        /// The address.
        address: ControlAddr,
        /// Underlying error.
        source: tonic::transport::Error,
    },
    /// The own identity cannot be used.
    #[error("the node's own certificate and key cannot be used: {0}")]
    Identity(#[source] rustls::Error),
}

/// Certificate and key that a host shows to control, and the roots that it trusts.
#[derive(Debug)]
pub struct TlsIdentity {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// The mesh's roots and domain.
    pub trust: Trust,
}

impl Clone for TlsIdentity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), trust: self.trust.clone() }
    }
}

/// A channel over the unix socket at `path`, connected now.
///
/// # Errors
/// When nobody listens there, the caller may not open it, or who listened ends meanwhile
/// ([`io::ErrorKind::ConnectionReset`]).
pub async fn unix_channel(path: &Path) -> Result<Channel, ConnectError> {
    let fail = |source| ConnectError::Unix { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await.map_err(fail)?;
    let connector = once(stream);
    Endpoint::from_static("http://sealane.local").connect_with_connector(connector).await.map_err(|error| {
        match words::is_hang_up(&error) {
            true => fail(io::ErrorKind::ConnectionReset.into()),
            false => fail(io::Error::other(error)),
        }
    })
}

/// A channel to control, connected now, with the node's identity.
///
/// # Errors
/// When control does not answer or is not the mesh's own.
pub async fn control_channel(
    address: &ControlAddr,
    identity: &TlsIdentity,
    provider: &Arc<CryptoProvider>,
) -> Result<Channel, ConnectError> {
    let expected = Expected::Exactly(Principal::Control);
    let verifier = PeerVerifier::new(identity.trust.clone(), expected, provider);
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConnectError::Identity)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(ConnectError::Identity)?;
    tls_channel(address, config).await
}

/// A channel over TLS with this configuration.
pub(super) async fn tls_channel(
    address: &ControlAddr,
    mut config: ClientConfig,
) -> Result<Channel, ConnectError> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, dial_name(&address.text))
        .await
        .unwrap_or_else(|_| Err(late()))
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
    // The peer is known by its SPIFFE identity; this name only fills the field.
    let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls)
        .await
        .unwrap_or_else(|_| Err(late()))
        .map_err(|source| ConnectError::Tls { address: address.clone(), source: in_words(source) })?;
    Endpoint::from_static("http://control.sealane")
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector(once(tls))
        .await
        .map_err(|source| ConnectError::Http { address: address.clone(), source })
}

/// TLS wraps what our own verifiers say, and shows it as programmers see it.
fn in_words(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(ours))) => {
            io::Error::new(error.kind(), ours.0.to_string())
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            time,
            not_before,
        })) => io::Error::new(error.kind(), out_of_time("begins", *time, *not_before)),
        Some(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after })) => {
            io::Error::new(error.kind(), out_of_time("ended", *time, *not_after))
        }
        Some(rustls::Error::InvalidMessage(_)) => io::Error::new(
            error.kind(),
            "what answers there speaks no TLS, so it is not control's port; hint: control listens for hosts on 7443 unless its \
             --listen says otherwise",
        ),
        Some(_) | None => error,
    }
}

fn out_of_time(happens: &str, now: UnixTime, then: UnixTime) -> String {
    let [now, then] = [now, then]
        .map(|at| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at.as_secs())));
    format!(
        "the validity of control's certificate {happens} at {then}, and this host's clock says {now}; \
         hint: compare the clocks of both hosts and set them right (NTP)"
    )
}

/// A connector that hands out one connection; a lost one is an error, so that reconnecting is ours to decide.
fn once<S>(
    stream: S,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<S>,
    Error = io::Error,
    Future = std::future::Ready<io::Result<TokioIo<S>>>,
> + Send
+ 'static
where
    S: Send + 'static,
{
    let mut stream = Some(stream);
    tower::service_fn(move |_| {
        std::future::ready(match stream.take() {
            Some(stream) => Ok(TokioIo::new(stream)),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "the connection was lost")),
        })
    })
}
