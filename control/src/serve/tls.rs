//! TLS 1.3 for hosts: handshakes beside each other, each within deadlines, and beyond a limit in turn; who says nothing gives place to who
//! does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use sealane_base::admission::{self, Limits, Place, Places, Turned};
use sealane_base::task;
use sealane_proto::identity::{Expected, PeerVerifier, Trust, TrustError, peer_identity};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::connection::{Connection, ConnectionPlace};
use super::source::{HostSources, Source};
use super::{Peer, Proof};
use crate::ca::{Authority, OwnCertificate};
use crate::metrics::Metrics;
use crate::registry::Registry;

/// Connections that have said nothing so far.
const SILENT: Limits = Limits { total: 1_024, each: 256 };
/// Handshakes under way, and those that wait for their turn.
const HANDSHAKES: [Limits; 2] = [Limits { total: 512, each: 128 }, Limits { total: 2_048, each: 1_024 }];
/// Beside them, those from addresses of hosts of the mesh, which may all come at once.
const KNOWN_SILENT: Limits = Limits { total: 8_192, each: 32 };
const KNOWN_HANDSHAKES: [Limits; 2] = [Limits { total: 512, each: 32 }, Limits { total: 16_384, each: 32 }];
/// Connections of hosts, each of which needs one, and two while it makes a new one.
const HOSTS: Limits = Limits { total: 16_384, each: 8 };
/// Connections without a certificate: hosts that join.
const STRANGERS: Limits = Limits { total: 256, each: 32 };
/// And from addresses of hosts of the mesh, which may join again.
const KNOWN_STRANGERS: Limits = Limits { total: 256, each: 8 };

/// Number of connections that wait for their server.
const WAITING: usize = 64;

/// Reasons for which there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The mesh's own root cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The provider has not what TLS 1.3 needs.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Channels for connections whose handshake is done.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// Connections of hosts.
    pub(crate) hosts: mpsc::Sender<io::Result<Connection>>,
    /// Connections of other control planes, where they share the store.
    pub(crate) controls: Option<mpsc::Sender<io::Result<Connection>>>,
    /// Connections of anybody else.
    pub(crate) strangers: mpsc::Sender<io::Result<Connection>>,
}

/// Connections whose handshake is done.
pub(crate) type Connections = mpsc::Receiver<io::Result<Connection>>;

impl Ready {
    /// Channels, and where connections of hosts, of strangers and of other control planes arrive. The last ones do if the store may be
    /// shared.
    pub(crate) fn channels(shared: bool) -> (Self, [Connections; 3]) {
        let (hosts, from_hosts) = mpsc::channel(WAITING);
        let (strangers, from_strangers) = mpsc::channel(WAITING);
        let (controls, from_controls) = mpsc::channel(WAITING);
        let ready = Self { hosts, controls: shared.then_some(controls), strangers };
        (ready, [from_hosts, from_strangers, from_controls])
    }
}

/// TLS 1.3 with control's own certificate, for hosts of the mesh and for anonymous ones that want to join.
pub(crate) fn config(
    authority: &Authority,
    own: Arc<OwnCertificate>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let trust = Trust::new(authority.domain().clone(), std::slice::from_ref(authority.root()))?;
    let verifier = PeerVerifier::or_anonymous(trust, Expected::NodeOrControl, &provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check of the client's certificate, and streams are long anyway.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Accepts connections and shakes hands.
#[derive(Debug)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    registry: Arc<Registry>,
    metrics: Metrics,
    ready: Ready,
    silent: [Places<Source>; 2],
    handshakes: [Places<Source>; 2],
    hosts: Places<[u8; 32]>,
    strangers: [Places<Source>; 2],
}

/// A connection that was accepted just now.
struct Newcomer {
    stream: TcpStream,
    addr: SocketAddr,
    /// True if a host of the mesh is at its address.
    known: bool,
}

impl Acceptor {
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        registry: Arc<Registry>,
        metrics: Metrics,
        ready: Ready,
    ) -> Self {
        Self {
            config,
            registry,
            metrics,
            ready,
            silent: [SILENT, KNOWN_SILENT].map(Places::new),
            handshakes: [HANDSHAKES, KNOWN_HANDSHAKES]
                .map(|[limits, waiting]| Places::with_queue(limits, waiting)),
            hosts: Places::new(HOSTS),
            strangers: [STRANGERS, KNOWN_STRANGERS].map(Places::new),
        }
    }

    /// Accepts until aborted; connections whose handshake is done arrive where they are ready.
    pub(crate) async fn run(self, listener: TcpListener) {
        let (this, mut known) = (Arc::new(self), HostSources::default());
        loop {
            let (stream, addr) = admission::accept(&listener).await;
            let source = Source::from(addr.ip());
            let known = known.has(&this.registry.directory().nodes, source, Instant::now());
            let place = this.silent[usize::from(known)].enter(source);
            let newcomer = Newcomer { stream, addr, known };
            let greeting = this.clone().greet(newcomer, place);
            task::spawn("handshake", Box::pin(greeting)).detach();
        }
    }

    async fn greet(self: Arc<Self>, newcomer: Newcomer, place: Place<Source>) {
        let Newcomer { stream, addr, known } = newcomer;
        let turns = &self.handshakes[usize::from(known)];
        let shake_hands = |stream| self.shake_hands(stream, addr, known);
        let shaken = admission::greet_in_turn(place, turns, stream, shake_hands).await;
        if let Err(Turned::Failed(error)) = &shaken {
            tracing::debug!(%error, "handshake failed");
        }
        let result = shaken.as_ref().map_or_else(Turned::as_str, |_| "ok");
        self.metrics.handshakes.with_label_values(&[result]).inc();
        if let Ok(connection) = shaken {
            let ready = match &self.ready.controls {
                _ if connection.is_stranger() => &self.ready.strangers,
                Some(controls) if connection.is_control() => controls,
                Some(_) | None => &self.ready.hosts,
            };
            // An error means that the server has ended.
            let _ = ready.send(Ok(connection)).await;
        }
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        is_near: bool,
    ) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let stream = TlsAcceptor::from(self.config.clone()).accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let (identity, proof) = (peer_identity(chain), Proof::of(chain));
        let peer = Peer { addr, identity, proof, spoke: Default::default() };
        let ended = self.metrics.connections_ended.clone();
        let control = peer.proof.filter(|_| peer.is_control() && self.ready.controls.is_some());
        let known = match control {
            Some(proof) => Some(proof.key),
            None => peer.host(&self.registry.directory()).ok().map(|host| host.key),
        };
        let (place, spoke) = match known {
            Some(key) => {
                let place = self.hosts.enter(key);
                let spoke = place.spoke().clone();
                (ConnectionPlace::Known(place), spoke)
            }
            None => {
                let place = self.strangers[usize::from(is_near)].enter(addr.ip().into());
                let spoke = place.spoke().clone();
                (ConnectionPlace::Stranger(place), spoke)
            }
        };
        Ok(Connection::new(stream, Peer { spoke, ..peer }, place, ended))
    }
}
