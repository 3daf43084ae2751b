//! Calls to the workload: streams of tunnels, and plain connections from peers without a sidecar.

mod callers;
mod door;
mod exchange;
mod explain;
mod http2;
mod observe;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sealane_base::drain::Draining;
use sealane_base::task;
use sealane_proto::identity::Principal;
use tokio::net::TcpStream;

use crate::backend::Pools;
use crate::dial::FirstWord;
use crate::http2::Pool;
use crate::inquiry::Inquiry;
use crate::leg::{self, Leg};
use crate::listen::{Accepted, ConnectionUsage, Redirects};
use crate::memory::Memory;
use crate::protocol::Protocol;
use crate::refusal::refuse;
use crate::route;
use crate::snapshot::Current;
use crate::tcp::{self, Broken, Denied, Tap};
use crate::telemetry::{Telemetry, Traffic};
use crate::tunnel::{Acceptor, Incoming, ResetCode};
use callers::Callers;
use observe::Observed;

/// Time for which a plain call waits until the sidecar is told who calls, while an agent is there.
const WHO: Duration = Duration::from_secs(1);

/// Calls to the workload, as one worker serves them.
pub(crate) struct Inbound {
    current: Rc<Current>,
    redirects: Rc<Redirects>,
    inquiry: Inquiry,
    telemetry: Arc<Telemetry>,
    memory: Rc<Memory>,
    acceptor: Acceptor,
    pools: Rc<Pools>,
    http2: Rc<Pool>,
    callers: Callers,
}

impl Inbound {
    /// Calls that come by tunnels which `acceptor` takes, or plain by `redirects`, from whom `inquiry` learns; `pools` and `http2` keep connections to the
    /// application.
    pub(crate) fn new(
        (current, redirects, inquiry): (Rc<Current>, Rc<Redirects>, Inquiry),
        (telemetry, memory): (Arc<Telemetry>, Rc<Memory>),
        acceptor: Acceptor,
        (pools, http2): (Rc<Pools>, Rc<Pool>),
    ) -> Self {
        let callers = Callers::new(telemetry.clone());
        Self { current, redirects, inquiry, telemetry, memory, acceptor, pools, http2, callers }
    }

    /// Lets go of what another snapshot may change.
    pub(crate) fn update(&self) {
        self.callers.forget();
    }

    /// Serves one tunnel to its end.
    pub(crate) async fn serve_tunnel(
        self: Rc<Self>,
        accepted: Accepted,
        draining: Draining,
        usage: Rc<ConnectionUsage>,
    ) {
        let work = draining.clone();
        let served = self.acceptor.serve(accepted.stream, draining, |incoming| {
            let Some(busy) = usage.begin_stream() else {
                self.telemetry.bounds.streams_refused.inc();
                return incoming.stream.reset(ResetCode::Refused);
            };
            let (inbound, work) = (self.clone(), work.clone());
            task::spawn_local(async move {
                inbound.serve_stream(incoming, work).await;
                drop(busy);
            })
            .detach();
        });
        if let Err(error) = Box::pin(served).await {
            tracing::debug!(%error, "no tunnel came up");
        }
    }

    async fn serve_stream(self: &Rc<Self>, incoming: Incoming, draining: Draining) {
        let Incoming { header, stream, peer, address } = incoming;
        let port = header.port.get();
        let Some(snapshot) = self.current.get() else { return stream.reset(ResetCode::Refused) };
        if self.redirects.has_port(port) {
            self.telemetry.refused.with_label_values(&["own_port"]).inc();
            return stream.reset(ResetCode::Denied);
        }
        let application = SocketAddr::new(snapshot.own.address.into(), port);
        let Ok(call) = self.admit(&snapshot, Some(peer), address.ip(), application) else {
            return stream.reset(ResetCode::Denied);
        };
        if self.memory.is_exhausted() {
            self.telemetry.memory.refusals.inc();
            return stream.reset(ResetCode::Refused);
        }
        let source = call.call().caller.principal.and_then(caller);
        let traffic = self.callers.traffic(source, true, &snapshot.own.label);
        drop(snapshot);
        match header.protocol {
            Protocol::Http1 => exchange::serve(self, stream, call, header.connection, &traffic).await,
            Protocol::Http2 => {
                Box::pin(http2::serve(self, leg::stream(stream), call, traffic, draining)).await;
            }
            Protocol::Tls | Protocol::Opaque => {
                let mut near = leg::stream(stream);
                if call.pass(self, None).is_err() {
                    return near.1.reset(ResetCode::Denied);
                }
                match call.connect(self, FirstWord::Anyones).await {
                    Ok(stream) => relay(near, stream, &traffic, traffic.bytes()).await,
                    Err(error) => {
                        let application = call.application();
                        tracing::debug!(%application, %error, "the application takes no connection");
                        near.1.reset_because(ResetCode::Unreachable, door::unreachable(&error));
                    }
                }
            }
        }
    }

    /// The metrics of what a caller without a tunnel sends to the workload.
    async fn plain_traffic(&self, peer: SocketAddr) -> Option<Arc<Traffic>> {
        let address = self.current.twin(peer).ip();
        if self.current.lacks(address) && self.inquiry.is_heard() {
            // One that stays unknown is called so.
            Box::pin(self.inquiry.learn(address, WHO)).await;
        }
        self.current.note_use(address);
        self.current.with(|snapshot| {
            self.callers.traffic(snapshot.routes.label_of(address), false, &snapshot.own.label)
        })
    }

    /// Serves a redirected connection that came without a tunnel.
    pub(crate) async fn serve_plain(
        self: Rc<Self>,
        accepted: Accepted,
        draining: Draining,
        usage: Rc<ConnectionUsage>,
    ) {
        let Some(destination) = self.redirects.destination(&accepted) else { return };
        let Accepted { stream, peer } = accepted;
        let Some(snapshot) = self.current.get() else { return refuse(&stream) };
        if destination.ip() != snapshot.own.address {
            // What a peer wrote into a packet opens no way to loopback, to other networks or to the world.
            self.telemetry.refused.with_label_values(&["not_own_address"]).inc();
            tracing::debug!(%peer, %destination, "refused a connection that is not meant for the workload");
            return refuse(&stream);
        }
        let call = match self.admit(&snapshot, None, peer.ip(), destination) {
            Ok(call) => call,
            Err(denial) => {
                let text = snapshot.policy.text(denial, destination.port());
                let near = leg::tcp(Rc::new(stream));
                return Box::pin(explain::refuse(&self.memory, near, &text)).await;
            }
        };
        drop(snapshot);
        let Some(traffic) = self.plain_traffic(peer).await else { return refuse(&stream) };
        match call.connect(&self, FirstWord::Anyones).await {
            Ok(application) => {
                // No sidecar has found out what is spoken, and nobody should wait for ours to: it reads along.
                let near = leg::tcp(Rc::new(stream));
                let observed = Observed::new(&self, &call, &traffic, &usage);
                // Counted before the connection ends, which its peer hears of at once.
                let denied = async { self.note(call.call(), self.current.denied(call.call()).await) };
                tokio::select! {
                    () = relay(near, application, &traffic, &observed) => {}
                    () = denied => {}
                }
            }
            Err(error) => {
                tracing::debug!(%destination, %error, "the application takes no connection");
                refuse(&stream);
            }
        }
        drop(draining);
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

/// Both ends of an opaque connection. Dropped before it is whole, because it broke or makes room for another, it resets both:
/// an application that does not close would keep the sidecar's local port for a minute.
struct Ends {
    near: Leg,
    far: Leg,
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

async fn relay(near: Leg, application: Rc<TcpStream>, traffic: &Traffic, tap: &impl Tap) {
    let _open = traffic.connected(Protocol::Opaque);
    let mut ends = Ends { near, far: leg::tcp(application), whole: false };
    let Ends { near, far, .. } = &mut ends;
    match Box::pin(tcp::relay(near, far, tap)).await {
        Ok(()) => ends.whole = true,
        Err(Broken::Denied(Denied { answer: Some(answer) })) => {
            far.1.reset(ResetCode::Denied);
            if near.1.write(answer).await.is_ok() {
                leg::close(near).await;
            }
            ends.whole = true;
        }
        Err(error) => tracing::debug!(%error, "connection"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A leg and the socket at its other end.
    async fn leg_to() -> (Leg, TcpStream) {
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
