//! Decision of commands, and the commit of what they change, on the thread of whoever calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use sealane_proto::types::NetworkName;
use tokio::sync::oneshot;

use super::{Meta, Rows, Store, SubmitError, WriteError, rows};
use crate::core::{Affected, Change, Command, State, Timestamp};
use crate::kv::Failure;
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
    pub(super) fn handle_batch(&mut self, mut batch: Vec<Box<dyn Job>>, now: Timestamp, probing: bool) {
        let committed = self.commit(&mut batch, now, probing);
        self.note(&committed, batch.len());
        let answer = committed.as_ref().map(|_| ());
        batch.into_iter().for_each(|job| job.answer(answer));
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
    fn commit(
        &mut self,
        batch: &mut [Box<dyn Job>],
        now: Timestamp,
        probing: bool,
    ) -> Result<bool, WriteError> {
        if self.store.is_uncertain() {
            self.recover()?;
        }
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
