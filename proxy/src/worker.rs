//! Worker: a thread with its own connections, tunnels and view of the configuration. Nothing in it is shared.

mod thread;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use sealane_base::drain::Draining;
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::SidecarPorts;
use tokio::net::TcpListener;

use crate::backend::{Backends, Pools};
use crate::http2;
use crate::inbound::Inbound;
use crate::inquiry::{Inquiry, Questions};
use crate::listen::{Intake, Listener, OriginalDst, Redirects};
use crate::memory::Memory;
use crate::outbound::Outbound;
use crate::snapshot::{Current, Snapshot};
use crate::telemetry::Telemetry;
use crate::tls::TlsSource;
use crate::tunnel::{Acceptor, Settings, TunnelPool, TunnelStats};

pub(crate) use thread::{Command, WorkerThread};

/// Parts that a worker is made with.
#[derive(Clone)]
pub(crate) struct Plan {
    /// The sidecar's own ports.
    pub(crate) ports: SidecarPorts,
    /// Source of connections' original destinations.
    pub(crate) original: Arc<dyn OriginalDst>,
    /// The sidecar's metrics.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Identity of both sides of tunnels.
    pub(crate) tls: TlsSource,
    /// Counts of tunnels.
    pub(crate) stats: Arc<TunnelStats>,
    /// Bytes that it may hold for requests in progress.
    pub(crate) memory: usize,
    /// Questions to its agent.
    pub(crate) questions: Arc<Questions>,
    /// Begins when the sidecar takes no new work.
    pub(crate) draining: Draining,
}

/// Both directions of the workload's calls, and what lets them in.
struct Worker {
    current: Rc<Current>,
    intake: Rc<Intake>,
    outbound: Rc<Outbound>,
    inbound: Rc<Inbound>,
    /// Tasks that let go of idle connections and keep limits cheap.
    _upkeep: [Task; 3],
}

impl Worker {
    /// A worker without configuration.
    fn new(plan: Plan) -> Self {
        let Plan { ports, original, telemetry, tls, stats, memory, questions, draining } = plan;
        let (current, memory) = (Rc::<Current>::default(), Rc::new(Memory::new(memory)));
        let tunnels = TunnelPool::new(tls.clone(), Settings::default(), stats.clone());
        let pools = Rc::new(Pools::new(tunnels, ports));
        let http2 = Rc::new(http2::Pool::new(memory.clone()));
        let redirects = Rc::new(Redirects::new(ports, original, current.clone(), telemetry.clone()));
        let acceptor = Acceptor::new(tls, Settings::default(), stats);
        let shared = || (telemetry.clone(), memory.clone());
        let kept = || (pools.clone(), http2.clone());
        let backends = Backends::new(current.clone(), telemetry.clone());
        let inquiry = Inquiry::new(current.clone(), questions, telemetry.clone());
        let upkeep = {
            let (idle, dialing, http2) = (pools.clone(), pools.clone(), http2.clone());
            [
                task::spawn_local(async move { idle.idle.sweep().await }),
                task::spawn_local(async move { dialing.dialer.run().await }),
                task::spawn_local(async move { http2.sweep().await }),
            ]
        };
        Self {
            outbound: Rc::new(Outbound::new(
                redirects.clone(),
                shared(),
                (backends, inquiry.clone()),
                kept(),
            )),
            inbound: Rc::new(Inbound::new((current.clone(), redirects, inquiry), shared(), acceptor, kept())),
            intake: Rc::new(Intake::new(current.clone(), telemetry.clone(), memory.clone(), draining)),
            current,
            _upkeep: upkeep,
        }
    }

    /// Works by this configuration from now on.
    fn apply(&self, snapshot: Arc<Snapshot>) {
        self.outbound.update(&snapshot);
        self.inbound.update();
        self.current.set(snapshot);
    }

    /// The addresses that mattered to calls since the last call of this, or do now.
    fn take_used(&self) -> HashSet<Ipv4Addr> {
        let mut used = self.current.take_used();
        used.extend(self.outbound.take_used().filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }));
        used
    }

    /// Accepts what comes to this listener, as long as the task lives.
    fn listen(&self, listener: Listener, socket: TcpListener) -> Task {
        let intake = self.intake.clone();
        let (outbound, inbound) = (self.outbound.clone(), self.inbound.clone());
        task::spawn_local(async move {
            match listener {
                Listener::Outbound => {
                    let serve = move |accepted, draining| outbound.serve(accepted, draining);
                    intake.accept(socket, serve).await;
                }
                Listener::Inbound => {
                    let serve =
                        move |accepted, draining, usage| inbound.serve_plain(accepted, draining, usage);
                    intake.accept_peers(socket, serve).await;
                }
                Listener::Tunnel => {
                    let serve =
                        move |accepted, draining, usage| inbound.serve_tunnel(accepted, draining, usage);
                    intake.accept_peers(socket, serve).await;
                }
            }
        })
    }
}
