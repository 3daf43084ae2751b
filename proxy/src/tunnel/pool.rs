//! Tunnels to peers, shared by all calls of one worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use sealane_base::task::{self, Task};
use sealane_proto::identity::Principal;

use super::away::{Away, AwayPeers};
use super::connect::{Connector, Tunnel};
use super::error::OpenError;
use super::kin::{Family, Width};
use super::open::OpenHeader;
use super::settings::Settings;
use super::stats::TunnelStats;
use super::stream::Stream;
use crate::tls::TlsSource;

/// Number of times that a peer may end a tunnel as it comes up before an attempt is given up.
const ROUNDS: usize = 3;

/// Peer that a tunnel goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// The tunnel port of the peer's sidecar.
    pub address: SocketAddr,
    /// Principal whose certificate it must show.
    pub expected: Principal,
}

/// The tunnels of one worker, made when they are needed. Cheap to clone; needs a `LocalRuntime` or `LocalSet`.
#[derive(Clone, Debug)]
pub struct TunnelPool(Rc<Pool>);

type Connecting = Shared<LocalBoxFuture<'static, Result<(), OpenError>>>;

/// The tunnels of one worker.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Rc<Connector>,
    peers: RefCell<HashMap<PeerKey, Peer>>,
    draining: Cell<bool>,
}

#[derive(Debug, Default)]
struct Peer {
    tunnels: Vec<Tunnel>,
    /// Number of times that the peer has spoken on any of them.
    words: Rc<Cell<u64>>,
    connecting: Option<(Connecting, Rc<Task>)>,
}

impl Peer {
    /// Returns true if it is known not to answer.
    fn is_silent(&self) -> bool {
        self.tunnels.iter().any(|tunnel| tunnel.core.borrow().is_silent())
    }
}

impl TunnelPool {
    /// A pool without tunnels.
    #[must_use]
    pub fn new(tls: TlsSource, settings: Settings, stats: Arc<TunnelStats>) -> Self {
        let away = Away::default();
        let connector = Rc::new(Connector { tls, settings: Rc::new(settings), stats, away });
        Self(Rc::new(Pool { connector, peers: RefCell::default(), draining: false.into() }))
    }

    /// Opens a stream on a tunnel to the peer, made now if there is none, and sends `first` on it as far as
    /// the initial credit of 64 KiB reaches; the rest is left in `first`.
    ///
    /// Calls for the same peer wait for one handshake. Cancel safe.
    ///
    /// # Errors
    /// Whatever the error is, nothing was sent to the peer.
    pub async fn open(
        &self,
        key: &PeerKey,
        header: &OpenHeader,
        first: &mut bytes::Bytes,
    ) -> Result<Stream, OpenError> {
        let mut wasted = 0;
        // A tunnel that came up may be full before its turn comes; then there is another, up to the most that there may be.
        for _ in 0..ROUNDS + self.settings().tunnels_per_peer {
            if self.0.draining.get() {
                return Err(OpenError::Draining);
            }
            if let Some(stream) = self.try_open(key, header, first) {
                return Ok(stream);
            }
            if wasted >= ROUNDS {
                break;
            }
            if self.is_silent(key) {
                return Err(OpenError::Silent { peer: key.address });
            }
            let (connecting, _task) = self.connecting(key, Width::Full)?;
            connecting.await?;
            wasted += usize::from(!self.has_live(key));
        }
        Err(OpenError::Closing { peer: key.address })
    }

    /// Returns true if a tunnel to the peer takes streams, as far as it is not full.
    fn has_live(&self, key: &PeerKey) -> bool {
        let peers = self.0.peers.borrow();
        let accepts = |tunnel: &Tunnel| tunnel.core.borrow().accepts_work();
        peers.get(key).is_some_and(|peer| peer.tunnels.iter().any(accepts))
    }

    /// Returns true if the peer is known not to answer.
    fn is_silent(&self, key: &PeerKey) -> bool {
        self.0.peers.borrow().get(key).is_some_and(Peer::is_silent)
    }

    /// Opens a stream on a tunnel that is there already.
    fn try_open(&self, key: &PeerKey, header: &OpenHeader, first: &mut bytes::Bytes) -> Option<Stream> {
        let (core, crowded) = {
            let mut peers = self.0.peers.borrow_mut();
            let peer = peers.get_mut(key)?;
            // Where a peer is silent on one tunnel, it has not spoken on the narrow one either.
            let silent = peer.is_silent();
            let usable = |tunnel: &&Tunnel| !silent || tunnel.width == Width::Full;
            let open = peer.tunnels.iter().filter(usable).filter(|tunnel| tunnel.core.borrow().can_open());
            // One that is silent last; one of short packets is slower.
            let tunnel = open.min_by_key(|tunnel| {
                let core = tunnel.core.borrow();
                (core.is_stalled(), tunnel.width, core.stream_count())
            })?;
            let core = tunnel.core.clone();
            let crowded = core.borrow().stream_count() >= self.settings().streams_per_tunnel as usize;
            (core, crowded && peer.connecting.is_none())
        };
        if crowded {
            // The next stream may have it better; this one does not wait, and full is no error yet.
            let _ = self.connecting(key, Width::Full);
        }
        let id = core.borrow_mut().open(header);
        self.0.connector.stats.streams_opened.increment();
        let stream = Stream::new(&core, id);
        let sent = core.borrow_mut().write_first(id, first);
        bytes::Buf::advance(first, sent);
        Some(stream)
    }

    /// The handshake that is under way, or a new one.
    fn connecting(&self, key: &PeerKey, width: Width) -> Result<(Connecting, Rc<Task>), OpenError> {
        let mut peers = self.0.peers.borrow_mut();
        let peer = peers.entry(key.clone()).or_default();
        if let Some(connecting) = &peer.connecting {
            return Ok(connecting.clone());
        }
        peer.tunnels.retain(|tunnel| !tunnel.task.is_finished());
        let counts = |tunnel: &&Tunnel| tunnel.width == Width::Full && tunnel.core.borrow().accepts_work();
        let tunnels = peer.tunnels.iter().filter(counts).count();
        if width == Width::Full && tunnels >= self.settings().tunnels_per_peer {
            return Err(OpenError::Saturated { peer: key.address, tunnels });
        }
        let (done, outcome) = tokio::sync::oneshot::channel();
        let (pool, connector, key) = (Rc::downgrade(&self.0), self.0.connector.clone(), key.clone());
        let family = Family::new(peer.words.clone(), pool.clone(), key.clone());
        let task = task::spawn_local(async move {
            let result = Box::pin(connector.connect(&key, &family, width)).await;
            // An error means that nobody waits any more.
            let _ = done.send(settle(&pool, &key, result));
        });
        let outcome = outcome.map(|sent| sent.unwrap_or(Err(OpenError::Draining))).boxed_local().shared();
        let connecting = (outcome, Rc::new(task));
        peer.connecting = Some(connecting.clone());
        Ok(connecting)
    }

    /// Asks often whether peers are there that are `leaving`: one that goes without a word costs those who wait for it little.
    pub fn doubt(&self, leaving: impl Fn(&PeerKey) -> bool) {
        for (key, peer) in &*self.0.peers.borrow() {
            let leaving = leaving(key);
            peer.tunnels.iter().for_each(|tunnel| tunnel.core.borrow_mut().doubt(leaving));
        }
    }

    /// The hosts of these peers, and of no others, cannot be reached: calls do not wait for them.
    pub fn set_away(&self, away: &AwayPeers) {
        self.0.connector.away.set(away.clone());
        for (key, peer) in &*self.0.peers.borrow() {
            let is_away = away.contains(&key.address.ip());
            peer.tunnels.iter().for_each(|tunnel| tunnel.core.borrow_mut().set_away(is_away));
        }
    }

    /// Closes the tunnels to peers that `keep` does not want, when their streams have ended.
    pub fn retain(&self, keep: impl Fn(&PeerKey) -> bool) {
        self.0.peers.borrow_mut().retain(|key, peer| {
            peer.tunnels.retain(|tunnel| !tunnel.task.is_finished());
            if keep(key) {
                return peer.connecting.is_some() || !peer.tunnels.is_empty();
            }
            peer.tunnels.iter().for_each(|tunnel| tunnel.core.borrow_mut().go_away());
            !peer.tunnels.is_empty()
        });
    }

    /// Opens nothing any more; tunnels close when their streams have ended.
    pub fn drain(&self) {
        self.0.draining.set(true);
        self.retain(|_| false);
    }

    /// Returns the number of tunnels.
    #[must_use]
    pub fn tunnel_count(&self) -> usize {
        let peers = self.0.peers.borrow();
        peers.values().flat_map(|peer| &peer.tunnels).filter(|tunnel| !tunnel.task.is_finished()).count()
    }

    fn settings(&self) -> &Settings {
        &self.0.connector.settings
    }
}

/// Has a peer speak that is silent on a tunnel: on one of short packets, which is made if there is none. New streams go by that.
pub(super) fn ask_elsewhere(pool: &Weak<Pool>, key: &PeerKey) {
    let Some(pool) = pool.upgrade().map(TunnelPool).filter(|pool| !pool.0.draining.get()) else { return };
    let narrow = {
        let peers = pool.0.peers.borrow();
        let Some(peer) = peers.get(key) else { return };
        let usable = |tunnel: &&Tunnel| tunnel.width == Width::Narrow && tunnel.core.borrow().accepts_work();
        peer.tunnels.iter().find(usable).map(|tunnel| tunnel.core.clone())
    };
    match narrow {
        Some(core) => core.borrow_mut().ask(),
        // An error says that there are enough.
        None => drop(pool.connecting(key, Width::Narrow)),
    }
}

/// Puts a new tunnel where streams find it.
fn settle(pool: &Weak<Pool>, key: &PeerKey, result: Result<Tunnel, OpenError>) -> Result<(), OpenError> {
    let Some(pool) = pool.upgrade() else {
        return Err(OpenError::Draining);
    };
    let mut peers = pool.peers.borrow_mut();
    let Some(peer) = peers.get_mut(key) else {
        return Err(OpenError::Draining);
    };
    peer.connecting = None;
    match result {
        Ok(tunnel) => {
            tunnel.core.borrow_mut().set_away(pool.connector.away.has(key.address.ip()));
            peer.tunnels.iter().for_each(|other| other.core.borrow_mut().handle_proof());
            peer.tunnels.push(tunnel);
            Ok(())
        }
        Err(error) => {
            if peer.tunnels.is_empty() {
                peers.remove(key);
            }
            Err(error)
        }
    }
}
