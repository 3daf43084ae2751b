//! Documents that people write of a mesh and apply: one document per object, in the shape of Kubernetes' (`apiVersion`,
//! `kind`, `metadata`, `spec`).
//!
//! The types here are the only grammar: readers, the JSON Schema and what is written out all follow from them. A field
//! that is not known is refused by name, never ignored; so a control plane never guesses what a newer client meant. On
//! the wire a document is its JSON.

mod kind;
mod nearest;
mod network;
mod schema;
mod service;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::resource::{Network, NetworkSnapshot};
use crate::types::NetworkName;
pub use kind::{API_VERSION, ApiVersion, Kind, KindError};
pub use nearest::nearest;
pub use network::{
    EgressSpec, Encryption, NetworkDocument, NetworkKind, NetworkMetadata, NetworkSpec, Subnets, SubnetsError,
};
pub use schema::schema;
pub use service::{
    CheckSpec, EXTERNAL, PORTS, PortSpec, ServiceDocument, ServiceKind, ServiceMetadata, ServiceSpec,
};

/// One document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Document {
    /// An overlay network.
    Network(NetworkDocument),
    /// A service of a network.
    Service(ServiceDocument),
}

/// Subject of a document: no two documents of one `apply` may have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentId {
    /// The network of this name.
    Network(NetworkName),
    /// The service of this name in a network.
    Service(NetworkName, crate::types::ServiceName),
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
    /// Reads a document of a kind that is known already.
    ///
    /// # Errors
    /// The deserializer's own.
    pub fn read<'de, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<Self, D::Error> {
        match kind {
            Kind::Network => NetworkDocument::deserialize(deserializer).map(Self::Network),
            Kind::Service => ServiceDocument::deserialize(deserializer).map(Self::Service),
        }
    }

    /// Reads a document from its JSON and checks it.
    ///
    /// # Errors
    /// When it is not a document of a known kind, or contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, DocumentError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let word = |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let kind = Kind::find(word("apiVersion"), word("kind"))?;
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

    /// Checks that the fields go together.
    ///
    /// # Errors
    /// Names the field that does not.
    pub fn check(&self) -> Result<(), FieldError> {
        match self {
            Self::Network(_) => Ok(()),
            Self::Service(service) => service.check(),
        }
    }

    /// Returns the object that the document describes.
    #[must_use]
    pub fn id(&self) -> DocumentId {
        match self {
            Self::Network(network) => DocumentId::Network(network.metadata.name.clone()),
            Self::Service(service) => service.id(),
        }
    }
}

impl From<&Network> for Document {
    fn from(network: &Network) -> Self {
        Self::Network(network.into())
    }
}

impl NetworkSnapshot {
    /// The documents of the network and of the services that are declared in it: applying them changes nothing.
    pub fn documents(&self) -> impl Iterator<Item = Document> + '_ {
        let name = &self.network.name;
        let declared = self.services.iter().filter(|service| service.declared);
        let services = declared.map(move |service| Document::Service(ServiceDocument::of(name, service)));
        std::iter::once((&self.network).into()).chain(services)
    }
}

impl DocumentId {
    /// Returns the object's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Network(_) => Kind::Network,
            Self::Service(..) => Kind::Service,
        }
    }

    /// The network that it is or belongs to.
    #[must_use]
    pub fn network(&self) -> &NetworkName {
        match self {
            Self::Network(network) | Self::Service(network, _) => network,
        }
    }

    /// Returns the object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Network(name) => name.as_str(),
            Self::Service(_, name) => name.as_str(),
        }
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "network {name}"),
            Self::Service(network, name) => write!(f, "service {name} in network {network}"),
        }
    }
}

#[cfg(test)]
mod tests;
