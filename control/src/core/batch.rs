//! Things that are decided together, each of them against what the earlier ones lead to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Change, Decision, State};

/// The mesh as it will be if everything that has been taken so far takes effect. The state is copied with the first change.
#[derive(Debug)]
pub(super) struct Batch<'a, T, E> {
    state: Cow<'a, State>,
    changes: Vec<Change>,
    outcomes: BTreeMap<usize, Result<T, E>>,
}

impl<'a, T, E> Batch<'a, T, E> {
    pub(super) fn of(state: &'a State) -> Self {
        Self { state: Cow::Borrowed(state), changes: vec![], outcomes: BTreeMap::new() }
    }

    /// Returns the state that the next decision is made against.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Takes what has been decided of the thing at `place` among those that were asked for.
    pub(super) fn take(&mut self, place: usize, decided: Result<Decision<T>, E>) {
        let outcome = decided.map(|Decision { changes, outcome }| {
            self.change(changes);
            outcome
        });
        self.outcomes.insert(place, outcome);
    }

    /// Takes what comes of all of them together.
    pub(super) fn change(&mut self, changes: Vec<Change>) {
        for change in &changes {
            self.state.to_mut().apply(change);
        }
        self.changes.extend(changes);
    }

    /// All of it or nothing, with the outcomes by place. Nothing changes when something was refused, or nothing but an
    /// answer is wanted.
    pub(super) fn into_decision(mut self, dry_run: bool) -> Decision<Vec<Result<T, E>>> {
        if dry_run || self.outcomes.values().any(Result::is_err) {
            self.changes.clear();
        }
        self.into_accepted()
    }

    /// All that was not refused, with the outcomes by place.
    pub(super) fn into_accepted(self) -> Decision<Vec<Result<T, E>>> {
        Decision { changes: self.changes, outcome: self.outcomes.into_values().collect() }
    }
}
