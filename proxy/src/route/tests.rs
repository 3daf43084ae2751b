use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sealane_proto::sidecar::Config;

use super::*;
use crate::testing::{config, service, workload};

fn routes(config: &Config) -> Routes {
    Routes::new(&config.network)
}

fn after_change(before: &Routes, change: &NetworkChange) -> Routes {
    let mut after = before.clone();
    after.change(change);
    after
}

fn addresses(target: Destination) -> Vec<String> {
    match target {
        Destination::Service(route) => route.endpoints.iter().map(|(at, _)| at.address.to_string()).collect(),
        Destination::Workload(_) | Destination::Unmapped(_) | Destination::Passthrough => {
            panic!("{target:?}")
        }
    }
}

fn network() -> Routes {
    let mut starting = workload("api-3", "10.42.1.3", Some("api"), &["80/http"]);
    starting.ready = false;
    let mut bare = workload("api-2", "10.42.1.2", Some("api"), &["80/http"]);
    bare.sidecar = false;
    routes(&config(
        workload("web", "10.42.2.1", None, &[]),
        vec![service("api", "10.42.255.1", &["80/http", "53/udp"])],
        vec![
            workload("api-1", "10.42.1.1", Some("api"), &["80/http", "81"]),
            bare,
            starting,
            workload("web", "10.42.2.1", None, &[]),
        ],
    ))
}

#[test]
fn a_service_port_leads_to_its_ready_instances() {
    let routes = network();
    let target = routes.destination("10.42.255.1:80".parse().unwrap());
    assert_eq!(addresses(target.clone()), ["10.42.1.1:80", "10.42.1.2:80"]);
    let Destination::Service(route) = target else { panic!() };
    let expected = Principal::Service("shop".parse().unwrap(), "api".parse().unwrap());
    assert_eq!(route.endpoints[0].0.reach, Reach::Tunnel(expected.into()));
    assert_eq!(route.endpoints[1].0.reach, Reach::Plain);
    assert_eq!(route.protocol, Protocol::Http);
}

#[test]
fn a_workload_that_is_ready_at_its_ipv6_address_alone_is_called_there_unless_a_sidecar_finds_it() {
    let instance = |name: &str, address: &str, (ready, ready6), sidecar| Workload {
        ready,
        ready6,
        sidecar,
        ..workload(name, address, Some("api"), &["80"])
    };
    let mut config = config(
        workload("web", "10.42.2.1", None, &[]),
        vec![service("api", "10.42.255.1", &["80"])],
        vec![
            instance("api-1", "10.42.1.1", (false, true), false),
            instance("api-2", "10.42.1.2", (true, true), false),
            instance("api-3", "10.42.1.3", (false, false), false),
            instance("api-4", "10.42.1.4", (true, true), true),
        ],
    );
    config.network.content.network.subnet6 = Some("fd42::/64".parse().unwrap());
    let routes = routes(&config);
    for (last, expected) in [(1, "fd42::a2a:101"), (2, "10.42.1.2"), (3, "10.42.1.3"), (4, "10.42.1.4")] {
        let called = SocketAddr::new(Ipv4Addr::new(10, 42, 1, last).into(), 80);
        let Destination::Workload(route) = routes.destination(called) else { panic!("{last}") };
        assert_eq!(route.place.to_string(), expected);
    }
    assert_eq!(
        addresses(routes.destination("10.42.255.1:80".parse().unwrap())),
        ["10.42.1.2:80", "10.42.1.4:80"]
    );
}

#[test]
fn ports_that_a_service_does_not_have_are_unmapped() {
    let routes = network();
    for port in [53, 81] {
        let target = routes.destination(SocketAddr::new("10.42.255.1".parse().unwrap(), port));
        assert!(matches!(target, Destination::Unmapped(_)), "{port}: {target:?}");
    }
}

#[test]
fn workloads_are_reached_by_their_own_address_and_strangers_passed_through() {
    let routes = network();
    let Destination::Workload(route) = routes.destination("10.42.2.1:9000".parse().unwrap()) else {
        panic!()
    };
    let expected = Principal::Workload("shop".parse().unwrap(), "web".parse().unwrap());
    assert_eq!(route.reach, Reach::Tunnel(expected.into()));
    assert_eq!(route.label(), "web");
    let called = routes.label_of("10.42.2.1".parse().unwrap());
    assert_eq!(called, Some(NO_SERVICE), "names of workloads come and go, and would be labels without end");
    for stranger in ["10.42.9.9:80", "[::1]:80"] {
        assert!(matches!(routes.destination(stranger.parse().unwrap()), Destination::Passthrough));
    }
}

/// In how far the two are one: own workload and rules are those of the configuration before in any case.
fn assert_same(one: &Routes, other: &Routes) {
    assert_eq!(one.ports, other.ports);
    assert_eq!(one.service_addresses, other.service_addresses);
    assert_eq!(one.workloads, other.workloads);
}

#[test]
fn what_follows_a_change_is_what_the_whole_configuration_makes() {
    let own = workload("web", "10.42.2.1", None, &[]);
    let api =
        |last: u8, ports| workload(&format!("api-{last}"), &format!("10.42.1.{last}"), Some("api"), ports);
    let service_api = || service("api", "10.42.255.1", &["80/http", "81"]);
    let service_db = || service("db", "10.42.255.2", &["5432"]);
    let of_db = |last: u8| workload("db-1", &format!("10.42.3.{last}"), Some("db"), &["5432"]);
    let service_outside = |places: &[&str]| {
        let mut db = service_db();
        db.external.instances = places.iter().map(|place| place.parse().unwrap()).collect();
        db
    };
    let not_ready = |mut workload: Workload| {
        workload.ready = false;
        workload
    };
    let states = [
        (vec![], vec![own.clone()]),
        (vec![], vec![api(1, &["80/http"]), own.clone()]),
        (vec![service_api()], vec![api(1, &["80/http"]), own.clone()]),
        (vec![service_api()], vec![api(1, &["80/http"]), api(2, &["80/http", "81"]), own.clone()]),
        (
            vec![service_api(), service_db()],
            vec![not_ready(api(1, &["80"])), api(2, &["81"]), of_db(1), own.clone()],
        ),
        // Another address, another service of the same name as before, one that is gone.
        (
            vec![service("api", "10.42.255.9", &["82"]), service_db()],
            vec![api(3, &["82"]), of_db(7), own.clone()],
        ),
        (vec![service_db()], vec![of_db(1), own.clone()]),
        (vec![service_outside(&["192.0.2.50"])], vec![of_db(1), own.clone()]),
        (vec![service_outside(&["192.0.2.51:5433", "192.0.2.50"])], vec![own.clone()]),
        (vec![], vec![own.clone()]),
    ];
    let configs = states.map(|(services, workloads)| config(own.clone(), services, workloads));
    for before in &configs {
        for after in &configs {
            let change = NetworkChange::between(&before.network, &after.network).unwrap();
            assert_same(&after_change(&routes(before), &change), &routes(after));
        }
    }
}

#[test]
fn what_a_change_does_not_touch_is_shared_with_the_configuration_before() {
    let own = workload("web", "10.42.2.1", None, &[]);
    let api = workload("api-1", "10.42.1.1", Some("api"), &["80"]);
    let services = || vec![service("api", "10.42.255.1", &["80"]), service("db", "10.42.255.2", &["5432"])];
    let before = config(own.clone(), services(), vec![api.clone(), own.clone()]);
    let db = workload("db-1", "10.42.3.1", Some("db"), &["5432"]);
    let after = config(own.clone(), services(), vec![api, db, own]);
    let change = NetworkChange::between(&before.network, &after.network).unwrap();
    let (before, whole) = (routes(&before), after);
    let after = after_change(&before, &change);
    let meaning = |routes: &Routes, vip, port| {
        routes.destination(SocketAddr::new(Ipv4Addr::new(10, 42, 255, vip).into(), port))
    };
    assert!(meaning(&after, 1, 80).is_still(&meaning(&before, 1, 80)));
    assert!(!meaning(&after, 2, 5432).is_still(&meaning(&before, 2, 5432)));
    assert_eq!(addresses(meaning(&after, 2, 5432)), ["10.42.3.1:5432"]);
    let of_api = |routes: &Routes| routes.destination("10.42.1.1:80".parse().unwrap());
    assert!(of_api(&after).is_still(&of_api(&before)));
    let anew = routes(&whole).sharing(&before);
    assert!(meaning(&anew, 1, 80).is_still(&meaning(&before, 1, 80)));
    assert!(!meaning(&anew, 2, 5432).is_still(&meaning(&before, 2, 5432)));
    assert_same(&anew, &after);
}

/// The endpoints of a service's port, found by looking through the whole network.
fn endpoints_of(network: &NetworkContent, service: &Service, port: &ServicePort) -> Vec<String> {
    let offers = |workload: &&Workload| {
        let offers = carried(&workload.ports).any(|own| own.port == port.port);
        workload.takes_work() && offers && workload.service.as_ref() == Some(&service.name)
    };
    let inside = network.workloads.iter().filter(offers);
    let inside = inside.map(|workload| format!("{}:{} {}", workload.address, port.port, workload.weight));
    let outside = service.outside(port.key()).map(|place| format!("{place} {}", Weight::default()));
    inside.chain(outside).collect()
}

/// Asserts that the routes say of a network what looking through all of it says.
fn assert_complete(routes: &Routes, network: &NetworkContent) {
    for service in &network.services {
        for port in &service.ports {
            let called = SocketAddr::new(service.vip.to_ipv4().into(), port.port.get());
            let expected = carried(&service.ports).any(|own| own == port);
            match routes.destination(called) {
                Destination::Service(route) => {
                    let shown =
                        |(endpoint, weight): &(Endpoint, Weight)| format!("{} {weight}", endpoint.address);
                    let endpoints: Vec<String> = route.endpoints.iter().map(shown).collect();
                    assert_eq!(endpoints, endpoints_of(network, service, port));
                    assert_eq!((&route.service, route.protocol), (&service.name, port.protocol));
                }
                Destination::Unmapped(_) if !expected => {}
                other @ (Destination::Workload(_) | Destination::Unmapped(_) | Destination::Passthrough) => {
                    panic!("{called}: {other:?}")
                }
            }
        }
    }
    for workload in &network.workloads {
        let called = SocketAddr::new(workload.address.to_ipv4().into(), 9);
        let Destination::Workload(route) = routes.destination(called) else { panic!("{called}") };
        assert_eq!((&route.name, &route.service), (&workload.name, &workload.service));
        assert_eq!(routes.has_sidecar(called.ip(), &workload.principal()), workload.sidecar);
        assert_eq!(routes.is_leaving(called.ip()), !workload.takes_work());
    }
    assert_eq!(routes.workloads.len(), network.workloads.len());
    assert_eq!(routes.service_addresses.len(), network.services.len());
}

/// A network of up to six services and so many workloads, by chance: names stay, all else about them changes.
fn random_network(random: &mut StdRng, most: u8) -> Config {
    const PORTS: [&str; 4] = ["80/http", "81", "53/udp", "5432/tcp"];
    let some = |random: &mut StdRng| PORTS.into_iter().filter(|_| random.random()).collect::<Vec<_>>();
    let mut places: Vec<u8> = (0..u8::MAX).collect();
    let mut place = |random: &mut StdRng| places.swap_remove(random.random_range(0..places.len()));
    let (mut services, mut workloads) = (Vec::new(), Vec::new());
    for name in 0..6 {
        if random.random_ratio(2, 3) {
            let vip = format!("10.42.255.{}", place(random));
            let mut service = service(&format!("s{name}"), &vip, &some(random));
            if random.random_ratio(1, 4) {
                service.external.instances = vec!["192.0.2.50".parse().unwrap()];
            }
            services.push(service);
        }
    }
    for name in 0..most {
        if random.random_ratio(3, 4) {
            // Most stay where they are.
            let last = if random.random_ratio(9, 10) { name } else { random.random_range(most..u8::MAX) };
            let address = format!("10.42.{}.{last}", u8::from(last >= most) * (1 + name));
            let of = random.random_range(0..9);
            let of = (of < 7).then(|| format!("s{of}"));
            let mut workload = workload(&format!("w{name:03}"), &address, of.as_deref(), &some(random));
            workload.ready = random.random_ratio(4, 5);
            workload.sidecar = random.random_ratio(4, 5);
            workload.weight = Weight::try_from(random.random_range(1..4_u32)).unwrap();
            workloads.push(workload);
        }
    }
    config(workload("web", "10.43.2.1", None, &[]), services, workloads)
}

#[test]
fn whatever_changes_routes_are_those_that_a_look_through_the_whole_network_finds() {
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..200 {
        let most = if round % 10 == 0 { 120 } else { 12 };
        let mut before = random_network(&mut random, most);
        let mut routes = routes(&before);
        assert_complete(&routes, &before.network);
        for _ in 0..8 {
            let after = random_network(&mut random, most);
            let change = NetworkChange::between(&before.network, &after.network).unwrap();
            let kept = routes.clone();
            routes.change(&change);
            assert_complete(&routes, &after.network);
            assert_complete(&kept, &before.network);
            assert_same(&routes, &Routes::new(&after.network));
            before = after;
        }
    }
}

#[test]
fn instances_outside_every_network_are_reached_in_plain_at_their_own_ports() {
    let mut db = service("db", "10.42.255.2", &["5432/tcp"]);
    db.external.instances = vec!["192.0.2.50".parse().unwrap(), "192.0.2.51:5433".parse().unwrap()];
    let inside = workload("db-1", "10.42.1.4", Some("db"), &["5432/tcp"]);
    let routes = routes(&config(workload("web", "10.42.2.1", None, &[]), vec![db], vec![inside]));
    let target = routes.destination("10.42.255.2:5432".parse().unwrap());
    assert_eq!(addresses(target.clone()), ["10.42.1.4:5432", "192.0.2.50:5432", "192.0.2.51:5433"]);
    let Destination::Service(route) = target else { panic!() };
    assert!(route.endpoints[1..].iter().all(|(endpoint, _)| endpoint.reach == Reach::Plain));
    assert!(
        matches!(routes.destination("192.0.2.50:5432".parse().unwrap()), Destination::Passthrough),
        "by its own address"
    );
}

#[test]
fn a_caller_is_believed_to_be_a_sidecar_at_its_own_address_alone() {
    let routes = network();
    let principal = |service: &str| Principal::Service("shop".parse().unwrap(), service.parse().unwrap());
    for (address, service, expected) in [
        ("10.42.1.1", "api", true),
        ("10.42.1.1", "db", false),
        ("10.42.1.2", "api", false),
        ("10.42.9.9", "api", false),
        ("::1", "api", false),
    ] {
        let known = routes.has_sidecar(address.parse().unwrap(), &principal(service));
        assert_eq!(known, expected, "{service} at {address}");
    }
}

#[test]
fn who_takes_no_new_work_may_be_about_to_go() {
    let routes = network();
    for (address, expected) in
        [("10.42.1.1", false), ("10.42.1.3", true), ("10.42.9.9", true), ("::1", false)]
    {
        assert_eq!(routes.is_leaving(address.parse().unwrap()), expected, "{address}");
    }
}

#[test]
fn a_workload_is_called_by_the_protocols_of_the_ports_that_it_offers() {
    let Destination::Workload(route) = network().destination("10.42.1.1:80".parse().unwrap()) else {
        panic!()
    };
    let protocols = [80, 81, 82].map(|port| route.protocol(port));
    assert_eq!(protocols, [Protocol::Http, Protocol::Auto, Protocol::Auto]);
}

#[test]
fn addresses_of_both_families_are_made_from_each_other_where_the_network_has_both() {
    let mut config = config(workload("web", "10.42.2.1", None, &[]), vec![], vec![]);
    let (ipv4, ipv6) = (Ipv4Addr::new(10, 42, 1, 1), "fd42::a2a:101".parse().unwrap());
    assert_eq!((routes(&config).ipv6_of(ipv4), routes(&config).ipv4_of(IpAddr::V6(ipv6))), (None, None));
    config.network.content.network.subnet6 = Some("fd42::/64".parse().unwrap());
    let routes = routes(&config);
    assert_eq!((routes.ipv6_of(ipv4), routes.ipv4_of(IpAddr::V6(ipv6))), (Some(ipv6), Some(ipv4)));
}
