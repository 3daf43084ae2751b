//! TLS 1.3 for hosts: handshakes beside each other, each within a deadline, so many at once and no more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use sealane_base::task;
use sealane_proto::identity::{Expected, PeerVerifier, Trust, TrustError, peer_identity};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{Peer, Proof};
use crate::ca::{Authority, OwnCertificate};
use crate::metrics::Metrics;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many handshakes may be under way; one more is refused.
const HANDSHAKES: usize = 512;
/// How many connections may be open; one more is refused.
const CONNECTIONS: usize = 16_384;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The mesh's own root cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The provider has not what TLS 1.3 needs.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A host's connection, with who it is.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

/// TLS 1.3 with control's own certificate, for hosts of the mesh and for anonymous ones that want to join.
pub(crate) fn config(
    authority: &Authority,
    own: Arc<OwnCertificate>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let trust = Trust::new(authority.domain().clone(), std::slice::from_ref(authority.root()))?;
    let verifier = PeerVerifier::or_anonymous(trust, Expected::AnyNode, &provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check of the client's certificate, and streams are long anyway.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Accepts until aborted; connections whose handshake is done arrive in `ready`.
pub(crate) async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    metrics: Metrics,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let count = |result: &str| metrics.handshakes.with_label_values(&[result]).inc();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors, most likely: give those who hold some time to end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let places = (handshakes.clone().try_acquire_owned(), connections.clone().try_acquire_owned());
        let (Ok(handshake), Ok(place)) = places else {
            count("refused");
            continue;
        };
        let (config, metrics, ready) = (config.clone(), metrics.clone(), ready.clone());
        let greeting = async move {
            let result = match timeout(HANDSHAKE, greet(stream, config, place)).await {
                Ok(Ok(connection)) => {
                    drop(handshake);
                    // An error means that the server has ended.
                    let _ = ready.send(Ok(connection)).await;
                    "ok"
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "handshake failed");
                    "failed"
                }
                Err(_) => "timeout",
            };
            metrics.handshakes.with_label_values(&[result]).inc();
        };
        task::spawn("handshake", Box::pin(greeting)).detach();
    }
}

async fn greet(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let addr = stream.peer_addr()?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates();
    let (identity, proof) = (peer_identity(chain), Proof::of(chain));
    Ok(Connection { stream, peer: Peer { addr, identity, proof }, _place: place })
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
