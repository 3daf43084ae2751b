//! History of what people and hosts decide: declared things, members and tokens, as the changes of each command alter them.
//!
//! What follows from running workloads (services without documents, instances, blocks, readiness) is no part of it: it comes
//! and goes thousands of times a second, and nobody decides it. A command that touches nothing else costs a look at its changes.

mod actor;
mod declared;
mod observed;
mod past;

use sealane_proto::document::DocumentId;
use sealane_proto::resource::SubjectKind;
use sealane_proto::types::NodeName;
use sealane_proto::wire::v1;

use super::Timestamp;
pub use actor::{Actor, Operator};
pub use declared::Declared;
pub use observed::entries;
pub use past::{Former, documents_after};

/// Longest text of a document that an entry keeps, in bytes; a longer one is cut off there.
pub const LONGEST_DOCUMENT: usize = 64 << 10;

/// An object that history is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A declared object.
    Document(DocumentId),
    /// A host, as a member of the mesh.
    Host(NodeName),
    /// A join token, by its public name.
    Token(String),
}

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A document or a token is there.
    Created,
    /// A document is another one.
    Changed,
    /// A document is no more.
    Deleted,
    /// A host is a member by a token.
    Joined,
    /// A host is a member again, by its certificate, after a restoration.
    Readmitted,
    /// A host counts as a member because others have told of it after a restoration.
    Recalled,
    /// A host is no member any more.
    Removed,
    /// A host's instances get no new calls.
    Drained,
    /// A host's instances get new calls again.
    Undrained,
    /// A token admits nobody any more.
    Revoked,
}

/// An entry: one object that a command has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Time of the change.
    pub at: Timestamp,
    /// Author of the change.
    pub actor: Actor,
    /// Kind of the change.
    pub deed: Deed,
    /// The object.
    pub subject: Subject,
    /// Document of the object before, if there was one.
    pub before: Option<Declared>,
    /// Document of the object since, if there is one.
    pub after: Option<Declared>,
    /// The token by which a host has joined.
    pub token: Option<String>,
}

impl Subject {
    /// Returns the object's kind.
    #[must_use]
    pub fn kind(&self) -> SubjectKind {
        match self {
            Self::Document(id) => SubjectKind::Document(id.kind()),
            Self::Host(_) => SubjectKind::Host,
            Self::Token(_) => SubjectKind::Token,
        }
    }

    /// Returns the network that it is or belongs to, if there is one.
    #[must_use]
    pub fn network(&self) -> &str {
        match self {
            Self::Document(id) => id.network().as_str(),
            Self::Host(_) | Self::Token(_) => "",
        }
    }

    /// Returns the object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Document(id) => id.name(),
            Self::Host(name) => name.as_str(),
            Self::Token(id) => id,
        }
    }
}

impl Deed {
    /// Returns the word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Joined => "joined",
            Self::Readmitted => "readmitted",
            Self::Recalled => "recalled",
            Self::Removed => "removed",
            Self::Drained => "drained",
            Self::Undrained => "undrained",
            Self::Revoked => "revoked",
        }
    }
}

/// The entry as it is kept and told; its place follows from the commit.
impl From<&Entry> for v1::HistoryEntry {
    fn from(entry: &Entry) -> Self {
        let Entry { at, actor, deed, subject, before, after, token } = entry;
        Self {
            revision: 0,
            place: 0,
            at_unix_seconds: at.unix(),
            actor: Some(actor.into()),
            deed: deed.word().to_owned(),
            kind: subject.kind().to_string(),
            network: subject.network().to_owned(),
            name: subject.name().to_owned(),
            before: before.as_ref().map(Into::into),
            after: after.as_ref().map(Into::into),
            token: token.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
