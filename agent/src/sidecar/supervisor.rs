//! One sidecar's life: started or adopted, fed with configurations and identities, drained, or started again.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_base::metrics::Family;
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::{Channel, ChannelError, Config, Down, Listeners, Measured, Up};
use sealane_proto::types::TrustDomain;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::sync::{mpsc, oneshot, watch};

use super::Key;
use super::process::SidecarProcess;
use super::registry::{Connected, Registry};
use crate::certs::WorkloadIdentity;
use crate::host::Effective;

/// How much longer than its deadline a drain may take before the sidecar is killed.
const GRACE: Duration = Duration::from_millis(500);

/// What somebody wants of a sidecar.
#[derive(Debug)]
pub(crate) enum Command {
    /// Its series, and its trouble.
    Collect(oneshot::Sender<Measured>),
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
    /// The thread that starts processes in namespaces.
    pub(crate) hopper: Arc<Hopper>,
    /// The listening sockets: outbound, inbound, tunnel.
    pub(crate) listeners: Vec<OwnedFd>,
    /// The mesh.
    pub(crate) trust_domain: TrustDomain,
    /// Who it is.
    pub(crate) identity: watch::Receiver<Arc<WorkloadIdentity>>,
    /// What it works by.
    pub(crate) effective: watch::Receiver<Arc<Effective>>,
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
        let run =
            Run { parts, incoming, orders, applied, sent: None, collecting: Vec::new(), last: Vec::new() };
        let task = task::spawn("sidecar", async move {
            let key = run.parts.key.clone();
            let last = run.supervise().await;
            registry.leave(&key, last);
        });
        Self { applied: seen, commands, task }
    }
}

struct Run {
    parts: SidecarParts,
    incoming: mpsc::Receiver<Connected>,
    orders: mpsc::Receiver<Command>,
    applied: watch::Sender<Option<u64>>,
    /// What the connected sidecar was told last.
    sent: Option<Sent>,
    collecting: Vec<oneshot::Sender<Measured>>,
    /// What a drained sidecar counted at last.
    last: Vec<Family>,
}

/// A configuration on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Its sequence.
    sequence: u64,
    /// The newest sequence that says the same.
    means: u64,
}

/// How a stretch of a sidecar's life ended.
enum End {
    /// The connection broke; the process may well live.
    Disconnected,
    /// The process ended by itself.
    Died,
    /// It was to drain.
    Drain(Duration),
}

impl Run {
    /// Returns what the sidecar counted until it was drained.
    async fn supervise(mut self) -> Vec<Family> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut adopted = SidecarProcess::adopt(&self.parts.run_dir, &self.parts.key);
        loop {
            let started = match adopted.take() {
                Some(process) => Ok(process),
                None => self.spawn(),
            };
            match started {
                Err(error) => tracing::error!(%error, key = %self.parts.key, "cannot start the sidecar"),
                Ok(mut process) => {
                    tracing::debug!(pid = process.pid(), key = %self.parts.key, "sidecar");
                    let end = self.accompany(&mut process, &mut backoff).await;
                    self.applied.send_replace(None);
                    if let End::Drain(deadline) = end {
                        self.drain(process, deadline).await;
                        return self.last;
                    }
                    tracing::warn!(pid = process.pid(), key = %self.parts.key, "the sidecar ended, starting another");
                }
            }
            tokio::time::sleep(backoff.next_wait(rand::random())).await;
        }
    }

    fn spawn(&self) -> std::io::Result<SidecarProcess> {
        let parts = &self.parts;
        SidecarProcess::start(&parts.run_dir, &parts.binary, &parts.key, &parts.hopper, &parts.netns)
    }

    /// Serves one connection after another until the process ends or is to drain.
    async fn accompany(&mut self, process: &mut SidecarProcess, backoff: &mut Backoff) -> End {
        loop {
            let connected = tokio::select! {
                Some(connected) = self.incoming.recv() => connected,
                () = process.ended() => return End::Died,
                Some(order) = self.orders.recv() => match order {
                    // Without a connection there is nothing to tell: the dropped sender says so.
                    Command::Collect(_) => continue,
                    Command::Drain { deadline } => return End::Drain(deadline),
                },
            };
            backoff.reset();
            let end = self.converse(process, connected).await;
            self.applied.send_replace(None);
            self.collecting.clear();
            match end {
                Ok(End::Disconnected) => {}
                Ok(end @ (End::Died | End::Drain(_))) => return end,
                Err(error) => tracing::debug!(%error, key = %self.parts.key, "sidecar channel"),
            }
        }
    }

    async fn converse(
        &mut self,
        process: &mut SidecarProcess,
        connected: Connected,
    ) -> Result<End, ChannelError> {
        let Connected { hello, mut channel } = connected;
        self.sent = None;
        // Listeners last: a sidecar that accepts calls must know where they go, and who it is.
        let identity = self.parts.identity.borrow_and_update().to_message();
        channel.sender.send(Down::Identity(identity)).await?;
        self.configure(&mut channel).await?;
        if !hello.has_listeners {
            channel.sender.send(Down::Listeners(self.listeners()?)).await?;
        }
        loop {
            tokio::select! {
                // Identity before configuration: a sidecar that knows its peers must be able to speak to them.
                biased;
                Ok(()) = self.parts.identity.changed() => {
                    let identity = self.parts.identity.borrow_and_update().to_message();
                    channel.sender.send(Down::Identity(identity)).await?;
                }
                Ok(()) = self.parts.effective.changed() => {
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
                    None => return Ok(End::Disconnected),
                },
                received = channel.receiver.recv() => self.handle(received?),
                Some(newer) = self.incoming.recv() => {
                    // The same sidecar connected again before its old connection was seen to be dead.
                    return Box::pin(self.converse(process, newer)).await;
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
                let sent = self.sent.filter(|sent| sent.sequence == sequence);
                self.applied.send_replace(Some(sent.map_or(sequence, |sent| sent.means)));
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
        let effective = self.parts.effective.borrow_and_update().clone();
        let sequence = effective.sequence;
        if let Some(sent) = self.sent.as_mut().filter(|sent| effective.content <= sent.sequence) {
            // It knows all this, or is just told so.
            sent.means = sequence;
            let sent = sent.sequence;
            self.applied.send_if_modified(|applied| {
                let follows = applied.is_some_and(|applied| applied >= sent);
                if follows {
                    *applied = Some(sequence);
                }
                follows
            });
            return Ok(());
        }
        match self.config(&effective) {
            Some(config) => {
                self.sent = Some(Sent { sequence, means: sequence });
                channel.sender.send(Down::Config(Box::new(config))).await
            }
            None => Ok(()),
        }
    }

    fn config(&self, effective: &Effective) -> Option<Config> {
        let own = &self.parts.key.workload;
        let workload = effective.snapshot.workloads.iter().find(|workload| workload.name == *own)?.clone();
        Some(Config {
            sequence: effective.sequence,
            trust_domain: self.parts.trust_domain.clone(),
            workload,
            network: (*effective.snapshot).clone(),
        })
    }

    fn listeners(&self) -> Result<Listeners, ChannelError> {
        let copies =
            self.parts.listeners.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>()?;
        copies.try_into()
    }

    /// Waits for the end, which was asked for or is asked for now; after deadline and grace it is made.
    async fn drain(&mut self, mut process: SidecarProcess, deadline: Duration) {
        if let Err(error) = process.terminate() {
            tracing::warn!(%error, pid = process.pid(), "cannot signal the sidecar");
        }
        if tokio::time::timeout(deadline + GRACE, process.ended()).await.is_err() {
            tracing::warn!(pid = process.pid(), key = %self.parts.key, "the sidecar did not end in time");
            // It has ended meanwhile, or the next line waits for what cannot fail to come.
            let _ = process.kill();
            process.ended().await;
        }
        process.forget();
    }
}
