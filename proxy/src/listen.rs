//! Accepting connections, and finding out where they were going before they were redirected.

mod places;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use sealane_base::backoff::Backoff;
use sealane_base::drain::Draining;
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::SidecarPorts;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::memory::Memory;
use crate::refusal::refuse;
use crate::snapshot::Current;
use crate::telemetry::Telemetry;
use places::{Bound, Places};

pub(crate) use places::ConnectionUsage;

/// Number of connections of its workload that a worker serves at once; further ones wait in the listening sockets'
/// queues.
const MAX_OUTBOUND: usize = 8192;

/// The listeners of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Redirected calls of the workload.
    Outbound,
    /// Redirected calls to the workload.
    Inbound,
    /// Tunnels of other sidecars.
    Tunnel,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// TCP connection itself.
    pub(crate) stream: TcpStream,
    /// Address that it comes from.
    pub(crate) peer: SocketAddr,
}

/// Source of the destination that a connection had before it was redirected.
pub trait OriginalDst: Send + Sync {
    /// The destination of a connection from `peer`.
    ///
    /// # Errors
    /// When nobody knows.
    fn original(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<SocketAddr>;
}

/// Asks the kernel's connection tracking (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST).
#[derive(Clone, Copy, Debug)]
pub struct Redirected;

impl OriginalDst for Redirected {
    fn original(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
        if peer.is_ipv6() {
            let raw = getsockopt(stream, sockopt::Ip6tOriginalDst)?;
            let address = std::net::Ipv6Addr::from(raw.sin6_addr.s6_addr);
            return Ok(SocketAddr::new(address.into(), u16::from_be(raw.sin6_port)));
        }
        let raw = getsockopt(stream, sockopt::OriginalDst)?;
        let address = u32::from_be(raw.sin_addr.s_addr);
        Ok(SocketAddr::new(std::net::Ipv4Addr::from(address).into(), u16::from_be(raw.sin_port)))
    }
}

/// Lookup of the destinations that redirected connections of one worker had.
pub(crate) struct Redirects {
    ports: SidecarPorts,
    original: Arc<dyn OriginalDst>,
    current: Rc<Current>,
    telemetry: Arc<Telemetry>,
}

impl Redirects {
    /// Redirects to a sidecar with these ports.
    pub(crate) fn new(
        ports: SidecarPorts,
        original: Arc<dyn OriginalDst>,
        current: Rc<Current>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self { ports, original, current, telemetry }
    }

    /// Returns true if the sidecar itself listens at this port.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.ports.contains(port)
    }

    /// The destination of a redirected connection, unless serving it would lead back to the sidecar: it goes to one of the
    /// sidecar's own ports, as each does that was not redirected. Such a connection is refused, and `None`.
    ///
    /// An IPv6 address of the network is the same workload or service as the IPv4 one that it is made from: from here
    /// on there is only that.
    pub(crate) fn destination(&self, accepted: &Accepted) -> Option<SocketAddr> {
        let Accepted { stream, peer } = accepted;
        let found = self.original.original(stream, *peer).ok();
        let found = found.filter(|destination| !self.has_port(destination.port()));
        if found.is_none() {
            self.telemetry.refused.with_label_values(&["not_redirected"]).inc();
            tracing::debug!(%peer, "refused a connection that no rule redirected");
            refuse(stream);
        }
        found.map(|destination| self.current.twin(destination))
    }
}

/// Intake of one worker: connections are accepted as far as there are places for them.
pub(crate) struct Intake {
    current: Rc<Current>,
    telemetry: Arc<Telemetry>,
    memory: Rc<Memory>,
    /// Places for the workload's own connections.
    places: Arc<Semaphore>,
    /// Connections from peers.
    peers: RefCell<Places<Task>>,
    draining: RefCell<Option<Draining>>,
}

impl Intake {
    /// An intake with all its places.
    pub(crate) fn new(
        current: Rc<Current>,
        telemetry: Arc<Telemetry>,
        memory: Rc<Memory>,
        draining: Draining,
    ) -> Self {
        Self {
            current,
            telemetry,
            memory,
            places: Arc::new(Semaphore::new(MAX_OUTBOUND)),
            peers: RefCell::default(),
            draining: RefCell::new(Some(draining)),
        }
    }

    /// Takes no more work, so that the drain ends with the last piece.
    pub(crate) fn close(&self) {
        self.draining.borrow_mut().take();
    }

    /// A handle for one piece of work; `None` when no work is taken any more.
    fn begin(&self) -> Option<Draining> {
        self.draining.borrow().clone().filter(|draining| !draining.is_ending())
    }

    /// Accepts the workload's own connections until aborted, or until somebody has closed the listener; each is served by a task of
    /// its own.
    ///
    /// No more are accepted than there are places for.
    pub(crate) async fn accept<F>(
        &self,
        listener: TcpListener,
        serve: impl FnOnce(Accepted, Draining) -> F + Clone + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let mut backoff = backoff();
        loop {
            if self.places.available_permits() == 0 {
                self.telemetry.bounds.outbound_full.inc();
            }
            // The semaphore is never closed.
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let Some(accepted) = self.next(&listener, &mut backoff).await else { return };
            let Some(draining) = self.begin() else { return };
            let (held, serve) = (self.telemetry.bounds.hold_outbound(), serve.clone());
            // A future that a task is given, rather than makes, takes its place in it twice.
            task::spawn_local(async move {
                let _held = held;
                serve(accepted, draining).await;
                drop(place);
            })
            .detach();
        }
    }

    /// Accepts connections from peers until aborted, or until somebody has closed the listener. There is always room for one more:
    /// where a bound is reached, one ends of who has most, the one that was idle longest.
    pub(crate) async fn accept_peers<F>(
        self: &Rc<Self>,
        listener: TcpListener,
        serve: impl FnOnce(Accepted, Draining, Rc<ConnectionUsage>) -> F + Clone + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let mut backoff = backoff();
        loop {
            let Some(accepted) = self.next(&listener, &mut backoff).await else { return };
            let Some(draining) = self.begin() else { return };
            let peer = self.current.twin(accepted.peer).ip();
            let gone = self.peers.borrow_mut().enter(peer, Instant::now(), |usage| {
                let place = Place { intake: self.clone(), usage: usage.clone() };
                let (held, serve) = (self.telemetry.bounds.hold_inbound(), serve.clone());
                task::spawn_local(async move {
                    let _held = held;
                    let _place = place;
                    serve(accepted, draining, usage).await;
                })
            });
            if let Some((bound, connection)) = gone {
                let reason = match bound {
                    Bound::Share => "peer_share",
                    Bound::Full => "inbound_full",
                };
                self.telemetry.bounds.evicted.with_label_values(&[reason]).inc();
                tracing::debug!(%peer, reason, "the connection that was idle longest made room");
                drop(connection);
            }
        }
    }

    /// The next connection; when descriptors run out, accepting waits and counts. `None` when the socket does not listen any more
    /// (accept(2)): whoever is root in the namespace can close it, and the agent, which sees that, starts a sidecar with another.
    async fn next(&self, listener: &TcpListener, backoff: &mut Backoff) -> Option<Accepted> {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    backoff.reset();
                    self.telemetry.accepted.inc();
                    if !self.memory.is_exhausted() {
                        return Some(Accepted { stream, peer });
                    }
                    self.telemetry.memory.refusals.inc();
                    refuse(&stream);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.telemetry.refused.with_label_values(&["listener_closed"]).inc();
                    tracing::warn!(address = ?listener.local_addr().ok(), "somebody closed a listening socket");
                    return None;
                }
                Err(error) => {
                    self.telemetry.refused.with_label_values(&["accept_failed"]).inc();
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(backoff.next_wait(rand::random())).await;
                }
            }
        }
    }
}

/// Place of a connection from a peer, given back when that has ended.
struct Place {
    intake: Rc<Intake>,
    usage: Rc<ConnectionUsage>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(task) = self.intake.peers.borrow_mut().leave(&self.usage) {
            // It is the one that runs here, to its end.
            task.detach();
        }
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_secs(1))
}

/// Errors of one connection that died in the queue (accept(2)) say nothing of the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Interrupted
    )
}
