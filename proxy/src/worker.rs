//! Worker: a thread with its own connections, tunnels and view of the configuration. Nothing in it is shared.

mod places;
mod seldom;
mod thread;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sealane_base::drain::Draining;
use sealane_base::task::Task;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::ServiceName;
use tokio::sync::{Notify, Semaphore};

use crate::dial::IdleConnections;
use crate::http2;
use crate::listen::OriginalDst;
use crate::memory::Memory;
use crate::message::Unreadable;
use crate::policy::{Call, Denial};
use crate::route::{Snapshot, Target};
use crate::telemetry::{Direction, Parties, Telemetry, Traffic, UNKNOWN};
use crate::tls::TlsSource;
use crate::tunnel::{Acceptor, Settings, TunnelPool, TunnelStats};
use crate::upstream::Upstream;

pub(crate) use places::{Bound, Places, Usage};
use seldom::Seldom;
pub(crate) use thread::{Command, Plan, WorkerThread};

/// Number of connections of its workload that a worker serves at once; further ones wait in the listening sockets'
/// queues.
const MAX_OUTBOUND: usize = 8192;
/// Number of targets that a worker remembers; calls to further ones are served without memory.
const MAX_TARGETS: usize = 4096;

/// State that the tasks of one worker share.
pub(crate) struct Worker {
    /// The sidecar's own ports.
    pub(crate) ports: SidecarPorts,
    /// Source of connections' original destinations.
    pub(crate) original: Arc<dyn OriginalDst>,
    /// The sidecar's metrics.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Tunnels to other sidecars.
    pub(crate) tunnels: TunnelPool,
    /// Tunnels from other sidecars.
    pub(crate) acceptor: Acceptor,
    /// Plain connections between two requests: to the own application, and to instances without sidecar.
    pub(crate) idle: IdleConnections,
    /// Connections of HTTP/2: to the own application, and to endpoints.
    pub(crate) http2: Rc<http2::Pool>,
    /// Memory that it may hold for requests in progress.
    pub(crate) memory: Rc<Memory>,
    /// Places for the workload's own connections.
    pub(crate) places: Arc<Semaphore>,
    /// Connections from peers.
    pub(crate) peers: RefCell<Places<Task>>,
    snapshot: RefCell<Option<Arc<Snapshot>>>,
    /// Whoever waits for another configuration.
    applied: Notify,
    targets: RefCell<HashMap<SocketAddr, Rc<Upstream>>>,
    /// Of plain calls, and of those by mutual TLS.
    callers: RefCell<[HashMap<String, Arc<Traffic>>; 2]>,
    /// Connections that wait for the rest of a request that was answered already.
    pub(crate) lingering: Cell<usize>,
    /// The number of connections of HTTP/1 that the workload has made.
    clients: Cell<u64>,
    unreadable: Seldom,
    without_port: Seldom,
    draining: RefCell<Option<Draining>>,
}

/// Upstream that an original destination leads to.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// Something that can be called.
    Upstream(Rc<Upstream>),
    /// A service that has no such port.
    Unmapped(ServiceName),
    /// There is no configuration yet, or the destination cannot be called.
    Nowhere,
}

impl Worker {
    /// A worker without configuration.
    pub(crate) fn new(
        ports: SidecarPorts,
        original: Arc<dyn OriginalDst>,
        telemetry: Arc<Telemetry>,
        tls: &TlsSource,
        stats: &Arc<TunnelStats>,
        memory: usize,
        draining: Draining,
    ) -> Rc<Self> {
        let memory = Rc::new(Memory::new(memory));
        Rc::new(Self {
            ports,
            original,
            telemetry,
            tunnels: TunnelPool::new(tls.clone(), Settings::default(), stats.clone()),
            acceptor: Acceptor::new(tls.clone(), Settings::default(), stats.clone()),
            idle: IdleConnections::default(),
            http2: Rc::new(http2::Pool::new(memory.clone())),
            memory,
            places: Arc::new(Semaphore::new(MAX_OUTBOUND)),
            peers: RefCell::default(),
            snapshot: RefCell::default(),
            applied: Notify::new(),
            targets: RefCell::default(),
            callers: RefCell::default(),
            lingering: Cell::new(0),
            clients: Cell::new(0),
            unreadable: Seldom::default(),
            without_port: Seldom::default(),
            draining: RefCell::new(Some(draining)),
        })
    }

    /// Works by this configuration from now on.
    pub(crate) fn apply(&self, snapshot: Arc<Snapshot>) {
        self.targets
            .borrow_mut()
            .retain(|&destination, upstream| upstream.update(&snapshot.target(destination)));
        self.tunnels.doubt(|peer| snapshot.is_leaving(peer.address.ip()));
        self.tunnels.retain(|peer| snapshot.has_sidecar(peer.address.ip(), &peer.expected));
        // The workload's own name may have changed.
        *self.callers.borrow_mut() = Default::default();
        *self.snapshot.borrow_mut() = Some(snapshot);
        self.applied.notify_waiters();
    }

    /// Returns when a configuration forbids what `call` began. Cancel safe.
    pub(crate) async fn forbidden(&self, call: Call<'_>) -> Denial {
        loop {
            let applied = self.applied.notified();
            let denied = self.snapshot().and_then(|snapshot| snapshot.policy.decide(call).err());
            match denied {
                Some(denial) => return denial,
                None => applied.await,
            }
        }
    }

    /// A number for a connection of the workload's that no other of this worker has.
    pub(crate) fn number_client(&self) -> u64 {
        self.clients.update(|count| count + 1);
        self.clients.get()
    }

    /// The configuration, once there is one.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.borrow().clone()
    }

    /// The address of the network that this one is made from; any other as it is.
    pub(crate) fn twin(&self, address: SocketAddr) -> SocketAddr {
        let twin = self.snapshot.borrow().as_ref().and_then(|snapshot| snapshot.ipv4_of(address.ip()));
        SocketAddr::new(twin.map_or(address.ip(), Into::into), address.port())
    }

    /// Resolves the address of the workload's call.
    pub(crate) fn resolve(&self, destination: SocketAddr) -> Resolved {
        if let Some(upstream) = self.targets.borrow().get(&destination) {
            return Resolved::Upstream(upstream.clone());
        }
        let Some(snapshot) = self.snapshot() else { return Resolved::Nowhere };
        let target = snapshot.target(destination);
        if let Target::Unmapped(service) = target {
            return Resolved::Unmapped(service);
        }
        let own = &snapshot.own.label;
        let Some(upstream) = Upstream::new(&target, destination, own, &self.telemetry) else {
            return Resolved::Nowhere;
        };
        let mut targets = self.targets.borrow_mut();
        if !matches!(target, Target::Passthrough) && targets.len() < MAX_TARGETS {
            targets.insert(destination, upstream.clone());
        }
        Resolved::Upstream(upstream)
    }

    /// The metrics of what this caller sends to the workload, by mutual TLS or plain.
    pub(crate) fn caller(&self, source: Option<&str>, tls: bool) -> Arc<Traffic> {
        let source = source.unwrap_or(UNKNOWN);
        if let Some(traffic) = self.callers.borrow()[usize::from(tls)].get(source) {
            return traffic.clone();
        }
        let destination = self.snapshot().map_or_else(|| UNKNOWN.to_owned(), |known| known.own.label.clone());
        let source = source.to_owned();
        let parties = Parties { direction: Direction::Inbound { tls }, source: source.clone(), destination };
        let traffic = self.telemetry.traffic(parties);
        self.callers.borrow_mut()[usize::from(tls)].insert(source, traffic.clone());
        traffic
    }

    /// An application's answer was not passed on.
    pub(crate) fn note_unreadable(&self, application: SocketAddr, what: &Unreadable) {
        let Some(reason) = what.reason() else { return };
        self.telemetry.bounds.answers_refused.with_label_values(&[reason]).inc();
        if let Some(unsaid) = self.unreadable.handle(Instant::now()) {
            tracing::warn!(%application, reason = %what, unsaid, "an application's answer is not passed on");
        }
    }

    /// There was no local port for a connection to this address.
    pub(crate) fn note_without_port(&self, address: SocketAddr) {
        self.telemetry.refused.with_label_values(&["no_local_port"]).inc();
        if let Some(unsaid) = self.without_port.handle(Instant::now()) {
            tracing::warn!(
                %address, unsaid,
                "no local port is left for a connection: each is kept for a minute after its use; \
                 sysctl net.ipv4.tcp_tw_reuse=1 in the workload's namespace frees them sooner"
            );
        }
    }

    /// A handle for one piece of work; `None` when no work is taken any more.
    pub(crate) fn begin(&self) -> Option<Draining> {
        self.draining.borrow().clone().filter(|draining| !draining.is_ending())
    }

    /// Takes no more work, so that the drain ends with the last piece.
    pub(crate) fn close(&self) {
        self.draining.borrow_mut().take();
    }
}
