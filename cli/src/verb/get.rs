//! `sealane get` and `sealane diff`.

use std::time::SystemTime;

use sealane_proto::document::{Document, DocumentId, DocumentKind};
use sealane_proto::resource::RouteDocument;
use sealane_proto::types::{Mtls, NetworkName, ObjectName, ServiceRef};
use sealane_proto::wire::v1;
use serde::Serialize;
use serde_json::Value;
use v1::admin_client::AdminClient;

use super::apply::submit;
use super::{history, members};
use crate::args::{Common, Diff, Get};
use crate::client::{answer, control, converse, read, reader};
use crate::document::{self, Written, difference};
use crate::failure::{Exit, Failure};
use crate::printer::{Format, Printer, Row};

/// `sealane get`.
pub(crate) fn get(get: &Get, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let named = get.name.as_deref().map(|name| named(get.kind, name, get.network.as_ref())).transpose()?;
    let network = named.as_ref().map_or(get.network.as_ref(), |named| named.network.as_ref());
    let request = v1::ListDocumentsRequest {
        kind: get.kind.to_string(),
        network: network.map(ToString::to_string).unwrap_or_default(),
    };
    let listed = converse(async { answer(read(common).await?.list_documents(request)).await })?;
    let mut documents = observed(listed)?;
    let Some(Named { name, .. }) = &named else {
        return show(get.kind, &documents, common.output, printer);
    };
    documents.retain(|seen| seen.document.id().name() == name);
    match documents.as_slice() {
        [] => Err(missing(get.kind, name, network)),
        [one] => match common.output {
            Format::Table => show(get.kind, &documents, common.output, printer),
            Format::Json | Format::Yaml => printer.result(&one.whole()?, ""),
        },
        several => {
            let networks = several.iter().map(|seen| seen.document.id().network().to_string());
            Err(match get.kind {
                DocumentKind::Network | DocumentKind::Service => members::several("service", name, networks),
                DocumentKind::HttpRoute | DocumentKind::GrpcRoute => {
                    let kind = get.kind.name().to_lowercase();
                    let networks: Vec<String> = networks.collect();
                    Failure::usage(format!("there are several {}s {name}", get.kind)).hint(format!(
                        "say which: `sealane get {kind} {name} --network {}`",
                        networks.join("` or `")
                    ))
                }
            })
        }
    }
}

/// A document, with what control says of its object beside.
struct Seen {
    document: Document,
    observed: Value,
}

impl Seen {
    /// The document with what a cluster's server would add to it.
    fn whole(&self) -> Result<Value, Failure> {
        let mut whole = serde_json::to_value(&self.document).map_err(Failure::of("cannot write JSON"))?;
        add(&mut whole, &self.observed);
        Ok(whole)
    }

    /// The words of a condition at each parent of a route.
    fn condition(&self, kind: &str) -> String {
        let parents = self.observed["status"]["parents"].as_array();
        let conditions =
            parents.into_iter().flatten().flat_map(|parent| parent["conditions"].as_array()).flatten();
        let mut words: Vec<&str> = conditions
            .filter(|condition| condition["type"] == kind)
            .filter_map(|condition| match condition["status"].as_str() {
                Some("True") => Some("yes"),
                Some(_) | None => condition["reason"].as_str(),
            })
            .collect();
        words.dedup();
        if words.is_empty() { "-".to_owned() } else { words.join(", ") }
    }
}

/// Adds fields to an object and to the objects in it.
fn add(whole: &mut Value, more: &Value) {
    if let (Value::Object(whole), Value::Object(more)) = (&mut *whole, more) {
        for (key, value) in more {
            add(whole.entry(key).or_insert(Value::Null), value);
        }
    } else if !more.is_null() {
        *whole = more.clone();
    }
}

fn observed(listed: v1::ListDocumentsResponse) -> Result<Vec<Seen>, Failure> {
    // An older control plane says nothing beside.
    let mut observed = listed.observed.clone().into_iter();
    let documents = understand(listed)?.into_iter();
    Ok(documents
        .map(|document| {
            let observed = observed.next().unwrap_or_default();
            Seen { document, observed: serde_json::from_str(&observed).unwrap_or(Value::Null) }
        })
        .collect())
}

/// Words of a command line about a document beside its kind.
pub(super) struct Named {
    pub(super) name: String,
    /// Of a service, when it is said.
    pub(super) network: Option<NetworkName>,
}

/// `NAME`, or of a service `NAME.NETWORK`, beside what `--network` says.
pub(super) fn named(kind: DocumentKind, name: &str, network: Option<&NetworkName>) -> Result<Named, Failure> {
    match kind {
        DocumentKind::Network => {
            let name: NetworkName = name.parse().map_err(Failure::usage)?;
            match network {
                None => Ok(Named { name: name.to_string(), network: None }),
                Some(_) => Err(Failure::usage("a network belongs to no network: leave --network out")),
            }
        }
        DocumentKind::Service => {
            let named: ServiceRef = name.parse().map_err(Failure::usage)?;
            let ServiceRef { name, network } = named.within(network).map_err(Failure::usage)?;
            Ok(Named { name: name.to_string(), network })
        }
        // Dots belong to the name.
        DocumentKind::HttpRoute | DocumentKind::GrpcRoute => {
            let name: ObjectName = name.parse().map_err(Failure::usage)?;
            Ok(Named { name: name.to_string(), network: network.cloned() })
        }
    }
}

fn missing(kind: DocumentKind, name: &str, network: Option<&NetworkName>) -> Failure {
    let of = network.map(|network| format!(" in network {network}")).unwrap_or_default();
    match kind {
        DocumentKind::Network => Failure::missing(format_args!("network {name}"), "sealane get network"),
        DocumentKind::Service => Failure::new(format!("there is no document of a service {name}{of}"))
            .hint("`sealane service ls` also lists services that have no document"),
        DocumentKind::HttpRoute | DocumentKind::GrpcRoute => Failure::missing(
            format_args!("{kind} {name}{of}"),
            &format!("sealane get {}", kind.name().to_lowercase()),
        ),
    }
}

pub(super) fn understand(listed: v1::ListDocumentsResponse) -> Result<Vec<Document>, Failure> {
    let documents = listed.documents.iter().map(|text| Document::from_json(text));
    documents.collect::<Result<_, _>>().map_err(|error| {
        Failure::new(format!("control has a document that this program does not know: {error}"))
            .hint("use the version of `sealane` that control has")
    })
}

/// YAML as a stream that can be applied again, JSON as a list.
fn show(kind: DocumentKind, documents: &[Seen], format: Format, printer: &Printer) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let documents = documents.iter().map(Seen::whole).collect::<Result<Vec<_>, _>>()?;
            printer.result(&documents, "")
        }
        Format::Yaml => {
            let text = |seen: &Seen| {
                if seen.observed.is_null() { yaml(&seen.document) } else { as_yaml(&seen.whole()?) }
            };
            let texts = documents.iter().map(text);
            printer.text(&texts.collect::<Result<Vec<_>, _>>()?.join("---\n"))
        }
        Format::Table => match kind {
            DocumentKind::Network => {
                printer.list(&documents.iter().map(|seen| NetworkRow(&seen.document)).collect::<Vec<_>>())
            }
            DocumentKind::Service => {
                printer.list(&documents.iter().map(|seen| ServiceRow(&seen.document)).collect::<Vec<_>>())
            }
            DocumentKind::HttpRoute | DocumentKind::GrpcRoute => {
                printer.list(&documents.iter().map(RouteRow::new).collect::<Vec<_>>())
            }
        },
    }
}

pub(super) fn yaml(document: &Document) -> Result<String, Failure> {
    as_yaml(document)
}

fn as_yaml(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(Failure::of("cannot write YAML"))?;
    Ok(format!("{}\n", text.trim_end()))
}

#[derive(Serialize)]
struct NetworkRow<'a>(&'a Document);

#[derive(Serialize)]
struct ServiceRow<'a>(&'a Document);

impl Row for NetworkRow<'_> {
    const HEADERS: &'static [&'static str] = &["NAME", "SUBNET", "MTU", "MTLS"];
    const NONE: &'static str =
        "no networks yet: `sealane apply -f FILE` or `sealane network create` makes one";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        let Document::Network(network) = self.0 else { return vec![] };
        let mtu = network.spec.mtu.map_or_else(|| "by underlay".to_owned(), |mtu| mtu.get().to_string());
        let mtls = network.spec.mtls.unwrap_or(Mtls::Permissive);
        vec![network.metadata.name.to_string(), network.spec.subnets.to_string(), mtu, mtls.to_string()]
    }
}

impl Row for ServiceRow<'_> {
    const HEADERS: &'static [&'static str] = &["NETWORK", "NAME", "MTLS", "PORTS"];
    const NONE: &'static str =
        "no services have documents; `sealane service ls` lists those that instances make";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        let Document::Service(service) = self.0 else { return vec![] };
        let ports: Vec<String> = service.ports().iter().map(ToString::to_string).collect();
        let mtls = service.spec.mtls.map_or_else(|| "-".to_owned(), |mtls| mtls.to_string());
        let (network, name) = (&service.metadata.network, &service.metadata.name);
        vec![network.to_string(), name.to_string(), mtls, ports.join(", ")]
    }
}

#[derive(Serialize)]
struct RouteRow {
    network: String,
    name: String,
    parents: Vec<String>,
    accepted: String,
    resolved: String,
}

impl RouteRow {
    fn new(seen: &Seen) -> Self {
        let id = seen.document.id();
        let parents = RouteDocument::of(&seen.document);
        let parents = parents.iter().flat_map(|route| route.parents()).map(|parent| {
            let network = parent.namespace.as_ref().map(|network| format!(".{network}")).unwrap_or_default();
            let port = parent.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{} {}{network}{port}", parent.kind, parent.name)
        });
        Self {
            network: id.network().to_string(),
            name: id.name().to_owned(),
            parents: parents.collect(),
            accepted: seen.condition("Accepted"),
            resolved: seen.condition("ResolvedRefs"),
        }
    }
}

impl Row for RouteRow {
    const HEADERS: &'static [&'static str] = &["NETWORK", "NAME", "PARENTS", "ACCEPTED", "RESOLVED"];
    const NONE: &'static str = "no such routes yet: `sealane apply -f FILE` makes one";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        let Self { network, name, parents, accepted, resolved } = self;
        vec![network.clone(), name.clone(), parents.join(", "), accepted.clone(), resolved.clone()]
    }
}

/// Difference of one document from what is there.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Difference {
    kind: String,
    network: String,
    name: String,
    /// Place at which it is written, or the revision that it is of.
    place: String,
    /// Lines with what goes (-), what comes (+) and what is around that.
    diff: String,
    #[serde(skip)]
    id: String,
}

impl Difference {
    pub(super) fn new(id: &DocumentId, place: &impl std::fmt::Display, diff: String) -> Self {
        let (kind, network, name) = (id.kind().to_string(), id.network().to_string(), id.name().to_owned());
        Self { kind, network, name, place: place.to_string(), diff, id: id.to_string() }
    }
}

/// `sealane diff`: like diff(1), 0 says that nothing differs, 1 that something does, and more that it is not known.
pub(crate) fn diff(diff: &Diff, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let differs = compare(diff, common, printer)
        .map_err(|failure| if failure.exit == Exit::Failed { failure.exit(Exit::Usage) } else { failure })?;
    if differs { Err(Failure::unsaid()) } else { Ok(()) }
}

fn compare(diff: &Diff, common: &Common, printer: &Printer) -> Result<bool, Failure> {
    if let Some(revision) = diff.at {
        return history::compare_at(revision, diff, common, printer);
    }
    let written = document::read(&diff.files)?;
    let (live, refused) = converse(async {
        let request = v1::ListDocumentsRequest::default();
        let control = control(common).await?;
        let live = answer(reader(control.clone()).list_documents(request)).await?;
        // What differs is worth seeing even where it cannot be applied.
        Ok((understand(live)?, submit(&mut AdminClient::new(control), &written, true).await.err()))
    })?;
    let mut shown = vec![];
    for Written { document, place } in &written {
        let id: DocumentId = document.id();
        let known = live.iter().find(|live| live.id() == id);
        let old = known.map(yaml).transpose()?.unwrap_or_default();
        if let Some(lines) = difference(&old, &yaml(&canonical(document, known))?) {
            shown.push(Difference::new(&id, place, lines));
        }
    }
    print(&shown, common, printer)?;
    match refused {
        Some(failure) => Err(failure),
        None => Ok(!shown.is_empty()),
    }
}

/// Prints differences; to people, nothing where there is none.
pub(super) fn print(shown: &[Difference], common: &Common, printer: &Printer) -> Result<(), Failure> {
    let text = shown.iter().map(|one| format!("--- {}\n+++ {}\n{}", one.id, one.place, one.diff));
    let text = text.collect::<Vec<_>>().join("\n");
    if shown.is_empty() && common.output == Format::Table {
        return Ok(());
    }
    printer.result(&shown, &text)
}

/// The document as control keeps it: the order of ports does not matter, and a network's mode stays what it is when none is given.
fn canonical(document: &Document, known: Option<&Document>) -> Document {
    let mut document = document.clone();
    match &mut document {
        Document::Network(network) => {
            let kept = match known {
                Some(Document::Network(known)) => known.spec.mtls,
                _ => Some(Mtls::Strict),
            };
            network.spec.mtls = network.spec.mtls.or(kept);
        }
        Document::Service(service) => {
            service.spec.ports.sort_by_key(|port| (port.port, port.protocol.transport()))
        }
        Document::HttpRoute(_) | Document::GrpcRoute(_) => {}
    }
    document
}
