//! Sidecars that are told of routes.

use sealane_proto::document::Document;
use sealane_proto::resource::{Route, RouteDocument};

use super::*;

/// A route of this network for callers of service `api` of shop, which sends to `db` there.
fn route(network: &str) -> Route {
    let text = format!(
        r#"{{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{{"name":"split","namespace":"{network}"}},
        "spec":{{"parentRefs":[{{"group":"","kind":"Service","name":"api","namespace":"shop"}}],
        "rules":[{{"backendRefs":[{{"name":"db","namespace":"shop","port":81}}]}}]}}}}"#
    );
    Route::new(RouteDocument::of(&Document::from_json(&text).unwrap()).unwrap(), 7)
}

fn with_routes(routes: Vec<Route>) -> NetworkSnapshot {
    let mut network = shop();
    network.routes = routes.into();
    network
}

/// The services and routes that a sidecar has, by name.
fn held(asker: &Asker) -> (Vec<String>, usize) {
    let content = &asker.current.as_ref().unwrap().1.network.content;
    (content.services.iter().map(|service| service.name.to_string()).collect(), content.routes.len())
}

#[test]
fn who_calls_a_service_has_its_routes_and_what_these_send_to_as_long_as_they_are_there() {
    let first = Arc::new(HostNetwork::new(1, Arc::new(with_routes(vec![route("shop")])), None));
    let (feed, mut asker) = (feed(&first), Asker::default());
    let mut telling = to(&asker.hello());
    asker.follow(telling.lead(&feed, &first));
    assert_eq!(held(&asker), (vec![], 0));
    asker.follow(telling.answer(want(&[[10, 42, 255, 1]]), &feed));
    assert_eq!(held(&asker), (vec!["api".to_owned(), "db".to_owned()], 1));
    // The workload itself does not call the backend.
    let unused = Want { unused: [Ipv4Addr::new(10, 42, 255, 2)].into(), ..Want::default() };
    asker.follow(telling.answer(unused.clone(), &feed));
    assert_eq!(held(&asker), (vec!["api".to_owned(), "db".to_owned()], 1));
    // It is no route any more.
    let second = after(&first, with_routes(vec![]));
    assert_eq!(telling.knows(&feed.id, &second), None);
    asker.follow(telling.lead(&feed, &second));
    assert_eq!(held(&asker).1, 0);
    asker.follow(telling.answer(unused, &feed));
    assert_eq!(held(&asker), (vec!["api".to_owned()], 0));
    // It comes again, and its backend with it.
    let third = after(&second, with_routes(vec![route("shop")]));
    asker.follow(telling.lead(&feed, &third));
    assert_eq!(held(&asker), (vec!["api".to_owned(), "db".to_owned()], 1));
}

#[test]
fn a_backend_that_comes_after_its_route_is_told() {
    let mut network = with_routes(vec![route("shop")]);
    network.services.retain(|service| service.name.as_str() != "db");
    let first = Arc::new(HostNetwork::new(1, Arc::new(network), None));
    let (feed, mut asker) = (feed(&first), Asker::default());
    let mut telling = to(&asker.hello());
    asker.follow(telling.lead(&feed, &first));
    asker.follow(telling.answer(want(&[[10, 42, 255, 1]]), &feed));
    assert_eq!(held(&asker), (vec!["api".to_owned()], 1));
    let second = after(&first, with_routes(vec![route("shop")]));
    asker.follow(telling.lead(&feed, &second));
    assert_eq!(held(&asker), (vec!["api".to_owned(), "db".to_owned()], 1));
}

#[test]
fn a_route_of_another_network_is_told_to_who_is_in_that_one_too() {
    let network = Arc::new(HostNetwork::new(1, Arc::new(with_routes(vec![route("office")])), None));
    for (networks, expected) in [(vec!["shop"], 0), (vec!["shop", "office"], 1)] {
        let networks = networks.into_iter().map(|name| name.parse().unwrap()).collect();
        let feed = Feed { networks: Arc::new(networks), ..feed(&network) };
        let mut asker = Asker::default();
        let mut telling = to(&asker.hello());
        asker.follow(telling.lead(&feed, &network));
        asker.follow(telling.answer(want(&[[10, 42, 255, 1]]), &feed));
        assert_eq!(held(&asker).1, expected);
        // Nor is who is told of the whole network.
        let mut whole = Asker::default();
        whole.follow(to(&hello(true)).lead(&feed, &network));
        assert_eq!(held(&whole).1, expected);
    }
}
