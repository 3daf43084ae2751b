//! Kinds of documents.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DocumentKind, nearest};

/// The version that all of Sealane's own kinds have.
pub const API_VERSION: &str = "sealane.dev/v1";
const GATEWAY_API: &str = "gateway.networking.k8s.io/";

/// The version of a document's shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The only one.
    #[default]
    #[serde(rename = "sealane.dev/v1")]
    V1,
}

/// Reasons for which a document's kind is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// A field is missing or empty.
    #[error("{0} is missing; a document begins with `apiVersion: {API_VERSION}` and its kind: {known}", known = DocumentKind::names())]
    Missing(&'static str),
    /// A kind of the Gateway API that has no effect here, or a version of it.
    #[error(
        "{api_version} {kind} is of the Gateway API, of which HTTPRoute and GRPCRoute of v1, v1beta1 and v1alpha2 are supported; \
             leave the document out"
    )]
    GatewayApi {
        /// The word as it was written.
        api_version: String,
        /// The word as it was written.
        kind: String,
    },
    /// Another version.
    #[error("apiVersion {given:?} is not known{}", meant(.nearest.as_deref(), API_VERSION))]
    ApiVersion {
        /// The word as it was written.
        given: String,
        /// Nearest known word.
        nearest: Option<String>,
    },
    /// A kind that another version has.
    #[error("apiVersion {given:?} has no kind {kind}; it must be {}", .kind.api_versions().join(" or "))]
    Version {
        /// The kind.
        kind: DocumentKind,
        /// The word as it was written.
        given: String,
    },
    /// Another kind.
    #[error("kind {given:?} is not known{}", meant(.nearest.as_deref(), &DocumentKind::names()))]
    Kind {
        /// The word as it was written.
        given: String,
        /// Nearest known word.
        nearest: Option<String>,
    },
}

impl KindError {
    /// Returns true if the field `kind` is the wrong one, not `apiVersion`.
    #[must_use]
    pub fn is_of_kind(&self) -> bool {
        match self {
            Self::Missing(field) => *field == "kind",
            Self::Kind { .. } => true,
            Self::GatewayApi { .. } | Self::ApiVersion { .. } | Self::Version { .. } => false,
        }
    }
}

fn meant(nearest: Option<&str>, known: &str) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => format!("; it must be {known}"),
    }
}

impl DocumentKind {
    /// Finds the kind of a document by its version and kind.
    ///
    /// # Errors
    /// When there is no such kind; names the nearest one.
    pub fn find(api_version: &str, kind: &str) -> Result<Self, KindError> {
        if api_version.is_empty() {
            return Err(KindError::Missing("apiVersion"));
        }
        let versions = || Self::ALL.iter().flat_map(|kind| kind.api_versions().iter().copied());
        let of_api = api_version.starts_with(GATEWAY_API);
        if !of_api && !versions().any(|known| known == api_version) {
            let given = api_version.to_owned();
            let nearest = nearest(api_version, versions()).map(str::to_owned);
            return Err(KindError::ApiVersion { given, nearest });
        }
        if kind.is_empty() {
            return Err(KindError::Missing("kind"));
        }
        let named = Self::ALL.into_iter().find(|known| known.name() == kind);
        match named.filter(|known| known.api_versions().contains(&api_version)) {
            Some(known) => Ok(known),
            None if of_api => {
                let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
                Err(KindError::GatewayApi { api_version, kind })
            }
            None => match named {
                Some(known) => Err(KindError::Version { kind: known, given: api_version.to_owned() }),
                None => Err(Self::unknown(kind)),
            },
        }
    }

    fn unknown(given: &str) -> KindError {
        let nearest = nearest(given, Self::ALL.map(Self::name)).map(str::to_owned);
        KindError::Kind { given: given.to_owned(), nearest }
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(" or ")
    }
}

impl FromStr for DocumentKind {
    type Err = KindError;

    /// Reads a kind as people type it: any case, one or many, `net` and `svc`.
    fn from_str(text: &str) -> Result<Self, KindError> {
        let typed = text.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(|kind| kind.words().contains(&typed.as_str()));
        found.ok_or_else(|| Self::unknown(text))
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
