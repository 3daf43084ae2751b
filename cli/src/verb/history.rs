//! `sealane history`, `sealane diff --at` and `sealane rollback`.

use std::collections::BTreeSet;
use std::time::SystemTime;

use sealane_proto::document::{Document, DocumentId, DocumentKind};
use sealane_proto::resource::SubjectKind;
use sealane_proto::wire::v1;
use tonic::transport::Channel;
use v1::admin_client::AdminClient;
use v1::document_result::Effect;

use super::apply::{all_or_none, show, wait};
use super::get::{Difference, Named, named, print, understand, yaml};
use crate::args::{Common, Diff, History, Rollback};
use crate::client::{LARGEST_ANSWER, answer, control, converse, reader};
use crate::document::difference;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::EntryView;

/// An object that a rollback changes, and its effect or refusal.
type Changed = (DocumentId, v1::DocumentResult);

/// `sealane history`.
pub(crate) fn history(history: &History, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let (name, network) = match (history.kind, history.name.as_deref()) {
        (Some(SubjectKind::Document(kind)), Some(name)) => {
            let Named { name, network } = named(kind, name, history.network.as_ref())?;
            (name, network)
        }
        (Some(SubjectKind::Host | SubjectKind::Token) | None, name) => {
            (name.unwrap_or_default().to_owned(), history.network.clone())
        }
        (Some(SubjectKind::Document(_)), None) => (String::new(), history.network.clone()),
    };
    let since = history.since.and_then(|since| SystemTime::now().checked_sub(since));
    let since = since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
    let request = v1::HistoryRequest {
        kind: history.kind.map(|kind| kind.to_string()).unwrap_or_default(),
        network: network.map(|network| network.to_string()).unwrap_or_default(),
        name,
        since_unix_seconds: since.map_or(0, |since| since.as_secs()),
        limit: history.limit,
        before: None,
    };
    let entries = converse(async { pages(&mut admin(control(common).await?), request).await })?;
    printer.list(&entries.into_iter().map(EntryView::from).collect::<Vec<_>>())
}

/// Asks for page after page, until there are as many entries as wanted or no more.
async fn pages(
    control: &mut AdminClient<Channel>,
    mut request: v1::HistoryRequest,
) -> Result<Vec<v1::HistoryEntry>, Failure> {
    let wanted = request.limit;
    let mut all = vec![];
    loop {
        let page = answer(control.history(request.clone())).await?;
        all.extend(page.entries);
        let got = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let Some(next) = page.next.filter(|_| wanted == 0 || got < wanted) else { return Ok(all) };
        request.limit = wanted.saturating_sub(got);
        request.before = Some(next);
    }
}

fn admin(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel).max_decoding_message_size(LARGEST_ANSWER)
}

/// `sealane diff --at`: shows what a rollback would change; answers whether there is anything.
pub(super) fn compare_at(
    revision: u64,
    diff: &Diff,
    common: &Common,
    printer: &Printer,
) -> Result<bool, Failure> {
    let name = match (diff.kind, diff.name.as_deref()) {
        (Some(kind), Some(name)) => Some(named(kind, name, diff.network.as_ref())?),
        (Some(_), None) | (None, _) => None,
    };
    let network = name.as_ref().map_or(diff.network.as_ref(), |named| named.network.as_ref());
    let fits = |id: &DocumentId| {
        diff.kind.is_none_or(|kind| id.kind() == kind)
            && network.is_none_or(|network| id.network() == network)
            && name.as_ref().is_none_or(|named| id.name() == named.name)
    };
    let (live, then, changed) = converse(async {
        let channel = control(common).await?;
        let live =
            answer(reader(channel.clone()).list_documents(v1::ListDocumentsRequest::default())).await?;
        let mut control = admin(channel);
        let then = answer(control.documents_at(v1::DocumentsAtRequest { revision })).await?;
        let changed = try_rollback(&mut control, revision, true).await?;
        let then = v1::ListDocumentsResponse { documents: then.documents, observed: vec![] };
        Ok((understand(live)?, understand(then)?, changed))
    })?;
    let changed: Vec<Changed> = changed.into_iter().filter(|(id, _)| fits(id)).collect();
    let mut shown = vec![];
    for (id, _) in &changed {
        let text = |documents: &[Document]| {
            let document = documents.iter().find(|document| document.id() == *id);
            document.map(yaml).transpose().map(Option::unwrap_or_default)
        };
        if let Some(lines) = difference(&text(&live)?, &text(&then)?) {
            shown.push(Difference::new(id, &format_args!("revision {revision}"), lines));
        }
    }
    print(&shown, common, printer)?;
    // What differs is worth seeing even where there is no way back.
    refused(&changed)?;
    Ok(!changed.is_empty())
}

/// `sealane rollback`.
pub(crate) fn rollback(rollback: &Rollback, common: &Common, printer: &Printer) -> Result<(), Failure> {
    converse(async {
        let mut control = admin(control(common).await?);
        let changed = try_rollback(&mut control, rollback.to, rollback.effort.dry_run).await?;
        refused(&changed)?;
        let networks: BTreeSet<String> = changed.iter().map(|(id, _)| id.network().to_string()).collect();
        if changed.is_empty() {
            let text = format!("the documents are those of revision {} already", rollback.to);
            return printer.done(&Vec::<()>::new(), &text);
        }
        show(changed.into_iter(), rollback.effort.dry_run, printer)?;
        if rollback.effort.wait {
            wait(&mut control, networks, rollback.effort.timeout, printer).await?;
        }
        Ok(())
    })
}

async fn try_rollback(
    control: &mut AdminClient<Channel>,
    revision: u64,
    dry_run: bool,
) -> Result<Vec<Changed>, Failure> {
    let request = v1::RollbackRequest { revision, dry_run };
    let results = answer(control.rollback(request)).await?.results.into_iter();
    let changed = results.map(|v1::RolledBack { object, result }| {
        let v1::DocumentRef { kind, network, name } = object.unwrap_or_default();
        let strange = "control has an object that this program does not know";
        let kind = kind.parse::<DocumentKind>().map_err(Failure::of(strange))?;
        let id = DocumentId::parse(kind, &network, &name).map_err(Failure::of(strange))?;
        Ok((id, result.unwrap_or_default()))
    });
    changed.collect()
}

fn refused(changed: &[Changed]) -> Result<(), Failure> {
    let flaws = changed.iter().filter(|(_, result)| result.effect() == Effect::Refused);
    let flaws: Vec<String> = flaws.map(|(id, result)| format!("{id}: {}", result.message)).collect();
    all_or_none(flaws, changed.len())
}
