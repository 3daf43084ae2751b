//! Documents that become what they were: all of them in one command, or none.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::convert::Infallible;

use sealane_proto::document::{Document, DocumentId};

use super::batch::Batch;
use super::declare::{self, DocumentRefusal, Effect, Unsaid};
use super::withdraw::{self, WithdrawRefusal, Withdrawn};
use super::{Command, Decision, Declared, State, Timestamp};

/// Makes the declared things what documents say, and ends those that no document names. Services that hosts have registered are
/// the hosts' own and stay.
///
/// The outcome has an entry per object that is another one. When one is refused, or nothing but an answer is wanted, nothing
/// changes. Safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// Documents of then, without those that hosts had registered.
    pub documents: Vec<Document>,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// Effect of a rollback on one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolledBack {
    /// The object is there again, or is another one.
    Declared(Effect),
    /// The object's document is no more.
    Withdrawn(Withdrawn),
}

/// Reasons for which an object cannot be what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackRefusal {
    /// The object's document of then is refused.
    #[error(transparent)]
    Document(#[from] DocumentRefusal),
    /// The object cannot end.
    #[error(transparent)]
    Withdraw(#[from] WithdrawRefusal),
}

type Outcome = Vec<(DocumentId, Result<RolledBack, RollbackRefusal>)>;

impl Command for Rollback {
    type Outcome = Outcome;
    type Refusal = Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Outcome>, Infallible> {
        let applied = Declared::everywhere(state).filter(|declared| declared.registrar.is_none());
        let present: BTreeMap<DocumentId, Document> =
            applied.map(|declared| (declared.document.id(), declared.document)).collect();
        let wanted: BTreeMap<DocumentId, Document> =
            self.documents.into_iter().map(|document| (document.id(), document)).collect();
        let mut gone: Vec<&DocumentId> = present.keys().filter(|id| !wanted.contains_key(id)).collect();
        gone.sort_by_key(|id| Reverse(id.kind()));
        let other = wanted.iter().filter(|(id, document)| present.get(id) != Some(document));
        let (mut batch, mut order) = (Batch::of(state), vec![]);
        for id in gone {
            let decided = withdraw::decide(id, batch.state(), now);
            batch.take(order.len(), decided.map(withdrawn).map_err(RollbackRefusal::from));
            order.push(id.clone());
        }
        for (id, document) in other {
            let decided = declare::decide(document, batch.state(), now, Unsaid::Undecided);
            batch.take(order.len(), decided.map(declared).map_err(RollbackRefusal::from));
            order.push(id.clone());
        }
        let Decision { changes, outcome } = batch.into_decision(self.dry_run);
        Ok(Decision { changes, outcome: order.into_iter().zip(outcome).collect() })
    }
}

fn withdrawn(Decision { changes, outcome }: Decision<Withdrawn>) -> Decision<RolledBack> {
    Decision { changes, outcome: RolledBack::Withdrawn(outcome) }
}

fn declared(Decision { changes, outcome }: Decision<Effect>) -> Decision<RolledBack> {
    Decision { changes, outcome: RolledBack::Declared(outcome) }
}
