//! The one writer: decides commands one after another, makes what they change durable together, and only then
//! lets anybody see it.
//!
//! A thread of its own, because commits wait for the disk. While one commit is under way the next batch
//! gathers; under load, many commands share one wait.

use std::convert::Infallible;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::engine::{self, Engine, Health, Job, Publish};
use super::open;
use super::{Meta, Rows, Store, WriteError};
use crate::core::{Actor, Command, Outdone, State, Timestamp};
use crate::kv::Failure;
use crate::metrics::CommitMetrics;

/// Number of commands that may wait; further senders wait for a place.
const QUEUE: usize = 1_024;
/// Number of commands that share one commit at most.
const BATCH: usize = 256;
/// Time for which a sender waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Work with the engine that is no command, at a time.
type Turn = Box<dyn FnOnce(&mut Engine, Timestamp) + Send>;

enum Message {
    Job(Box<dyn Job>),
    Read(Box<dyn FnOnce(&mut Store) + Send>),
    /// Does something that is no command.
    Turn(Turn),
    /// Asks whether the store can be written again.
    Probe,
    Stop,
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
        let engine = Engine::new(store, state, meta, publish, metrics);
        let health = engine.health().clone();
        let thread = thread::Builder::new().name("control-store".into());
        let thread = thread.spawn(move || run(engine, clock, jobs))?;
        Ok((Self { queue }, Stopped(thread), health))
    }

    /// Lets somebody's command be decided and waits until what it changes is durable and published.
    ///
    /// # Cancel safety
    /// A cancelled submission may or may not happen.
    pub(crate) async fn submit<C: Command>(
        &self,
        actor: Actor,
        command: C,
    ) -> Result<C::Outcome, SubmitError<C::Refusal>> {
        let (job, answer) = engine::job(actor, command);
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
    pub(crate) async fn rows(&self) -> Result<Rows, SubmitError<Infallible>> {
        self.ask(Store::rows).await
    }

    /// Reads something of the store, after whatever was submitted before.
    ///
    /// # Errors
    /// When it cannot be read, or control ends.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, SubmitError<Infallible>> {
        self.ask(read).await
    }

    async fn ask<T: Send + 'static, E: Into<WriteError> + Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, SubmitError<Infallible>> {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |store: &mut Store| {
            // The reader may have gone.
            let _ = reply.send(read(store));
        });
        self.queue.send(Message::Read(read)).await.map_err(|_| SubmitError::Stopped)?;
        let answer = answer.await.map_err(|_| SubmitError::Stopped)?;
        answer.map_err(|error| SubmitError::Commit(error.into()))
    }

    /// Lets a new lifetime begin in a store that is an earlier copy; false if that has happened already.
    ///
    /// # Errors
    /// When it cannot be written, or control ends.
    pub(crate) async fn begin_lifetime(&self, outdone: Outdone) -> Result<bool, SubmitError<Infallible>> {
        let (reply, answer) = oneshot::channel();
        let turn: Turn = Box::new(move |engine, now| {
            // The sender may have gone.
            let _ = reply.send(engine.begin_lifetime(&outdone, open::new_epoch(), now));
        });
        self.queue.send(Message::Turn(turn)).await.map_err(|_| SubmitError::Stopped)?;
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

/// Takes what waits, batch after batch, until control ends.
fn run(mut engine: Engine, clock: fn() -> Timestamp, mut queue: mpsc::Receiver<Message>) {
    let mut open = true;
    while open {
        let (mut batch, mut reads, mut turns, mut probed) = (vec![], vec![], vec![], false);
        let mut next = queue.blocking_recv();
        open = loop {
            match next {
                Some(Message::Job(job)) => batch.push(job),
                Some(Message::Read(read)) => reads.push(read),
                Some(Message::Turn(turn)) => turns.push(turn),
                Some(Message::Probe) => probed = engine.health().problem().is_some(),
                Some(Message::Stop) | None => break false,
            }
            if batch.len() + reads.len() + turns.len() == BATCH {
                break true;
            }
            match queue.try_recv() {
                Ok(message) => next = Some(message),
                Err(mpsc::error::TryRecvError::Empty) => break true,
                Err(mpsc::error::TryRecvError::Disconnected) => break false,
            }
        };
        engine.handle_batch(batch, clock(), probed);
        turns.into_iter().for_each(|turn| turn(&mut engine, clock()));
        reads.into_iter().for_each(|read| read(engine.store()));
    }
    engine.leave();
}
