//! The sidecar without its agent: workers that listen, work by a configuration and drain.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::drain::Drain;
use sealane_base::metrics::Family;
use sealane_proto::sidecar::{Change, Config, Identity, Listeners, Measured, SidecarPorts};
use sealane_sys::heap;
use tokio::sync::oneshot;

use crate::RunError;
use crate::inquiry::Questions;
use crate::listen::{Listener, OriginalDst};
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::tls::{TlsError, TlsSource};
use crate::tunnel::{AwayPeers, TunnelStats};
use crate::worker::{Command, Plan, WorkerThread};

/// Bytes that a worker may hold for requests in progress, where nothing else is said.
const MEMORY: usize = 128 * 1024 * 1024;

/// A running sidecar. Dropping it ends everything at once; [`Core::drain`] ends it in order.
pub struct Core {
    workers: Vec<WorkerThread>,
    telemetry: Arc<Telemetry>,
    stats: Arc<TunnelStats>,
    tls: TlsSource,
    questions: Arc<Questions>,
    drain: Drain,
    listening: bool,
    /// Addresses of its scope that nobody used for a while.
    idle: BTreeSet<Ipv4Addr>,
    /// The configuration that it works by, after its sequence.
    current: Option<(u64, Arc<Snapshot>)>,
}

impl Core {
    /// Starts so many workers; they do nothing yet.
    ///
    /// # Errors
    /// When there can be no threads.
    pub fn start(
        ports: SidecarPorts,
        workers: usize,
        original: Arc<dyn OriginalDst>,
    ) -> Result<Self, RunError> {
        Self::start_within(MEMORY, ports, workers, original)
    }

    /// As [`Core::start`], with workers that hold no more than so many bytes each for requests in progress.
    ///
    /// # Errors
    /// When there can be no threads.
    pub fn start_within(
        memory: usize,
        ports: SidecarPorts,
        workers: usize,
        original: Arc<dyn OriginalDst>,
    ) -> Result<Self, RunError> {
        let telemetry = Telemetry::new().map_err(RunError::Metrics)?;
        let (stats, tls, drain) = (Arc::<TunnelStats>::default(), TlsSource::new(), Drain::new());
        let questions = Arc::<Questions>::default();
        let plan = Plan {
            ports,
            original,
            telemetry: telemetry.clone(),
            tls: tls.clone(),
            stats: stats.clone(),
            memory,
            questions: questions.clone(),
            draining: drain.handle(),
        };
        telemetry.memory.limit.set(i64::try_from(memory * workers.max(1)).unwrap_or(i64::MAX));
        let workers = (0..workers.max(1)).map(|index| WorkerThread::start(index, plan.clone()));
        let workers = workers.collect::<io::Result<_>>().map_err(RunError::Worker)?;
        let (listening, idle, current) = (false, BTreeSet::new(), None);
        Ok(Self { workers, telemetry, stats, tls, questions, drain, listening, idle, current })
    }

    /// Returns true if [`Core::listen`] was called.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening
    }

    /// Accepts connections on these sockets from now on; until the first configuration they wait.
    ///
    /// # Errors
    /// When a descriptor cannot be duplicated.
    pub async fn listen(&mut self, listeners: Listeners) -> io::Result<()> {
        let Listeners { outbound, inbound, tunnel, ipv6 } = listeners;
        let mut sockets =
            vec![(Listener::Outbound, outbound), (Listener::Inbound, inbound), (Listener::Tunnel, tunnel)];
        if let Some([outbound, inbound]) = ipv6 {
            sockets.extend([(Listener::Outbound, outbound), (Listener::Inbound, inbound)]);
        }
        for (listener, socket) in sockets {
            self.listen_on(listener, socket).await?;
        }
        self.listening = true;
        Ok(())
    }

    async fn listen_on(&self, listener: Listener, socket: OwnedFd) -> io::Result<()> {
        let socket = StdListener::from(socket);
        socket.set_nonblocking(true)?;
        for worker in &self.workers {
            worker.tell(Command::Listen(listener, socket.try_clone()?)).await;
        }
        Ok(())
    }

    /// Is this from now on: new tunnels are made with it.
    ///
    /// # Errors
    /// When it cannot be used; then the previous one stays.
    pub fn identify(&self, identity: Identity) -> Result<(), TlsError> {
        let (id, not_after) = (identity.spiffe_id.clone(), identity.not_after);
        self.tls.set(identity)?;
        self.telemetry.set_identity(&id, not_after);
        Ok(())
    }

    /// Works by this configuration; returns when every new connection and request of every worker does.
    pub async fn apply(&mut self, config: &Config) {
        if let Err(error) = self.tls.revoke(&config.network.revoked) {
            tracing::error!(%error, "revoked certificates are still accepted for new tunnels");
        }
        let before = self.current.as_ref().map(|(_, before)| &**before);
        let snapshot = Snapshot::new(config, before);
        self.work_by(config.sequence, snapshot).await;
    }

    /// Works by the configuration that the change leads to, as [`Core::apply`] does; false when the change is not one of the present
    /// configuration.
    pub async fn follow(&mut self, change: &Change) -> bool {
        let Some((_, before)) = self.current.as_ref().filter(|(sequence, _)| *sequence == change.since)
        else {
            return false;
        };
        let snapshot = before.after(change);
        self.work_by(change.sequence, snapshot).await;
        true
    }

    /// Adds a rule about requests to the policy, to see that each of them is decided.
    #[cfg(test)]
    pub(crate) async fn restrict(&mut self, rule: crate::policy::RequestRule) {
        let (sequence, mut snapshot) = self.current.clone().expect("a configuration");
        Arc::make_mut(&mut Arc::make_mut(&mut snapshot).policy).requests = Some(rule);
        self.work_by(sequence, Arc::unwrap_or_clone(snapshot)).await;
    }

    /// Attaches routes of HTTP to a service.
    #[cfg(test)]
    pub(crate) async fn attach(&mut self, service: &str, attached: Vec<crate::route::Attached>) {
        let (sequence, mut snapshot) = self.current.clone().expect("a configuration");
        let service = service.parse().expect("a name");
        Arc::make_mut(&mut snapshot).routes.attach(&service, attached);
        self.work_by(sequence, Arc::unwrap_or_clone(snapshot)).await;
    }

    async fn work_by(&mut self, sequence: u64, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.current = Some((sequence, snapshot.clone()));
        let mut waiting = Vec::new();
        for worker in &self.workers {
            let (done, applied) = oneshot::channel();
            if worker.tell(Command::Apply(snapshot.clone(), done)).await {
                waiting.push(applied);
            }
        }
        for applied in waiting {
            // A worker that died does not work by anything else.
            let _ = applied.await;
        }
        self.questions.retain(|address| snapshot.lacks(address.into()));
        self.telemetry.routes.retain(snapshot.routes.names_of_attached());
        let told = i64::try_from(snapshot.scope.addresses().count()).unwrap_or(i64::MAX);
        self.telemetry.asking.addresses.set(told);
    }

    /// The questions of calls to whoever knows the network.
    pub(crate) fn questions(&self) -> &Arc<Questions> {
        &self.questions
    }

    /// The addresses that it was told of, or has asked about.
    pub(crate) fn calls(&self) -> BTreeSet<Ipv4Addr> {
        let mut calls = self.questions.asked();
        calls.extend(self.current.iter().flat_map(|(_, snapshot)| snapshot.scope.addresses()));
        calls
    }

    /// The addresses that it is told of, and that nobody has used since the last call of this but one.
    pub(crate) async fn unused(&mut self) -> BTreeSet<Ipv4Addr> {
        let mut used = HashSet::new();
        for worker in &self.workers {
            let (answer, wait) = oneshot::channel();
            if worker.tell(Command::Used(answer)).await {
                // One that died uses nothing.
                used.extend(wait.await.unwrap_or_default());
            }
        }
        let told = self.current.iter().flat_map(|(_, snapshot)| snapshot.scope.addresses());
        let idle: BTreeSet<_> = told.filter(|address| !used.contains(address)).collect();
        let (unused, idle) = idle.into_iter().partition(|address| self.idle.contains(address));
        self.idle = idle;
        unused
    }

    /// The hosts of these workloads, and of no others, cannot be reached, as the agent knows: calls do not wait for them.
    pub async fn set_away(&self, peers: AwayPeers) {
        for worker in &self.workers {
            // One that died has no calls.
            worker.tell(Command::Away(peers.clone())).await;
        }
    }

    /// Returns when every worker has had a turn; whether none has died.
    pub(crate) async fn turn(&self) -> bool {
        let mut waiting = Vec::new();
        for worker in &self.workers {
            let (done, had) = oneshot::channel();
            if !worker.tell(Command::Turn(done)).await {
                return false;
            }
            waiting.push(had);
        }
        for had in waiting {
            if had.await.is_err() {
                return false;
            }
        }
        true
    }

    /// A number that grows with everything that happens to the workload's connections.
    pub(crate) fn activity(&self) -> impl Fn() -> u64 + Send + use<> {
        let (stats, telemetry) = (self.stats.clone(), self.telemetry.clone());
        move || {
            // A tunnel that closes for want of use is no activity.
            let streams = stats.streams_opened.value() + stats.streams_closed.value();
            stats.tunnels_opened.value() + streams + telemetry.accepted.get()
        }
    }

    /// Everything that was counted.
    #[must_use]
    pub fn metrics(&self) -> Vec<Family> {
        self.counts()().families
    }

    /// Everything that will have been counted whenever this is asked, even when the sidecar has drained.
    pub(crate) fn counts(&self) -> impl Fn() -> Measured + Send + use<> {
        let (stats, telemetry) = (self.stats.clone(), self.telemetry.clone());
        move || {
            let open = stats.tunnels_opened.value().saturating_sub(stats.tunnels_closed.value());
            telemetry.memory.held.set(i64::try_from(heap::total()).unwrap_or(i64::MAX));
            telemetry.tunnels_open.set(i64::try_from(open).unwrap_or(i64::MAX));
            for (counter, count) in [
                (&telemetry.handshake_failures, &stats.handshakes_failed),
                (&telemetry.bounds.floods, &stats.floods),
                (&telemetry.bounds.abandoned, &stats.streams_abandoned),
            ] {
                counter.inc_by(count.value().saturating_sub(counter.get()));
            }
            Measured { families: telemetry.gather(), troubles: telemetry.troubles.list(Instant::now()) }
        }
    }

    /// Takes no new work; what is in progress goes on, and what rests between two requests stays.
    pub fn leave(&mut self) {
        self.drain.leave();
    }

    /// Returns when nothing is in progress any more, after [`Core::leave`]. Cancel safe.
    pub async fn left(&mut self) {
        self.drain.left().await;
    }

    /// Takes no new work, waits for the work in progress, at most so long, and ends. Returns whether all of it ended.
    pub async fn drain(self, deadline: Duration) -> bool {
        let Self { workers, drain, .. } = self;
        let finished = drain.drain(deadline).await;
        drop(workers);
        finished
    }
}
