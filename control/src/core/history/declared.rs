//! Documents of what is declared in a state.

use sealane_proto::document::{Document, DocumentId, ServiceDocument};
use sealane_proto::resource::{Network, Service};
use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;

use super::LONGEST_DOCUMENT;
use crate::core::State;

/// A declared object's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The document.
    pub document: Document,
    /// The host that has registered it; `None`: somebody has applied it.
    pub registrar: Option<NodeName>,
}

impl Declared {
    /// The declared objects of a network: itself, then those of its services that have documents.
    pub fn all<'a>(
        network: &'a Network,
        services: impl Iterator<Item = &'a Service> + 'a,
    ) -> impl Iterator<Item = Self> + 'a {
        let name = &network.name;
        std::iter::once(Self::network(network))
            .chain(services.filter_map(move |service| Self::service(name, service)))
    }

    /// The declared objects of a mesh.
    pub fn everywhere(state: &State) -> impl Iterator<Item = Self> + '_ {
        state.networks.values().flat_map(|known| Self::all(&known.network, known.services.values()))
    }

    /// Finds a declared object.
    #[must_use]
    pub fn find(state: &State, id: &DocumentId) -> Option<Self> {
        let known = state.networks.get(id.network())?;
        match id {
            DocumentId::Network(_) => Some(Self::network(&known.network)),
            DocumentId::Service(network, name) => Self::service(network, known.services.get(name)?),
        }
    }

    fn network(network: &Network) -> Self {
        Self { document: network.into(), registrar: None }
    }

    fn service(network: &NetworkName, service: &Service) -> Option<Self> {
        let document = || Document::Service(ServiceDocument::of(network, service));
        let registrar = service.external.registrar.clone();
        service.declared.then(|| Self { document: document(), registrar })
    }
}

impl From<&Declared> for v1::KeptDocument {
    fn from(Declared { document, registrar }: &Declared) -> Self {
        // A document has no map with other keys than texts.
        let mut json = document.to_json().unwrap_or_default();
        let cut = json.len() > LONGEST_DOCUMENT;
        if cut {
            json.truncate(json.floor_char_boundary(LONGEST_DOCUMENT));
        }
        let registrar = registrar.as_ref().map(ToString::to_string).unwrap_or_default();
        Self { json, cut, registrar }
    }
}
