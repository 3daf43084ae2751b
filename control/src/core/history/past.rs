//! Documents as they were after a revision: those of the present, with what has changed since undone.

use std::collections::BTreeMap;

use sealane_proto::document::{Document, DocumentId, DocumentKind};
use sealane_proto::types::NodeName;
use sealane_proto::wire::v1;

use super::Declared;

/// A document of before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Former {
    /// Known as a whole.
    Known(Declared),
    /// Not known any more, for this reason.
    Lost(String),
}

/// Computes the documents of an earlier revision: `present` are those of a later one, `since` the entries between the two,
/// oldest first. Of an object with several, the first one says what it was.
#[must_use]
pub fn documents_after(
    present: impl IntoIterator<Item = Declared>,
    since: impl IntoIterator<Item = v1::HistoryEntry>,
) -> BTreeMap<DocumentId, Former> {
    let mut documents: BTreeMap<DocumentId, Former> =
        present.into_iter().map(|declared| (declared.document.id(), Former::Known(declared))).collect();
    let mut undone = BTreeMap::new();
    for entry in since {
        if let Some(id) = subject(&entry) {
            undone.entry(id).or_insert(entry.before);
        }
    }
    for (id, before) in undone {
        match before {
            Some(kept) => drop(documents.insert(id, read(kept))),
            None => drop(documents.remove(&id)),
        }
    }
    documents
}

/// The declared object that an entry is about, if it is about one of a kind that is known here.
fn subject(entry: &v1::HistoryEntry) -> Option<DocumentId> {
    let kind: DocumentKind = entry.kind.parse().ok()?;
    DocumentId::parse(kind, &entry.network, &entry.name).ok()
}

fn read(kept: v1::KeptDocument) -> Former {
    let v1::KeptDocument { json, cut, registrar } = kept;
    if cut {
        return Former::Lost(format!(
            "its document was longer than the {} bytes that history keeps",
            super::LONGEST_DOCUMENT
        ));
    }
    let registrar: Option<NodeName> = Some(registrar).and_then(|name| name.parse().ok());
    match Document::from_json(&json) {
        Ok(document) => Former::Known(Declared { document, registrar }),
        Err(error) => Former::Lost(format!("its document of then is none that this version takes: {error}")),
    }
}
