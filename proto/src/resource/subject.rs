//! Kinds of objects that control's history is about.

use std::fmt;
use std::str::FromStr;

use crate::document::DocumentKind;

/// Kind of an object that somebody declares, admits or makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectKind {
    /// An object with a document.
    Document(DocumentKind),
    /// A host, as a member of the mesh.
    Host,
    /// A join token.
    Token,
}

/// A word that is no kind of object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kind {0:?} is not known; it must be network, service, host or token")]
pub struct SubjectKindError(String);

impl FromStr for SubjectKind {
    type Err = SubjectKindError;

    /// Reads a kind as people type it: any case, one or many.
    fn from_str(text: &str) -> Result<Self, SubjectKindError> {
        match text.to_ascii_lowercase().as_str() {
            "host" | "hosts" | "node" | "nodes" => Ok(Self::Host),
            "token" | "tokens" => Ok(Self::Token),
            word => word.parse().map(Self::Document).map_err(|_| SubjectKindError(text.to_owned())),
        }
    }
}

impl fmt::Display for SubjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(kind) => kind.fmt(f),
            Self::Host => f.pad("Host"),
            Self::Token => f.pad("Token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_people_type_it_and_as_it_is_written() {
        for word in ["network", "nets", "Service", "svc", "hosts", "Node", "token"] {
            let Ok(kind) = word.parse::<SubjectKind>() else {
                assert_eq!(word, "nets", "is no word");
                continue;
            };
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let said = "workload".parse::<SubjectKind>().unwrap_err().to_string();
        assert_eq!(said, "kind \"workload\" is not known; it must be network, service, host or token");
    }
}
