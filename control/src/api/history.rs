//! History: who has changed what, documents as they were, and the way back to them.

use std::collections::BTreeMap;

use sealane_proto::document::{Document, DocumentId};
use sealane_proto::wire::v1;
use tonic::Status;
use v1::document_result::Effect as Said;

use super::documents::{applied, result, withdrawn};
use crate::core::{
    Actor, Declared, Former, Rollback, RollbackRefusal, RolledBack, Timestamp, documents_after,
};
use crate::registry::{Directory, Registry};
use crate::status::{invalid, status_of};
use crate::store::{Filter, Place, Since, Writer};

/// Number of entries in one answer.
const PAGE: usize = 256;
/// Size of one answer's entries, in bytes; a single larger entry fits all the same.
const PAGE_BYTES: usize = 1 << 20;

/// Reads a page of the history.
pub(super) async fn page(
    writer: &Writer,
    request: v1::HistoryRequest,
) -> Result<v1::HistoryResponse, Status> {
    let v1::HistoryRequest { kind, network, name, since_unix_seconds, limit, before } = request;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let filter = Filter {
        kind: some(kind).map(|kind| kind.parse()).transpose().map_err(invalid)?,
        network: some(network).map(|network| network.parse()).transpose().map_err(invalid)?,
        name: some(name),
        since: Timestamp::from_unix(since_unix_seconds),
    };
    let before = before.map(|place| Place { revision: place.revision, number: place.place });
    let wanted =
        usize::try_from(limit).ok().filter(|&limit| limit != 0).map_or(PAGE, |limit| limit.min(PAGE));
    let read = writer.read(move |store| store.history(&filter, before, (wanted, PAGE_BYTES)));
    let (entries, next) = read.await.map_err(status_of)?;
    let next = next.map(|place| v1::HistoryPlace { revision: place.revision, place: place.number });
    Ok(v1::HistoryResponse { entries, next })
}

/// Tells the documents of a revision.
pub(super) async fn documents_at(
    (writer, registry): (&Writer, &Registry),
    request: v1::DocumentsAtRequest,
) -> Result<v1::DocumentsAtResponse, Status> {
    let (mut documents, mut lost) = (vec![], vec![]);
    for (id, former) in former(writer, registry, request.revision).await? {
        match former {
            Former::Known(Declared { document, registrar: None }) => {
                documents.push(document.to_json().map_err(|error| Status::internal(error.to_string()))?);
            }
            Former::Known(Declared { registrar: Some(_), .. }) => {}
            Former::Lost(reason) => lost.push(v1::LostDocument { object: Some(reference(&id)), reason }),
        }
    }
    Ok(v1::DocumentsAtResponse { documents, lost })
}

/// Makes the documents what they were after a revision.
pub(super) async fn roll_back(
    (writer, registry): (&Writer, &Registry),
    actor: Actor,
    request: v1::RollbackRequest,
) -> Result<v1::RollbackResponse, Status> {
    let v1::RollbackRequest { revision, dry_run } = request;
    let (mut documents, mut lost): (Vec<Document>, _) = (vec![], vec![]);
    for (id, former) in former(writer, registry, revision).await? {
        match former {
            Former::Known(Declared { document, registrar: None }) => documents.push(document),
            Former::Known(Declared { registrar: Some(_), .. }) => {}
            Former::Lost(reason) => lost.push(rolled_back(&id, result(Said::Refused, reason))),
        }
    }
    if !lost.is_empty() {
        return Ok(v1::RollbackResponse { results: lost });
    }
    let outcome = writer.submit(actor, Rollback { documents, dry_run }).await.map_err(status_of)?;
    if !dry_run && outcome.iter().all(|(_, outcome)| outcome.is_ok()) {
        tracing::info!(revision, documents = outcome.len(), "documents are what they were");
    }
    let results = outcome.into_iter().map(|(id, outcome)| rolled_back(&id, said(outcome)));
    Ok(v1::RollbackResponse { results: results.collect() })
}

/// The documents of a revision, of hosts' services as well.
async fn former(
    writer: &Writer,
    registry: &Registry,
    revision: u64,
) -> Result<BTreeMap<DocumentId, Former>, Status> {
    // Of one moment, and no newer than what has been written: entries up to then lead from it to the revision.
    let directory = registry.directory();
    let newest = directory.generation.revision;
    let since = writer.read(move |store| store.first_after(revision, newest)).await.map_err(status_of)?;
    match since {
        Since::Known(entries) => Ok(documents_after(present(&directory), entries)),
        Since::Unknown { known_from } if revision < known_from => Err(Status::out_of_range(format!(
            "revision {revision} is older than what the history can tell; take one from {known_from} to {newest}"
        ))),
        Since::Unknown { known_from } => Err(Status::out_of_range(format!(
            "there is no revision {revision} yet; take one from {known_from} to {newest}"
        ))),
    }
}

fn present(directory: &Directory) -> Vec<Declared> {
    let snapshots = directory.networks.values().map(|network| network.snapshot());
    snapshots
        .flat_map(|known| {
            let routes = directory.routes_of(&known.network.name);
            Declared::all(&known.network, known.services.iter(), routes).collect::<Vec<_>>()
        })
        .collect()
}

fn said(outcome: Result<RolledBack, RollbackRefusal>) -> v1::DocumentResult {
    match outcome {
        Ok(RolledBack::Declared(effect)) => applied(Ok(effect)),
        Ok(RolledBack::Withdrawn(effect)) => withdrawn(Ok(effect)),
        Err(refusal) => result(Said::Refused, refusal.to_string()),
    }
}

fn rolled_back(id: &DocumentId, result: v1::DocumentResult) -> v1::RolledBack {
    v1::RolledBack { object: Some(reference(id)), result: Some(result) }
}

fn reference(id: &DocumentId) -> v1::DocumentRef {
    let (kind, network, name) = (id.kind().to_string(), id.network().to_string(), id.name().to_owned());
    v1::DocumentRef { kind, network, name }
}
