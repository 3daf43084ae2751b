//! Documents: from the wire to the commands and back.

use std::collections::BTreeSet;
use std::time::Duration;

use sealane_base::drain::Draining;
use sealane_proto::document::{Document, DocumentId, DocumentKind};
use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;
use tonic::Status;
use v1::document_result::Effect as Said;

use crate::VERSION;
use crate::core::{Actor, Apply, DocumentRefusal, Effect, Register, Withdraw, WithdrawRefusal, Withdrawn};
use crate::registry::Registry;
use crate::status::{invalid, status_of};
use crate::store::Writer;

/// Number of documents that may come at once.
const DOCUMENTS: usize = 10_000;
/// Longest time that a client may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

pub(super) async fn apply(
    writer: &Writer,
    actor: Actor,
    request: v1::ApplyRequest,
) -> Result<v1::ApplyResponse, Status> {
    let v1::ApplyRequest { documents, dry_run } = request;
    limit(documents.len())?;
    let read: Vec<Result<Document, String>> = documents.iter().map(|text| read(text)).collect();
    if read.iter().any(Result::is_err) {
        let results = read.into_iter().map(|document| match document {
            Ok(_) => result(Said::Unspecified, String::new()),
            Err(reason) => result(Said::Refused, reason),
        });
        return Ok(v1::ApplyResponse { results: results.collect() });
    }
    let documents: Vec<Document> = read.into_iter().flatten().collect();
    let ids: Vec<DocumentId> = documents.iter().map(Document::id).collect();
    let outcome = writer.submit(actor, Apply { documents, dry_run }).await.map_err(status_of)?;
    if !dry_run && outcome.iter().all(Result::is_ok) {
        for (id, effect) in ids.iter().zip(&outcome) {
            log(id, effect);
        }
    }
    Ok(v1::ApplyResponse { results: outcome.into_iter().map(applied).collect() })
}

pub(super) async fn delete(
    writer: &Writer,
    actor: Actor,
    request: v1::DeleteRequest,
) -> Result<v1::DeleteResponse, Status> {
    let v1::DeleteRequest { documents, dry_run, ignore_not_found } = request;
    limit(documents.len())?;
    let documents = documents.into_iter().map(id).collect::<Result<Vec<_>, _>>()?;
    let ids = documents.clone();
    let command = Withdraw { documents, dry_run, ignore_not_found };
    let outcome = writer.submit(actor, command).await.map_err(status_of)?;
    if !dry_run && outcome.iter().all(Result::is_ok) {
        ids.iter().for_each(|id| tracing::info!(object = %id, "document withdrawn"));
    }
    Ok(v1::DeleteResponse { results: outcome.into_iter().map(withdrawn).collect() })
}

/// Waits until the connected hosts work by what these networks are now, the deadline has come, or control ends.
pub(super) async fn await_applied(
    registry: &Registry,
    mut draining: Draining,
    request: v1::AwaitAppliedRequest,
) -> Result<v1::AwaitAppliedResponse, Status> {
    let names =
        request.networks.iter().map(|name| name.parse()).collect::<Result<BTreeSet<NetworkName>, _>>();
    let names = names.map_err(invalid)?;
    let patience = Duration::from_millis(request.timeout_milliseconds).min(LONGEST_WAIT);
    let waiting = tokio::time::timeout(patience, registry.applied(&names));
    let in_time = tokio::select! {
        waited = waiting => waited.is_ok(),
        () = draining.begun() => return Err(Status::unavailable("the control plane is shutting down")),
    };
    let (behind, disconnected) = registry.late(&names);
    // What changed meanwhile was not asked for.
    let behind = if in_time { BTreeSet::new() } else { behind };
    let texts = |names: BTreeSet<_>| names.iter().map(ToString::to_string).collect();
    Ok(v1::AwaitAppliedResponse { behind: texts(behind), disconnected: texts(disconnected) })
}

/// Makes what a host registers these services; answers per document why it is refused, or nothing.
pub(super) async fn register(
    writer: &Writer,
    node: NodeName,
    request: v1::RegisterRequest,
) -> Result<Vec<String>, Status> {
    let v1::RegisterRequest { documents, mut partial } = request;
    limit(documents.len())?;
    let mut refused = vec![String::new(); documents.len()];
    let (mut places, mut services) = (vec![], vec![]);
    for (at, text) in documents.iter().enumerate() {
        let document = match read(text) {
            Ok(document) => document,
            // What it is about is not known: nothing may be taken for gone.
            Err(reason) => {
                refused[at] = reason;
                partial = true;
                continue;
            }
        };
        let id = document.id();
        if let Document::Service(service) = document {
            places.push((at, id));
            services.push(service);
        } else {
            let kinds = id.kind().plural();
            refused[at] = format!("a host registers services, not {kinds}; apply it on the control host");
        }
    }
    let command = Register { node: node.clone(), documents: services, partial };
    let outcome = writer.submit(Actor::Host(node.clone()), command).await.map_err(status_of)?;
    for ((at, id), outcome) in places.into_iter().zip(outcome) {
        match outcome {
            Ok(Effect::Unchanged) => {}
            Ok(Effect::Created | Effect::Configured) => {
                tracing::info!(%node, object = %id, "a host has registered a service");
            }
            Err(refusal) => refused[at] = refusal.to_string(),
        }
    }
    Ok(refused)
}

fn limit(documents: usize) -> Result<(), Status> {
    if documents <= DOCUMENTS {
        return Ok(());
    }
    let reason = format!("{documents} documents at once are too many; apply at most {DOCUMENTS}");
    Err(Status::invalid_argument(reason))
}

fn read(text: &str) -> Result<Document, String> {
    Document::from_json(text).map_err(|error| format!("{error} (this control plane is Sealane {VERSION})"))
}

fn id(reference: v1::DocumentRef) -> Result<DocumentId, Status> {
    let v1::DocumentRef { kind, network, name } = reference;
    let kind: DocumentKind = kind.parse().map_err(invalid)?;
    DocumentId::parse(kind, &network, &name).map_err(invalid)
}

fn log(id: &DocumentId, effect: &Result<Effect, DocumentRefusal>) {
    match effect {
        Ok(Effect::Created) => tracing::info!(object = %id, "document created"),
        Ok(Effect::Configured) => tracing::info!(object = %id, "document changed"),
        Ok(Effect::Unchanged) | Err(_) => {}
    }
}

pub(super) fn applied(outcome: Result<Effect, DocumentRefusal>) -> v1::DocumentResult {
    match outcome {
        Ok(Effect::Unchanged) => result(Said::Unchanged, String::new()),
        Ok(Effect::Created) => result(Said::Created, String::new()),
        Ok(Effect::Configured) => result(Said::Configured, String::new()),
        Err(refusal) => result(Said::Refused, refusal.to_string()),
    }
}

pub(super) fn withdrawn(outcome: Result<Withdrawn, WithdrawRefusal>) -> v1::DocumentResult {
    match outcome {
        Ok(Withdrawn::Deleted) => result(Said::Deleted, String::new()),
        Ok(Withdrawn::Kept(instances)) => result(
            Said::Deleted,
            format!("it goes on without a document while its instances run: {instances}"),
        ),
        Ok(Withdrawn::NotFound) => result(Said::NotFound, String::new()),
        Err(refusal) => result(Said::Refused, refusal.to_string()),
    }
}

pub(super) fn result(effect: Said, message: String) -> v1::DocumentResult {
    v1::DocumentResult { effect: effect.into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_is_not_repeated_at_length() {
        let long = "x".repeat(100_000);
        for (kind, name) in [("service", long.as_str()), (long.as_str(), "api")] {
            let (kind, network, name) = (kind.to_owned(), "shop".to_owned(), name.to_owned());
            let status = id(v1::DocumentRef { kind, network, name }).unwrap_err();
            assert!(status.code() == tonic::Code::InvalidArgument && status.message().len() < 4_096);
        }
    }
}
