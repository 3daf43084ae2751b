//! One sidecar's life: started or adopted, fed with configurations and identities, drained, or started again.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_base::metrics::Family;
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::{Channel, ChannelError, Down, Hello, Listeners, Measured, Up};
use sealane_proto::types::TrustDomain;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Key;
use super::leaving::{Feed, Leaving};
use super::metrics::{self, ToldMetrics};
use super::process::SidecarProcess;
use super::registry::{Connected, Registry};
use super::telling::Telling;
use crate::certs::WorkloadIdentity;
use crate::host::Effective;

/// How much longer than its deadline a drain may take before the sidecar is killed.
pub(super) const GRACE: Duration = Duration::from_millis(500);
/// How long a new sidecar may take to work, before the one that it was to follow goes on.
const START: Duration = Duration::from_secs(10);

/// What somebody wants of a sidecar.
#[derive(Debug)]
pub(crate) enum Command {
    /// Its series, and its trouble.
    Collect(oneshot::Sender<Measured>),
    /// Another one in its place, without an end to what it carries; a sentence says why not.
    Restart(oneshot::Sender<Result<(), String>>),
    /// Its end: no new work, then whatever is left after the deadline is cut off.
    Drain {
        /// How long work in progress may take.
        deadline: Duration,
    },
}

/// What a sidecar is made of.
#[derive(Debug)]
pub(crate) struct SidecarParts {
    /// Whom it serves.
    pub(crate) key: Key,
    /// Where it runs.
    pub(crate) netns: NetNs,
    /// The agent's run directory.
    pub(crate) run_dir: PathBuf,
    /// The program.
    pub(crate) binary: PathBuf,
    /// Starts processes in namespaces.
    pub(crate) hopper: Arc<Hopper>,
    /// The mesh.
    pub(crate) trust_domain: TrustDomain,
    /// What it needs to begin, once that is there; without it the sidecar ends.
    pub(crate) equipment: oneshot::Receiver<Equipment>,
    /// What it works by.
    pub(crate) effective: watch::Receiver<Arc<Effective>>,
    /// Counts what it is told.
    pub(crate) told: ToldMetrics,
}

/// What a sidecar needs to begin.
#[derive(Debug)]
pub(crate) struct Equipment {
    /// Who it is.
    pub(crate) identity: watch::Receiver<Arc<WorkloadIdentity>>,
    /// The listening sockets: outbound, inbound, tunnel.
    pub(crate) listeners: Vec<OwnedFd>,
}

/// A supervised sidecar; dropping this leaves the process running for the next agent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// The sequence that the sidecar works by; `None` while it is not connected.
    pub(crate) applied: watch::Receiver<Option<u64>>,
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
        registry.enter(parts.key.clone(), connections, commands.clone());
        let (applied, seen) = watch::channel(None);
        let task = task::spawn("sidecar", async move {
            let key = parts.key.clone();
            let last = match begin(parts, registry.clone(), incoming, orders, applied).await {
                Some((run, process)) => run.supervise(process).await,
                None => Vec::new(),
            };
            registry.leave(&key, last);
        });
        Self { applied: seen, commands, task }
    }
}

/// Adopts the process or starts it, and waits for what it needs meanwhile; `None` when it is to end before that.
async fn begin(
    mut parts: SidecarParts,
    registry: Arc<Registry>,
    incoming: mpsc::Receiver<Connected>,
    mut orders: mpsc::Receiver<Command>,
    applied: watch::Sender<Option<u64>>,
) -> Option<(Run, std::io::Result<SidecarProcess>)> {
    let process = match SidecarProcess::adopt(&parts.run_dir, &parts.key) {
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
        key: parts.key.clone(),
        trust_domain: parts.trust_domain.clone(),
        identity,
        effective: parts.effective.clone(),
    };
    let run = Run {
        parts,
        listeners,
        feed,
        incoming,
        orders,
        applied,
        registry,
        telling: Telling::to(false),
        collecting: Vec::new(),
        last: Vec::new(),
        followed: None,
        resumed: None,
        departed: Vec::new(),
    };
    Some((run, process))
}

/// Returns when the sidecar is to end; nothing else can be had of one without an identity.
async fn drained(orders: &mut mpsc::Receiver<Command>) {
    loop {
        match orders.recv().await {
            Some(Command::Collect(_)) => {}
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
        SidecarProcess::start(&self.run_dir, &self.binary, &self.key, &self.hopper, &self.netns)
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
    /// What the connected sidecar was told last.
    telling: Telling,
    collecting: Vec<oneshot::Sender<Measured>>,
    /// What a drained sidecar counted at last.
    last: Vec<Family>,
    /// The one that the present one is to follow, until that works.
    followed: Option<Followed>,
    /// A connection to go on with.
    resumed: Option<Connected>,
    /// Those that were followed, and how to end them.
    departed: Vec<(oneshot::Sender<Duration>, Task)>,
}

/// A sidecar that another one is to follow.
#[derive(Debug)]
struct Followed {
    process: SidecarProcess,
    connected: Connected,
    answer: oneshot::Sender<Result<(), String>>,
    /// When the other one must work.
    until: Instant,
}

/// How a stretch of a sidecar's life ended.
enum End {
    /// The connection broke; the process may well live.
    Disconnected,
    /// The process ended by itself.
    Died,
    /// It was to drain.
    Drain(Duration),
    /// Another one is to follow it.
    Follow(Connected, oneshot::Sender<Result<(), String>>),
}

impl Run {
    /// Returns what the sidecar counted until it was drained.
    async fn supervise(mut self, first: std::io::Result<SidecarProcess>) -> Vec<Family> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut next = Some(first);
        loop {
            let started = next.take().unwrap_or_else(|| self.parts.spawn());
            match started {
                Err(error) => tracing::error!(%error, key = %self.parts.key, "cannot start the sidecar"),
                Ok(mut process) => {
                    tracing::debug!(pid = process.pid(), key = %self.parts.key, "sidecar");
                    let end = self.accompany(&mut process, &mut backoff).await;
                    self.applied.send_replace(None);
                    match end {
                        End::Drain(deadline) => {
                            self.drain(process, deadline).await;
                            return self.last;
                        }
                        End::Follow(connected, answer) => {
                            next = Some(Ok(self.follow(process, connected, answer)));
                            continue;
                        }
                        End::Died | End::Disconnected => {}
                    }
                    if let Some(followed) = self.followed.take() {
                        next = Some(Ok(self.fall_back(process, followed).await));
                        continue;
                    }
                    tracing::warn!(pid = process.pid(), key = %self.parts.key, "the sidecar ended, starting another");
                }
            }
            tokio::time::sleep(backoff.next_wait(rand::random())).await;
        }
    }

    /// Starts another sidecar beside this one; returns the one to go on with.
    fn follow(
        &mut self,
        mut process: SidecarProcess,
        connected: Connected,
        answer: oneshot::Sender<Result<(), String>>,
    ) -> SidecarProcess {
        match process.set_aside().and_then(|()| self.parts.spawn()) {
            Ok(next) => {
                self.followed = Some(Followed { process, connected, answer, until: Instant::now() + START });
                next
            }
            Err(error) => {
                self.go_back(process, connected, answer, format!("no other can be started: {error}"))
            }
        }
    }

    /// Ends a sidecar that did not come to work, and goes on with the one that it was to follow.
    async fn fall_back(&mut self, mut process: SidecarProcess, followed: Followed) -> SidecarProcess {
        process.cut_off().await;
        process.forget();
        let Followed { process, connected, answer, .. } = followed;
        self.go_back(
            process,
            connected,
            answer,
            "the other did not come to work; the agent's log says why".to_owned(),
        )
    }

    fn go_back(
        &mut self,
        mut process: SidecarProcess,
        connected: Connected,
        answer: oneshot::Sender<Result<(), String>>,
        why: String,
    ) -> SidecarProcess {
        if let Err(error) = process.come_back(&self.parts.key) {
            tracing::error!(%error, key = %self.parts.key, "the next agent will not find the sidecar");
        }
        // An asker that left has no use for it.
        let _ = answer.send(Err(why));
        self.resumed = Some(connected);
        process
    }

    /// The sidecar that was followed carries on what it has.
    fn depart(&mut self, followed: Followed) {
        let Followed { process, connected, answer, .. } = followed;
        self.departed.retain(|(_, task)| !task.is_finished());
        let (end, ended) = oneshot::channel();
        let (registry, key) = (self.registry.clone(), self.parts.key.clone());
        let leaving = Leaving { process, connected, feed: self.feed.clone() };
        let task = task::spawn("sidecar-leaving", async move {
            let last = leaving.accompany(ended).await;
            registry.retire(&key, last);
        });
        self.departed.push((end, task));
        // An asker that left has no use for it.
        let _ = answer.send(Ok(()));
    }

    /// Serves one connection after another until the process ends or is to drain.
    async fn accompany(&mut self, process: &mut SidecarProcess, backoff: &mut Backoff) -> End {
        loop {
            if let Some(resumed) = self.resumed.take() {
                match self.converse(process, resumed).await {
                    Ok(End::Disconnected) | Err(_) => continue,
                    Ok(end) => return end,
                }
            }
            let connected = tokio::select! {
                Some(connected) = self.incoming.recv() => match connected {
                    connected if connected.pid == process.pid() => connected,
                    stranger => {
                        tracing::warn!(pid = stranger.pid, key = %self.parts.key, "this is not the workload's sidecar");
                        continue;
                    }
                },
                () = process.ended() => return End::Died,
                Some(order) = self.orders.recv() => match order {
                    // Without a connection there is nothing to tell: the dropped sender says so.
                    Command::Collect(_) => continue,
                    Command::Restart(answer) => {
                        let _ = answer.send(Err("it is not connected with the agent".to_owned()));
                        continue;
                    }
                    Command::Drain { deadline } => return End::Drain(deadline),
                },
                () = overdue(self.followed.as_ref()) => return End::Died,
            };
            backoff.reset();
            let end = self.converse(process, connected).await;
            self.applied.send_replace(None);
            self.collecting.clear();
            match end {
                Ok(End::Disconnected) => {}
                Ok(end @ (End::Died | End::Drain(_) | End::Follow(..))) => return end,
                Err(error) => tracing::debug!(%error, key = %self.parts.key, "sidecar channel"),
            }
        }
    }

    async fn converse(
        &mut self,
        process: &mut SidecarProcess,
        connected: Connected,
    ) -> Result<End, ChannelError> {
        let Connected { hello, mut channel, pid } = connected;
        self.telling = Telling::to(hello.follows);
        // One that ended meanwhile is found out soon enough.
        let other = process.is_of_this_program().is_ok_and(|same| !same).then(|| hello.version.clone());
        self.registry.note_program(&self.parts.key, other);
        // Listeners last: a sidecar that accepts calls must know where they go, and who it is.
        channel.sender.send(self.feed.identity()).await?;
        self.configure(&mut channel).await?;
        if !hello.has_listeners {
            channel.sender.send(Down::Listeners(self.listeners()?)).await?;
        }
        loop {
            tokio::select! {
                // Identity before configuration: a sidecar that knows its peers must be able to speak to them.
                biased;
                Ok(()) = self.feed.identity.changed() => {
                    channel.sender.send(self.feed.identity()).await?;
                }
                Ok(()) = self.feed.effective.changed() => {
                    self.configure(&mut channel).await?;
                }
                order = self.orders.recv() => match order {
                    Some(Command::Collect(answer)) => {
                        self.collecting.push(answer);
                        channel.sender.send(Down::Collect).await?;
                    }
                    Some(Command::Drain { deadline }) => {
                        channel.sender.send(Down::Drain { deadline }).await?;
                        self.farewell(process, &mut channel, deadline).await;
                        return Ok(End::Drain(deadline));
                    }
                    Some(Command::Restart(answer)) if self.followed.is_some() => {
                        let _ = answer.send(Err("another is just taking over".to_owned()));
                    }
                    Some(Command::Restart(answer)) => {
                        // It has its listeners, and keeps them.
                        let hello = Hello { has_listeners: true, ..hello };
                        return Ok(End::Follow(Connected { hello, channel, pid }, answer));
                    }
                    None => return Ok(End::Disconnected),
                },
                () = overdue(self.followed.as_ref()) => return Ok(End::Died),
                received = channel.receiver.recv() => self.handle(received?),
                Some(newer) = self.incoming.recv() => {
                    // The same sidecar connected again before its old connection was seen to be dead.
                    if newer.pid == process.pid() {
                        return Box::pin(self.converse(process, newer)).await;
                    }
                }
                () = process.ended() => return Ok(End::Died),
            }
        }
    }

    /// Hears a draining sidecar out: its last counts come when its work is done.
    async fn farewell(
        &mut self,
        process: &mut SidecarProcess,
        channel: &mut Channel<Down, Up>,
        deadline: Duration,
    ) {
        let heard = async {
            loop {
                tokio::select! {
                    biased;
                    // A channel that broke has nothing more to say.
                    received = channel.receiver.recv() => match received {
                        Ok(Up::Drained) | Err(_) => return,
                        Ok(message) => self.handle(message),
                    },
                    () = process.ended() => return,
                }
            }
        };
        if tokio::time::timeout(deadline + GRACE, heard).await.is_err() {
            tracing::debug!(key = %self.parts.key, "the sidecar did not say that it has drained");
        }
    }

    fn handle(&mut self, message: Up) {
        match message {
            Up::Applied { sequence } => {
                if let Some(followed) = self.followed.take() {
                    tracing::info!(key = %self.parts.key, "another sidecar has taken over");
                    self.depart(followed);
                }
                self.applied.send_replace(Some(self.telling.meaning(sequence)));
            }
            Up::Metrics(measured) => {
                // Answers come in the order of the questions; one asker that left loses only its own. What comes
                // without a question is what a draining sidecar counted at last.
                if self.collecting.is_empty() {
                    self.last = measured.families;
                } else {
                    let _ = self.collecting.remove(0).send(measured);
                }
            }
            Up::Drained | Up::Hello(_) => {}
        }
    }

    async fn configure(&mut self, channel: &mut Channel<Down, Up>) -> Result<(), ChannelError> {
        let effective = self.feed.effective.borrow_and_update().clone();
        if let Some(sent) = self.telling.knows(&effective) {
            // It works by all this, or will when it works by what is on its way.
            self.applied.send_if_modified(|applied| {
                let follows = applied.is_some_and(|applied| applied >= sent);
                if follows {
                    *applied = Some(effective.sequence);
                }
                follows
            });
            return Ok(());
        }
        for message in self.telling.lead(&self.feed, &effective) {
            let kind = metrics::kind(&message);
            let length = channel.sender.send(message).await?;
            self.parts.told.count(kind, length);
        }
        Ok(())
    }

    fn listeners(&self) -> Result<Listeners, ChannelError> {
        let copies = self.listeners.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>()?;
        copies.try_into()
    }

    /// Waits for the end, which was asked for or is asked for now; after deadline and grace it is made.
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
            tracing::warn!(pid = process.pid(), key = %self.parts.key, "the sidecar did not end in time");
        }
        process.forget();
        for task in departing {
            // A panic was reported when it happened.
            let _ = task.await;
        }
    }
}

/// Returns when a sidecar has had its time to take over from another; never, when it follows none.
async fn overdue(followed: Option<&Followed>) {
    match followed {
        Some(followed) => tokio::time::sleep_until(followed.until).await,
        None => std::future::pending().await,
    }
}
