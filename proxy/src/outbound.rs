//! The workload's own calls: from a redirected connection to an endpoint, by the protocol that is spoken on it.

mod attempt;
mod attempts;
mod exchange;
mod hear;
mod http1;
mod http2;
mod mirror;
mod opaque;
mod routed;
mod terms;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use sealane_base::drain::Draining;

use crate::backend::{Backends, Choice, Pools};
use crate::http2::Pool;
use crate::inquiry::{Inquiry, PATIENCE};
use crate::leg::{self, Leg};
use crate::listen::{Accepted, Redirects};
use crate::memory::Memory;
use crate::protocol::Protocol;
use crate::refusal::refuse;
use crate::request::RequestView;
use crate::rules::ServiceAt;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::tunnel::AwayPeers;
use opaque::Opened;

/// Calls of the workload, as one worker serves them.
pub(crate) struct Outbound {
    redirects: Rc<Redirects>,
    telemetry: Arc<Telemetry>,
    memory: Rc<Memory>,
    backends: Backends,
    inquiry: Inquiry,
    pools: Rc<Pools>,
    http2: Rc<Pool>,
    /// Connections that wait for the rest of a request that was answered already.
    lingering: Cell<usize>,
    /// The number of connections of HTTP/1 that the workload has made.
    clients: Cell<u64>,
    /// Held by each copy of a request that is in progress.
    copying: Rc<()>,
}

/// A connection of the workload.
pub(crate) struct ClientConnection {
    outbound: Rc<Outbound>,
    /// The workload's end.
    near: Leg,
    destination: SocketAddr,
    draining: Draining,
    /// A connection to an endpoint that was opened while the client kept silent.
    opened: Option<Box<Opened>>,
}

impl Outbound {
    /// Calls to `backends`, of which `inquiry` learns; `pools` and `http2` keep connections to their endpoints.
    pub(crate) fn new(
        redirects: Rc<Redirects>,
        (telemetry, memory): (Arc<Telemetry>, Rc<Memory>),
        (backends, inquiry): (Backends, Inquiry),
        (pools, http2): (Rc<Pools>, Rc<Pool>),
    ) -> Self {
        let (lingering, clients) = (Cell::new(0), Cell::new(0));
        let copying = Rc::new(());
        Self { redirects, telemetry, memory, backends, inquiry, pools, http2, lingering, clients, copying }
    }

    /// Takes over a snapshot that is to be current.
    pub(crate) fn update(&self, snapshot: &Snapshot) {
        self.backends.update(snapshot);
        self.pools.update(snapshot);
    }

    /// The addresses that were called since the last call of this, or are now.
    pub(crate) fn take_used(&self) -> impl Iterator<Item = IpAddr> {
        self.backends.take_used()
    }

    /// Chooses the backend of a connection to this destination, or of one of its requests. Where the sidecar was not told what is
    /// there, that is waited for.
    async fn choose(&self, destination: SocketAddr, request: Option<RequestView<'_>>) -> Choice {
        match self.backends.choose(destination, request) {
            Choice::Untold => {
                if !Box::pin(self.inquiry.learn(destination.ip(), PATIENCE)).await {
                    self.telemetry.refused.with_label_values(&["untold"]).inc();
                    tracing::debug!(%destination, "the agent does not say what is there");
                    return Choice::Untold;
                }
                self.backends.choose(destination, request)
            }
            known @ (Choice::Backend(_) | Choice::Unmapped(_) | Choice::Nowhere) => known,
        }
    }

    /// Chooses the backend of a request that a rule sends to a service.
    async fn choose_service(&self, service: &ServiceAt) -> Choice {
        match self.backends.address_of(&service.name) {
            Some(address) => self.choose((address, service.port.get()).into(), None).await,
            None => Choice::Nowhere,
        }
    }

    /// Calls do not wait for these peers.
    pub(crate) fn set_away(&self, peers: &AwayPeers) {
        self.pools.tunnels.set_away(peers);
        self.pools.dialer.set_away(peers);
    }

    /// Serves one redirected connection to its end.
    pub(crate) async fn serve(self: Rc<Self>, accepted: Accepted, draining: Draining) {
        let Some(destination) = self.redirects.destination(&accepted) else { return };
        let stream = accepted.stream;
        let backend = match self.choose(destination, None).await {
            Choice::Backend(backend) => backend,
            Choice::Unmapped(service) => {
                self.telemetry.refused.with_label_values(&["unmapped_port"]).inc();
                tracing::debug!(%service, %destination, "the service has no such port");
                return refuse(&stream);
            }
            Choice::Untold => return refuse(&stream),
            Choice::Nowhere => {
                self.telemetry.refused.with_label_values(&["not_configured"]).inc();
                tracing::debug!(%destination, "nothing is known of the destination");
                return refuse(&stream);
            }
        };
        let near = leg::tcp(Rc::new(stream));
        let mut client = ClientConnection { outbound: self, near, destination, draining, opened: None };
        match client.hear(&backend).await {
            Some(Protocol::Http1) => Box::pin(http1::serve(client, &backend)).await,
            Some(Protocol::Http2) => Box::pin(http2::serve(client, &backend)).await,
            Some(Protocol::Tls | Protocol::Opaque) => Box::pin(opaque::serve(client, &backend)).await,
            None => {}
        }
    }

    /// A number for a connection of the workload's that no other of this worker has.
    fn number_client(&self) -> u64 {
        self.clients.update(|count| count + 1);
        self.clients.get()
    }
}
