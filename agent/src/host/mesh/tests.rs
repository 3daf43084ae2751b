mod blocks;
mod facts;
mod life;

use sealane_fabric::health::Families;

use super::*;
use crate::attachment::{AttachmentSpec, Claim};
use crate::testing;

fn snapshot(revision: u64) -> NetworkSnapshot {
    let remote = Workload { node: "host-2".parse().unwrap(), ..testing::workload("web", "10.42.1.2") };
    let mut snapshot = testing::snapshot();
    snapshot.generation.revision = revision;
    snapshot.blocks = vec![
        testing::block(Some("host-1"), "10.42.0.0/24"),
        testing::block(Some("host-2"), "10.42.1.0/24"),
        testing::block(None, "10.42.255.0/24"),
    ];
    snapshot.workloads = [remote].into();
    snapshot
}

fn generation(revision: u64) -> Generation {
    snapshot(revision).generation
}

fn mesh() -> Mesh {
    let node = Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
    let mut mesh = Mesh::new(node, 1);
    assert!(mesh.accept(snapshot(1)));
    mesh
}

fn spec(name: &str) -> AttachmentSpec {
    AttachmentSpec::plain("shop".parse().unwrap(), name.parse().unwrap())
}

#[test]
fn names_and_addresses_of_others_are_refused_by_name() {
    let mut mesh = mesh();
    let now = Instant::now();
    let check = |mesh: &mut Mesh, spec: AttachmentSpec, expected: &str| {
        let version = mesh.version();
        let error = mesh.admit(&spec, now).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(mesh.version(), version, "nothing is changed");
    };
    check(&mut mesh, spec("web"), "workload name web in network shop is in use on host-2");
    let at = |address: &str| AttachmentSpec { address: Some(address.parse().unwrap()), ..spec("new") };
    check(
        &mut mesh,
        at("10.42.1.9"),
        "belongs to the block of host-2; hint: choose one outside every block, or run it there",
    );
    let services = mesh.admit(&at("10.42.255.9"), now).unwrap_err().to_string();
    assert!(services.ends_with("of service addresses; hint: choose one outside every block"), "{services}");
    check(&mut mesh, at("10.43.0.1"), "not a workload address of subnet 10.42.0.0/16");
    check(
        &mut mesh,
        at("10.42.1.2"),
        "address 10.42.1.2 in network shop is in use by workload web on host-2; hint: choose another one, or end workload web on \
         host-2 first",
    );
    check(&mut mesh, at("10.42.0.2"), "in use by host host-1 itself; hint: choose another one");
    let mac = AttachmentSpec { mac: Some("02:00:0a:2a:01:02".parse().unwrap()), ..spec("new") };
    check(&mut mesh, mac, "in use by workload web on host-2; hint: choose another one");
    for (mac, address) in [("02:00:0a:2a:00:01", "10.42.0.1"), ("02:00:0a:2a:00:02", "10.42.0.2")] {
        let other = AttachmentSpec { mac: Some(mac.parse().unwrap()), ..at("10.42.0.9") };
        check(&mut mesh, other, &format!("MAC address {mac} in network shop goes with address {address};"));
    }
    check(&mut mesh, AttachmentSpec { network: "nope".parse().unwrap(), ..spec("new") }, "network nope");
    assert!(mesh.admit(&at("10.42.77.7"), now).is_ok(), "an address outside every block is free");
    let own = AttachmentSpec { mac: Some("02:00:0a:2a:00:09".parse().unwrap()), ..at("10.42.0.9") };
    let own = AttachmentSpec { name: "own".parse().unwrap(), ..own };
    assert!(mesh.admit(&own, now).is_ok(), "the MAC of its own address is nobody else's");
}

#[test]
fn a_workload_comes_into_all_of_its_networks_or_none() {
    let mut mesh = mesh();
    let mut second = snapshot(1);
    second.network.name = "office".parse().unwrap();
    second.network.subnet = "10.42.128.0/17".parse().unwrap();
    assert!(mesh.accept(second.clone()));
    let both = [spec("api"), AttachmentSpec { network: "office".parse().unwrap(), ..spec("api") }];
    let error = mesh.admit_all(&both, Instant::now()).unwrap_err().to_string();
    assert!(error.contains("office (10.42.128.0/17) and network shop (10.42.0.0/16) overlap"), "{error}");

    second.generation.revision = 2;
    second.network.subnet = "10.44.0.0/16".parse().unwrap();
    second.blocks.clear();
    assert!(mesh.accept(second.clone()));
    let version = mesh.version();
    assert!(matches!(mesh.admit_all(&both, Instant::now()), Err(AdmitError::Address { .. })));
    assert_eq!((mesh.version(), mesh.attached(&"shop".parse().unwrap()).len()), (version, 0));

    second.generation.revision = 3;
    second.blocks = vec![testing::block(Some("host-1"), "10.44.0.0/24")];
    assert!(mesh.accept(second));
    let admitted = mesh.admit_all(&both, Instant::now()).unwrap();
    let addresses: Vec<_> =
        admitted.iter().map(|attachment| attachment.workload.address.to_string()).collect();
    assert_eq!(addresses.len(), 2);
    assert!(addresses[0].starts_with("10.42.0.") && addresses[1].starts_with("10.44.0."), "{addresses:?}");
}

#[test]
fn an_address_of_one_that_is_ending_is_waited_for_and_then_free() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let at = AttachmentSpec { address: Some("10.42.0.9".parse().unwrap()), ..spec("new") };
    let old = mesh.admit(&AttachmentSpec { name: "old".parse().unwrap(), ..at.clone() }, now).unwrap();
    let id = AttachmentId { network: old.network.clone(), workload: old.name.clone() };
    assert!(mesh.admit(&at, now).unwrap_err().to_string().contains("in use"));
    mesh.end(&id);
    assert!(matches!(mesh.admit(&at, now), Err(AdmitError::Ending(ending)) if ending == id));
    mesh.remove(&id, now);
    assert!(mesh.admit(&at, now).is_ok());
}

#[test]
fn what_lets_go_of_its_port_gets_no_other_and_keeps_its_address_until_it_is_gone() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let workload = mesh.admit(&spec("api"), now).unwrap();
    let id = AttachmentId::of(&workload);
    mesh.end(&id);
    assert_eq!(mesh.attached(&id.network).len(), 1);
    mesh.detach(&id);
    assert_eq!(mesh.attached(&id.network), []);
    let ending = Workload { weight: Weight::NONE, ..workload };
    assert!(mesh.overlaid(&id.network).unwrap().workloads.contains(&ending));
    assert_eq!(mesh.report().workloads, [ending]);
}

#[test]
fn older_states_of_the_same_epoch_change_nothing_and_another_epoch_replaces() {
    let mut mesh = mesh();
    assert!(!mesh.accept(snapshot(1)));
    assert!(mesh.accept(snapshot(2)));
    assert!(!mesh.accept(snapshot(1)));
    let mut restored = snapshot(1);
    restored.generation.epoch = 2;
    assert!(mesh.accept(restored));
}

#[test]
fn own_workloads_stand_as_this_host_knows_them() {
    let mut mesh = mesh();
    let workload = mesh.admit(&spec("api"), Instant::now()).unwrap();
    let id = AttachmentId { network: workload.network.clone(), workload: workload.name.clone() };
    mesh.set_ready(&id, Families::both(true));
    let mut stale = snapshot(2);
    stale.workloads.push(workload);
    mesh.accept(stale);
    let overlaid = mesh.overlaid(&id.network).unwrap();
    let names: Vec<_> = overlaid.workloads.iter().map(|known| (known.name.as_str(), known.ready)).collect();
    assert_eq!(names, [("api", true), ("web", true)]);
    mesh.end(&id);
    assert_eq!(mesh.set_ready(&id, Families::both(true)), None, "what ends gets no calls again");
    assert!(matches!(mesh.admit(&spec("api"), Instant::now()), Err(AdmitError::Ending(_))));
    mesh.remove(&id, Instant::now());
    assert_eq!(mesh.overlaid(&id.network).unwrap().workloads.len(), 1);
}

#[test]
fn a_generation_is_acknowledged_when_every_data_plane_works_by_it() {
    let mut mesh = mesh();
    let workload = mesh.admit(&spec("api"), Instant::now()).unwrap();
    let id = AttachmentId { network: workload.network.clone(), workload: workload.name };
    assert!(mesh.applied().is_empty());
    mesh.set_applied(&id, DataPlane::Sidecar, Some(6));
    mesh.set_published(&id.network, 7, generation(1));
    assert!(mesh.applied().is_empty());
    mesh.set_applied(&id, DataPlane::Sidecar, Some(7));
    mesh.set_applied(&id, DataPlane::Rules, Some(6));
    assert!(mesh.applied().is_empty());
    mesh.set_applied(&id, DataPlane::Rules, Some(8));
    assert_eq!(mesh.applied()[&id.network].revision, 1);
    mesh.accept(snapshot(2));
    assert_eq!(
        mesh.applied()[&id.network].revision,
        1,
        "a newer state is not acknowledged before it is published"
    );
    mesh.set_published(&id.network, 8, generation(2));
    mesh.set_published(&id.network, 9, generation(3));
    assert_eq!(mesh.applied()[&id.network].revision, 1, "the sidecar works by that one");
    mesh.set_applied(&id, DataPlane::Sidecar, None);
    assert_eq!(mesh.applied()[&id.network].revision, 2, "nobody waits for a sidecar that is not there");
}

#[test]
fn who_was_attached_and_is_not_any_more_is_cut_off() {
    let mut mesh = mesh();
    let [lost, coming] = ["lost", "coming"].map(|name| mesh.admit(&spec(name), Instant::now()).unwrap());
    let id = AttachmentId::of(&lost);
    let unattached = BTreeSet::from([lost.name.clone(), coming.name]);
    let cut_off = |mesh: &Mesh| mesh.cut_off(&id.network, &unattached);
    assert!(cut_off(&mesh).is_empty());
    mesh.set_applied(&id, DataPlane::Rules, Some(RECALLED));
    assert!(cut_off(&mesh).is_empty(), "an agent that was killed had not set it up yet");
    mesh.set_applied(&id, DataPlane::Rules, Some(1));
    assert_eq!(cut_off(&mesh), ["lost"]);
    assert!(mesh.cut_off(&id.network, &BTreeSet::new()).is_empty());
    mesh.end(&id);
    assert!(cut_off(&mesh).is_empty());
}

#[test]
fn a_reserved_address_is_its_holder_s_alone_until_it_is_released() {
    let mut mesh = mesh();
    let (now, since) = (Instant::now(), std::time::SystemTime::UNIX_EPOCH);
    let claim = |hold: &str, address: Option<&str>| Claim {
        hold: hold.parse().unwrap(),
        network: "shop".parse().unwrap(),
        address: address.map(|address| address.parse().unwrap()),
        mac: None,
        from: None,
    };
    let first = mesh.reserve(&claim("docker/1", None), (now, since)).unwrap();
    assert_eq!(mesh.reserve(&claim("docker/1", None), (now, since)).unwrap(), first, "safe to repeat");
    let second = mesh.reserve(&claim("docker/2", None), (now, since)).unwrap();
    assert_ne!(first.address, second.address);
    let text = first.address.to_string();
    assert!(mesh.reserve(&claim("docker/3", Some(&text)), (now, since)).is_err());
    let taken = AttachmentSpec { address: Some(first.address), ..spec("other") };
    assert!(mesh.admit(&taken, now).is_err(), "it is kept");
    assert_eq!(mesh.idle_reservations().len(), 2);

    // A reservation may become another's, at no time free.
    let heir =
        Claim { from: Some(second.hold.clone()), ..claim("docker/9", Some(&second.address.to_string())) };
    let inherited = mesh.reserve(&heir, (now, since)).unwrap();
    assert_eq!(inherited.address, second.address);
    assert!(mesh.reservations().all(|kept| kept.hold != second.hold));

    let own = AttachmentSpec { reserved: Some(first.hold.clone()), ..spec("own") };
    assert_eq!(mesh.admit(&own, now).unwrap().address, first.address);
    assert_eq!(mesh.idle_reservations(), [inherited]);
    mesh.remove(&AttachmentId { network: "shop".parse().unwrap(), workload: "own".parse().unwrap() }, now);
    assert!(mesh.admit(&taken, now).is_err(), "it is kept after the workload as well");
    mesh.release(&first.hold, now).unwrap();
    assert!(mesh.release(&first.hold, now).is_none());
    let nobody = AttachmentSpec { reserved: Some(first.hold), ..spec("own") };
    assert!(matches!(mesh.admit(&nobody, now), Err(AdmitError::NotReserved(..))));
    assert!(mesh.admit(&taken, now).is_ok());
}
