//! A command's changes, seen from before and after.

use std::collections::BTreeMap;

use sealane_proto::document::DocumentId;
use sealane_proto::resource::{RouteId, RouteKind};
use sealane_proto::types::NodeName;

use super::{Actor, Declared, Deed, Entry, Subject};
use crate::core::{Change, NodeRecord, State, Timestamp, TokenRecord};

/// Derives an entry per object that a command's changes, which have not been made yet, make another one. The state is left as it
/// was; it is touched only where there is something to tell.
#[must_use]
pub fn entries(state: &mut State, changes: &[Change], actor: &Actor, at: Timestamp) -> Vec<Entry> {
    let observed = Observed::before(state, changes);
    if observed.is_empty() {
        return vec![];
    }
    let mut undo = vec![];
    for change in changes {
        undo.push(state.inverse(change));
        state.apply(change);
    }
    let entries = observed.entries(state, actor, at);
    undo.iter().rev().for_each(|change| state.apply(change));
    entries
}

/// The objects that a command's changes touch, as they were before.
#[derive(Debug, Default)]
struct Observed {
    documents: BTreeMap<DocumentId, Option<Declared>>,
    hosts: BTreeMap<NodeName, Option<Member>>,
    tokens: BTreeMap<String, Option<Validity>>,
}

/// Part of a host's record that people decide.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    key: [u8; 32],
    drained: bool,
    token: Option<String>,
}

/// Part of a token's record that people decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Validity {
    revoked: bool,
}

impl Observed {
    /// Notes what the changes, which have not been made yet, touch.
    fn before(state: &State, changes: &[Change]) -> Self {
        let mut observed = Self::default();
        for change in changes {
            observed.note(state, change);
        }
        observed
    }

    fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.hosts.is_empty() && self.tokens.is_empty()
    }

    fn note(&mut self, state: &State, change: &Change) {
        match change {
            Change::Network(edit) => {
                let (_, name) = edit.place();
                self.note_document(state, DocumentId::Network(name));
            }
            Change::Service(edit) => {
                let (network, name) = edit.place();
                let known = state.networks.get(network).and_then(|known| known.services.get(&name));
                if edit.record().into_iter().chain(known).any(|service| service.declared) {
                    self.note_document(state, DocumentId::Service(network.clone(), name));
                }
            }
            Change::Route(edit) => {
                let (network, RouteId { kind, name }) = edit.place();
                let network = network.clone();
                let id = match kind {
                    RouteKind::Http => DocumentId::HttpRoute(network, name),
                    RouteKind::Grpc => DocumentId::GrpcRoute(network, name),
                };
                self.note_document(state, id);
            }
            Change::Node(edit) => {
                let (_, name) = edit.place();
                self.hosts.entry(name).or_insert_with_key(|name| Member::find(state, name));
            }
            Change::Token(edit) => {
                let (_, id) = edit.place();
                self.tokens.entry(id).or_insert_with_key(|id| Validity::find(state, id));
            }
            Change::Recovery(_)
            | Change::Removed(_)
            | Change::Idle(_)
            | Change::Workload(_)
            | Change::Block(_)
            | Change::Rest(_)
            | Change::Told(_) => {}
        }
    }

    fn note_document(&mut self, state: &State, id: DocumentId) {
        self.documents.entry(id).or_insert_with_key(|id| Declared::find(state, id));
    }

    /// Returns an entry per object that is another one now, after the changes.
    fn entries(self, state: &State, actor: &Actor, at: Timestamp) -> Vec<Entry> {
        let entry = |subject, deed| {
            let (actor, before, after, token) = (actor.clone(), None, None, None);
            Entry { at, actor, deed, subject, before, after, token }
        };
        let documents = self.documents.into_iter().filter_map(|(id, before)| {
            let after = Declared::find(state, &id);
            let deed = match (&before, &after) {
                (None, None) => return None,
                (None, Some(_)) => Deed::Created,
                (Some(_), None) => Deed::Deleted,
                (Some(before), Some(after)) if before == after => return None,
                (Some(_), Some(_)) => Deed::Changed,
            };
            Some(Entry { before, after, ..entry(Subject::Document(id), deed) })
        });
        let hosts = self.hosts.into_iter().filter_map(|(name, before)| {
            let after = Member::find(state, &name);
            let deed = Member::deed(before.as_ref(), after.as_ref())?;
            let token = after.and_then(|member| member.token).filter(|_| deed == Deed::Joined);
            Some(Entry { token, ..entry(Subject::Host(name), deed) })
        });
        let tokens = self.tokens.into_iter().filter_map(|(id, before)| {
            let deed = Validity::deed(before, Validity::find(state, &id))?;
            Some(entry(Subject::Token(id), deed))
        });
        documents.chain(hosts).chain(tokens).collect()
    }
}

impl Member {
    fn find(state: &State, name: &NodeName) -> Option<Self> {
        let NodeRecord { key, drained, token, .. } = state.nodes.get(name)?;
        Some(Self { key: *key, drained: *drained, token: token.clone() })
    }

    fn is_admitted(&self) -> bool {
        self.key != NodeRecord::HEARSAY
    }

    fn deed(before: Option<&Self>, after: Option<&Self>) -> Option<Deed> {
        match (before, after) {
            (None, None) => None,
            (Some(_), None) => Some(Deed::Removed),
            (None, Some(after)) => Some(match (after.is_admitted(), &after.token) {
                (false, _) => Deed::Recalled,
                (true, Some(_)) => Deed::Joined,
                (true, None) => Deed::Readmitted,
            }),
            (Some(before), Some(after)) if before.key != after.key || before.token != after.token => {
                let by_token = after.token.is_some() && (before.is_admitted() || before.token != after.token);
                Some(if by_token { Deed::Joined } else { Deed::Readmitted })
            }
            (Some(before), Some(after)) => match (before.drained, after.drained) {
                (false, true) => Some(Deed::Drained),
                (true, false) => Some(Deed::Undrained),
                (false, false) | (true, true) => None,
            },
        }
    }
}

impl Validity {
    fn find(state: &State, id: &str) -> Option<Self> {
        let TokenRecord { revoked, .. } = state.tokens.get(id)?;
        Some(Self { revoked: revoked.is_some() })
    }

    /// A token that is forgotten has admitted nobody for a while: that is nobody's deed.
    fn deed(before: Option<Self>, after: Option<Self>) -> Option<Deed> {
        let revoked = |validity: Option<Self>| validity.is_some_and(|validity| validity.revoked);
        match (before, after) {
            (None, Some(_)) => Some(Deed::Created),
            (Some(_), Some(_)) if !revoked(before) && revoked(after) => Some(Deed::Revoked),
            (_, None) | (Some(_), Some(_)) => None,
        }
    }
}
