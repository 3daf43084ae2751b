//! Decision of commands, and the commit of what they change, on the thread of whoever calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use tokio::sync::oneshot;

use super::{Meta, Store, SubmitError, WriteError, history, rows};
use crate::core::{Actor, Affected, Change, Command, Outdone, Recovery, State, Timestamp, entries};
use crate::kv::{Limits, Write};
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
    fn actor(&self) -> &Actor;
    fn answer(self: Box<Self>, committed: Result<(), &WriteError>);
}

/// Answer to a command, once it is durable.
pub(super) type Answer<C> =
    oneshot::Receiver<Result<<C as Command>::Outcome, SubmitError<<C as Command>::Refusal>>>;

/// Makes a job of somebody's command; the other end hears its outcome.
pub(super) fn job<C: Command>(actor: Actor, command: C) -> (Box<dyn Job>, Answer<C>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Submitted { actor, command: Some(command), decided: None, reply }), answer)
}

struct Submitted<C: Command> {
    actor: Actor,
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

    fn actor(&self) -> &Actor {
        &self.actor
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
    size: Size,
    undo: Vec<Change>,
    affected: Affected,
    entries: Vec<v1::HistoryEntry>,
}

/// Size of what is written.
#[derive(Clone, Copy, Default)]
struct Size {
    /// Number of writes without those of the history.
    writes: usize,
    /// Number of bytes in these.
    bytes: usize,
    /// Number of bytes in entries of the history.
    told: usize,
}

impl Size {
    fn and(self, Self { writes, bytes, told }: Self) -> Self {
        Self { writes: self.writes + writes, bytes: self.bytes + bytes, told: self.told + told }
    }
}

/// A command with what it changes.
struct Step {
    job: Box<dyn Job>,
    changes: Vec<Change>,
    writes: Vec<Write>,
    entries: Vec<v1::HistoryEntry>,
}

impl Step {
    /// Decides a command, whose changes are not made yet.
    fn decide(mut job: Box<dyn Job>, state: &mut State, now: Timestamp) -> Self {
        let changes = job.decide(state, now);
        let entries = entries(state, &changes, job.actor(), now);
        let writes = changes.iter().map(rows::change).collect();
        Self { job, changes, writes, entries: entries.iter().map(Into::into).collect() }
    }

    fn size(&self) -> Size {
        let bytes = self.writes.iter().map(Write::size).sum();
        Size { writes: self.writes.len(), bytes, told: history::size(&self.entries) }
    }
}

impl Draft {
    /// Returns true if it is too large for one commit with so much more, and not without anything.
    fn is_beyond(&self, more: Size, limits: Limits) -> bool {
        let Size { writes, bytes, told } = self.size.and(more);
        // A network that is touched is stamped.
        let writes = writes + self.affected.networks.len() + history::rows(told);
        !self.writes.is_empty() && (writes > limits.writes || bytes + told > limits.bytes)
    }

    /// Takes in a command and lets the state be what it changes.
    fn take(&mut self, step: Step, state: &mut State) {
        for change in &step.changes {
            state.affects(change, &mut self.affected);
            self.undo.push(state.inverse(change));
            state.apply(change);
        }
        self.size = self.size.and(step.size());
        self.writes.extend(step.writes);
        self.entries.extend(step.entries);
        self.jobs.push(step.job);
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

    /// Leaves the state to whoever needs it after this.
    pub(super) fn leave(self) {
        if let Some((last, authority)) = self.store.last {
            last.keep(authority, self.state, self.meta);
        }
    }

    /// The store, for whoever reads it.
    pub(crate) fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Decides these commands one after another, makes durable what they change, and answers. `probing` writes in any case.
    ///
    /// All of them share a commit, or as many as the store takes at once: what one command changes is never parted.
    pub(super) fn handle_batch(&mut self, batch: Vec<Box<dyn Job>>, now: Timestamp, probing: bool) {
        let (mut draft, limits) = (Draft::default(), self.store.limits());
        let mut failed = self.ensure_certain().err();
        for job in batch {
            if let Some(error) = &failed {
                job.answer(Err(error));
                continue;
            }
            let step = Step::decide(job, &mut self.state, now);
            if draft.is_beyond(step.size(), limits)
                && let Err(error) = self.finish(std::mem::take(&mut draft), now, false)
            {
                // It rests on what was not committed.
                step.job.answer(Err(&error));
                failed = Some(error);
                continue;
            }
            draft.take(step, &mut self.state);
            if draft.is_beyond(Size::default(), limits) {
                let done = self.finish(std::mem::take(&mut draft), now, false).err();
                failed = done.filter(|error| !matches!(error, WriteError::TooLarge(_)));
            }
        }
        match failed {
            None => drop(self.finish(draft, now, probing)),
            Some(error) => self.note(&Err(error), 0),
        }
    }

    /// Makes a draft durable and answers its senders. `probing` writes in any case.
    fn finish(&mut self, mut draft: Draft, now: Timestamp, probing: bool) -> Result<(), WriteError> {
        let jobs = std::mem::take(&mut draft.jobs);
        let committed = self.commit(draft, now, probing);
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
    fn commit(&mut self, draft: Draft, now: Timestamp, probing: bool) -> Result<bool, WriteError> {
        let Draft { mut writes, undo, affected, entries, .. } = draft;
        if writes.is_empty() {
            // The same once more.
            let again = |store: &mut Store| store.commit(&self.meta, vec![], (now, vec![])).map(|()| true);
            return if probing { again(&mut self.store) } else { Ok(false) };
        }
        let meta = Meta { revision: self.meta.revision + 1, ..self.meta.clone() };
        let stamped = affected.networks.keys().filter_map(|name| self.state.networks.get(name));
        writes.extend(stamped.map(|network| rows::change(&network.stamped(meta.revision))));
        let started = Instant::now();
        if let Err(error) = self.store.commit(&meta, writes, (now, entries)) {
            undo.iter().rev().for_each(|change| self.state.apply(change));
            return Err(error);
        }
        self.metrics.committed(started.elapsed(), meta.revision);
        self.meta = meta;
        self.state.stamp(affected.networks.keys(), self.meta.revision);
        (self.publish)(&self.state, &self.meta, &affected);
        Ok(true)
    }

    /// Lets a new lifetime begin in a store that is an earlier copy: hosts drop what they were told, and tell what the store does not
    /// know. False if that has happened already.
    pub(crate) fn begin_lifetime(
        &mut self,
        outdone: &Outdone,
        epoch: u64,
        now: Timestamp,
    ) -> Result<bool, WriteError> {
        self.ensure_certain()?;
        let follows = |recovery: &Recovery| recovery.follows(outdone.heard.epoch);
        if outdone.from.epoch != self.meta.epoch || self.state.recovery.as_ref().is_some_and(follows) {
            return Ok(false);
        }
        let change = Change::put(Recovery::of_copy(outdone, now, &self.state));
        let meta = Meta { epoch, revision: self.meta.revision + 1, ..self.meta.clone() };
        let started = Instant::now();
        self.store.commit(&meta, vec![rows::change(&change)], (now, vec![]))?;
        self.metrics.committed(started.elapsed(), meta.revision);
        self.state.apply(&change);
        self.meta = meta;
        let networks = self.state.networks.keys().cloned();
        (self.publish)(&self.state, &self.meta, &Affected::all(networks.collect::<BTreeSet<_>>()));
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

#[cfg(test)]
impl Engine {
    /// Makes changes durable that somebody has decided.
    pub(super) fn write(&mut self, changes: Vec<Change>, now: Timestamp) {
        let mut draft = Draft::default();
        for change in &changes {
            self.state.affects(change, &mut draft.affected);
            draft.undo.push(self.state.inverse(change));
            self.state.apply(change);
        }
        draft.writes = changes.iter().map(rows::change).collect();
        self.commit(draft, now, false).unwrap();
    }
}

#[cfg(any(test, feature = "simulation"))]
impl Engine {
    /// The state that commands are decided against.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Facts about the store as it is.
    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
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
        let (job, mut answer) = job(Actor::Control, command);
        self.handle_batch(vec![job], now, false);
        answer.try_recv().unwrap_or(Err(SubmitError::Stopped))
    }
}
