//! The accepting side of tunnels.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sealane_base::drain::Draining;
use sealane_proto::identity::{SerialPrefix, SpiffeId, peer_identity};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::connect::prepare;
use super::core::{Core, Side};
use super::driver::Driver;
use super::kin::Kin;
use super::link::Link;
use super::open::OpenHeader;
use super::settings::Settings;
use super::share::Shares;
use super::stats::TunnelStats;
use super::stream::Stream;
use crate::refusal::refuse;
use crate::tls::{TlsError, TlsSource, leaf_expiry};

/// A stream that a peer opened.
#[derive(Debug)]
pub struct Incoming {
    /// Header that it was opened with.
    pub header: OpenHeader,
    /// The stream. To refuse it: [`Stream::reset`].
    pub stream: Stream,
    /// Peer that opened it, verified.
    pub peer: TunnelPeer,
    /// Address that the tunnel comes from.
    pub address: SocketAddr,
}

/// Peer at the other end of one tunnel. Another tunnel has another peer, whatever its name: workloads of one service have that in common.
#[derive(Clone, Debug)]
pub struct TunnelPeer(Rc<SpiffeId>);

impl Deref for TunnelPeer {
    type Target = SpiffeId;

    fn deref(&self) -> &SpiffeId {
        &self.0
    }
}

impl PartialEq for TunnelPeer {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TunnelPeer {}

impl Hash for TunnelPeer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Rc::as_ptr(&self.0).hash(state);
    }
}

/// Reasons for which a TCP connection became no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// No identity to show.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection is unusable.
    #[error("tunnel from {peer}: {source}")]
    Tcp {
        /// The other end.
        peer: SocketAddr,
        /// Error of the kernel.
        source: std::io::Error,
    },
    /// TLS failed: no TLS, no acceptable certificate, connection lost.
    #[error("TLS handshake from {peer}: {source}")]
    Handshake {
        /// The other end.
        peer: SocketAddr,
        /// Error of the handshake.
        source: std::io::Error,
    },
    /// No handshake in time.
    #[error("no TLS handshake from {peer} within {after:?}")]
    Timeout {
        /// The other end.
        peer: SocketAddr,
        /// The limit.
        after: Duration,
    },
    /// The peer has flooded a tunnel a moment ago.
    #[error("{peer} has flooded a tunnel a moment ago")]
    Barred {
        /// The other end.
        peer: SocketAddr,
    },
    /// A session was resumed whose certificate has ended since.
    #[error("the certificate of {peer} has expired")]
    Expired {
        /// The other end.
        peer: SocketAddr,
    },
}

/// Turns accepted TCP connections into tunnels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    tls: TlsSource,
    settings: Rc<Settings>,
    stats: Arc<TunnelStats>,
    shares: Rc<Shares>,
}

impl Acceptor {
    /// An acceptor for peers of the network of `tls`' identity.
    #[must_use]
    pub fn new(tls: TlsSource, settings: Settings, stats: Arc<TunnelStats>) -> Self {
        Self { tls, settings: Rc::new(settings), stats, shares: Rc::default() }
    }

    /// Serves one connection to its end and hands every stream to `on_stream`, which must not block. When
    /// `draining` has begun, no stream is taken any more, and it ends with the last one. Dropping the future
    /// loses the streams.
    ///
    /// # Errors
    /// When no tunnel comes up, as for a peer that has just flooded one; how a tunnel ends is not an error.
    pub async fn serve(
        &self,
        tcp: TcpStream,
        draining: Draining,
        on_stream: impl Fn(Incoming),
    ) -> Result<(), AcceptError> {
        let address = tcp
            .peer_addr()
            .map_err(|source| AcceptError::Tcp { peer: SocketAddr::from(([0; 4], 0)), source })?;
        let now = Instant::now();
        let share = self.shares.of(address.ip(), now);
        if share.is_barred(now) {
            refuse(&tcp);
            return Err(AcceptError::Barred { peer: address });
        }
        let accepted = Box::pin(self.handshake(tcp, address)).await;
        let Greeted { link, peer, serial, expires } =
            accepted.inspect_err(|_| self.stats.handshakes_failed.increment())?;
        let side = Side::Accepting { max_streams: self.settings.max_streams };
        let core = Rc::new(RefCell::new(Core::new(side)));
        let share = (share.join(), address);
        let (settings, stats) = (self.settings.clone(), self.stats.clone());
        let driver = Driver::new(core.clone(), share, settings, stats, expires, Kin::default());
        let peer = TunnelPeer(Rc::new(peer));
        let run = Box::pin(driver.run(link, |opened| {
            let stream = Stream::new(&core, opened.id);
            on_stream(Incoming { header: opened.header, stream, peer: peer.clone(), address });
        }));
        tokio::select! {
            () = run_or_drain(run, &core, draining) => {}
            () = self.tls.revoked(serial) => tracing::warn!(%address, peer = %*peer, "tunnel of a revoked peer ended"),
        }
        Ok(())
    }

    async fn handshake(&self, tcp: TcpStream, peer: SocketAddr) -> Result<Greeted, AcceptError> {
        prepare(&tcp).map_err(|source| AcceptError::Tcp { peer, source })?;
        let config = self.tls.server_config()?;
        let own_expiry = self.tls.not_after();
        let after = self.settings.handshake_timeout;
        let handshake = tokio::time::timeout(after, TlsAcceptor::from(config).accept(tcp));
        let stream = handshake
            .await
            .map_err(|_| AcceptError::Timeout { peer, after })?
            .map_err(|source| AcceptError::Handshake { peer, source })?;
        let (tcp, tls) = stream.into_inner();
        let expires = leaf_expiry(tls.peer_certificates());
        let id = peer_identity(tls.peer_certificates());
        let serial = tls.peer_certificates().and_then(|chain| SerialPrefix::of(chain.first()?));
        // A resumed session's certificate was verified when it was new.
        let (Some(id), Some(expires)) = (id, expires.filter(|&expires| expires > SystemTime::now())) else {
            return Err(AcceptError::Expired { peer });
        };
        let expires = own_expiry.into_iter().chain([expires]).min();
        Ok(Greeted { link: Link::new(tcp, tls.into()), peer: id, serial, expires })
    }
}

/// A tunnel whose handshake is done.
struct Greeted {
    link: Link,
    peer: SpiffeId,
    serial: Option<SerialPrefix>,
    expires: Option<SystemTime>,
}

async fn run_or_drain(run: impl Future<Output = ()>, core: &RefCell<Core>, mut draining: Draining) {
    let mut run = std::pin::pin!(run);
    tokio::select! {
        () = &mut run => return,
        () = draining.begun() => core.borrow_mut().go_away(),
    }
    run.await;
}
