//! Documents that people write of a mesh and apply: one document per object, in the shape of Kubernetes' (`apiVersion`,
//! `kind`, `metadata`, `spec`).
//!
//! The types here are the only grammar: readers, the JSON Schema and what is written out all follow from them. A field
//! that is not known is refused by name, never ignored; so a control plane never guesses what a newer client meant. On
//! the wire a document is its JSON.

mod kind;
mod kinds;
mod nearest;
pub(super) mod schema;

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use tonic::Status;

use super::gateway::{GrpcRouteDocument, HttpRouteDocument};
pub use super::network::document::{
    EgressSpec, Encryption, NetworkDocument, NetworkKind, NetworkMetadata, NetworkSpec, Subnets, SubnetsError,
};
pub use super::service::document::{
    CheckSpec, EXTERNAL, PORTS, PortSpec, ServiceDocument, ServiceKind, ServiceMetadata, ServiceSpec,
};
use super::{Network, NetworkContent, RouteDocument};
use crate::types::{NameError, NetworkName, ObjectName, ServiceName};
use crate::wire::v1;
pub use kind::{API_VERSION, ApiVersion, KindError};
use kinds::kinds;
pub use nearest::nearest;
pub use schema::schema;

kinds! {
    mesh {
        /// An overlay network.
        Network(NetworkDocument, NetworkName),
    }
    network {
        /// A service of a network.
        Service(ServiceDocument, ServiceName),
        /// A route of HTTP requests.
        HttpRoute(HttpRouteDocument, ObjectName),
        /// A route of gRPC calls.
        GrpcRoute(GrpcRouteDocument, ObjectName),
    }
}

/// Document of one kind of object, as people write it.
pub trait DocumentType: Sized {
    /// The kind, as documents have it.
    const KIND: &'static str;
    /// The kind as people type it, in lower case: one, many, in short.
    const WORDS: [&'static str; 3];
    /// Versions that its documents may have, the newest first.
    const API_VERSIONS: &'static [&'static str] = &[API_VERSION];

    /// Checks that the fields go together.
    ///
    /// # Errors
    /// Names the field that does not.
    fn check(&self) -> Result<(), FieldError> {
        Ok(())
    }
}

/// Reasons for which a text is not a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not of a kind that is known here.
    #[error(transparent)]
    Kind(#[from] KindError),
    /// Not what its kind says.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Each field says something, but not together.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// A field that contradicts another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FieldError {
    /// Path of the field, such as `spec.ports[1].port`.
    pub path: String,
    /// Cause and remedy.
    pub reason: String,
}

impl Document {
    /// Reads a document from its JSON and checks it.
    ///
    /// # Errors
    /// When it is not a document of a known kind, or contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, DocumentError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let word = |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let kind = DocumentKind::find(word("apiVersion"), word("kind"))?;
        let document = Self::read(kind, value)?;
        document.check()?;
        Ok(document)
    }

    /// The document as JSON.
    ///
    /// # Errors
    /// None in practice: a document has no map with other keys than texts.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl From<&Network> for Document {
    fn from(network: &Network) -> Self {
        Self::Network(network.into())
    }
}

impl NetworkContent {
    /// The documents of the network, of the services that are declared in it, and of its routes: applying them changes nothing.
    pub fn documents(&self) -> impl Iterator<Item = Document> + '_ {
        let name = &self.network.name;
        let declared = self.services.iter().filter(|service| service.declared);
        let services = declared.map(move |service| Document::Service(ServiceDocument::of(name, service)));
        let routes = self.routes.iter().filter_map(|route| route.document.as_ref());
        // A host has routes of other networks too that attach to services of this one.
        let routes = routes.filter(move |route| route.network() == name);
        std::iter::once((&self.network).into()).chain(services).chain(routes.map(RouteDocument::to_document))
    }
}

impl v1::ListDocumentsResponse {
    /// The answer to who asks for documents of a kind, or of all when it is empty; each comes with what there is to say of its object.
    ///
    /// # Errors
    /// When there is no such kind.
    pub fn of(kind: &str, documents: impl Iterator<Item = (Document, String)>) -> Result<Self, Status> {
        let wanted: Option<DocumentKind> = match kind {
            "" => None,
            kind => {
                Some(kind.parse().map_err(|error: KindError| Status::invalid_argument(error.to_string()))?)
            }
        };
        let documents =
            documents.filter(|(document, _)| wanted.is_none_or(|kind| document.id().kind() == kind));
        let texts = documents.map(|(document, observed)| Ok((document.to_json()?, observed)));
        let texts = texts.collect::<Result<Vec<_>, serde_json::Error>>();
        let (documents, observed) =
            texts.map_err(|error| Status::internal(error.to_string()))?.into_iter().unzip();
        Ok(Self { documents, observed })
    }
}

#[cfg(test)]
mod tests;
