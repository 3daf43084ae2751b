//! `sealane apply` and `sealane delete`.

use std::collections::BTreeSet;
use std::time::Duration;

use sealane_proto::document::{DocumentId, DocumentKind};
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use serde::Serialize;
use tonic::transport::Channel;
use v1::admin_client::AdminClient;
use v1::document_result::Effect;

use super::get::{Named, named};
use super::hosts;
use crate::args::{Apply, Common, Delete};
use crate::client::{admin, answer, answer_within, control, converse};
use crate::document::{self, Written};
use crate::failure::Failure;
use crate::printer::Printer;

/// Outcome of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Outcome {
    kind: &'static str,
    network: String,
    name: String,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// `sealane apply`.
pub(crate) fn apply(apply: &Apply, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let written = document::read(&apply.files.files)?;
    converse(async {
        let channel = control(common).await?;
        let mut control = AdminClient::new(channel.clone());
        let results = submit(&mut control, &written, apply.effort.dry_run).await?;
        let ids = written.iter().map(|written| written.document.id());
        show(ids.zip(results), apply.effort.dry_run, printer)?;
        let named: Vec<_> = written.iter().filter_map(|written| hosts::of(&written.document)).collect();
        hosts::warn(channel, &named, printer).await;
        if apply.effort.wait {
            let networks = written.iter().map(|written| written.document.id().network().to_string());
            wait(&mut control, networks.collect(), apply.effort.timeout, printer).await?;
        }
        Ok(())
    })
}

/// Lets control decide about documents; a refusal of one is a failure of all.
pub(super) async fn submit(
    control: &mut AdminClient<Channel>,
    written: &[Written],
    dry_run: bool,
) -> Result<Vec<v1::DocumentResult>, Failure> {
    let documents = written.iter().map(|written| written.document.to_json()).collect::<Result<Vec<_>, _>>();
    let documents = documents.map_err(Failure::of("cannot write JSON"))?;
    let results = answer(control.apply(v1::ApplyRequest { documents, dry_run })).await?.results;
    let places = written.iter().map(|written| format!("{}: {}", written.place, written.document.id()));
    refused(places, &results)?;
    Ok(results)
}

fn refused(places: impl Iterator<Item = String>, results: &[v1::DocumentResult]) -> Result<(), Failure> {
    let flaws = places.zip(results).filter(|(_, result)| result.effect() == Effect::Refused);
    let flaws: Vec<String> = flaws.map(|(place, result)| format!("{place}: {}", result.message)).collect();
    all_or_none(flaws, results.len())
}

/// Fails with these flaws of so many documents; the others take no effect either, which is said.
pub(super) fn all_or_none(flaws: Vec<String>, documents: usize) -> Result<(), Failure> {
    let others = documents.saturating_sub(flaws.len());
    document::refuse(flaws).map_err(|failure| {
        let rest = match others {
            0 => return failure,
            1 => "the other document is fine, but nothing was changed".to_owned(),
            others => format!("the other {others} documents are fine, but nothing was changed"),
        };
        Failure { message: format!("{}\n{rest}", failure.message), ..failure }
    })
}

/// Waits until every host that carries these networks works by what was applied, for so long at most; tells who does not.
pub(super) async fn taken_in(
    control: &mut AdminClient<Channel>,
    networks: impl IntoIterator<Item = String>,
    timeout: Duration,
) -> Result<v1::AwaitAppliedResponse, Failure> {
    let request = v1::AwaitAppliedRequest {
        networks: networks.into_iter().collect(),
        timeout_milliseconds: timeout.as_millis().try_into().unwrap_or(u64::MAX),
    };
    let patience = timeout.saturating_add(Duration::from_secs(10));
    answer_within(patience, control.await_applied(request)).await.map_err(|failure| {
        let message =
            format!("applied, but it is not known whether the hosts work by it: {}", failure.message);
        Failure { message, ..failure }
    })
}

pub(super) async fn wait(
    control: &mut AdminClient<Channel>,
    networks: BTreeSet<String>,
    timeout: Duration,
    printer: &Printer,
) -> Result<(), Failure> {
    let said = taken_in(control, networks, timeout).await?;
    for host in &said.disconnected {
        printer.talk(&format!("{host} is not connected: it gets the new state when it comes back"));
    }
    if said.behind.is_empty() {
        return Ok(());
    }
    let timeout = humantime::format_duration(timeout);
    Err(Failure::new(format!(
        "applied, but after {timeout} not every host works by it: {}",
        said.behind.join(", ")
    ))
    .hint("`sealane node ls` shows which hosts are behind; their agents' logs say why"))
}

/// `sealane delete`.
pub(crate) fn delete(delete: &Delete, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let named: Vec<(String, DocumentId)> = match &delete.kind {
        Some(kind) => {
            let id = id(*kind, delete.name.as_deref().unwrap_or_default(), delete.network.as_ref())?;
            vec![(String::new(), id)]
        }
        None => {
            let written = document::read(&delete.files)?;
            let place = |written: Written| (format!("{}: ", written.place), written.document.id());
            written.into_iter().map(place).collect()
        }
    };
    let results = end(&named, delete.dry_run, delete.ignore_not_found, common)?;
    show(named.into_iter().map(|(_, id)| id).zip(results), delete.dry_run, printer)
}

/// Ends what documents have made, each named with the words before its refusal; a refusal of one is a failure of all.
pub(super) fn end(
    named: &[(String, DocumentId)],
    dry_run: bool,
    ignore_not_found: bool,
    common: &Common,
) -> Result<Vec<v1::DocumentResult>, Failure> {
    let references = named.iter().map(|(_, id)| v1::DocumentRef {
        kind: id.kind().to_string(),
        network: id.network().to_string(),
        name: id.name().to_owned(),
    });
    let request = v1::DeleteRequest { documents: references.collect(), dry_run, ignore_not_found };
    let results = converse(async { answer(admin(common).await?.delete(request)).await })?.results;
    let flaws = named.iter().zip(&results).filter(|(_, result)| result.effect() == Effect::Refused);
    let flaws: Vec<String> = flaws.map(|((place, _), result)| format!("{place}{}", result.message)).collect();
    all_or_none(flaws, results.len())?;
    Ok(results)
}

fn id(kind: DocumentKind, name: &str, network: Option<&NetworkName>) -> Result<DocumentId, Failure> {
    let Named { name, network } = named(kind, name, network)?;
    match (kind, network) {
        (DocumentKind::Network, _) => Ok(DocumentId::Network(name.parse().map_err(Failure::usage)?)),
        (DocumentKind::Service, Some(network)) => {
            Ok(DocumentId::Service(network, name.parse().map_err(Failure::usage)?))
        }
        (DocumentKind::HttpRoute | DocumentKind::GrpcRoute, Some(network)) => {
            DocumentId::parse(kind, network.as_str(), &name).map_err(Failure::usage)
        }
        (DocumentKind::HttpRoute | DocumentKind::GrpcRoute, None) => {
            let kind = kind.name().to_lowercase();
            Err(Failure::usage(format!("{kind} {name} of which network?")).hint(format!(
                "`sealane delete {kind} {name} --network NETWORK`; `sealane get {kind}` shows the networks"
            )))
        }
        (DocumentKind::Service, None) => Err(Failure::usage(format!("service {name} of which network?"))
            .hint(format!(
                "`sealane delete service {name}.NETWORK`; `sealane get service` shows the networks"
            ))),
    }
}

pub(super) fn show(
    results: impl Iterator<Item = (DocumentId, v1::DocumentResult)>,
    dry_run: bool,
    printer: &Printer,
) -> Result<(), Failure> {
    let outcomes: Vec<Outcome> = results
        .map(|(id, result)| Outcome {
            kind: id.kind().name(),
            network: id.network().to_string(),
            name: id.name().to_owned(),
            effect: effect(result.effect()),
            message: Some(result.message).filter(|message| !message.is_empty()),
        })
        .collect();
    let lines: Vec<String> = outcomes.iter().map(|outcome| line(outcome, dry_run)).collect();
    printer.result(&outcomes, &lines.join("\n"))
}

fn line(outcome: &Outcome, dry_run: bool) -> String {
    let Outcome { kind, network, name, effect, message } = outcome;
    let of =
        if *kind == DocumentKind::Network.name() { String::new() } else { format!(" in network {network}") };
    let tried = if dry_run { " (dry run)" } else { "" };
    let more = message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("{} {name}{of} {effect}{tried}{more}", kind.to_lowercase())
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Unspecified => "of unknown effect",
        Effect::Refused => "refused",
        Effect::Unchanged => "unchanged",
        Effect::Created => "created",
        Effect::Configured => "configured",
        Effect::Deleted => "deleted",
        Effect::NotFound => "not found",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_documents_that_are_refused_each_is_named_with_its_hint_and_the_rest_is_no_hint() {
        let flaws = |flaws: &[&str]| flaws.iter().map(|flaw| (*flaw).to_owned()).collect::<Vec<_>>();
        let told = |wrong: &[&str], documents| {
            let failure = all_or_none(flaws(wrong), documents).unwrap_err();
            (failure.message, failure.hint)
        };
        let rest = "the other document is fine, but nothing was changed";
        assert_eq!(told(&["a; hint: b"], 1), ("a".to_owned(), Some("b".to_owned())));
        assert_eq!(told(&["a; hint: b"], 2), (format!("a\n{rest}"), Some("b".to_owned())));
        assert_eq!(told(&["a; hint: b", "c; see `d`"], 2), ("a; b\nerror: c; see `d`".to_owned(), None));
        assert_eq!(
            told(&["a", "c"], 4).0,
            "a\nerror: c\nthe other 2 documents are fine, but nothing was changed"
        );
        assert_eq!(all_or_none(vec![], 3), Ok(()));
    }

    #[test]
    fn a_document_is_named_with_its_network_in_either_way() {
        let told = |kind, name: &str, network: Option<&str>| {
            let network = network.map(|network| network.parse().unwrap());
            id(kind, name, network.as_ref()).map(|id| id.to_string()).map_err(|failure| failure.sentence())
        };
        let api = told(DocumentKind::Service, "api", Some("shop"));
        assert!(api.is_ok() && api == told(DocumentKind::Service, "api.shop", None), "{api:?}");
        assert!(told(DocumentKind::Network, "shop", None).is_ok());
        for (kind, name, network, expected) in [
            (DocumentKind::Service, "api", None, "`sealane delete service api.NETWORK`"),
            (DocumentKind::Service, "api.shop", Some("office"), "leave one of them out"),
            (DocumentKind::Network, "shop", Some("shop"), "leave --network out"),
            (DocumentKind::Network, "shop.shop", None, "lower-case letters"),
        ] {
            let failure = told(kind, name, network).unwrap_err();
            assert!(failure.contains(expected), "{failure}");
        }
    }
}
