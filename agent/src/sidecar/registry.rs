//! Where sidecars connect to, and which of them belongs to whom.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sealane_base::metrics::Family;
use sealane_base::socket;
use sealane_base::task::{self, Task};
use sealane_proto::sidecar::{Channel, Down, EndpointTrouble, Hello, Measured, SOCKET, Up};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::Key;
use super::ledger::Ledger;
use super::supervisor::Command;

/// How long a connection may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// How long a sidecar may take to say its metrics.
const COLLECT: Duration = Duration::from_secs(1);

/// A sidecar that has said hello.
#[derive(Debug)]
pub(crate) struct Connected {
    /// Its first message.
    pub(crate) hello: Hello,
    /// The connection.
    pub(crate) channel: Channel<Down, Up>,
}

#[derive(Debug)]
struct Entry {
    connections: mpsc::Sender<Connected>,
    commands: mpsc::Sender<Command>,
}

/// The supervisors of this host's sidecars.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Mutex<BTreeMap<Key, Entry>>,
    ledger: Mutex<Ledger>,
}

impl Registry {
    /// Listens on the run directory's sidecar socket, which only root may open.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub(crate) fn listen(self: &Arc<Self>, run_dir: &Path) -> io::Result<Task> {
        let listener = socket::listen(&run_dir.join(SOCKET))?;
        let this = self.clone();
        Ok(task::spawn("sidecar-socket", async move { this.accept(listener).await }))
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let this = self.clone();
                    task::spawn("sidecar-hello", async move { this.greet(stream).await }).detach();
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept sidecars");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn greet(&self, stream: UnixStream) {
        let mut channel = Channel::<Down, Up>::from(stream);
        let first = tokio::time::timeout(HELLO, channel.receiver.recv()).await;
        let Ok(Ok(Up::Hello(hello))) = first else {
            tracing::warn!("a connection to the sidecar socket did not say hello");
            return;
        };
        let key = Key { network: hello.network.clone(), workload: hello.workload.clone() };
        let known = self.lock().get(&key).map(|entry| entry.connections.clone());
        match known {
            // A supervisor that is gone closes the connection, and the sidecar tries again.
            Some(connections) => drop(connections.send(Connected { hello, channel }).await),
            None => tracing::debug!(%key, "a sidecar of no workload on this host connected"),
        }
    }

    /// Takes connections and commands for `key` from now on.
    pub(super) fn enter(
        &self,
        key: Key,
        connections: mpsc::Sender<Connected>,
        commands: mpsc::Sender<Command>,
    ) {
        self.lock().insert(key, Entry { connections, commands });
    }

    /// The sidecar of `key` is gone for good, having counted this at last.
    pub(super) fn leave(&self, key: &Key, last: Vec<Family>) {
        self.lock().remove(key);
        self.ledger().retire(key, last, Instant::now());
    }

    /// The series of all sidecars, each with its network and workload, bounded in number; those of sidecars that do
    /// not answer are left out.
    pub(crate) async fn collect(&self) -> Vec<Family> {
        let live = self.ask_all().await.into_iter().map(|(key, measured)| (key, measured.families));
        self.ledger().expose(live.collect(), Instant::now())
    }

    /// The endpoints that the sidecars have trouble with now, by sidecar.
    pub(crate) async fn troubles(&self) -> Vec<(Key, EndpointTrouble)> {
        let all = self.ask_all().await.into_iter();
        all.flat_map(|(key, measured)| {
            measured.troubles.into_iter().map(move |trouble| (key.clone(), trouble))
        })
        .collect()
    }

    /// What each sidecar that answers says.
    async fn ask_all(&self) -> Vec<(Key, Measured)> {
        let all: Vec<_> =
            self.lock().iter().map(|(key, entry)| (key.clone(), entry.commands.clone())).collect();
        let asked = all.into_iter().map(|(key, commands)| async move {
            let (answer, wait) = oneshot::channel();
            commands.try_send(Command::Collect(answer)).ok()?;
            Some((key, tokio::time::timeout(COLLECT, wait).await.ok()?.ok()?))
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
