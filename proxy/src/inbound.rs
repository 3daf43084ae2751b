//! Calls to the workload: streams of tunnels, and plain connections from peers without a sidecar.

mod exchange;
mod explain;
mod http2;
mod observe;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use sealane_base::drain::Draining;
use sealane_base::task;
use sealane_proto::identity::Principal;
use tokio::net::TcpStream;

use crate::dial::{self, FirstWord, IdleKey};
use crate::leg;
use crate::listen::{self, Accepted};
use crate::policy::{self, Denial};
use crate::refusal::refuse;
use crate::route;
use crate::tcp::{self, Tap};
use crate::telemetry::{Carried, Traffic};
use crate::tunnel::{Incoming, Kind, ResetCode};
use crate::worker::{Usage, Worker};
use observe::Observed;

/// Serves one tunnel to its end.
pub(crate) async fn serve_tunnel(
    worker: Rc<Worker>,
    accepted: Accepted,
    draining: Draining,
    usage: Rc<Usage>,
) {
    let work = draining.clone();
    let served = worker.acceptor.serve(accepted.stream, draining, |incoming| {
        let Some(busy) = usage.begin_stream() else {
            worker.telemetry.bounds.streams_refused.inc();
            return incoming.stream.reset(ResetCode::Refused);
        };
        let (worker, work) = (worker.clone(), work.clone());
        task::spawn_local(async move {
            serve_stream(&worker, incoming, work).await;
            drop(busy);
        })
        .detach();
    });
    if let Err(error) = Box::pin(served).await {
        tracing::debug!(%error, "no tunnel came up");
    }
}

async fn serve_stream(worker: &Rc<Worker>, incoming: Incoming, draining: Draining) {
    let Incoming { header, stream, peer, address: _ } = incoming;
    let port = header.port.get();
    let Some(snapshot) = worker.snapshot() else { return stream.reset(ResetCode::Refused) };
    if worker.ports.contains(port) {
        worker.telemetry.refused.with_label_values(&["own_port"]).inc();
        return stream.reset(ResetCode::Denied);
    }
    let call = policy::Call { caller: Some(&peer.principal), port };
    if let Err(denial) = snapshot.policy.decide(call) {
        note(worker, denial);
        return stream.reset(ResetCode::Denied);
    }
    if worker.memory.is_exhausted() {
        worker.telemetry.memory.refusals.inc();
        return stream.reset(ResetCode::Refused);
    }
    let application = SocketAddr::new(snapshot.own.address.into(), port);
    drop(snapshot);
    let traffic = worker.caller(caller(&peer.principal), true);
    match header.kind {
        Kind::Http1 => {
            let application = IdleKey { caller: Some(peer), address: application };
            exchange::serve(worker, stream, application, header.connection, &traffic).await;
        }
        Kind::Opaque if header.http2 => {
            let near = leg::stream(stream);
            let served = http2::serve(worker, near, application, &peer.principal, &traffic, draining);
            Box::pin(served).await;
        }
        Kind::Opaque => {
            let mut near = leg::stream(stream);
            let dialled = connect(worker, application, FirstWord::Anyones).await;
            match dialled {
                Ok(stream) => relay(near, stream, &traffic, traffic.bytes()).await,
                Err(error) => {
                    tracing::debug!(%application, %error, "the application takes no connection");
                    near.1.reset_because(ResetCode::Unreachable, unreachable(&error));
                }
            }
        }
    }
}

/// The caller's name in metrics: of its service, or what all callers without one share.
fn caller(principal: &Principal) -> Option<&str> {
    match principal {
        Principal::Service(_, service) => Some(route::party(Some(service))),
        Principal::Workload(..) => Some(route::party(None)),
        Principal::Control | Principal::Node(_) => None,
    }
}

/// Serves a redirected connection that came without a tunnel.
pub(crate) async fn serve_plain(
    worker: Rc<Worker>,
    accepted: Accepted,
    draining: Draining,
    usage: Rc<Usage>,
) {
    let Some(destination) = listen::destination(&worker, &accepted) else { return };
    let Accepted { stream, peer } = accepted;
    let Some(snapshot) = worker.snapshot() else { return refuse(&stream) };
    if destination.ip() != snapshot.own.address {
        // What a peer wrote into a packet opens no way to loopback, to other networks or to the world.
        worker.telemetry.refused.with_label_values(&["not_own_address"]).inc();
        tracing::debug!(%peer, %destination, "refused a connection that is not meant for the workload");
        return refuse(&stream);
    }
    let port = destination.port();
    let call = policy::Call { caller: None, port };
    if let Err(denial) = snapshot.policy.decide(call) {
        note(&worker, denial);
        let text = snapshot.policy.text(denial, port);
        return Box::pin(explain::refuse(&worker, leg::tcp(Rc::new(stream)), &text)).await;
    }
    let traffic = worker.caller(snapshot.label_of(peer.ip()), false);
    drop(snapshot);
    let dialled = connect(&worker, destination, FirstWord::Anyones).await;
    match dialled {
        Ok(application) => {
            // No sidecar has found out what is spoken, and nobody should wait for ours to: it reads along.
            let near = leg::tcp(Rc::new(stream));
            let observed = Observed::new(&traffic, &usage);
            // Counted before the connection ends, which its peer hears of at once.
            let forbidden = async { note(&worker, worker.forbidden(call).await) };
            tokio::select! {
                () = relay(near, application, &traffic, &observed) => {}
                () = forbidden => {}
            }
        }
        Err(error) => {
            tracing::debug!(%destination, %error, "the application takes no connection");
            refuse(&stream);
        }
    }
    drop(draining);
}

fn note(worker: &Worker, denial: Denial) {
    worker.telemetry.refused.with_label_values(&[denial.reason()]).inc();
}

/// Connects to the application, at the IPv6 address when nobody listens at the other.
///
/// # Errors
/// As [`dial::connect`].
async fn connect(
    worker: &Worker,
    application: SocketAddr,
    first_word: FirstWord,
) -> io::Result<Rc<TcpStream>> {
    let dialled = match dial::connect(application, first_word).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let ipv6 = worker.snapshot().and_then(|snapshot| snapshot.own_ipv6(application.ip()));
            let Some(ipv6) = ipv6 else { return Err(error) };
            dial::connect((ipv6, application.port()).into(), first_word).await
        }
        dialled => dialled,
    };
    dialled.inspect_err(|error| {
        if dial::lacks_port(error) {
            worker.note_without_port(application);
        }
    })
}

/// Words for a caller about a connection that the application does not take, where that is not its refusal.
fn unreachable(error: &io::Error) -> &'static str {
    if dial::lacks_port(error) {
        "the workload has no local port left for a connection to the application"
    } else if error.kind() == io::ErrorKind::TimedOut {
        "the application's port does not answer"
    } else {
        ""
    }
}

/// Both ends of an opaque connection. Dropped before it is whole, because it broke or makes room for another, it resets both:
/// an application that does not close would keep the sidecar's local port for a minute.
struct Ends {
    near: (leg::Input, leg::Output),
    far: (leg::Input, leg::Output),
    whole: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.whole {
            self.near.1.reset(ResetCode::Cancelled);
            self.far.1.reset(ResetCode::Cancelled);
        }
    }
}

async fn relay(
    near: (leg::Input, leg::Output),
    application: Rc<TcpStream>,
    traffic: &Traffic,
    tap: &impl Tap,
) {
    let _open = traffic.connected(Carried::Opaque);
    let mut ends = Ends { near, far: leg::tcp(application), whole: false };
    let Ends { near, far, .. } = &mut ends;
    match Box::pin(tcp::relay(near, far, tap)).await {
        Ok(()) => ends.whole = true,
        Err(error) => tracing::debug!(%error, "connection"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A leg and the socket at its other end.
    async fn leg_to() -> ((leg::Input, leg::Output), TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (leg::tcp(Rc::new(ours)), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_that_makes_room_resets_both_of_its_ends() {
        for whole in [false, true] {
            let ((near, mut caller), (far, mut application)) = (leg_to().await, leg_to().await);
            drop(Ends { near, far, whole });
            for end in [&mut caller, &mut application] {
                let seen = end.read(&mut [0]).await.map_err(|error| error.kind());
                let expected = if whole { Ok(0) } else { Err(io::ErrorKind::ConnectionReset) };
                assert_eq!(seen, expected);
            }
        }
    }
}
