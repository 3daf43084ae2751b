//! Accepting connections, and finding out where they were going before they were redirected.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use sealane_base::backoff::Backoff;
use sealane_base::drain::Draining;
use sealane_base::task;
use tokio::net::{TcpListener, TcpStream};

use crate::refusal::refuse;
use crate::worker::{Bound, Usage, Worker};

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

/// The destination of a redirected connection, unless serving it would lead back to the sidecar: it goes to one of the
/// sidecar's own ports, as each does that was not redirected. Such a connection is refused, and `None`.
///
/// An IPv6 address of the network is the same workload or service as the IPv4 one that it is made from: from here
/// on there is only that.
pub(crate) fn destination(worker: &Worker, accepted: &Accepted) -> Option<SocketAddr> {
    let Accepted { stream, peer } = accepted;
    let found = worker.original.original(stream, *peer).ok();
    let found = found.filter(|destination| !worker.ports.contains(destination.port()));
    if found.is_none() {
        worker.telemetry.refused.with_label_values(&["not_redirected"]).inc();
        tracing::debug!(%peer, "refused a connection that no rule redirected");
        refuse(stream);
    }
    found.map(|destination| worker.twin(destination))
}

/// Accepts the workload's own connections until aborted; each is served by a task of its own.
///
/// No more are accepted than there are places for.
pub(crate) async fn accept<F>(
    worker: &Rc<Worker>,
    listener: TcpListener,
    serve: fn(Rc<Worker>, Accepted, Draining) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    let mut backoff = backoff();
    loop {
        if worker.places.available_permits() == 0 {
            worker.telemetry.bounds.outbound_full.inc();
        }
        // The semaphore is never closed.
        let Ok(place) = worker.places.clone().acquire_owned().await else { return };
        let accepted = next(worker, &listener, &mut backoff).await;
        let Some(draining) = worker.begin() else { return };
        let worker = worker.clone();
        task::spawn_local(async move {
            let _held = worker.telemetry.bounds.hold_outbound();
            serve(worker, accepted, draining).await;
            drop(place);
        })
        .detach();
    }
}

/// Accepts connections from peers until aborted. There is always room for one more: where a bound is reached, one ends of who has
/// most, the one that was idle longest.
pub(crate) async fn accept_peers<F>(
    worker: &Rc<Worker>,
    listener: TcpListener,
    serve: fn(Rc<Worker>, Accepted, Draining, Rc<Usage>) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    let mut backoff = backoff();
    loop {
        let accepted = next(worker, &listener, &mut backoff).await;
        let Some(draining) = worker.begin() else { return };
        let peer = worker.twin(accepted.peer).ip();
        let gone = worker.peers.borrow_mut().enter(peer, Instant::now(), |usage| {
            let worker = worker.clone();
            task::spawn_local(async move {
                let _held = worker.telemetry.bounds.hold_inbound();
                let _place = Leaving { worker: worker.clone(), usage: usage.clone() };
                serve(worker, accepted, draining, usage).await;
            })
        });
        if let Some((bound, connection)) = gone {
            let reason = match bound {
                Bound::Share => "peer_share",
                Bound::Full => "inbound_full",
            };
            worker.telemetry.bounds.evicted.with_label_values(&[reason]).inc();
            tracing::debug!(%peer, reason, "the connection that was idle longest made room");
            drop(connection);
        }
    }
}

/// Gives a place back when its connection has ended.
struct Leaving {
    worker: Rc<Worker>,
    usage: Rc<Usage>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(task) = self.worker.peers.borrow_mut().leave(&self.usage) {
            // It is the one that runs here, to its end.
            task.detach();
        }
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_secs(1))
}

/// The next connection; when descriptors run out, accepting waits and counts.
async fn next(worker: &Worker, listener: &TcpListener, backoff: &mut Backoff) -> Accepted {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                backoff.reset();
                worker.telemetry.accepted.inc();
                if !worker.memory.is_exhausted() {
                    return Accepted { stream, peer };
                }
                worker.telemetry.memory.refusals.inc();
                refuse(&stream);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                worker.telemetry.refused.with_label_values(&["accept_failed"]).inc();
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(backoff.next_wait(rand::random())).await;
            }
        }
    }
}

/// Errors of one connection that died in the queue (accept(2)) say nothing of the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Interrupted
    )
}
