//! Life of one sidecar: started or adopted, fed with configurations and identities, drained, or started again.

mod signs;
mod succession;
mod talk;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_base::metrics::Family;
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::Measured;
use sealane_proto::types::{NetworkName, NodeName, TrustDomain};
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, RunDir};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::leaving::Feed;
use super::metrics::ToldMetrics;
use super::process::SidecarProcess;
use super::pulse::{BEAT, SidecarPulse};
use super::registry::{Connected, Registry};
use super::telling::Telling;
use crate::attachment::AttachmentId;
use crate::certs::WorkloadIdentity;
use crate::host::HostNetwork;
use succession::Followed;
use talk::TalkEnd;

pub(super) use talk::tell;

/// Time beyond its deadline that a drain may take before the sidecar is killed.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// Answer to whoever asked for another sidecar.
type Answer = oneshot::Sender<Result<(), String>>;

/// Request to a sidecar's supervisor.
#[derive(Debug)]
pub(crate) enum Command {
    /// Asks for its series, and its trouble.
    Collect(oneshot::Sender<Measured>),
    /// Gives the next one these listeners: those of the present one are closed.
    Listen(Vec<OwnedFd>),
    /// Another one in its place, without an end to what it carries; a sentence says why not.
    Restart(Answer),
    /// Ends it: no new work, then whatever is left after the deadline is cut off.
    Drain {
        /// Limit for work in progress.
        deadline: Duration,
    },
}

/// Parts that a sidecar is made of.
#[derive(Debug)]
pub(crate) struct SidecarParts {
    /// Workload that it serves.
    pub(crate) id: AttachmentId,
    /// Namespace that it runs in.
    pub(crate) netns: NetNs,
    /// The agent's run directory.
    pub(crate) run_dir: RunDir,
    /// The program.
    pub(crate) binary: PathBuf,
    /// Starts processes in namespaces.
    pub(crate) hopper: Arc<Hopper>,
    /// The mesh.
    pub(crate) trust_domain: TrustDomain,
    /// Equipment that it needs to begin, once that is there; without it the sidecar ends.
    pub(crate) equipment: oneshot::Receiver<Equipment>,
    /// State that it works by.
    pub(crate) host_network: watch::Receiver<Arc<HostNetwork>>,
    /// Hosts that cannot be reached from this one.
    pub(crate) unreachable: watch::Receiver<Arc<BTreeSet<NodeName>>>,
    /// Counts what it is told.
    pub(crate) told: ToldMetrics,
    /// The networks that its workload's namespace is in.
    pub(crate) networks: Arc<BTreeSet<NetworkName>>,
}

/// Equipment that a sidecar needs to begin.
#[derive(Debug)]
pub(crate) struct Equipment {
    /// Identity of the workload.
    pub(crate) identity: watch::Receiver<Arc<WorkloadIdentity>>,
    /// The listening sockets: outbound, inbound, tunnel.
    pub(crate) listeners: Vec<OwnedFd>,
}

/// A supervised sidecar; dropping this leaves the process running for the next agent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// The sequence that the sidecar works by; `None` while it is not connected.
    pub(crate) applied: watch::Receiver<Option<u64>>,
    /// The process that is connected and does not answer, while there is one.
    pub(crate) silent: watch::Receiver<Option<u32>>,
    /// True while somebody has closed sockets that it listens on.
    pub(crate) deaf: watch::Receiver<bool>,
    /// For commands.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Ends after a drain.
    pub(crate) task: Task,
}

impl Supervisor {
    /// Adopts or starts the sidecar and keeps it alive.
    #[must_use]
    pub(crate) fn start(parts: SidecarParts, registry: Arc<Registry>) -> Self {
        let (connections, incoming) = mpsc::channel(1);
        let (commands, orders) = mpsc::channel(4);
        registry.enter(parts.id.clone(), connections, commands.clone());
        let (applied, seen) = watch::channel(None);
        let (silence, silent) = watch::channel(None);
        let (deafness, deaf) = watch::channel(false);
        let task = task::spawn("sidecar", async move {
            let id = parts.id.clone();
            let last =
                match begin(parts, registry.clone(), incoming, orders, (applied, silence, deafness)).await {
                    Some((run, process)) => run.supervise(process).await,
                    None => Vec::new(),
                };
            registry.leave(&id, last);
        });
        Self { applied: seen, silent, deaf, commands, task }
    }
}

/// Adopts the process or starts it, and waits for what it needs meanwhile; `None` when it is to end before that.
async fn begin(
    mut parts: SidecarParts,
    registry: Arc<Registry>,
    incoming: mpsc::Receiver<Connected>,
    mut orders: mpsc::Receiver<Command>,
    (applied, silence, deafness): (
        watch::Sender<Option<u64>>,
        watch::Sender<Option<u32>>,
        watch::Sender<bool>,
    ),
) -> Option<(Run, std::io::Result<SidecarProcess>)> {
    let process = match SidecarProcess::adopt(&parts.run_dir, &parts.id) {
        Some(adopted) => Ok(adopted),
        None => parts.spawn(),
    };
    let equipment = tokio::select! {
        equipment = &mut parts.equipment => equipment.ok(),
        () = drained(&mut orders) => None,
    };
    let Some(Equipment { identity, listeners }) = equipment else {
        let mut process = process.ok()?;
        process.cut_off().await;
        process.forget();
        return None;
    };
    let feed = Feed {
        id: parts.id.clone(),
        trust_domain: parts.trust_domain.clone(),
        identity,
        host_network: parts.host_network.clone(),
        unreachable: parts.unreachable.clone(),
        networks: parts.networks.clone(),
    };
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let run = Run {
        parts,
        listeners,
        feed,
        incoming,
        orders,
        applied,
        works: None,
        silence,
        deafness,
        pulse: SidecarPulse::default(),
        beat,
        asked: None,
        registry,
        telling: Telling::to_nobody(),
        calls: BTreeSet::new(),
        collecting: Vec::new(),
        last: Vec::new(),
        followed: None,
        turn: None,
        resumed: None,
        departed: Vec::new(),
    };
    Some((run, process))
}

/// Returns when the sidecar is to end; nothing else can be had of one without an identity.
async fn drained(orders: &mut mpsc::Receiver<Command>) {
    loop {
        match orders.recv().await {
            Some(Command::Collect(_) | Command::Listen(_)) => {}
            Some(Command::Restart(answer)) => {
                // An asker that left has no use for it.
                let _ = answer.send(Err("it has just begun".to_owned()));
            }
            Some(Command::Drain { .. }) | None => return,
        }
    }
}

impl SidecarParts {
    fn spawn(&self) -> std::io::Result<SidecarProcess> {
        SidecarProcess::start(&self.run_dir, &self.binary, &self.id, &self.hopper, &self.netns)
    }
}

struct Run {
    parts: SidecarParts,
    listeners: Vec<OwnedFd>,
    feed: Feed,
    registry: Arc<Registry>,
    incoming: mpsc::Receiver<Connected>,
    orders: mpsc::Receiver<Command>,
    applied: watch::Sender<Option<u64>>,
    /// Sequence by which the connected sidecar works, as it said last.
    works: Option<u64>,
    silence: watch::Sender<Option<u32>>,
    deafness: watch::Sender<bool>,
    pulse: SidecarPulse,
    beat: Interval,
    /// Whoever asked for another sidecar while this one was not connected, which it may be soon.
    asked: Option<Answer>,
    /// State that the connected sidecar was told last.
    telling: Telling,
    /// Addresses that the workload calls, as its sidecar said last.
    calls: BTreeSet<Ipv4Addr>,
    collecting: Vec<oneshot::Sender<Measured>>,
    /// Last series of a drained sidecar.
    last: Vec<Family>,
    /// The one that the present one is to follow, until that works.
    followed: Option<Followed>,
    /// Held while one follows that nobody asked for.
    turn: Option<OwnedSemaphorePermit>,
    /// A connection to go on with.
    resumed: Option<Connected>,
    /// Sidecars that were followed, and the means to end them.
    departed: Vec<(oneshot::Sender<Duration>, Task)>,
}

impl Run {
    /// Returns what the sidecar counted until it was drained.
    async fn supervise(mut self, first: std::io::Result<SidecarProcess>) -> Vec<Family> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut next = Some(first);
        loop {
            let started = next.take().unwrap_or_else(|| self.parts.spawn());
            match started {
                Err(error) => tracing::error!(%error, workload = %self.parts.id, "cannot start the sidecar"),
                Ok(mut process) => {
                    tracing::debug!(pid = process.pid(), workload = %self.parts.id, "sidecar");
                    let end = self.accompany(&mut process, &mut backoff).await;
                    match end {
                        TalkEnd::Drain(deadline) => {
                            self.drain(process, deadline).await;
                            return self.last;
                        }
                        TalkEnd::Follow(connected, answer) => {
                            next = Some(Ok(self.follow(process, connected, answer)));
                            continue;
                        }
                        TalkEnd::Died | TalkEnd::Disconnected => {}
                    }
                    if let Some(followed) = self.followed.take() {
                        next = Some(Ok(self.fall_back(process, followed).await));
                        continue;
                    }
                    tracing::warn!(pid = process.pid(), workload = %self.parts.id, "the sidecar ended, starting another");
                }
            }
            tokio::time::sleep(backoff.next_wait(rand::random())).await;
        }
    }

    /// Ends the sidecar and those that it has followed: asks them to drain, and kills it after deadline and grace.
    async fn drain(&mut self, mut process: SidecarProcess, deadline: Duration) {
        if let Some(followed) = self.followed.take() {
            self.depart(followed);
        }
        let (ends, departing): (Vec<_>, Vec<_>) = self.departed.drain(..).unzip();
        for end in ends {
            // One that has left already does not listen.
            let _ = end.send(deadline);
        }
        if !process.finish(deadline + GRACE).await {
            tracing::warn!(pid = process.pid(), workload = %self.parts.id, "the sidecar did not end in time");
        }
        process.forget();
        for task in departing {
            // A panic was reported when it happened.
            let _ = task.await;
        }
    }
}
