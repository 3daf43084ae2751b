//! Places of this host and of others beneath: as they are told, as they are heard, and as this host goes by them.

use sealane_proto::resource::{OwnerFacts, Workload};

use super::*;
use crate::testing;

/// Time after which whatever is waited for may have come to pass.
const LONG: Duration = Duration::from_secs(60);

/// A state of the network in which nobody is.
fn snapshot(revision: u64) -> NetworkSnapshot {
    let mut snapshot = testing::snapshot();
    snapshot.generation.revision = revision;
    snapshot
}

/// Host 1, which carries nothing yet.
fn mesh() -> Mesh {
    Mesh::new(Node { name: host(1), underlay: at(1), mtu: None }, 1)
}

fn shop() -> NetworkName {
    "shop".parse().unwrap()
}

fn host(number: u8) -> NodeName {
    format!("host-{number}").parse().unwrap()
}

fn at(last: u8) -> UnderlayAddrs {
    format!("192.0.2.{last}").parse().unwrap()
}

fn edition(incarnation: u64, revision: u64) -> Edition {
    Edition { incarnation, revision }
}

fn word(last: u8, revision: u64) -> Whereabouts {
    Whereabouts { underlay: at(last), edition: edition(1, revision) }
}

/// A state of the network in which hosts 1 to 4 are where control has heard them say so for the first time, but those of `others`:
/// each by its place, none where another host has come, and its newest word.
fn told(revision: u64, others: &[(u8, Option<u8>, u64)]) -> NetworkSnapshot {
    let mut hosts: BTreeMap<u8, (Option<u8>, u64)> = (1..=4).map(|host| (host, (Some(host), 1))).collect();
    hosts.extend(others.iter().map(|(host, place, revision)| (*host, (*place, *revision))));
    let mut told = snapshot(revision);
    let node = |(number, (place, _)): (&u8, &(Option<u8>, u64))| {
        Some(Node { name: host(*number), underlay: at((*place)?), mtu: None })
    };
    told.nodes = hosts.iter().filter_map(node).collect();
    let block = |host: &u8| testing::block(Some(&format!("host-{host}")), &format!("10.42.{host}.0/24"));
    told.blocks = hosts.keys().map(block).collect();
    told.placed =
        Some(hosts.iter().map(|(number, (_, revision))| (host(*number), edition(1, *revision))).collect());
    told
}

/// Host 1, which shares a network with hosts 2 to 4 and has looked where they are.
fn settled() -> Mesh {
    let mut mesh = mesh();
    mesh.accept(told(2, &[]));
    mesh.settle_places(Instant::now());
    mesh
}

fn hear(mesh: &mut Mesh, number: u8, place: Whereabouts) {
    mesh.hear_place(host(number), place, UNIX_EPOCH);
}

/// The last octets of the places by which the host goes, by number; 0 for who is nowhere.
fn seen(mesh: &Mesh) -> [u8; 4] {
    let [overlaid, placed] =
        [mesh.overlaid(&shop()).unwrap(), NetworkSnapshot::clone(&mesh.placed()[&shop()])];
    assert_eq!(overlaid.nodes, placed.nodes);
    [1, 2, 3, 4].map(|number| {
        let node = placed.nodes.iter().find(|node| node.name == host(number));
        node.map_or(0, |node| node.underlay.to_string().rsplit('.').next().unwrap().parse().unwrap())
    })
}

/// The further addresses at which a host may be.
fn elsewhere(mesh: &Mesh, number: u8) -> Vec<String> {
    mesh.peers()[&host(number)].elsewhere.iter().map(ToString::to_string).collect()
}

/// Makes a step and looks; returns true if that was a look at everything.
fn looks(mesh: &mut Mesh, now: Instant, step: impl FnOnce(&mut Mesh)) -> bool {
    let version = mesh.places_version();
    step(mesh);
    mesh.settle_places(now);
    assert!(mesh.places_version() <= version + 1);
    mesh.places_version() > version
}

#[test]
fn who_says_that_it_has_moved_is_there_until_control_says_something_newer() {
    let (mut mesh, now) = (mesh(), Instant::now());
    mesh.accept(told(2, &[]));
    assert_eq!(
        (mesh.settle_places(now), seen(&mesh)),
        (BTreeSet::new(), [1, 2, 3, 4]),
        "all is as control says"
    );
    hear(&mut mesh, 2, word(52, 2));
    assert_eq!((mesh.settle_places(now), seen(&mesh)), (BTreeSet::from([shop()]), [1, 52, 3, 4]));
    assert_eq!(elsewhere(&mesh, 2), ["192.0.2.2"], "control may be right");
    let own = (host(1), mesh.place());
    assert_eq!(mesh.newer_places(), HostPlaces::from([(host(2), word(52, 2)), own.clone()]));
    assert_eq!(mesh.snapshot(&shop()).unwrap().nodes[1].underlay, at(2));
    mesh.offer(&shop(), &BTreeSet::from(["10.42.1.128/25".parse().unwrap()]));
    assert_eq!(mesh.placed()[&shop()].blocks, mesh.carried()[&shop()].blocks);
    assert_eq!((mesh.settle_places(now).len(), seen(&mesh)), (1, [1, 52, 3, 4]));
    mesh.accept(told(3, &[(2, Some(52), 2)]));
    assert_eq!((mesh.settle_places(now), seen(&mesh)), (BTreeSet::new(), [1, 52, 3, 4]));
    assert_eq!((mesh.newer_places(), elsewhere(&mesh, 2)), (HostPlaces::from([own]), vec![]));
    mesh.accept(told(4, &[(2, Some(62), 3)]));
    assert_eq!((mesh.settle_places(now).len(), seen(&mesh)), (0, [1, 62, 3, 4]));
}

#[test]
fn everything_is_looked_at_after_each_thing_that_is_said_and_at_no_other_time() {
    let (mut mesh, now) = (settled(), Instant::now());
    assert!(!looks(&mut mesh, now, |_| {}) && !looks(&mut mesh, now + LONG, |_| {}));
    type Step<'a> = (&'a str, &'a dyn Fn(&mut Mesh));
    let office = || {
        let mut office = told(1, &[(5, Some(5), 1)]);
        office.network.name = "office".parse().unwrap();
        office
    };
    let steps: [Step<'_>; 11] = [
        ("a state", &|mesh| assert!(mesh.accept(office()))),
        ("a network's end", &|mesh| assert!(mesh.drop_network(&"office".parse().unwrap()))),
        ("two words", &|mesh| [2, 3].into_iter().for_each(|number| hear(mesh, number, word(50 + number, 2)))),
        ("a rumour", &|mesh| mesh.hear_rumours([(host(4), word(54, 2))].into())),
        ("two rumours", &|mesh| {
            [55, 56]
                .into_iter()
                .for_each(|last| mesh.hear_rumours([(host(4), word(last, last.into()))].into()))
        }),
        ("a channel", &|mesh| mesh.note_channel(&host(4), true)),
        ("its end", &|mesh| mesh.note_channel(&host(4), false)),
        ("a host that is out of reach", &|mesh| drop(mesh.set_unreachable([host(4)].into()))),
        ("a move of its own", &|mesh| mesh.set_underlay(at(61))),
        ("a start", &|mesh| mesh.begin_incarnation(7)),
        ("a memory", &|mesh| mesh.recall_places(HostPlaces::new())),
    ];
    for (what, step) in steps {
        assert!(looks(&mut mesh, now, step), "{what}");
        assert!(!looks(&mut mesh, now, |_| {}), "after {what}");
    }
    let steps: [Step<'_>; 5] = [
        ("a word of who is nowhere told of", &|mesh| hear(mesh, 5, word(55, 2))),
        ("a word again", &|mesh| hear(mesh, 2, word(52, 2))),
        ("a rumour again", &|mesh| mesh.hear_rumours([(host(4), word(56, 56))].into())),
        ("a channel that is there", &|mesh| mesh.note_channel(&host(2), true)),
        ("a place at which this host is", &|mesh| mesh.set_underlay(at(61))),
    ];
    for (what, step) in steps {
        assert!(!looks(&mut mesh, now, step), "{what}");
    }
}

#[test]
fn nobody_is_believed_where_it_cannot_be_or_before_it_can_have_started() {
    let far = latest_after(Some(edition(1, 1)), 1000);
    let place = |text: &str, incarnation| Whereabouts {
        underlay: text.parse().unwrap(),
        edition: edition(incarnation, 9),
    };
    let check = |number: u8, word: Whereabouts, expected: bool| {
        let mut mesh = settled();
        let mut office = snapshot(1);
        office.network.name = "office".parse().unwrap();
        office.network.subnet = "10.44.0.0/16".parse().unwrap();
        office.network.subnet6 = Some("fd44::/64".parse().unwrap());
        mesh.accept(office);
        mesh.settle_places(Instant::now());
        let now = Instant::now();
        let taken = looks(&mut mesh, now, |mesh| {
            mesh.hear_place(host(number), word, UNIX_EPOCH + Duration::from_secs(1000))
        });
        assert_eq!(taken, expected, "{number} {word:?}");
        let is_there = mesh.placed()[&shop()].nodes.iter().any(|node| node.underlay == word.underlay);
        assert_eq!(is_there, expected, "{number} {word:?}");
    };
    check(2, place("192.0.2.52", 1), true);
    check(2, place("192.0.2.52,fd00::52", 1), true);
    check(2, place("192.0.2.52", far), true);
    check(2, place("192.0.2.52", far + 1), false);
    check(9, place("192.0.2.52", 1), false);
    check(1, place("192.0.2.52", 1), false);
    for elsewhere in [
        "169.254.7.7",
        "10.42.7.7",
        "10.44.7.7",
        "fd44::7",
        "192.0.2.52,fd44::7",
        "192.0.2.52,fe80::7",
        "192.0.2.1,fd00::52",
    ] {
        check(2, place(elsewhere, 1), false);
    }
}

#[test]
fn rumours_are_of_hosts_that_control_tells_of_and_of_places_where_a_host_can_be() {
    let now = Instant::now();
    let check = |number: u8, text: &str, expected: bool| {
        let mut mesh = settled();
        let rumour = Whereabouts { underlay: text.parse().unwrap(), edition: edition(1, 9) };
        assert_eq!(
            looks(&mut mesh, now, |mesh| mesh.hear_rumours([(host(number), rumour)].into())),
            expected,
            "{number} {text}"
        );
        assert_eq!(seen(&mesh), [1, 2, 3, 4], "it is looked for there, and nothing sent");
        if number != 1 {
            mesh.accept(told(3, &[(number, Some(number), 1)]));
            mesh.settle_places(now);
            let there = if expected { vec![text.to_owned()] } else { vec![] };
            assert_eq!(elsewhere(&mesh, number), there);
        }
    };
    check(2, "192.0.2.52", true);
    check(9, "192.0.2.52", false);
    check(1, "192.0.2.52", false);
    check(2, "10.42.7.7", false);
    check(2, "192.0.2.1", false);
}

#[test]
fn who_says_that_it_is_where_somebody_else_may_be_is_looked_at_again_and_again_until_it_may() {
    let (mut mesh, now, again) = (settled(), Instant::now(), Duration::from_secs(1));
    hear(&mut mesh, 4, word(54, 2));
    hear(&mut mesh, 2, word(3, 2));
    assert_eq!((mesh.settle_places(now).len(), seen(&mesh)), (1, [1, 0, 3, 54]));
    assert_eq!(elsewhere(&mesh, 2), ["192.0.2.3"], "it is called there, too");
    assert!(!mesh.newer_places().contains_key(&host(2)), "nobody is told what this host does not go by");
    assert!(!looks(&mut mesh, now + again / 2, |_| {}));
    assert!(looks(&mut mesh, now + again, |_| {}));
    assert!(!looks(&mut mesh, now + again + again / 2, |_| {}));
    mesh.set_unreachable([host(3)].into());
    mesh.settle_places(now + again * 2);
    assert_eq!((mesh.settle_places(now + LONG).len(), seen(&mesh)), (1, [1, 3, 0, 54]));
    assert!(!looks(&mut mesh, now + LONG * 2, |_| {}), "nobody waits");
}

#[test]
fn who_has_yielded_is_out_of_reach_with_its_instances_until_there_is_a_channel_to_it() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let instance = |number: u8| Workload {
        node: host(number),
        service: Some("api".parse().unwrap()),
        ready: true,
        ..testing::workload(&format!("api-{number}"), &format!("10.42.{number}.7"))
    };
    let mut told = told(2, &[]);
    told.workloads = [instance(2), instance(3)].into();
    mesh.accept(told);
    mesh.settle_places(now);
    let ready = |mesh: &Mesh| -> Vec<String> {
        let known = mesh.overlaid(&shop()).unwrap();
        known.workloads.iter().filter(|one| one.ready).map(|one| one.name.to_string()).collect()
    };
    hear(&mut mesh, 2, word(3, 2));
    mesh.settle_places(now);
    assert_eq!((seen(&mesh), ready(&mesh)), ([1, 0, 3, 4], vec!["api-3".to_owned()]));
    assert!(mesh.unreachable().is_empty(), "that is for a moment, and nothing under way ends");
    mesh.set_unreachable([host(3)].into());
    assert_eq!((mesh.settle_places(now + LONG).len(), seen(&mesh)), (1, [1, 3, 0, 4]));
    // It is sent no echoes from now on.
    mesh.set_unreachable(BTreeSet::new());
    assert_eq!((mesh.settle_places(now + LONG).len(), seen(&mesh)), (0, [1, 3, 0, 4]));
    assert_eq!((mesh.unreachable(), ready(&mesh)), ([host(3)].into(), vec!["api-2".to_owned()]));
    let said: Vec<String> = mesh.displaced().collect();
    let expected =
        "node host-3 cannot be reached from this host, and node host-2 is at its address 192.0.2.3 now: ";
    assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    mesh.note_channel(&host(3), true);
    assert_eq!((mesh.settle_places(now + LONG).len(), seen(&mesh)), (1, [1, 0, 3, 4]));
    assert_eq!((mesh.unreachable().len(), mesh.displaced().count()), (0, 0));
}

#[test]
fn a_control_plane_that_tells_no_ages_is_behind_a_host_only_while_there_is_a_channel_to_it() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let mut silent = told(2, &[]);
    silent.placed = None;
    mesh.accept(silent);
    mesh.settle_places(now);
    hear(&mut mesh, 2, word(52, 2));
    assert_eq!((mesh.settle_places(now).len(), seen(&mesh)), (1, [1, 52, 3, 4]));
    mesh.note_channel(&host(2), false);
    assert_eq!((mesh.settle_places(now).len(), seen(&mesh)), (1, [1, 2, 3, 4]));
    assert!(Arc::ptr_eq(&mesh.placed()[&shop()], &mesh.carried()[&shop()]), "what is the same is there once");
    mesh.note_channel(&host(2), true);
    assert_eq!((mesh.settle_places(now).len(), seen(&mesh)), (1, [1, 52, 3, 4]));
}

#[test]
fn a_host_of_which_control_has_no_place_is_a_member_where_it_says_that_it_is() {
    let (mut mesh, now) = (mesh(), Instant::now());
    mesh.accept(told(2, &[(4, None, 1)]));
    mesh.settle_places(now);
    hear(&mut mesh, 4, word(54, 2));
    mesh.settle_places(now);
    assert_eq!(seen(&mesh), [1, 2, 3, 54]);
    let own = Workload { node: host(4), ..testing::workload("api", "10.42.4.7") };
    let facts = OwnerFacts { network: shop(), incarnation: 1, revision: 1, workloads: vec![own] };
    mesh.hear(host(4), facts, UNIX_EPOCH);
    let overlaid = mesh.overlaid(&shop()).unwrap();
    assert_eq!(overlaid.workloads.iter().map(|known| known.name.to_string()).collect::<Vec<_>>(), ["api"]);
}

#[test]
fn this_hosts_word_is_a_new_one_with_each_move_and_incarnation_and_outlives_a_start_at_its_place() {
    let (mut mesh, now) = (settled(), Instant::now());
    let own = |mesh: &Mesh| (mesh.place().underlay.to_string(), mesh.place().edition);
    assert_eq!(own(&mesh), ("192.0.2.1".to_owned(), edition(1, 1)));
    mesh.set_underlay(at(1));
    assert_eq!(own(&mesh), ("192.0.2.1".to_owned(), edition(1, 1)));
    mesh.set_underlay(at(61));
    assert_eq!(own(&mesh), ("192.0.2.61".to_owned(), edition(1, 2)));
    assert_eq!((mesh.settle_places(now).len(), seen(&mesh)), (1, [61, 2, 3, 4]));
    mesh.begin_incarnation(7);
    assert_eq!(own(&mesh), ("192.0.2.61".to_owned(), edition(7, 3)));

    let mut next = settled();
    next.recall_places([(host(1), word(61, 8)), (host(2), word(52, 5))].into());
    assert_eq!(own(&next), ("192.0.2.1".to_owned(), edition(1, 1)), "it is not there any more");
    assert_eq!((next.settle_places(now).len(), seen(&next)), (1, [1, 52, 3, 4]));
    next.recall_places([(host(1), word(1, 8))].into());
    assert_eq!(own(&next), ("192.0.2.1".to_owned(), edition(1, 8)));
}

#[test]
fn a_host_whose_name_has_said_more_of_its_place_begins_an_incarnation_beyond_that() {
    let mut mesh = mesh();
    let heard = |name: &str, revision, edition| {
        let mut told = told(revision, &[]);
        told.network.name = name.parse().unwrap();
        told.placed = Some([(host(1), edition), (host(2), self::edition(99, 9))].into());
        told
    };
    mesh.accept(heard("shop", 2, edition(1, 1)));
    assert_eq!(mesh.outdone(), None, "control has heard what there is");
    mesh.accept(heard("shop", 3, edition(4, 7)));
    mesh.accept(heard("office", 3, edition(2, 9)));
    assert_eq!(mesh.outdone(), Some(5), "the newest that any network has heard");
    mesh.begin_incarnation(5);
    assert_eq!(mesh.outdone(), None);
}

#[test]
fn of_two_hosts_that_swap_the_other_one_is_called_where_this_one_was() {
    let (mut mesh, now) = (settled(), Instant::now());
    mesh.set_underlay(at(2));
    mesh.settle_places(now);
    assert_eq!((seen(&mesh), elsewhere(&mesh, 2)), ([2, 0, 3, 4], vec!["192.0.2.1".to_owned()]));
    hear(&mut mesh, 3, word(53, 2));
    mesh.set_underlay(at(53));
    mesh.settle_places(now);
    assert_eq!((seen(&mesh), elsewhere(&mesh, 3)), ([53, 2, 0, 4], vec![]), "nobody is where this host is");
}
