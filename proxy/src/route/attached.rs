//! Routes of HTTP, by the services that they are attached to.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealane_base::shared_map::SharedMap;
use sealane_proto::resource::gateway::SectionName;
use sealane_proto::resource::{NetworkContent, Route as ToldRoute, RouteDocument};
use sealane_proto::types::{NetworkName, Port, PortName, ServiceName};

use crate::rules::{Between, Route, grpc_rules, http_rules};

/// A route of HTTP that is attached to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// The port that it is for, where it is not for all.
    pub(crate) port: Option<Port>,
    /// The same by its name.
    pub(crate) section: Option<SectionName>,
    /// The route.
    pub(crate) route: Arc<Route>,
}

/// The routes of each service.
pub(super) type AttachedRoutes = SharedMap<ServiceName, Arc<[Attached]>>;

impl Attached {
    /// Returns true if it is for this port of its service.
    pub(super) fn is_for(&self, port: Port, name: Option<&PortName>) -> bool {
        let is_named = |section: &SectionName| name.is_some_and(|name| name.as_str() == section.as_str());
        self.port.is_none_or(|only| only == port) && self.section.as_ref().is_none_or(is_named)
    }
}

/// The routes that are attached to services of a network.
pub(super) fn routes_of(network: &NetworkContent) -> AttachedRoutes {
    let own = &network.network.name;
    let mut attached = BTreeMap::<ServiceName, Vec<Attached>>::new();
    for told in network.routes.iter() {
        // One of a newer version, which this one does not understand, was told for others.
        let Some(document) = &told.document else { continue };
        let route = Arc::new(route(told, document, own));
        for parent in document.parents() {
            let Some(service) = parent.service_in(own, document.network()) else { continue };
            let (port, section) = (parent.port, parent.section_name.clone());
            attached.entry(service).or_default().push(Attached { port, section, route: route.clone() });
        }
    }
    attached.into_iter().map(|(service, attached)| (service, attached.into())).collect()
}

fn route(told: &ToldRoute, document: &RouteDocument, reached: &NetworkName) -> Route {
    let between = Between { own: document.network(), reached };
    Route {
        name: format!("{}/{}", document.network(), told.id.name),
        created: told.created(),
        rules: match document {
            RouteDocument::Http(document) => http_rules(&document.spec, between),
            RouteDocument::Grpc(document) => grpc_rules(&document.spec, between),
        },
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::document::Document;

    use super::super::{Destination, Routes, ServiceRoute};
    use super::*;
    use crate::testing::{config, service, workload};

    fn told(kind: &str, name: &str, parent: &str, backend: &str) -> ToldRoute {
        let text = format!(
            r#"{{"apiVersion":"gateway.networking.k8s.io/v1","kind":"{kind}","metadata":{{"name":"{name}","namespace":"shop"}},
            "spec":{{"parentRefs":[{parent}],"rules":[{{"backendRefs":[{backend}]}}]}}}}"#
        );
        ToldRoute::new(RouteDocument::of(&Document::from_json(&text).unwrap()).unwrap(), 7)
    }

    fn parent(more: &str) -> String {
        format!(r#"{{"group":"","kind":"Service","name":"api"{more}}}"#)
    }

    fn network(routes: Vec<ToldRoute>) -> NetworkContent {
        let services = vec![service("api", "10.42.255.1", &["web=80/http", "81/http"])];
        let own = workload("web-1", "10.42.0.1", Some("web"), &[]);
        let mut network = config(own.clone(), services, vec![own]).network.content.clone();
        network.routes = routes.into();
        network
    }

    fn at(routes: &Routes, port: u16) -> Arc<ServiceRoute> {
        match routes.destination(([10, 42, 255, 1], port).into()) {
            Destination::Service(route) => route,
            other @ (Destination::Workload(_) | Destination::Unmapped(_) | Destination::Passthrough) => {
                panic!("{other:?}")
            }
        }
    }

    #[test]
    fn a_route_is_for_the_ports_of_the_service_that_it_names() {
        for (kind, more, expected) in [
            ("HTTPRoute", "", [true, true]),
            ("HTTPRoute", r#","port":81"#, [false, true]),
            ("HTTPRoute", r#","sectionName":"web""#, [true, false]),
            ("GRPCRoute", "", [true, true]),
            ("HTTPRoute", r#","namespace":"other""#, [false, false]),
        ] {
            let routes = Routes::new(&network(vec![told(kind, "a", &parent(more), "")]));
            let seen = [80, 81].map(|port| at(&routes, port).rules.is_some());
            assert_eq!(seen, expected, "{kind} {more}");
            assert_eq!(routes.names_of_attached().next(), expected.contains(&true).then_some("shop/a"));
        }
    }

    #[test]
    fn a_port_whose_routes_are_the_same_is_the_same_as_before() {
        let backend = r#"{"name":"v1","port":80}"#;
        let route = |backend| told("HTTPRoute", "a", &parent(r#","port":80"#), backend);
        let before = Routes::new(&network(vec![route(backend)]));
        let same = Routes::new(&network(vec![route(backend)])).sharing(&before);
        let other = Routes::new(&network(vec![route("")])).sharing(&before);
        let is_same = |now: &Routes, port| Arc::ptr_eq(&at(now, port), &at(&before, port));
        assert_eq!([is_same(&same, 80), is_same(&same, 81)], [true, true]);
        assert_eq!([is_same(&other, 80), is_same(&other, 81)], [false, true]);
    }
}
