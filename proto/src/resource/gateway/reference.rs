//! Where references of routes lead, as far as the documents alone say it. Pure.

use super::backend::BackendObjectRef;
use super::grpc::{GrpcAction, GrpcFilter, GrpcRouteDocument};
use super::http::{HttpAction, HttpFilter, HttpRouteDocument};
use super::parent::ParentRef;
use crate::types::{NetworkName, Port, ServiceName};

/// Reasons for which a reference to a backend leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefFault {
    /// Not a Service.
    Kind,
    /// In a network that is neither the route's own nor that of its parent.
    NotPermitted,
    /// In the route's own network, and calls to the parent come from sidecars of another one.
    Unreachable,
    /// A Service cannot have this name.
    Name,
}

impl BackendObjectRef {
    /// The service's port that calls to a parent in network `parent` reach by a route in network `route`. It need not be there.
    ///
    /// # Errors
    /// When no service can be meant, or sidecars of the parent's network reach none in that one.
    pub fn service(
        &self,
        route: &NetworkName,
        parent: &NetworkName,
    ) -> Result<(ServiceName, Port), RefFault> {
        let (true, Some(port)) = (self.is_service(), self.port) else { return Err(RefFault::Kind) };
        let network = self.network(route);
        if network != parent {
            return Err(if network == route { RefFault::Unreachable } else { RefFault::NotPermitted });
        }
        let name = self.name.as_str().parse().map_err(|_| RefFault::Name)?;
        Ok((name, port))
    }
}

impl ParentRef {
    /// The name of the parent if it is a Service in `network`, of a route in network `route`.
    #[must_use]
    pub fn service_in(&self, network: &NetworkName, route: &NetworkName) -> Option<ServiceName> {
        if !self.is_service() || self.network(route) != network {
            return None;
        }
        self.name.as_str().parse().ok()
    }
}

impl HttpRouteDocument {
    /// All objects that requests may be sent to, copies too.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendObjectRef> {
        let mut backends = vec![];
        for rule in &self.spec.rules {
            backends.extend(mirrors(&rule.filters));
            for backend in &rule.backend_refs {
                backends.push(backend.object());
                backends.extend(mirrors(&backend.filters));
            }
        }
        backends
    }
}

fn mirrors(filters: &[HttpFilter]) -> impl Iterator<Item = BackendObjectRef> + '_ {
    filters.iter().filter_map(|filter| match filter.action() {
        Some(HttpAction::Mirror(mirror)) => Some(mirror.backend_ref.clone()),
        Some(
            HttpAction::RequestHeaders(_)
            | HttpAction::ResponseHeaders(_)
            | HttpAction::Redirect(_)
            | HttpAction::Rewrite(_)
            | HttpAction::Cors(_),
        )
        | None => None,
    })
}

impl GrpcRouteDocument {
    /// All objects that calls may be sent to, copies too.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendObjectRef> {
        let mut backends = vec![];
        for rule in &self.spec.rules {
            backends.extend(grpc_mirrors(&rule.filters));
            for backend in &rule.backend_refs {
                backends.push(backend.object());
                backends.extend(grpc_mirrors(&backend.filters));
            }
        }
        backends
    }
}

fn grpc_mirrors(filters: &[GrpcFilter]) -> impl Iterator<Item = BackendObjectRef> + '_ {
    filters.iter().filter_map(|filter| match filter.action() {
        Some(GrpcAction::Mirror(mirror)) => Some(mirror.backend_ref.clone()),
        Some(GrpcAction::RequestHeaders(_) | GrpcAction::ResponseHeaders(_)) | None => None,
    })
}
