//! Decision of commands, and the commit of what they change, on the thread of whoever calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use sealane_proto::types::NetworkName;
use tokio::sync::oneshot;

use super::{Meta, Rows, Store, SubmitError, WriteError, rows};
use crate::core::{Affected, Change, Command, State, Timestamp};
use crate::kv::{Failure, Limits, Write};
use crate::metrics::CommitMetrics;

/// Called after each commit with the new state, before its senders are answered.
pub(crate) type Publish = Box<dyn FnMut(&State, &Meta, &Affected) + Send>;

/// Present fault of the store, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<ArcSwapOption<WriteError>>);

impl Health {
    /// The failure since which nothing could be written.
    pub(crate) fn problem(&self) -> Option<Arc<WriteError>> {
        self.0.load_full()
    }
}

/// A command without its type.
pub(super) trait Job: Send {
    fn decide(&mut self, state: &State, now: Timestamp) -> Vec<Change>;
    fn answer(self: Box<Self>, committed: Result<(), &WriteError>);
}

/// Answer to a command, once it is durable.
pub(super) type Answer<C> =
    oneshot::Receiver<Result<<C as Command>::Outcome, SubmitError<<C as Command>::Refusal>>>;

/// Makes a job of a command; the other end hears its outcome.
pub(super) fn job<C: Command>(command: C) -> (Box<dyn Job>, Answer<C>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Submitted { command: Some(command), decided: None, reply }), answer)
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

/// Commands that are decided and not committed yet, and what they change.
#[derive(Default)]
struct Draft {
    jobs: Vec<Box<dyn Job>>,
    writes: Vec<Write>,
    bytes: usize,
    undo: Vec<Change>,
    affected: Affected,
}

impl Draft {
    /// Returns true if it is too large for one commit with these writes, and not without anything.
    fn is_beyond(&self, more: &[Write], limits: Limits) -> bool {
        let bytes = self.bytes + more.iter().map(Write::size).sum::<usize>();
        // A network that is touched is stamped.
        let writes = self.writes.len() + self.affected.networks.len() + more.len();
        !self.writes.is_empty() && (writes > limits.writes || bytes > limits.bytes)
    }

    /// Takes in a command and lets the state be what it changes.
    fn take(&mut self, job: Box<dyn Job>, changes: Vec<Change>, writes: Vec<Write>, state: &mut State) {
        for change in &changes {
            state.affects(change, &mut self.affected);
            self.undo.push(state.inverse(change));
            state.apply(change);
        }
        self.bytes += writes.iter().map(Write::size).sum::<usize>();
        self.writes.extend(writes);
        self.jobs.push(job);
    }
}

/// A store, and the state in memory that is what it holds.
pub(crate) struct Engine {
    store: Store,
    state: State,
    meta: Meta,
    publish: Publish,
    metrics: CommitMetrics,
    health: Health,
}

impl Engine {
    /// The engine of a store that holds this.
    pub(crate) fn new(
        store: Store,
        state: State,
        meta: Meta,
        publish: Publish,
        metrics: CommitMetrics,
    ) -> Self {
        Self { store, state, meta, publish, metrics, health: Health::default() }
    }

    /// Present fault of the store, for whoever watches it.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// All rows of one moment.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn rows(&mut self) -> Result<Rows, Failure> {
        self.store.rows()
    }

    /// Decides these commands one after another, makes durable what they change, and answers. `probing` writes in any case.
    ///
    /// All of them share a commit, or as many as the store takes at once: what one command changes is never parted.
    pub(super) fn handle_batch(&mut self, batch: Vec<Box<dyn Job>>, now: Timestamp, probing: bool) {
        let (mut draft, limits) = (Draft::default(), self.store.limits());
        let mut failed = self.ensure_certain().err();
        for mut job in batch {
            if let Some(error) = &failed {
                job.answer(Err(error));
                continue;
            }
            let changes = job.decide(&self.state, now);
            let writes: Vec<Write> = changes.iter().map(rows::change).collect();
            if draft.is_beyond(&writes, limits)
                && let Err(error) = self.finish(std::mem::take(&mut draft), false)
            {
                // It rests on what was not committed.
                job.answer(Err(&error));
                failed = Some(error);
                continue;
            }
            draft.take(job, changes, writes, &mut self.state);
            if draft.is_beyond(&[], limits) {
                let done = self.finish(std::mem::take(&mut draft), false).err();
                failed = done.filter(|error| !matches!(error, WriteError::TooLarge(_)));
            }
        }
        match failed {
            None => drop(self.finish(draft, probing)),
            Some(error) => self.note(&Err(error), 0),
        }
    }

    /// Makes a draft durable and answers its senders. `probing` writes in any case.
    fn finish(&mut self, mut draft: Draft, probing: bool) -> Result<(), WriteError> {
        let jobs = std::mem::take(&mut draft.jobs);
        let committed = self.commit(draft, probing);
        self.note(&committed, jobs.len());
        let answer = committed.as_ref().map(|_| ());
        jobs.into_iter().for_each(|job| job.answer(answer));
        committed.map(|_| ())
    }

    /// Keeps in mind what has become of a commit. Where nothing was written, nothing is known.
    fn note(&self, committed: &Result<bool, WriteError>, commands: usize) {
        match committed {
            Ok(true) => {
                if self.health.0.swap(None).is_some() {
                    tracing::info!("the store can be written again");
                }
            }
            Ok(false) => {}
            // No fault of the store.
            Err(error @ WriteError::TooLarge(_)) => tracing::warn!(%error, "commit refused"),
            Err(error) => {
                if commands > 0 || self.health.problem().is_none_or(|known| *known != *error) {
                    tracing::warn!(%error, commands, "commit failed");
                }
                self.health.0.store(Some(Arc::new(error.clone())));
            }
        }
    }

    /// Makes what a draft changes durable; whether anything was written. `probing` writes in any case.
    fn commit(&mut self, draft: Draft, probing: bool) -> Result<bool, WriteError> {
        let Draft { mut writes, undo, affected, .. } = draft;
        if writes.is_empty() {
            // The same once more.
            return if probing { self.store.commit(&self.meta, vec![]).map(|()| true) } else { Ok(false) };
        }
        let meta = Meta { revision: self.meta.revision + 1, ..self.meta.clone() };
        let stamped = affected.networks.keys().filter_map(|name| self.state.networks.get(name));
        writes.extend(stamped.map(|network| rows::change(&network.stamped(meta.revision))));
        let started = Instant::now();
        if let Err(error) = self.store.commit(&meta, writes) {
            undo.iter().rev().for_each(|change| self.state.apply(change));
            return Err(error);
        }
        self.metrics.committed(started.elapsed(), meta.revision);
        self.meta = meta;
        self.state.stamp(affected.networks.keys(), self.meta.revision);
        (self.publish)(&self.state, &self.meta, &affected);
        Ok(true)
    }

    /// Finds out what the store holds if that is not known.
    fn ensure_certain(&mut self) -> Result<(), WriteError> {
        if self.store.is_uncertain() { self.recover() } else { Ok(()) }
    }

    /// After a failure. A commit whose last step failed may have happened after all: then the store is right.
    fn recover(&mut self) -> Result<(), WriteError> {
        let image = self.store.load()?;
        if image.meta.revision != self.meta.revision {
            let networks: BTreeSet<NetworkName> =
                self.state.networks.keys().chain(image.state.networks.keys()).cloned().collect();
            self.state = image.state;
            self.meta = image.meta;
            self.metrics.revision(self.meta.revision);
            (self.publish)(&self.state, &self.meta, &Affected::all(networks));
        }
        Ok(())
    }
}

#[cfg(feature = "simulation")]
impl Engine {
    /// Decides a command alone.
    ///
    /// # Errors
    /// When the state does not allow it, or the store does not take it.
    pub(crate) fn submit<C: Command>(
        &mut self,
        command: C,
        now: Timestamp,
    ) -> Result<C::Outcome, SubmitError<C::Refusal>> {
        let (job, mut answer) = job(command);
        self.handle_batch(vec![job], now, false);
        answer.try_recv().unwrap_or(Err(SubmitError::Stopped))
    }

    /// The state that commands are decided against.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Facts about the store as it is.
    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }
}
