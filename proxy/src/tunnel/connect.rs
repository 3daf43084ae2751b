//! Making one tunnel: TCP, TLS, greeting.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConnection};
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::MARK;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::away::Away;
use super::core::{Core, Side};
use super::driver::Driver;
use super::error::OpenError;
use super::kin::{Family, Kin, Width};
use super::link::Link;
use super::pool::PeerKey;
use super::settings::Settings;
use super::share::Share;
use super::stats::TunnelStats;
use crate::tls::{ALPN, TlsSource, leaf_expiry};

/// Time for which data may be unacknowledged, so that a peer that vanished is noticed.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A tunnel and the task that runs it.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) core: Rc<RefCell<Core>>,
    pub(super) task: Task,
    pub(super) width: Width,
}

/// Parts that tunnels are made with.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) tls: TlsSource,
    pub(super) settings: Rc<Settings>,
    pub(super) stats: Arc<TunnelStats>,
    pub(super) away: Away,
}

impl Connector {
    /// Makes a tunnel of `family`. A handshake has long packets: while they may be lost, one of short packets is tried as well, unless
    /// this is one.
    pub(super) async fn connect(
        &self,
        key: &PeerKey,
        family: &Family,
        width: Width,
    ) -> Result<Tunnel, OpenError> {
        let (peer, began) = (key.address, Instant::now());
        let (mut attempt, mut away) = (pin!(self.attempt(key, family, width)), self.away.watch());
        let mut narrow = Box::pin(async {
            tokio::time::sleep_until(began + self.settings.connect_timeout / 2).await;
            self.attempt(key, family, Width::Narrow).await
        });
        let mut may_be_narrow = width == Width::Full;
        let after = self.settings.connect_timeout;
        let mut expired = pin!(away.expire(peer.ip(), began, [after, self.settings.away_timeout]));
        loop {
            tokio::select! {
                result = &mut attempt => return result,
                result = &mut narrow, if may_be_narrow => {
                    if result.is_ok() {
                        return result;
                    }
                    may_be_narrow = false;
                }
                is_away = &mut expired => {
                    self.stats.connects_failed.increment();
                    return Err(if is_away { OpenError::Away { peer } } else { OpenError::Timeout { peer, after } });
                }
            }
        }
    }

    async fn attempt(&self, key: &PeerKey, family: &Family, width: Width) -> Result<Tunnel, OpenError> {
        let peer = key.address;
        let config = self.tls.client_config(&key.expected).map_err(|_| OpenError::NoIdentity)?;
        let expires = self.tls.not_after();
        let tcp = connect_tcp(peer, width).await.map_err(|source| {
            self.stats.connects_failed.increment();
            OpenError::Connect { peer, source: Rc::new(source) }
        })?;
        let name = ServerName::IpAddress(peer.ip().into());
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
            self.stats.handshakes_failed.increment();
            handshake_error(peer, &error)
        })?;
        let (tcp, tls) = stream.into_inner();
        check_protocol(peer, &tls)?;
        let peer_expires = leaf_expiry(tls.peer_certificates());
        // A resumed session's certificate was verified when it was new.
        if peer_expires.is_none_or(|expires| expires <= SystemTime::now()) {
            self.stats.handshakes_failed.increment();
            return Err(OpenError::Identity { peer, reason: "its certificate has expired".into() });
        }
        let expires = expires.into_iter().chain(peer_expires).min();
        let core = Rc::new(RefCell::new(Core::new(Side::Connecting)));
        let share = (Rc::<Share>::default().join(), peer);
        let (settings, stats) = (self.settings.clone(), self.stats.clone());
        let kin = Kin::new(family.clone(), width);
        let driver = Driver::new(core.clone(), share, settings, stats, expires, kin);
        let task = task::spawn_local(driver.run(Link::new(tcp, tls.into()), |_| {}));
        // Held from here on, so that giving up ends the task.
        let tunnel = Tunnel { core, task, width };
        let greeted = poll_fn(|cx| tunnel.core.borrow_mut().poll_greeting(cx)).await;
        greeted.map_err(|reason| OpenError::Handshake { peer, reason })?;
        Ok(tunnel)
    }
}

async fn connect_tcp(peer: SocketAddr, width: Width) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_mark(MARK)?;
    if let Some(segment) = width.segment() {
        socket.set_tcp_mss(segment)?;
    }
    let tcp = TcpSocket::from_std_stream(socket.into()).connect(peer).await?;
    prepare(&tcp)?;
    Ok(tcp)
}

/// Sets the options that both sides of a tunnel ask of TCP.
pub(super) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_nodelay(true)
}

fn check_protocol(peer: SocketAddr, tls: &ClientConnection) -> Result<(), OpenError> {
    if tls.alpn_protocol() == Some(ALPN) {
        return Ok(());
    }
    Err(OpenError::Handshake { peer, reason: "it does not speak sealane/1".into() })
}

/// A peer that we do not accept is told apart from everything else.
fn handshake_error(peer: SocketAddr, error: &io::Error) -> OpenError {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(reason)) = tls {
        let reason = if let CertificateError::Other(error) = reason {
            error.to_string()
        } else if *reason == CertificateError::UnknownIssuer {
            "its certificate is not of this mesh".to_owned()
        } else {
            format!("its certificate is no good: {reason}")
        };
        return OpenError::Identity { peer, reason: reason.into() };
    }
    OpenError::Handshake { peer, reason: error.to_string().into() }
}
