use proptest::prelude::*;
use sealane_proto::resource::Node;

use super::*;
use crate::testing;

const HOSTS: u8 = 4;

fn name(host: u8) -> NodeName {
    format!("host-{host}").parse().unwrap()
}

fn at(last: u8) -> UnderlayAddrs {
    format!("192.0.2.{last}").parse().unwrap()
}

fn word(last: u8, revision: u64) -> Whereabouts {
    Whereabouts { underlay: at(last), edition: Edition { incarnation: 1, revision } }
}

/// Hosts 1 to 4 where control has them: each by its place, none where another host has come, and its edition.
type Control = BTreeMap<u8, (Option<u8>, u64)>;

fn control() -> Control {
    (1..=HOSTS).map(|host| (host, (Some(host), 1))).collect()
}

/// A state of the network that says so, or nothing of editions.
fn state(control: &Control, tells: bool) -> NetworkSnapshot {
    let mut state = testing::snapshot();
    let node = |(host, (place, _)): (&u8, &(Option<u8>, u64))| {
        Some(Node { name: name(*host), underlay: at((*place)?), mtu: None })
    };
    state.nodes = control.iter().filter_map(node).collect();
    let block = |host: &u8| testing::block(Some(&format!("host-{host}")), &format!("10.42.{host}.0/24"));
    state.blocks = control.keys().map(block).collect();
    let edition = |revision| Edition { incarnation: 1, revision };
    let placed = control.iter().map(|(host, (_, revision))| (name(*host), edition(*revision)));
    state.placed = tells.then(|| placed.collect());
    state
}

/// A host's view of the others, which is itself at 192.0.2.99.
struct Observer {
    words: PlaceWords,
    told: ToldPlaces,
    /// Hosts that answer no echoes.
    unreachable: BTreeSet<NodeName>,
    /// Those of them that are nowhere, and are sent none.
    left: BTreeSet<NodeName>,
    now: Instant,
}

impl Observer {
    fn of(control: &Control) -> Self {
        let (words, told) = (PlaceWords::default(), told([&state(control, true)].into_iter()));
        let mut observer =
            Self { words, told, unreachable: BTreeSet::new(), left: BTreeSet::new(), now: Instant::now() };
        for host in 1..=HOSTS {
            observer.words.find(&name(host));
        }
        observer
    }

    fn hears(&mut self, host: u8, place: Whereabouts) {
        self.words.hear(name(host), place);
    }

    fn loses(&mut self, host: u8) {
        self.words.fall_silent(&name(host));
        self.look();
        self.unreachable.insert(name(host));
        self.now += LOST;
    }

    fn finds(&mut self, host: u8) {
        self.words.find(&name(host));
        self.unreachable.remove(&name(host));
        self.left.remove(&name(host));
    }

    /// Looks where hosts are. Those that are somewhere are sent echoes from then on, and are as they were before the first answer.
    fn look(&mut self) -> BTreeMap<NodeName, UnderlayAddrs> {
        self.words.retain(&self.told, self.now);
        let settled = self.words.settle(&self.told, (&name(0), at(99)), &self.unreachable, self.now);
        let lost = self.unreachable.union(&self.left).cloned();
        (self.unreachable, self.left) = lost.partition(|host| settled.contains_key(host));
        settled
    }

    /// The last octets of the hosts' places; 0 for who is nowhere.
    fn sees(&mut self) -> [u8; HOSTS as usize] {
        let settled = self.look();
        assert_eq!(self.look(), settled, "nothing was said in between");
        std::array::from_fn(|host| {
            let host = name(u8::try_from(host).unwrap() + 1);
            let octet = |at: &UnderlayAddrs| at.to_string().rsplit('.').next().unwrap().parse().unwrap();
            settled.get(&host).map_or(0, octet)
        })
    }
}

#[test]
fn the_newer_word_about_a_place_counts_be_it_controls_or_the_hosts_own() {
    let mut observer = Observer::of(&control());
    assert_eq!(observer.sees(), [1, 2, 3, 4]);
    observer.hears(2, word(52, 2));
    observer.hears(2, word(2, 1));
    assert_eq!(observer.sees(), [1, 52, 3, 4], "an old word changes nothing");
    let mut newer = control();
    newer.insert(2, (Some(62), 3));
    observer.told = told([&state(&newer, true)].into_iter());
    assert_eq!(observer.sees(), [1, 62, 3, 4]);
    // Of two networks' states, the newer word about a host counts.
    observer.told = told([&state(&newer, true), &state(&control(), true)].into_iter());
    assert_eq!(observer.sees(), [1, 62, 3, 4]);
    observer.told = told([&state(&control(), true), &state(&newer, true)].into_iter());
    assert_eq!(observer.sees(), [1, 62, 3, 4]);
}

#[test]
fn a_control_plane_that_tells_no_editions_is_behind_who_is_heard_and_ahead_of_who_is_not() {
    let mut observer = Observer::of(&control());
    observer.told = told([&state(&control(), false)].into_iter());
    observer.hears(2, word(52, 2));
    assert_eq!(observer.sees(), [1, 52, 3, 4]);
    observer.words.fall_silent(&name(2));
    assert_eq!(observer.sees(), [1, 2, 3, 4]);
    observer.hears(2, word(53, 3));
    assert_eq!(observer.sees(), [1, 53, 3, 4], "whose word comes is heard");
}

#[test]
fn a_channel_is_news_once() {
    let mut words = PlaceWords::default();
    assert!(words.find(&name(1)) && !words.find(&name(1)));
    words.fall_silent(&name(1));
    assert!(words.find(&name(1)) && !words.find(&name(1)));
}

#[test]
fn who_is_removed_and_comes_back_is_another_host_of_that_name() {
    let forgets = |prepare: fn(&mut Observer)| {
        let mut observer = Observer::of(&control());
        prepare(&mut observer);
        observer.look();
        observer.now += LOST;
        let mut fewer = control();
        fewer.remove(&3);
        observer.told = told([&state(&fewer, true)].into_iter());
        assert_eq!(observer.sees(), [1, 2, 0, 4]);
        observer.told = told([&state(&control(), true)].into_iter());
        observer
    };
    let mut told = forgets(|observer| observer.hears(3, word(53, 2)));
    assert_eq!(told.sees(), [1, 2, 3, 4], "its namesake had said otherwise");
    let mut found = forgets(|observer| assert!(observer.words.hear_rumours([(name(3), word(53, 2))].into())));
    assert_eq!((found.sees(), found.words.rumour(&name(3))), ([1, 2, 3, 4], None));
    for prepare in [|_: &mut Observer| {}, |observer: &mut Observer| observer.words.fall_silent(&name(3))] {
        let mut observer = forgets(prepare);
        observer.unreachable.insert(name(3));
        observer.hears(2, word(3, 2));
        assert_eq!(observer.sees(), [1, 0, 3, 4], "it is silent since it is here");
        observer.now += LOST;
        assert_eq!(observer.sees(), [1, 3, 0, 4]);
    }
}

#[test]
fn hosts_that_swap_are_nowhere_until_both_have_said_so_in_whatever_order() {
    for [first, second] in [[1, 4], [4, 1]] {
        let mut observer = Observer::of(&control());
        let other = |host| 5 - host;
        observer.hears(first, word(other(first), 2));
        let mut expected = [1, 2, 3, 4];
        expected[usize::from(first) - 1] = 0;
        assert_eq!(observer.sees(), expected, "nothing is sent to where the other one may be");
        observer.hears(second, word(other(second), 2));
        assert_eq!(observer.sees(), [4, 2, 3, 1]);
    }
}

#[test]
fn an_address_is_kept_by_who_has_a_channel_or_answers_echoes_and_yielded_by_who_does_neither() {
    let mut observer = Observer::of(&control());
    observer.look();
    observer.hears(2, word(3, 2));
    observer.unreachable.insert(name(3));
    observer.now += LOST * 100;
    assert_eq!(observer.sees(), [1, 0, 3, 4], "it is there, and has a channel");
    observer.unreachable.clear();
    observer.words.fall_silent(&name(3));
    observer.look();
    observer.now += LOST;
    assert_eq!(observer.sees(), [1, 0, 3, 4], "its agent may be away for a while");
    observer.unreachable.insert(name(3));
    assert_eq!(observer.sees(), [1, 3, 0, 4]);
    observer.words.find(&name(3));
    assert_eq!(observer.sees(), [1, 0, 3, 4], "it is back, and was there first");
}

#[test]
fn who_has_yielded_is_nowhere_until_there_is_a_channel_to_it_though_it_is_sent_no_echoes_any_more() {
    let mut observer = Observer::of(&control());
    observer.hears(2, word(3, 2));
    observer.loses(3);
    assert_eq!(observer.sees(), [1, 3, 0, 4]);
    assert_eq!((observer.unreachable.len(), observer.words.away()), (0, &BTreeSet::from([name(3)])));
    observer.now += LOST * 100;
    assert_eq!(observer.sees(), [1, 3, 0, 4]);
    // The other one goes on, and it is where control has it, if anywhere.
    observer.hears(2, word(52, 3));
    assert_eq!(observer.sees(), [1, 52, 3, 4]);
    assert_eq!((observer.unreachable.len(), observer.words.away().len()), (1, 0), "it is asked again");
    observer.hears(2, word(3, 4));
    assert_eq!(observer.sees(), [1, 3, 0, 4]);
    observer.finds(3);
    assert_eq!((observer.sees(), observer.words.away().len()), ([1, 0, 3, 4], 0));
    observer.hears(3, word(63, 2));
    assert_eq!(observer.sees(), [1, 3, 63, 4]);
}

#[test]
fn two_that_are_lost_do_not_take_turns() {
    let mut observer = Observer::of(&control());
    observer.hears(2, word(3, 2));
    observer.loses(3);
    assert_eq!(observer.sees(), [1, 3, 0, 4]);
    observer.loses(2);
    for _ in 0..4 {
        assert_eq!(observer.sees(), [1, 0, 3, 4], "who was there first");
        observer.now += LOST;
    }
    observer.finds(2);
    assert_eq!(observer.sees(), [1, 3, 0, 4]);
}

#[test]
fn who_had_yielded_before_a_start_has_yielded_after_it_until_there_is_a_channel_to_it() {
    let mut observer = Observer::of(&control());
    observer.words = PlaceWords::default();
    observer.words.recall(name(2), word(3, 2));
    assert_eq!((observer.sees(), observer.words.away()), ([1, 3, 0, 4], &BTreeSet::from([name(3)])));
    observer.finds(2);
    assert_eq!(observer.sees(), [1, 3, 0, 4]);
    observer.finds(3);
    assert_eq!(observer.sees(), [1, 0, 3, 4]);
}

#[test]
fn of_two_that_come_to_one_place_the_first_has_it_for_as_long_as_it_is_there() {
    let mut observer = Observer::of(&control());
    observer.hears(3, word(7, 2));
    observer.hears(1, word(7, 2));
    observer.hears(3, word(7, 2));
    assert_eq!(observer.sees(), [0, 2, 7, 4]);
    observer.loses(3);
    assert_eq!(observer.sees(), [7, 2, 0, 4]);
}

#[test]
fn who_yields_one_address_has_no_other_either() {
    let mut observer = Observer::of(&control());
    let two = |first: u8, other: &str| format!("192.0.2.{first},{other}").parse::<UnderlayAddrs>().unwrap();
    observer.told.get_mut(&name(3)).unwrap().underlay = Some(two(3, "fd00::3"));
    observer.hears(2, word(3, 2));
    observer.hears(4, Whereabouts { underlay: two(44, "fd00::3"), edition: word(4, 2).edition });
    [3, 4].into_iter().for_each(|host| observer.loses(host));
    let settled = observer.look();
    assert_eq!(settled.get(&name(3)), None);
    assert_eq!(settled.get(&name(4)), Some(&two(44, "fd00::3")));
}

#[test]
fn nobody_is_where_this_host_is_and_who_is_nowhere_for_control_is_where_it_says() {
    let mut observer = Observer::of(&control());
    let mut swapped = control();
    swapped.insert(1, (Some(99), 2));
    swapped.insert(4, (None, 1));
    observer.told = told([&state(&swapped, true)].into_iter());
    assert_eq!(observer.sees(), [0, 2, 3, 0]);
    observer.hears(4, word(44, 2));
    assert_eq!(observer.sees(), [0, 2, 3, 44]);
}

#[test]
fn a_place_at_which_others_have_found_a_host_is_kept_in_mind_until_the_host_itself_has_said_as_much() {
    let mut observer = Observer::of(&control());
    let found = |place| HostPlaces::from([(name(2), place)]);
    assert!(!observer.words.hear_rumours(HostPlaces::new()));
    assert!(
        observer.words.hear_rumours(found(word(52, 2))) && !observer.words.hear_rumours(found(word(52, 2)))
    );
    assert_eq!((observer.sees(), observer.words.rumour(&name(2))), ([1, 2, 3, 4], Some(at(52))));
    observer.hears(2, word(52, 2));
    assert_eq!((observer.sees(), observer.words.rumour(&name(2))), ([1, 52, 3, 4], None));
    assert!(
        !observer.words.hear_rumours(found(word(52, 2))) && !observer.words.hear_rumours(found(word(2, 1)))
    );
}

/// Steps of a mesh in which hosts move.
#[derive(Clone, Debug)]
enum Step {
    /// The host goes where nobody is.
    Move(u8, u8),
    /// Two hosts swap.
    Swap(u8, u8),
    /// Control hears where the host is.
    Report(u8),
    /// The observer hears where the host is.
    Hear(u8),
    /// The observer hears control.
    Tell,
    /// The channel to the host ends, or stands again.
    Lose(u8),
    Find(u8),
    /// The observer's agent starts again, with what is on its disk.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 1..=HOSTS;
    prop_oneof![
        (host(), 1..=6_u8).prop_map(|(host, to)| Step::Move(host, to)),
        (host(), host()).prop_map(|(one, other)| Step::Swap(one, other)),
        host().prop_map(Step::Report),
        host().prop_map(Step::Hear),
        Just(Step::Tell),
        host().prop_map(Step::Lose),
        host().prop_map(Step::Find),
        Just(Step::Restart),
    ]
}

/// Hosts as they are, control as it knows them, and one that observes both.
struct World {
    places: [(u8, u64); HOSTS as usize],
    control: Control,
    observer: Observer,
    /// Places at which each host has ever been.
    been: BTreeSet<(u8, u8)>,
}

impl World {
    fn new() -> Self {
        let places = std::array::from_fn(|host| (u8::try_from(host).unwrap() + 1, 1));
        let been = (1..=HOSTS).map(|host| (host, host)).collect();
        Self { places, control: control(), observer: Observer::of(&control()), been }
    }

    fn place(&mut self, host: u8) -> &mut (u8, u64) {
        &mut self.places[usize::from(host) - 1]
    }

    fn go(&mut self, host: u8, to: u8) {
        let (place, edition) = self.place(host);
        (*place, *edition) = (to, *edition + 1);
        self.been.insert((host, to));
    }

    fn report(&mut self, host: u8) {
        let (to, edition) = *self.place(host);
        self.control.values_mut().filter(|known| known.0 == Some(to)).for_each(|known| known.0 = None);
        self.control.insert(host, (Some(to), edition));
    }

    fn hear(&mut self, host: u8) {
        let (to, edition) = *self.place(host);
        self.observer.hears(host, word(to, edition));
    }

    /// The observer's agent starts again with its record: hosts that were somewhere are there.
    fn restart(&mut self) {
        let (seen, settled) = (self.observer.sees(), self.observer.look());
        let kept: Vec<(NodeName, Whereabouts)> = {
            let news = self.observer.words.news(&self.observer.told);
            let there = news.filter(|(host, place)| settled.get(*host) == Some(&place.underlay));
            there.map(|(host, place)| (host.clone(), place)).collect()
        };
        self.observer.words = PlaceWords::default();
        kept.into_iter().for_each(|(host, place)| self.observer.words.recall(host, place));
        (self.observer.unreachable, self.observer.left) = Default::default();
        for (before, after) in seen.into_iter().zip(self.observer.sees()) {
            assert!(before == after || before == 0, "{before} {after}");
        }
    }

    fn go_on(&mut self, step: &Step) {
        match *step {
            Step::Move(host, to) => {
                if self.places.iter().all(|(place, _)| *place != to) {
                    self.go(host, to);
                }
            }
            Step::Swap(one, other) if one != other => {
                let (here, there) = (self.place(one).0, self.place(other).0);
                self.go(one, there);
                self.go(other, here);
            }
            Step::Swap(..) => {}
            Step::Report(host) => self.report(host),
            Step::Hear(host) => self.hear(host),
            Step::Tell => self.observer.told = told([&state(&self.control, true)].into_iter()),
            Step::Lose(host) => self.observer.loses(host),
            Step::Find(host) => self.observer.finds(host),
            Step::Restart => self.restart(),
        }
    }

    fn check(&mut self) {
        let seen = self.observer.sees();
        let somewhere: Vec<u8> = seen.into_iter().filter(|place| *place != 0).collect();
        assert_eq!(
            somewhere.iter().collect::<BTreeSet<_>>().len(),
            somewhere.len(),
            "{seen:?} share a place"
        );
        for (host, place) in (1..).zip(seen) {
            assert!(place == 0 || self.been.contains(&(host, place)), "host {host} was never at {place}");
            let known = self.observer.words.words.get(&name(host)).map(|word| word.place);
            let told = self.observer.told[&name(host)];
            let newest = known.filter(|known| Some(known.edition) > told.edition);
            let expected = newest.map(|known| known.underlay).or(told.underlay);
            assert!(place == 0 || Some(at(place)) == expected, "host {host} goes by an older word");
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_heard_in_whatever_order_no_two_hosts_are_at_one_place_and_in_the_end_each_is_where_it_is(
        steps in proptest::collection::vec(step(), 0..40),
        order in Just((1..=HOSTS).collect::<Vec<_>>()).prop_shuffle(),
        by_control in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.go_on(step);
            world.check();
        }
        for host in order {
            if by_control {
                world.report(host);
                world.go_on(&Step::Tell);
            } else {
                world.hear(host);
            }
            world.check();
        }
        let places = world.places.map(|(place, _)| place);
        prop_assert_eq!(world.observer.sees(), places);
    }
}
