//! Workloads of this host from their admission, or their return after a restart, to their end.

use sealane_fabric::health::Families;
use sealane_proto::resource::Edition;
use sealane_proto::types::Aliases;

use super::*;

fn shop() -> NetworkName {
    "shop".parse().unwrap()
}

/// A host with one workload.
fn hosting() -> (Mesh, AttachmentId) {
    let mut mesh = mesh();
    let id = AttachmentId::of(&mesh.admit(&spec("api"), Instant::now()).unwrap());
    (mesh, id)
}

fn weight(number: u32) -> Weight {
    Weight::try_from(number).unwrap()
}

/// The workload as this host reports it.
fn reported(mesh: &Mesh) -> Workload {
    let [workload] = &mesh.report().workloads[..] else { panic!() };
    workload.clone()
}

#[test]
fn every_change_that_control_is_to_hear_of_is_a_new_version_of_the_report() {
    let (mut mesh, id) = hosting();
    let now = Instant::now();
    let aliases = Aliases::parse(["front"]).unwrap();
    type Change<'a> = &'a dyn Fn(&mut Mesh);
    let changes: [(&str, Change<'_>); 8] = [
        ("another workload", &|mesh| drop(mesh.admit(&spec("other"), now).unwrap())),
        ("ready", &|mesh| drop(mesh.set_ready(&id, Families::both(true)))),
        ("aliases", &|mesh| drop(mesh.name_anew(&id, &aliases))),
        ("weight", &|mesh| assert!(mesh.set_weight(&id, weight(7)))),
        ("end", &|mesh| mesh.end(&id)),
        ("removal", &|mesh| mesh.remove(&id, now)),
        ("told anew", &Mesh::tell_anew),
        ("incarnation", &|mesh| mesh.begin_incarnation(9)),
    ];
    for (change, make) in changes {
        let version = mesh.version();
        make(&mut mesh);
        assert_eq!(mesh.version(), version + 1, "{change}");
        assert_eq!(mesh.report().version, mesh.version());
    }
}

#[test]
fn what_is_as_it_was_is_no_news() {
    let (mut mesh, id) = hosting();
    let aliases = Aliases::parse(["front"]).unwrap();
    assert!(mesh.set_ready(&id, Families::both(true)).is_some_and(|workload| workload.ready));
    assert!(mesh.name_anew(&id, &aliases).is_some_and(|workload| workload.aliases == aliases));
    assert!(mesh.set_weight(&id, weight(7)));
    let version = mesh.version();
    assert_eq!(mesh.set_ready(&id, Families::both(true)), None);
    assert_eq!(mesh.name_anew(&id, &aliases), None);
    assert!(!mesh.set_weight(&id, weight(7)));
    let stranger = AttachmentId { workload: "stranger".parse().unwrap(), ..id };
    assert!(!mesh.set_weight(&stranger, weight(9)) && mesh.name_anew(&stranger, &aliases).is_none());
    assert_eq!(mesh.version(), version);
    let workload = reported(&mesh);
    assert_eq!((workload.ready, workload.aliases, workload.weight), (true, aliases, weight(7)));
}

#[test]
fn what_ends_has_no_weight_to_change() {
    let (mut mesh, id) = hosting();
    mesh.set_weight(&id, weight(5));
    let drain = WeightChange { drained: Some(true), weight: None };
    assert_eq!(mesh.weighed(std::slice::from_ref(&id), drain), [(id.clone(), weight(5).drain())]);
    mesh.end(&id);
    assert_eq!(mesh.weighed(&[id], drain), []);
}

#[test]
fn the_address_of_a_workload_rests_after_its_end() {
    let (mut mesh, id) = hosting();
    let before = reported(&mesh).address;
    mesh.remove(&id, Instant::now());
    // The host's block has but this and one other address.
    let mut small = snapshot(2);
    small.blocks = vec![testing::block(Some("host-1"), "10.42.0.2/31")];
    mesh.accept(small);
    assert_eq!(before.to_string(), "10.42.0.3");
    assert_eq!(mesh.admit(&spec("next"), Instant::now()).unwrap().address.to_string(), "10.42.0.2");
    let now = Instant::now();
    assert!(mesh.admit(&spec("third"), now).is_err());
    assert_eq!(mesh.admit(&spec("third"), now + crate::ipam::REST).unwrap().address, before);
}

#[test]
fn a_workload_of_before_is_ready_as_it_last_was_said_to_be() {
    let own = |ready, ready6| Workload { ready, ready6, ..testing::workload("api", "10.42.0.9") };
    let namesakes = [
        Workload { node: "host-2".parse().unwrap(), ..own(true, true) },
        Workload { name: "other".parse().unwrap(), ..own(true, true) },
    ];
    let word = |revision, workload| OwnerFacts {
        network: shop(),
        incarnation: 1,
        revision,
        workloads: vec![workload],
    };
    let heard = Some(BTreeMap::from([(
        "host-1".parse::<NodeName>().unwrap(),
        Edition { incarnation: 1, revision: 5 },
    )]));
    for (known, said, expected) in [
        (None, None, (false, false)),
        (Some(own(true, false)), None, (true, false)),
        (Some(own(true, false)), Some(word(5, own(false, true))), (true, false)),
        (Some(own(true, false)), Some(word(6, own(false, true))), (false, true)),
    ] {
        let mut mesh = mesh();
        let mut told = snapshot(2);
        told.workloads = namesakes.iter().cloned().chain(known).collect();
        told.reported = heard.clone();
        mesh.accept(told);
        said.into_iter().for_each(|word| mesh.recall_word(mesh.node().name.clone(), word));
        let attachment = Attachment { workload: own(false, false), seat: Seat::default(), ending: false };
        let mut recalled = attachment.clone();
        mesh.recall(&mut recalled, false);
        assert_eq!((recalled.workload.ready, recalled.workload.ready6), expected);
        let workload = reported(&mesh);
        assert_eq!((workload.ready, workload.ready6), expected);
        assert!(!mesh.attached(&shop())[0].ending);
        mesh.set_published(&shop(), 1, generation(2));
        assert!(mesh.applied().is_empty(), "its rules are of no state yet");
        mesh.recall(&mut attachment.clone(), true);
        assert!(mesh.attached(&shop())[0].ending && !reported(&mesh).ready, "its processes are gone");
    }
}

#[test]
fn instances_of_a_drained_host_are_not_ready_and_its_other_workloads_are() {
    let (mut mesh, id) = hosting();
    let instance = AttachmentSpec { service: Some("shop-api".parse().unwrap()), ..spec("web-1") };
    let instance = AttachmentId::of(&mesh.admit(&instance, Instant::now()).unwrap());
    for id in [&id, &instance] {
        mesh.set_ready(id, Families::both(true));
    }
    let ready = |mesh: &Mesh| {
        let own = mesh.overlaid(&shop()).unwrap().workloads.iter().cloned().collect::<Vec<_>>().into_iter();
        own.filter(|one| one.node == mesh.node().name).map(|one| (one.ready, one.ready6)).collect::<Vec<_>>()
    };
    assert_eq!(ready(&mesh), [(true, true), (true, true)]);
    let mut drained = snapshot(2);
    drained.drained = vec!["host-1".parse().unwrap()];
    mesh.accept(drained);
    assert_eq!(ready(&mesh), [(true, true), (false, false)]);
}

#[test]
fn an_instance_outside_that_does_not_work_is_left_out_of_its_service_alone() {
    let mut told = snapshot(2);
    told.services =
        ["db", "mail"].map(|name| testing::service(name, "10.42.255.9", std::iter::empty())).into();
    let [one, other] = ["198.51.100.7", "198.51.100.8"].map(|instance| instance.parse().unwrap());
    told.services.iter_mut().for_each(|service| service.external.instances = vec![one, other]);
    let mut mesh = mesh();
    mesh.accept(told);
    let (network, service) = (shop(), "db".parse().unwrap());
    mesh.set_down([Outside { network, service, instance: one }].into());
    let overlaid = mesh.overlaid(&shop()).unwrap();
    let left = overlaid.services.iter().map(|service| service.external.instances.clone());
    assert_eq!(left.collect::<Vec<_>>(), [vec![other], vec![one, other]]);
}

#[test]
fn names_of_this_host_are_in_use_here_and_known_by_network() {
    let (mut mesh, id) = hosting();
    let again = mesh.admit(&spec("api"), Instant::now()).unwrap_err().to_string();
    assert!(again.contains("workload name api in network shop is in use on host-1"), "{again}");
    assert_eq!(mesh.names_in(&shop()), [id.workload]);
    assert_eq!(mesh.names_in(&"office".parse().unwrap()), [""; 0].map(|name| name.parse().unwrap()));
}

#[test]
fn an_ethernet_address_of_one_that_is_ending_is_waited_for() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let mac = AttachmentSpec { mac: Some("06:11:22:33:44:55".parse().unwrap()), ..spec("old") };
    let id = AttachmentId::of(&mesh.admit(&mac, now).unwrap());
    let heir = AttachmentSpec { name: "new".parse().unwrap(), ..mac };
    assert!(matches!(mesh.admit(&heir, now), Err(AdmitError::MacInUse { .. })));
    mesh.end(&id);
    assert!(matches!(mesh.admit(&heir, now), Err(AdmitError::Ending(ending)) if ending == id));
    mesh.remove(&id, now);
    assert!(mesh.admit(&heir, now).is_ok());
}

#[test]
fn holders_of_addresses_are_named_with_the_way_out() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let mut told = snapshot(2);
    told.services = [testing::service("db", "10.42.0.77", ["5432"].into_iter())].into();
    mesh.accept(told);
    let claim = Claim {
        hold: "docker/1".parse().unwrap(),
        network: shop(),
        address: Some("10.42.0.78".parse().unwrap()),
        mac: None,
        from: None,
    };
    mesh.reserve(&claim, (now, std::time::SystemTime::UNIX_EPOCH)).unwrap();
    for (address, holder) in [
        ("10.42.0.77", "in use by service db; hint: choose another one, outside the addresses of services"),
        (
            "10.42.0.78",
            "reserved on this host; hint: choose another one, or `sealane detach --holder docker/1` if its container is gone",
        ),
    ] {
        let at = AttachmentSpec { address: Some(address.parse().unwrap()), ..spec("new") };
        let error = mesh.admit(&at, now).unwrap_err().to_string();
        assert!(error.ends_with(holder), "{error}");
    }
}
