//! Documents in files: found, read, and refused with file, line and field when something is wrong with them.

mod decode;
mod difference;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod source;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use sealane_proto::document::{Document, DocumentId, DocumentKind};

use crate::failure::Failure;
use decode::Decoder;
pub(crate) use difference::difference;
use tree::{At, Node};

/// A document and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) document: Document,
    /// Place as `FILE:LINE`.
    pub(crate) place: String,
}

/// Fault in a document, and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Flaw {
    at: Option<At>,
    /// Of the field, such as `spec.ports[1].port`.
    path: String,
    message: String,
}

impl Flaw {
    fn new(at: At, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: Some(at), path: path.into(), message: message.into() }
    }

    fn said(&self, source: &str) -> String {
        let place = match self.at {
            Some(At { line, column }) => format!("{source}:{line}:{column}"),
            None => source.to_owned(),
        };
        let path = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        format!("{place}: {path}{}", self.message)
    }
}

/// Reads all documents of these files, directories and, for `-`, of standard input.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Written>, Failure> {
    let (mut written, mut flaws) = (vec![], vec![]);
    for source in source::open(paths)? {
        match parse(&source.text) {
            Ok(nodes) => {
                for node in nodes {
                    match understand(&node) {
                        Ok(document) => {
                            let place = format!("{}:{}", source.name, node.at.line);
                            written.push(Written { document, place });
                        }
                        Err(flaw) => flaws.push(flaw.said(&source.name)),
                    }
                }
            }
            Err(flaw) => flaws.push(flaw.said(&source.name)),
        }
    }
    let mut seen: BTreeMap<DocumentId, &str> = BTreeMap::new();
    for Written { document, place } in &written {
        let id = document.id();
        let twice = format!(
            "{place}: {id} is there twice: {} is about it too; keep one",
            seen.get(&id).unwrap_or(&"")
        );
        if seen.insert(id, place).is_some() {
            flaws.push(twice);
        }
    }
    refuse(flaws)?;
    if written.is_empty() {
        let names: Vec<String> = paths.iter().map(|path| source::name(path)).collect();
        return Err(Failure::new(format!("no documents in {}", names.join(", "))).hint(
            "a document begins with `apiVersion: sealane.dev/v1`; `sealane schema` says what it may hold",
        ));
    }
    Ok(written)
}

/// All that is wrong, one line each: nothing has been changed.
pub(crate) fn refuse(flaws: Vec<String>) -> Result<(), Failure> {
    const SHOWN: usize = 20;
    if flaws.is_empty() {
        return Ok(());
    }
    let more = flaws.len().saturating_sub(SHOWN);
    let mut lines: Vec<String> = flaws.into_iter().take(SHOWN).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Err(match &lines[..] {
        [only] => Failure::new(only),
        // A hint stays with its line.
        lines => Failure { message: lines.join("\nerror: ").replace("; hint: ", "; "), ..Failure::unsaid() },
    })
}

/// The documents of a text; a list at the top is as many documents.
fn parse(text: &str) -> Result<Vec<Node>, Flaw> {
    let nodes = tree::parse(text)?;
    Ok(nodes.into_iter().flat_map(Node::into_documents).collect())
}

fn understand(node: &Node) -> Result<Document, Flaw> {
    let word = |name: &str| match node.field(name) {
        Some(field) => field.text().ok_or_else(|| Flaw::new(field.at, name, "must be a text")),
        None => Ok(""),
    };
    if !node.is_map() {
        let message =
            format!("a document is a mapping with apiVersion, kind, metadata and spec, not {}", node.what());
        return Err(Flaw::new(node.at, "", message));
    }
    let kind = DocumentKind::find(word("apiVersion")?, word("kind")?).map_err(|error| {
        let guilty = if error.is_of_kind() { "kind" } else { "apiVersion" };
        Flaw::new(node.field(guilty).map_or(node.at, |field| field.at), "", error.to_string())
    })?;
    let document = Document::read(kind, Decoder::new(node))?;
    document.check().map_err(|error| {
        let at = node.find(&error.path).map_or(node.at, |field| field.at);
        Flaw::new(at, error.path, error.reason)
    })?;
    Ok(document)
}

#[cfg(test)]
mod tests;
