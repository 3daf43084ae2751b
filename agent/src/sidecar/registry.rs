//! Accepts sidecar connections and routes each to its supervisor.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sealane_base::metrics::Family;
use sealane_base::rate_limit::RateLimit;
use sealane_base::socket::Listener;
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::{Channel, Down, EndpointTrouble, Hello, Measured, Up};
use sealane_sys::{RunDir, confine};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::ledger::Ledger;
use super::supervisor::Command;
use crate::attachment::AttachmentId;

/// Limit for the introduction of a connection.
const HELLO: Duration = Duration::from_secs(5);
/// Limit for a sidecar's metrics.
const COLLECT: Duration = Duration::from_secs(1);
/// Number of sidecars that are replaced unasked at a time: all of a host may lose their folder at once.
const TURNS: usize = 8;

/// A sidecar that has said hello.
#[derive(Debug)]
pub(crate) struct Connected {
    /// First message.
    pub(crate) hello: Hello,
    /// The connection.
    pub(crate) channel: Channel<Down, Up>,
    /// Process, by the kernel's word.
    pub(crate) pid: u32,
}

#[derive(Debug)]
struct SupervisedSidecar {
    connections: mpsc::Sender<Connected>,
    commands: mpsc::Sender<Command>,
    /// Version, when it runs another program than this agent.
    other: Option<String>,
}

/// The supervisors of this host's sidecars.
#[derive(Debug)]
pub(crate) struct Registry {
    entries: Mutex<BTreeMap<AttachmentId, SupervisedSidecar>>,
    ledger: Mutex<Ledger>,
    turns: Arc<Semaphore>,
    /// Bound on log lines about who connects and says nothing.
    silent: RateLimit,
}

impl Default for Registry {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(TURNS));
        let silent = RateLimit::new(1, Duration::from_mins(10));
        Self { entries: Mutex::default(), ledger: Mutex::default(), turns, silent }
    }
}

impl Registry {
    /// Listens where sidecars connect: in a room of its own for those that have a user of their own, in the run directory
    /// for those of before, which are root's.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub(crate) fn listen(self: &Arc<Self>, run_dir: &RunDir) -> io::Result<Task> {
        let own = Listener::bind_for_all(&run_dir.sidecar_socket())?;
        let former = Listener::bind(&run_dir.former_sidecar_socket())?;
        let this = self.clone();
        Ok(task::spawn("sidecar-socket", async move {
            tokio::join!(this.clone().accept(own), this.accept(former));
        }))
    }

    async fn accept(self: Arc<Self>, mut listener: Listener) {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    let Some(pid) = sidecar_at(&stream) else {
                        tracing::debug!("something that is no sidecar connected");
                        continue;
                    };
                    let this = self.clone();
                    task::spawn("sidecar-hello", async move { this.greet(stream, pid).await }).detach();
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept sidecars");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn greet(&self, stream: UnixStream, pid: u32) {
        let mut channel = Channel::<Down, Up>::from(stream);
        let first = tokio::time::timeout(HELLO, channel.receiver.recv()).await;
        let Ok(Ok(Up::Hello(hello))) = first else {
            if let Some(withheld) = self.silent.pass(Instant::now()) {
                tracing::warn!(pid, withheld, "a connection to the sidecar socket did not say hello");
            }
            return;
        };
        let id = AttachmentId { network: hello.network.clone(), workload: hello.workload.clone() };
        let known = self.lock().get(&id).map(|entry| entry.connections.clone());
        match known {
            // A supervisor that is gone closes the connection, and the sidecar tries again.
            Some(connections) => drop(connections.send(Connected { hello, channel, pid }).await),
            None => tracing::debug!(workload = %id, "a sidecar of no workload on this host connected"),
        }
    }

    /// Takes connections and commands for `id` from now on.
    pub(super) fn enter(
        &self,
        id: AttachmentId,
        connections: mpsc::Sender<Connected>,
        commands: mpsc::Sender<Command>,
    ) {
        self.lock().insert(id, SupervisedSidecar { connections, commands, other: None });
    }

    /// The sidecar of `id` is gone for good, having counted this at last.
    pub(super) fn leave(&self, id: &AttachmentId, last: Vec<Family>) {
        self.lock().remove(id);
        self.retire(id, last);
    }

    /// A sidecar of `id` that another one has followed counted this at last.
    pub(super) fn retire(&self, id: &AttachmentId, last: Vec<Family>) {
        self.ledger().retire(id, last, Instant::now());
    }

    /// The sidecar of `id` runs this agent's program, or another of this version.
    pub(super) fn note_program(&self, id: &AttachmentId, other: Option<String>) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.other = other;
        }
    }

    /// The sidecars that run another program than this agent, with its version.
    pub(crate) fn others(&self) -> Vec<(AttachmentId, String)> {
        let entries = self.lock();
        let others = entries.iter().filter_map(|(id, entry)| Some((id.clone(), entry.other.clone()?)));
        others.collect()
    }

    /// The workloads with a sidecar: those that `wanted` says yes to.
    pub(crate) fn served(&self, wanted: impl Fn(&AttachmentId) -> bool) -> Vec<AttachmentId> {
        self.lock().keys().filter(|id| wanted(id)).cloned().collect()
    }

    /// Takes a turn to replace a sidecar that nobody asked for, as long as that is held; `None` while others have them all.
    pub(super) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().try_acquire_owned().ok()
    }

    /// Puts a new sidecar in the place of that of `id`; what the old one carries goes on in it.
    ///
    /// # Errors
    /// A sentence, when the old one goes on.
    pub(crate) async fn restart(&self, id: &AttachmentId) -> Result<(), String> {
        let commands = self.lock().get(id).map(|entry| entry.commands.clone());
        let gone = || "it has ended".to_owned();
        let (answer, wait) = oneshot::channel();
        commands.ok_or_else(gone)?.send(Command::Restart(answer)).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())?
    }

    /// The series of all sidecars, each with its network and workload, bounded in number; those of sidecars that do
    /// not answer are left out.
    pub(crate) async fn collect(&self) -> Vec<Family> {
        let live = self.ask_all().await.into_iter().map(|(id, measured)| (id, measured.families));
        self.ledger().expose(live.collect(), Instant::now())
    }

    /// The endpoints that the sidecars have trouble with now, by sidecar.
    pub(crate) async fn troubles(&self) -> Vec<(AttachmentId, EndpointTrouble)> {
        let all = self.ask_all().await.into_iter();
        all.flat_map(|(id, measured)| measured.troubles.into_iter().map(move |trouble| (id.clone(), trouble)))
            .collect()
    }

    /// Collects the metrics of each sidecar that answers.
    async fn ask_all(&self) -> Vec<(AttachmentId, Measured)> {
        let all: Vec<_> =
            self.lock().iter().map(|(id, entry)| (id.clone(), entry.commands.clone())).collect();
        let asked = all.into_iter().map(|(id, commands)| async move {
            let (answer, wait) = oneshot::channel();
            commands.try_send(Command::Collect(answer)).ok()?;
            Some((id, tokio::time::timeout(COLLECT, wait).await.ok()?.ok()?))
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttachmentId, SupervisedSidecar>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process at the other end, if its user is one that a sidecar has.
fn sidecar_at(stream: &UnixStream) -> Option<u32> {
    let peer = stream.peer_cred().ok()?;
    let pid = u32::try_from(peer.pid()?).ok()?;
    (peer.uid() == 0 || confine::is_user_of(peer.uid(), pid)).then_some(pid)
}
