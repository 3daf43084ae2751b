use super::*;
use crate::testing::{config, service, workload};

fn addresses(target: Target) -> Vec<String> {
    match target {
        Target::Service(route) => route.endpoints.iter().map(|(at, _)| at.address.to_string()).collect(),
        Target::Workload(_) | Target::Unmapped(_) | Target::Passthrough => panic!("{target:?}"),
    }
}

fn snapshot() -> Snapshot {
    let mut starting = workload("api-3", "10.42.1.3", Some("api"), &["80/http"]);
    starting.ready = false;
    let mut bare = workload("api-2", "10.42.1.2", Some("api"), &["80/http"]);
    bare.sidecar = false;
    Snapshot::new(&config(
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
    let snapshot = snapshot();
    let target = snapshot.target("10.42.255.1:80".parse().unwrap());
    assert_eq!(addresses(target.clone()), ["10.42.1.1:80", "10.42.1.2:80"]);
    let Target::Service(route) = target else { panic!() };
    let expected = Principal::Service("shop".parse().unwrap(), "api".parse().unwrap());
    assert_eq!(route.endpoints[0].0.reach, Reach::Tunnel(expected));
    assert_eq!(route.endpoints[1].0.reach, Reach::Plain);
    assert_eq!(route.protocol, Protocol::Http);
}

#[test]
fn ports_that_a_service_does_not_have_are_unmapped() {
    let snapshot = snapshot();
    for port in [53, 81] {
        let target = snapshot.target(SocketAddr::new("10.42.255.1".parse().unwrap(), port));
        assert!(matches!(target, Target::Unmapped(_)), "{port}: {target:?}");
    }
}

#[test]
fn workloads_are_reached_by_their_own_address_and_strangers_passed_through() {
    let snapshot = snapshot();
    let Target::Workload(route) = snapshot.target("10.42.2.1:9000".parse().unwrap()) else { panic!() };
    let expected = Principal::Workload("shop".parse().unwrap(), "web".parse().unwrap());
    assert_eq!(route.reach, Reach::Tunnel(expected));
    assert_eq!(route.label, "web");
    let called = snapshot.label_of("10.42.2.1".parse().unwrap());
    assert_eq!(called, Some(NO_SERVICE), "names of workloads come and go, and would be labels without end");
    for stranger in ["10.42.9.9:80", "[::1]:80"] {
        assert!(matches!(snapshot.target(stranger.parse().unwrap()), Target::Passthrough));
    }
}
