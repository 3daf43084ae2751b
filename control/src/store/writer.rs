//! The one writer: decides commands one after another, makes what they change durable together, and only then
//! lets anybody see it.
//!
//! A thread of its own, because commits wait for the disk. While one commit is under way the next batch
//! gathers; under load, many commands share one wait.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};

use super::{Meta, Rows, Store, WriteError, rows};
use crate::core::{Affected, Change, Command, State, Timestamp};
use crate::metrics::CommitMetrics;

/// Number of commands that may wait; further senders wait for a place.
const QUEUE: usize = 1_024;
/// Number of commands that share one commit at most.
const BATCH: usize = 256;
/// Time for which a sender waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// Called after each commit with the new state, before its senders are answered.
pub(crate) type Publish = Box<dyn FnMut(&State, &Meta, &Affected) + Send>;

/// Present fault of the store, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<ArcSwapOption<WriteError>>);

/// Sends commands to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Message>,
}

/// The writer's thread, to be waited for after [`Writer::stop`].
#[derive(Debug)]
pub(crate) struct Stopped(JoinHandle<()>);

/// Reasons for which a command did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError<R: std::error::Error> {
    /// The state does not allow it.
    #[error(transparent)]
    Refused(R),
    /// The store does not take it.
    #[error(transparent)]
    Commit(WriteError),
    /// Too many commands wait.
    #[error("the control plane has {QUEUE} changes waiting to be written; try again in a moment")]
    Busy,
    /// Control ends.
    #[error("the control plane is shutting down; try again when it is back")]
    Stopped,
}

enum Message {
    Job(Box<dyn Job>),
    Read(oneshot::Sender<Result<Rows, WriteError>>),
    /// Asks whether the store can be written again.
    Probe,
    Stop,
}

impl Health {
    /// The failure since which nothing could be written.
    pub(crate) fn problem(&self) -> Option<Arc<WriteError>> {
        self.0.load_full()
    }
}

impl Stopped {
    /// Waits for the thread's end; its last commit is done then. Blocks.
    pub(crate) fn wait(self) {
        if self.0.join().is_err() {
            tracing::error!("the store's writer panicked");
        }
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(crate) fn start(
        store: Store,
        state: State,
        meta: Meta,
        publish: Publish,
        metrics: CommitMetrics,
        clock: fn() -> Timestamp,
    ) -> std::io::Result<(Self, Stopped, Health)> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let health = Health::default();
        let engine = Engine { store, state, meta, publish, metrics, clock, health: health.clone() };
        let thread = thread::Builder::new().name("control-store".into()).spawn(|| engine.run(jobs))?;
        Ok((Self { queue }, Stopped(thread), health))
    }

    /// Lets a command be decided and waits until what it changes is durable and published.
    ///
    /// # Cancel safety
    /// A cancelled submission may or may not happen.
    pub(crate) async fn submit<C: Command>(&self, command: C) -> Result<C::Outcome, SubmitError<C::Refusal>> {
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Submitted { command: Some(command), decided: None, reply });
        match self.queue.send_timeout(Message::Job(job), PATIENCE).await {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Err(SubmitError::Busy),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return Err(SubmitError::Stopped),
        }
        answer.await.unwrap_or(Err(SubmitError::Stopped))
    }

    /// All rows of one moment, after whatever was submitted before.
    ///
    /// # Errors
    /// When they cannot be read, or control ends.
    pub(crate) async fn rows(&self) -> Result<Rows, SubmitError<std::convert::Infallible>> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Read(reply)).await.map_err(|_| SubmitError::Stopped)?;
        answer.await.map_err(|_| SubmitError::Stopped)?.map_err(SubmitError::Commit)
    }

    /// Lets the writer find out whether the store can be written again, if it could not: [`Health`] tells.
    pub(crate) async fn probe(&self) {
        // An error means that it has ended.
        let _ = self.queue.send(Message::Probe).await;
    }

    /// Lets the writer finish what waits and end.
    pub(crate) async fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.queue.send(Message::Stop).await;
    }
}

/// A command without its type.
trait Job: Send {
    fn decide(&mut self, state: &State, now: Timestamp) -> Vec<Change>;
    fn answer(self: Box<Self>, committed: Result<(), &WriteError>);
}

struct Submitted<C: Command> {
    command: Option<C>,
    decided: Option<Result<C::Outcome, C::Refusal>>,
    reply: oneshot::Sender<Result<C::Outcome, SubmitError<C::Refusal>>>,
}

impl<C: Command> Job for Submitted<C> {
    fn decide(&mut self, state: &State, now: Timestamp) -> Vec<Change> {
        let Some(command) = self.command.take() else { return vec![] };
        match command.decide(state, now) {
            Ok(decision) => {
                self.decided = Some(Ok(decision.outcome));
                decision.changes
            }
            Err(refusal) => {
                self.decided = Some(Err(refusal));
                vec![]
            }
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), &WriteError>) {
        let answer = match (committed, self.decided) {
            // Also for refusals: they may rest on what was not committed.
            (Err(error), _) => Err(SubmitError::Commit(error.clone())),
            (Ok(()), Some(decided)) => decided.map_err(SubmitError::Refused),
            (Ok(()), None) => Err(SubmitError::Stopped),
        };
        // The sender may have gone.
        let _ = self.reply.send(answer);
    }
}

struct Engine {
    store: Store,
    state: State,
    meta: Meta,
    publish: Publish,
    metrics: CommitMetrics,
    clock: fn() -> Timestamp,
    health: Health,
}

impl Engine {
    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut open = true;
        while open {
            let (mut batch, mut reads, mut probed) = (vec![], vec![], false);
            let mut next = queue.blocking_recv();
            open = loop {
                match next {
                    Some(Message::Job(job)) => batch.push(job),
                    Some(Message::Read(reply)) => reads.push(reply),
                    Some(Message::Probe) => probed = self.health.problem().is_some(),
                    Some(Message::Stop) | None => break false,
                }
                if batch.len() + reads.len() == BATCH {
                    break true;
                }
                match queue.try_recv() {
                    Ok(message) => next = Some(message),
                    Err(mpsc::error::TryRecvError::Empty) => break true,
                    Err(mpsc::error::TryRecvError::Disconnected) => break false,
                }
            };
            let committed = self.commit(&mut batch, probed);
            self.note(&committed, batch.len());
            let answer = committed.as_ref().map(|_| ());
            batch.into_iter().for_each(|job| job.answer(answer));
            for reply in reads {
                // The reader may have gone.
                let _ = reply.send(self.store.rows().map_err(WriteError::Failed));
            }
        }
    }

    /// Keeps in mind what has become of a batch. Where nothing was written, nothing is known.
    fn note(&self, committed: &Result<bool, WriteError>, commands: usize) {
        match committed {
            Ok(true) => {
                if self.health.0.swap(None).is_some() {
                    tracing::info!("the store can be written again");
                }
            }
            Ok(false) => {}
            Err(error) => {
                if commands > 0 || self.health.problem().is_none_or(|known| *known != *error) {
                    tracing::warn!(%error, commands, "commit failed");
                }
                self.health.0.store(Some(Arc::new(error.clone())));
            }
        }
    }

    /// Decides a batch and makes what it changes durable; whether anything was written. `probing` writes in any case.
    fn commit(&mut self, batch: &mut [Box<dyn Job>], probing: bool) -> Result<bool, WriteError> {
        if self.store.is_uncertain() {
            self.recover()?;
        }
        let now = (self.clock)();
        let (mut writes, mut undo, mut affected) = (vec![], vec![], Affected::default());
        for change in batch.iter_mut().flat_map(|job| {
            let changes = job.decide(&self.state, now);
            for change in &changes {
                self.state.affects(change, &mut affected);
                undo.push(self.state.inverse(change));
                self.state.apply(change);
            }
            changes
        }) {
            writes.push(rows::change(&change));
        }
        if writes.is_empty() {
            // The same once more.
            return if probing { self.store.commit(&self.meta, vec![]).map(|()| true) } else { Ok(false) };
        }
        let meta = Meta { revision: self.meta.revision + 1, ..self.meta.clone() };
        let stamped = affected.networks.iter().filter_map(|name| self.state.networks.get(name));
        writes.extend(stamped.map(|network| rows::change(&network.stamped(meta.revision))));
        let started = Instant::now();
        if let Err(error) = self.store.commit(&meta, writes) {
            undo.iter().rev().for_each(|change| self.state.apply(change));
            return Err(error);
        }
        self.metrics.committed(started.elapsed(), meta.revision);
        self.meta = meta;
        self.state.stamp(&affected.networks, self.meta.revision);
        (self.publish)(&self.state, &self.meta, &affected);
        Ok(true)
    }

    /// After a failure. A commit whose last step failed may have happened after all: then the store is right.
    fn recover(&mut self) -> Result<(), WriteError> {
        let image = self.store.load()?;
        if image.meta.revision != self.meta.revision {
            let networks = self.state.networks.keys().chain(image.state.networks.keys()).cloned().collect();
            self.state = image.state;
            self.meta = image.meta;
            self.metrics.revision(self.meta.revision);
            let affected = Affected { networks, nodes: true, tokens: true };
            (self.publish)(&self.state, &self.meta, &affected);
        }
        Ok(())
    }
}
