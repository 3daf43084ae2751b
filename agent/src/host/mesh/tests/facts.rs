//! Words of this host, and of others.

use sealane_proto::client::Rejection;
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::Edition;

use std::time::UNIX_EPOCH;

use super::*;

fn shop() -> NetworkName {
    "shop".parse().unwrap()
}

fn host(number: u8) -> NodeName {
    format!("host-{number}").parse().unwrap()
}

fn node(number: u8) -> Node {
    Node { name: host(number), underlay: format!("192.0.2.{number}").parse().unwrap(), mtu: None }
}

fn refusal(network: &str, workload: &str) -> Rejection {
    let (network, workload) = (network.parse().unwrap(), workload.parse().unwrap());
    Rejection { network, workload, reason: "for a test".to_owned(), not_carried: false }
}

fn word(revision: u64, workloads: &[Workload]) -> OwnerFacts {
    OwnerFacts { network: shop(), incarnation: 1, revision, workloads: workloads.to_vec() }
}

/// A later state of the network, with these hosts, in which control has heard so much of them.
fn told(revision: u64, hosts: &[u8], reported: Option<&[(u8, Edition)]>) -> NetworkSnapshot {
    let mut told = snapshot(revision);
    told.nodes = hosts.iter().map(|number| node(*number)).collect();
    told.reported =
        reported.map(|all| all.iter().map(|(number, edition)| (host(*number), *edition)).collect());
    told
}

/// The age of the host's word, and the workloads in it.
fn said(mesh: &Mesh) -> (u64, u64, Vec<String>) {
    let facts = &mesh.facts()[&shop()];
    let names = facts.workloads.iter().map(|workload| workload.name.to_string()).collect();
    (facts.incarnation, facts.revision, names)
}

#[test]
fn a_host_says_what_it_has_but_for_what_control_refuses_and_only_what_is_new_is_a_new_word() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((mesh.refresh_facts(&[]), said(&mesh)), (vec![shop()], (1, 1, names(&[]))));
    assert_eq!(mesh.refresh_facts(&[]), []);
    let id = AttachmentId::of(&mesh.admit(&spec("api"), now).unwrap());
    assert_eq!((mesh.refresh_facts(&[]), said(&mesh)), (vec![shop()], (1, 2, names(&["api"]))));
    let others = [refusal("office", "api"), refusal("shop", "web")];
    assert_eq!(mesh.refresh_facts(&others), [], "neither is about this one");
    let refused = [refusal("shop", "api"), refusal("shop", "web")];
    assert_eq!((mesh.refresh_facts(&refused), said(&mesh)), (vec![shop()], (1, 3, names(&[]))));
    mesh.begin_incarnation(7);
    assert_eq!((mesh.refresh_facts(&[]), said(&mesh)), (vec![shop()], (7, 4, names(&["api"]))));
    mesh.begin_incarnation(8);
    assert_eq!((mesh.refresh_facts(&[]), said(&mesh)), (vec![shop()], (8, 5, names(&["api"]))));
    mesh.remove(&id, now);
    assert!(mesh.drop_network(&shop()));
    assert_eq!((mesh.refresh_facts(&[]), mesh.facts().len()), (vec![], 0));
}

#[test]
fn a_host_whose_name_has_said_more_begins_an_incarnation_beyond_that() {
    let mut mesh = mesh();
    let edition = |incarnation, revision| Edition { incarnation, revision };
    assert_eq!(mesh.outdone(), None);
    mesh.accept(told(2, &[1], Some(&[(1, edition(1, 0)), (2, edition(9, 9))])));
    assert_eq!(mesh.outdone(), None, "control has heard all of it, and another host's are another matter");
    mesh.accept(told(3, &[1], Some(&[(1, edition(1, 1))])));
    assert_eq!(mesh.outdone(), Some(2));
    let mut office = told(1, &[1], Some(&[(1, edition(4, 7))]));
    office.network.name = "office".parse().unwrap();
    mesh.accept(office);
    assert_eq!(mesh.outdone(), Some(5), "the newest that any network has heard");
    mesh.begin_incarnation(5);
    assert_eq!(mesh.outdone(), None);
}

#[test]
fn words_of_members_make_a_difference_once_and_those_of_others_when_they_are_members() {
    let mut mesh = mesh();
    mesh.accept(told(2, &[1, 2], None));
    assert!(!mesh.hear(host(1), word(1, &[]), UNIX_EPOCH), "nobody tells this host of itself");
    let api = |number: u8| Workload { node: host(number), ..testing::workload("api", "10.42.1.7") };
    assert!(mesh.hear(host(2), word(1, &[api(2)]), UNIX_EPOCH));
    assert!(!mesh.hear(host(2), word(1, &[api(2)]), UNIX_EPOCH));
    assert!(!mesh.hear(host(3), word(1, &[]), UNIX_EPOCH), "control has told of no such host");
    assert!(!mesh.hear(
        host(3),
        OwnerFacts { network: "office".parse().unwrap(), ..word(1, &[]) },
        UNIX_EPOCH
    ));
    assert_eq!(mesh.newer_words(&shop()).into_keys().collect::<Vec<_>>(), [host(2)]);
    mesh.accept(told(3, &[1, 2, 3], None));
    assert_eq!(mesh.newer_words(&shop()).into_keys().collect::<Vec<_>>(), [host(2), host(3)]);
    assert_eq!((mesh.fall_silent(&host(2)), mesh.fall_silent(&host(2))), (vec![shop()], vec![]));
    mesh.accept(told(4, &[1, 2], None));
    mesh.accept(told(5, &[1, 2, 3], None));
    assert!(mesh.newer_words(&shop()).is_empty(), "another host may have the name by now");
    assert!(!mesh.hear(host(2), word(2, &vec![api(2); 5000]), UNIX_EPOCH));
    assert_eq!((mesh.poll_refused_words(), mesh.poll_refused_words()), (1, 0));
}

#[test]
fn a_host_hands_on_what_is_newer_than_what_control_says_and_its_own_word_as_it_is_now() {
    let mut mesh = mesh();
    mesh.recall_word(host(1), word(9, &[]));
    mesh.recall_word(host(2), word(3, &[]));
    let newer = |mesh: &mut Mesh, revision, reported: Option<&[(u8, Edition)]>| {
        mesh.accept(told(revision, &[1, 2], reported));
        let words = mesh.newer_words(&shop()).into_iter();
        words.map(|(owner, word)| (owner, word.revision)).collect::<Vec<_>>()
    };
    let edition = |revision| Edition { incarnation: 1, revision };
    assert_eq!(newer(&mut mesh, 2, None), [], "nobody is heard, and an older control plane is ahead then");
    assert_eq!(newer(&mut mesh, 3, Some(&[])), [(host(2), 3)]);
    mesh.refresh_facts(&[]);
    assert_eq!(newer(&mut mesh, 4, Some(&[])), [(host(1), 1), (host(2), 3)]);
    assert_eq!(newer(&mut mesh, 5, Some(&[(1, edition(0)), (2, edition(2))])), [(host(1), 1), (host(2), 3)]);
    assert_eq!(newer(&mut mesh, 6, Some(&[(1, edition(1)), (2, edition(3))])), []);
    assert_eq!(newer(&mut mesh, 7, None), [(host(1), 1)]);
}

#[test]
fn an_address_is_this_hosts_in_its_blocks_or_where_control_has_it_so() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let at =
        |name: &str, address: &str| AttachmentSpec { address: Some(address.parse().unwrap()), ..spec(name) };
    let own = AttachmentId::of(&mesh.admit(&at("own", "10.42.0.9"), now).unwrap());
    let outside = mesh.admit(&at("outside", "10.42.77.7"), now).unwrap();
    let id = AttachmentId::of(&outside);
    assert!(mesh.owns_address(&own) && !mesh.owns_address(&id));
    for (revision, known, expected) in [
        (2, Workload { node: host(2), ..outside.clone() }, false),
        (3, Workload { name: "other".parse().unwrap(), ..outside.clone() }, false),
        (4, Workload { address: "10.42.77.8".parse().unwrap(), ..outside.clone() }, false),
        (5, outside.clone(), true),
    ] {
        let mut told = snapshot(revision);
        told.workloads.push(known);
        mesh.accept(told);
        assert_eq!(mesh.owns_address(&id), expected, "{revision}");
    }
    let mut foreign = snapshot(6);
    foreign.blocks.push(testing::block(Some("host-2"), "10.42.77.0/24"));
    mesh.accept(foreign);
    assert!(!mesh.owns_address(&id), "it lies in another host's block");
    assert!(!mesh.owns_address(&AttachmentId { workload: "nobody".parse().unwrap(), ..id }));
}

#[test]
fn peers_are_the_other_hosts_of_all_networks_and_what_one_network_revokes_is_revoked() {
    let mut mesh = mesh();
    let (serial, mut office) = (SerialPrefix::try_from(&[7; 8][..]).unwrap(), told(1, &[1, 2], None));
    office.network.name = "office".parse().unwrap();
    office.revoked = vec![serial];
    mesh.accept(office);
    mesh.accept(told(2, &[1, 2, 3], None));
    let peers = mesh.peers().into_iter().map(|(name, peer)| {
        let networks: Vec<_> = peer.networks.iter().map(ToString::to_string).collect();
        format!("{name} {} {}", peer.underlay, networks.join("+"))
    });
    assert_eq!(peers.collect::<Vec<_>>(), ["host-2 192.0.2.2 office+shop", "host-3 192.0.2.3 shop"]);
    assert_eq!(mesh.revoked(), BTreeSet::from([serial]));
}
