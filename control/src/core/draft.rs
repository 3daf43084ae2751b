//! Things that are decided together, each of them against what the earlier ones lead to: all take effect, or none.

use std::collections::BTreeMap;

use super::{Change, Decision, State};

/// What the mesh will be if everything that has been taken so far takes effect.
#[derive(Debug)]
pub(super) struct Draft<T, E> {
    state: State,
    changes: Vec<Change>,
    outcomes: BTreeMap<usize, Result<T, E>>,
}

impl<T, E> Draft<T, E> {
    pub(super) fn of(state: &State) -> Self {
        Self { state: state.clone(), changes: vec![], outcomes: BTreeMap::new() }
    }

    /// What the next decision is made against.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Takes what has been decided of the thing at `place` among those that were asked for.
    pub(super) fn take(&mut self, place: usize, decided: Result<Decision<T>, E>) {
        let outcome = decided.map(|Decision { changes, outcome }| {
            changes.iter().for_each(|change| self.state.apply(change));
            self.changes.extend(changes);
            outcome
        });
        self.outcomes.insert(place, outcome);
    }

    /// All of it, with the outcomes by place. Nothing changes when something was refused, or nothing but an answer
    /// is wanted.
    pub(super) fn into_decision(mut self, dry_run: bool) -> Decision<Vec<Result<T, E>>> {
        if dry_run || self.outcomes.values().any(Result::is_err) {
            self.changes.clear();
        }
        Decision { changes: self.changes, outcome: self.outcomes.into_values().collect() }
    }
}
