//! Documents of what is declared in a state.

use sealane_proto::document::{Document, DocumentId, ServiceDocument};
use sealane_proto::resource::{Network, Route, RouteId, RouteKind, Service};
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
    /// The declared objects of a network: itself, then those of its services that have documents, then its routes.
    pub fn all<'a>(
        network: &'a Network,
        services: impl Iterator<Item = &'a Service> + 'a,
        routes: impl Iterator<Item = &'a Route> + 'a,
    ) -> impl Iterator<Item = Self> + 'a {
        let name = &network.name;
        std::iter::once(Self::network(network))
            .chain(services.filter_map(move |service| Self::service(name, service)))
            .chain(routes.filter_map(Self::route))
    }

    /// The declared objects of a mesh.
    pub fn everywhere(state: &State) -> impl Iterator<Item = Self> + '_ {
        state
            .networks
            .values()
            .flat_map(|known| Self::all(&known.network, known.services.values(), known.routes.values()))
    }

    /// Finds a declared object.
    #[must_use]
    pub fn find(state: &State, id: &DocumentId) -> Option<Self> {
        let known = state.networks.get(id.network())?;
        match id {
            DocumentId::Network(_) => Some(Self::network(&known.network)),
            DocumentId::Service(network, name) => Self::service(network, known.services.get(name)?),
            DocumentId::HttpRoute(_, name) => {
                Self::route(known.routes.get(&RouteId { kind: RouteKind::Http, name: name.clone() })?)
            }
            DocumentId::GrpcRoute(_, name) => {
                Self::route(known.routes.get(&RouteId { kind: RouteKind::Grpc, name: name.clone() })?)
            }
        }
    }

    fn network(network: &Network) -> Self {
        Self { document: network.into(), registrar: None }
    }

    fn route(route: &Route) -> Option<Self> {
        Some(Self { document: route.document.as_ref()?.to_document(), registrar: None })
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
