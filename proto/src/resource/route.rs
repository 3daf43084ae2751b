//! Routes of a network, as control keeps them and hosts are told of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::document::Document;
use super::gateway::{BackendObjectRef, GrpcRouteDocument, HttpRouteDocument, ParentRef};
use crate::types::{NameError, NetworkName, ObjectName, ServiceName};
use crate::wire::{Fields, WireError, v1};

/// A kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// `HTTPRoute`.
    Http,
    /// `GRPCRoute`.
    Grpc,
}

/// Name of a route among all those of its network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId {
    /// The kind.
    pub kind: RouteKind,
    /// The name among those of its kind.
    pub name: ObjectName,
}

/// A text that names no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteIdError {
    /// No kind of route is in front.
    #[error("{0:?} is no route: it must be httproute or grpcroute, a slash and a name")]
    Kind(String),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A route. Its document travels as its JSON, so that whoever passes it on needs not understand it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name in its network.
    pub id: RouteId,
    /// Document as it is kept, without what only people read where hosts are told of it.
    pub json: Arc<str>,
    /// Document, if this version understands it.
    pub document: Option<RouteDocument>,
    /// Grows with each change of the specification.
    pub generation: u64,
    /// Time of its making, whole seconds since 1970: of two that match alike, the older one counts.
    pub created: u64,
    /// Time of its last change, whole seconds since 1970.
    pub changed: u64,
}

/// The document of a route of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteDocument {
    /// `HTTPRoute`.
    Http(Arc<HttpRouteDocument>),
    /// `GRPCRoute`.
    Grpc(Arc<GrpcRouteDocument>),
}

impl RouteKind {
    /// The word of keys and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "httproute",
            Self::Grpc => "grpcroute",
        }
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for RouteId {
    type Err = RouteIdError;
    fn from_str(text: &str) -> Result<Self, RouteIdError> {
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        let known = [RouteKind::Http, RouteKind::Grpc].into_iter().find(|known| known.as_str() == kind);
        let kind = known.ok_or_else(|| RouteIdError::Kind(text.chars().take(80).collect()))?;
        Ok(Self { kind, name: name.parse()? })
    }
}

impl RouteDocument {
    /// The route's network.
    #[must_use]
    pub fn network(&self) -> &NetworkName {
        match self {
            Self::Http(document) => &document.metadata.namespace,
            Self::Grpc(document) => &document.metadata.namespace,
        }
    }

    /// The route's name.
    #[must_use]
    pub fn id(&self) -> RouteId {
        match self {
            Self::Http(document) => RouteId { kind: RouteKind::Http, name: document.metadata.name.clone() },
            Self::Grpc(document) => RouteId { kind: RouteKind::Grpc, name: document.metadata.name.clone() },
        }
    }

    /// The objects that it attaches to.
    #[must_use]
    pub fn parents(&self) -> &[ParentRef] {
        match self {
            Self::Http(document) => &document.spec.parent_refs,
            Self::Grpc(document) => &document.spec.parent_refs,
        }
    }

    /// All objects that requests may be sent to, copies too.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendObjectRef> {
        match self {
            Self::Http(document) => document.backends(),
            Self::Grpc(document) => document.backends(),
        }
    }

    /// The names of the services in `network` that it attaches to.
    pub fn services_in<'a>(&'a self, network: &'a NetworkName) -> impl Iterator<Item = ServiceName> + 'a {
        self.parents().iter().filter_map(|parent| parent.service_in(network, self.network()))
    }

    /// Returns true if both have the same specification.
    #[must_use]
    pub fn same_spec(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(other)) => one.spec == other.spec,
            (Self::Grpc(one), Self::Grpc(other)) => one.spec == other.spec,
            (Self::Http(_), Self::Grpc(_)) | (Self::Grpc(_), Self::Http(_)) => false,
        }
    }

    /// The document as people write it.
    #[must_use]
    pub fn to_document(&self) -> Document {
        match self {
            Self::Http(document) => Document::HttpRoute(HttpRouteDocument::clone(document)),
            Self::Grpc(document) => Document::GrpcRoute(GrpcRouteDocument::clone(document)),
        }
    }

    /// The document of a route; `None` where it is of another kind.
    #[must_use]
    pub fn of(document: &Document) -> Option<Self> {
        match document {
            Document::HttpRoute(document) => Some(Self::Http(Arc::new(document.clone()))),
            Document::GrpcRoute(document) => Some(Self::Grpc(Arc::new(document.clone()))),
            Document::Network(_) | Document::Service(_) => None,
        }
    }
}

impl Route {
    /// A route with this document, of its first generation.
    #[must_use]
    pub fn new(document: RouteDocument, now: u64) -> Self {
        // A document has no map with other keys than texts.
        let json = document.to_document().to_json().unwrap_or_default().into();
        Self { id: document.id(), json, document: Some(document), generation: 1, created: now, changed: now }
    }

    /// The same without labels and annotations, which hosts need not know.
    #[must_use]
    pub fn told(&self) -> Self {
        let bare = |metadata: &super::gateway::ObjectMetadata| {
            metadata.labels.is_empty() && metadata.annotations.is_empty()
        };
        let document = match &self.document {
            Some(RouteDocument::Http(document)) if !bare(&document.metadata) => {
                let mut document = HttpRouteDocument::clone(document);
                document.metadata.forget_notes();
                RouteDocument::Http(Arc::new(document))
            }
            Some(RouteDocument::Grpc(document)) if !bare(&document.metadata) => {
                let mut document = GrpcRouteDocument::clone(document);
                document.metadata.forget_notes();
                RouteDocument::Grpc(Arc::new(document))
            }
            Some(RouteDocument::Http(_) | RouteDocument::Grpc(_)) | None => return self.clone(),
        };
        Self {
            generation: self.generation,
            created: self.created,
            changed: self.changed,
            ..Self::new(document, 0)
        }
    }

    /// The time of its making.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.created)).unwrap_or(UNIX_EPOCH)
    }
}

impl TryFrom<v1::Route> for Route {
    type Error = WireError;
    fn try_from(message: v1::Route) -> Result<Self, WireError> {
        let id = Fields("Route").parse("id", &message.id)?;
        // A newer control plane may take documents that this version does not know.
        let document =
            Document::from_json(&message.json).ok().and_then(|document| RouteDocument::of(&document));
        let v1::Route { json, generation, created, changed, .. } = message;
        let document = document.filter(|document| document.id() == id);
        Ok(Self { id, json: json.into(), document, generation, created, changed })
    }
}

impl From<&Route> for v1::Route {
    fn from(Route { id, json, document: _, generation, created, changed }: &Route) -> Self {
        Self {
            id: id.to_string(),
            json: json.to_string(),
            generation: *generation,
            created: *created,
            changed: *changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(annotations: &str) -> RouteDocument {
        let text = format!(
            r#"{{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{{"name":"split.v1","namespace":"shop"{annotations}}},"spec":{{"parentRefs":[{{"group":"","kind":"Service","name":"api"}}]}}}}"#
        );
        RouteDocument::of(&Document::from_json(&text).unwrap()).unwrap()
    }

    #[test]
    fn routes_travel_as_they_are() {
        let route = Route::new(document(""), 7);
        let message = v1::Route::from(&route);
        assert_eq!(message.id, "httproute/split.v1");
        assert_eq!(Route::try_from(message), Ok(route));
    }

    #[test]
    fn a_document_that_is_not_understood_is_passed_on() {
        let mut message = v1::Route::from(&Route::new(document(""), 7));
        message.json = message.json.replace("\"spec\":{", "\"spec\":{\"ofTomorrow\":1,");
        let route = Route::try_from(message.clone()).unwrap();
        assert_eq!(route.document, None);
        assert_eq!(v1::Route::from(&route), message);
    }

    #[test]
    fn hosts_are_not_told_what_only_people_read() {
        let noted = Route::new(document(r#","labels":{"app":"shop"},"annotations":{"note":"long"}"#), 7);
        assert_eq!(noted.told(), Route::new(document(""), 7));
        assert_eq!(noted.told().told(), noted.told());
    }

    #[test]
    fn names_have_a_kind_in_front() {
        for text in ["httproute/a", "grpcroute/a.b"] {
            assert_eq!(text.parse::<RouteId>().unwrap().to_string(), text);
        }
        for text in ["", "a", "httproute", "httproute/", "tcproute/a", "httproute/A"] {
            assert!(text.parse::<RouteId>().is_err(), "{text}");
        }
    }
}
