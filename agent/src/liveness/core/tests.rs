//! The core against networks that lose, delay and die, for hours of virtual time.

mod mesh;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A core and the network between it and its peers.
struct World {
    core: LivenessCore,
    now: Instant,
    began: Instant,
    random: StdRng,
    /// Packets in a hundred that are lost, each way.
    loss: u32,
    /// Time to a peer and back.
    round_trip: Duration,
    dead: BTreeSet<NodeName>,
    /// The longest packets that pass.
    limit: u32,
    answers: BinaryHeap<Reverse<(Instant, NodeName, u64)>>,
    echoes: u64,
}

fn name(number: usize) -> NodeName {
    format!("host-{number}").parse().unwrap()
}

/// Hosts that share a network with this one; `speaks` if they say that they answer echoes.
fn watched(hosts: impl IntoIterator<Item = usize>, speaks: bool) -> BTreeMap<NodeName, Watched> {
    let networks = BTreeSet::from(["shop".parse().unwrap()]);
    hosts.into_iter().map(|host| (name(host), Watched { networks: networks.clone(), speaks })).collect()
}

impl World {
    fn new(peers: usize, timeout: Duration, seed: u8) -> Self {
        let began = Instant::now();
        let mut core = LivenessCore::new(timeout, [seed; 32], BTreeMap::new(), began);
        core.handle_peers(&watched(0..peers, false));
        let lengths = Lengths { least: 626, most: 1_500 };
        core.handle_lengths(&(0..peers).map(|peer| (name(peer), lengths)).collect(), began);
        let random = StdRng::from_seed([seed.wrapping_add(1); 32]);
        Self {
            core,
            now: began,
            began,
            random,
            loss: 0,
            round_trip: Duration::from_millis(1),
            dead: BTreeSet::new(),
            limit: u32::MAX,
            answers: BinaryHeap::new(),
            echoes: 0,
        }
    }

    fn lost(&mut self) -> bool {
        self.random.random_range(0..100) < self.loss
    }

    /// Does what a wake of the shell does: answers, then time, then echoes.
    fn wake(&mut self) {
        while let Some(Reverse((at, from, token))) = self.answers.peek().cloned()
            && at <= self.now
        {
            self.answers.pop();
            self.core.handle_answer(&from, token, self.now);
        }
        self.core.handle_time(self.now);
        while let Some(Echo { to, token, length }) = self.core.poll_echo(self.now) {
            self.echoes += u64::from(length.is_none());
            let back = !(self.lost() || self.lost() || length.is_some_and(|length| length > self.limit));
            if back && !self.dead.contains(&to) {
                let jitter = self.random.random_range(1..=3);
                self.answers.push(Reverse((self.now + self.round_trip * jitter / 2, to, token)));
            }
        }
    }

    /// Goes on until then, or until `until` says so; answers the time that passed.
    fn run(&mut self, time: Duration, mut until: impl FnMut(&Self) -> bool) -> Duration {
        let (from, end) = (self.now, self.now + time);
        while self.now < end {
            let due = self.core.poll_timeout().unwrap();
            let answer = self.answers.peek().map(|Reverse((at, ..))| *at);
            self.now = answer.map_or(due, |answer| answer.min(due)).max(self.now);
            self.wake();
            if until(self) {
                break;
            }
        }
        self.now - from
    }

    fn reach(&self, peer: usize) -> Reach {
        self.core.views()[&name(peer)].reach
    }

    fn is_lost(&self, peer: usize) -> bool {
        self.core.unreachable().any(|known| *known == name(peer))
    }
}

#[test]
fn one_packet_in_five_that_is_lost_each_way_makes_nobody_unreachable_for_hours() {
    for (seed, round_trip) in [(1, 1), (2, 20), (3, 80)] {
        let mut world = World::new(4, SECOND, seed);
        (world.loss, world.round_trip) = (20, Duration::from_millis(round_trip));
        let hour = Duration::from_secs(3_600);
        let passed = world.run(hour, |world| {
            world.core.unreachable().next().is_some() || world.core.narrow().next().is_some()
        });
        assert!(passed >= hour, "seed {seed}: a host was called unreachable after {passed:?}");
        let view = world.core.views()[&name(0)];
        let loss = view.loss.unwrap();
        assert!((0.15..0.60).contains(&loss), "of three echoes one is lost, not {loss}");
    }
}

#[test]
fn a_host_that_dies_is_known_within_the_timeout_whenever_it_dies_and_however_much_was_lost_before() {
    for seed in 0..40 {
        for (timeout, loss) in [(SECOND, 0), (SECOND, 20), (SECOND / 5, 0), (5 * SECOND, 10)] {
            let mut world = World::new(8, timeout, seed);
            world.loss = loss;
            let phase = Duration::from_millis(u64::from(seed) * 7);
            world.run(5 * timeout + phase, |_| false);
            world.dead.insert(name(3));
            let took = world.run(3 * timeout, |world| world.is_lost(3));
            assert!(took < timeout, "seed {seed}, {timeout:?}, {loss} %: known after {took:?}");
            assert_eq!(world.core.unreachable().count(), 1, "nobody else");
        }
    }
}

#[test]
fn a_long_way_takes_about_three_times_its_length_more() {
    let mut world = World::new(3, SECOND, 9);
    world.round_trip = Duration::from_millis(200);
    world.run(10 * SECOND, |_| false);
    assert_eq!(world.reach(1), Reach::Reachable);
    world.dead.insert(name(1));
    let took = world.run(5 * SECOND, |world| world.is_lost(1));
    assert!(took < SECOND + 4 * world.round_trip, "{took:?}");
}

#[test]
fn a_host_that_is_back_is_believed_after_answers_in_a_row_and_one_that_comes_and_goes_after_more() {
    let mut world = World::new(2, SECOND, 5);
    world.run(2 * SECOND, |_| false);
    let mut took = Vec::new();
    for _ in 0..4 {
        world.dead.insert(name(0));
        world.run(3 * SECOND, |world| world.is_lost(0));
        world.run(3 * SECOND, |_| false);
        world.dead.clear();
        took.push(world.run(10 * SECOND, |world| !world.is_lost(0)));
    }
    assert!(took[0] < SECOND / 2, "{took:?}");
    assert!(took[3] > took[0] && took[3] < SECOND, "{took:?}");
    // Steady for a minute, it is believed as at first.
    world.run(70 * SECOND, |_| false);
    world.dead.insert(name(0));
    world.run(3 * SECOND, |world| world.is_lost(0));
    world.dead.clear();
    assert!(world.run(10 * SECOND, |world| !world.is_lost(0)) < SECOND / 2);
}

#[test]
fn a_host_that_came_and_went_is_believed_again_although_one_packet_in_five_is_lost_each_way() {
    for seed in 0..50 {
        let mut world = World::new(2, SECOND, seed);
        world.run(2 * SECOND, |_| false);
        for _ in 0..5 {
            world.dead.insert(name(0));
            world.run(3 * SECOND, |world| world.is_lost(0));
            world.dead.clear();
            world.run(3 * SECOND, |world| !world.is_lost(0));
        }
        world.dead.insert(name(0));
        world.run(3 * SECOND, |world| world.is_lost(0));
        world.dead.clear();
        world.loss = 20;
        let took = world.run(30 * SECOND, |world| !world.is_lost(0));
        assert!(took < 10 * SECOND, "{took:?}, seed {seed}");
    }
}

#[test]
fn a_host_that_gets_no_processor_accuses_nobody() {
    let mut world = World::new(5, SECOND, 6);
    world.run(2 * SECOND, |_| false);
    for _ in 0..200 {
        // It sleeps for ten seconds, and what was under way is lost.
        world.now += 10 * SECOND;
        world.answers.clear();
        world.wake();
        world.run(SECOND / 5, |_| false);
        assert_eq!(world.core.unreachable().next(), None);
    }
    // Late all the time, it still finds out who is dead.
    world.dead.insert(name(2));
    for _ in 0..60 {
        world.now += SECOND / 4;
        world.wake();
    }
    assert!(world.is_lost(2));
    assert_eq!(world.core.unreachable().count(), 1);
}

#[test]
fn a_host_that_never_answered_is_unknown_and_counts_as_reachable() {
    let mut world = World::new(2, SECOND, 7);
    world.dead.insert(name(1));
    let took = world.run(60 * SECOND, |world| world.core.silent().next().is_some());
    assert!(took > 5 * SECOND && took < 15 * SECOND, "it is named after {took:?}");
    world.run(60 * SECOND, |_| false);
    assert_eq!((world.reach(0), world.reach(1)), (Reach::Reachable, Reach::Unknown));
    assert_eq!(world.core.silent().collect::<Vec<_>>(), [&name(1)]);
    assert_eq!(world.core.views()[&name(1)].loss, Some(1.0));
}

#[test]
fn a_host_that_says_it_answers_echoes_and_was_there_before_this_agent_is_judged_without_a_first_answer() {
    for (known, least, most) in [(true, SECOND / 2, SECOND), (false, 2 * SECOND, 4 * SECOND)] {
        let mut world = World::new(0, SECOND, 12);
        let before = if known { [(name(1), Reach::Unknown)].into() } else { BTreeMap::new() };
        world.core = LivenessCore::new(SECOND, [3; 32], before, world.now);
        world.core.handle_peers(&watched(0..2, true));
        world.dead.insert(name(1));
        let took = world.run(10 * SECOND, |world| world.is_lost(1));
        assert!((least..most).contains(&took), "{known}: {took:?}");
        world.dead.clear();
        let took = world.run(10 * SECOND, |world| !world.is_lost(1));
        assert!(took < SECOND / 2, "{took:?}");
    }
}

#[test]
fn a_host_that_was_lost_before_this_agent_is_so_until_it_answers() {
    let mut world = World::new(0, SECOND, 13);
    let before = [(name(0), Reach::Unreachable), (name(1), Reach::Unreachable)];
    world.core = LivenessCore::new(SECOND, [3; 32], before.into(), world.now);
    world.core.handle_peers(&watched(0..2, false));
    assert!(world.is_lost(0) && world.is_lost(1));
    world.dead.insert(name(1));
    let took = world.run(10 * SECOND, |world| !world.is_lost(0));
    assert!(took < SECOND / 5, "{took:?}");
    world.run(60 * SECOND, |_| false);
    assert!(world.is_lost(1));
}

#[test]
fn a_host_that_goes_back_to_a_version_without_echoes_counts_as_reachable_again() {
    let mut world = World::new(0, SECOND, 14);
    world.core.handle_peers(&watched(0..2, true));
    world.run(5 * SECOND, |_| false);
    world.dead.insert(name(1));
    world.run(5 * SECOND, |_| false);
    assert!(world.is_lost(1));
    let verdicts = world.core.verdicts();
    let mut older = watched(0..2, true);
    older.insert(name(1), watched([1], false).remove(&name(1)).unwrap());
    world.core.handle_peers(&older);
    assert!(world.core.verdicts() > verdicts);
    world.run(60 * SECOND, |world| world.is_lost(1));
    assert_eq!((world.reach(0), world.reach(1)), (Reach::Reachable, Reach::Unknown));
    // Upgraded, it is watched again.
    world.core.handle_peers(&watched(0..2, true));
    world.dead.clear();
    world.run(5 * SECOND, |_| false);
    assert_eq!(world.reach(1), Reach::Reachable);
    assert_eq!(world.core.take_changes(), (1, 0), "it has not come back, it was never asked");
}

#[test]
fn above_the_sample_everybody_has_a_turn_and_a_dead_host_is_known_a_few_rounds_later() {
    let mut world = World::new(4 * SAMPLE, SECOND, 8);
    world.run(2 * SECOND, |_| false);
    let views = world.core.views();
    assert!(views.values().all(|view| view.reach == Reach::Reachable), "each was asked within four rounds");
    let (echoes, from) = (world.echoes, world.now);
    world.run(10 * SECOND, |_| false);
    let a_second = (world.echoes - echoes) as f64 / (world.now - from).as_secs_f64();
    assert!(a_second <= 5.0 * SAMPLE as f64 + 1.0, "{a_second} echoes a second");
    world.dead.insert(name(77));
    let took = world.run(10 * SECOND, |world| world.is_lost(77));
    assert!(took < 2 * SECOND, "{took:?}");
}

#[test]
fn all_peers_of_a_host_that_is_cut_off_are_unreachable_together_and_come_back_together() {
    let mut world = World::new(10, SECOND, 10);
    world.run(2 * SECOND, |_| false);
    world.loss = 100;
    let took = world.run(5 * SECOND, |world| world.core.unreachable().count() == 10);
    assert!(took < SECOND, "{took:?}");
    world.loss = 0;
    let took = world.run(5 * SECOND, |world| world.core.unreachable().count() == 0);
    assert!(took < SECOND / 2, "{took:?}");
}

#[test]
fn a_way_that_loses_long_packets_is_known_within_ten_seconds_and_its_host_stays_reachable() {
    for (seed, loss) in [(12, 0), (13, 10)] {
        let mut world = World::new(40, SECOND, seed);
        world.loss = loss;
        world.run(5 * SECOND, |_| false);
        let views = world.core.views();
        assert!(loss > 0 || views.values().all(|view| view.path_mtu == Some(1_500) && view.narrow.is_none()));
        world.limit = 1_380;
        let took = world.run(20 * SECOND, |world| world.core.narrow().count() == 40);
        assert!(took < 10 * SECOND, "{took:?}");
        let found = world.run(20 * SECOND, |world| world.core.settled().count() == 40);
        assert!(loss > 0 || took + found < 10 * SECOND, "{:?}", took + found);
        let exact = world.core.settled().filter(|(_, length)| *length == 1_380).count();
        assert!(exact > 30 && (loss > 0 || exact == 40), "{exact}");
        let narrow = Narrow { passes: Passing::Bytes(1_380), lost: 1_500 };
        assert!(world.core.views().values().any(|view| view.narrow == Some(narrow)));
        assert_eq!(world.core.unreachable().next(), None);
        world.limit = 1_500;
        let took = world.run(60 * SECOND, |world| world.core.narrow().next().is_none());
        // A turn in which chance took the longest echoes is followed by the next one.
        assert!(took < if loss > 0 { 50 } else { 20 } * SECOND, "{took:?}");
    }
}

#[test]
fn what_an_earlier_agent_found_is_in_force_from_the_beginning() {
    let mut world = World::new(2, SECOND, 14);
    world.limit = 1_380;
    world.core.handle_known(&name(1), 1_380, world.now);
    world.core.handle_known(&name(7), 1_380, world.now);
    assert_eq!(world.core.settled().collect::<Vec<_>>(), [(&name(1), 1_380)]);
    world.run(4 * SECOND, |_| false);
    assert_eq!(world.core.settled().collect::<Vec<_>>(), [(&name(1), 1_380)]);
    world.limit = 1_500;
    let took = world.run(60 * SECOND, |world| world.core.settled().next().is_none());
    assert!(took < 20 * SECOND, "{took:?}");
}

#[test]
fn answers_that_nobody_asked_for_and_echoes_that_were_not_sent_say_nothing() {
    let now = Instant::now();
    let mut core = LivenessCore::new(SECOND, [1; 32], BTreeMap::new(), now);
    core.handle_peers(&watched(0..2, false));
    core.handle_answer(&name(0), 0, now);
    core.handle_answer(&name(7), 0, now);
    core.handle_time(now);
    let echo = core.poll_echo(now).unwrap();
    let other = if echo.to == name(0) { name(1) } else { name(0) };
    core.handle_answer(&other, echo.token, now);
    assert!(core.views().values().all(|view| view.reach == Reach::Unknown), "it was another's");
    core.handle_answer(&echo.to, echo.token, now + SECOND / 100);
    assert_eq!(core.views()[&echo.to].round_trip, Some(SECOND / 100));
    // Its device is gone from now on.
    let mut time = now;
    for _ in 0..400 {
        time = core.poll_timeout().unwrap().max(time);
        core.handle_time(time);
        while let Some(echo) = core.poll_echo(time) {
            core.handle_unsent(&echo, false, time);
        }
    }
    assert_eq!(core.views()[&echo.to].reach, Reach::Reachable);
}

#[test]
fn a_host_that_was_lost_and_is_no_peer_for_a_while_is_lost_until_it_answers() {
    for speaks in [true, false] {
        let mut world = World::new(3, SECOND, 15);
        world.run(2 * SECOND, |_| false);
        world.dead.insert(name(0));
        world.run(3 * SECOND, |world| world.is_lost(0));
        world.core.handle_peers(&watched(1..3, true));
        assert!(!world.is_lost(0), "nobody asks it");
        world.core.handle_peers(&watched(0..3, speaks));
        assert_eq!(world.is_lost(0), speaks, "one of before says nothing of echoes");
        world.run(3 * SECOND, |_| false);
        assert_eq!(world.is_lost(0), speaks);
        world.dead.clear();
        world.run(SECOND, |world| world.reach(0) == Reach::Reachable);
        assert_eq!(world.reach(0), Reach::Reachable);
        world.core.handle_peers(&watched(1..3, speaks));
        world.core.handle_peers(&watched(0..3, speaks));
        assert!(!world.is_lost(0), "it was there");
    }
}

#[test]
fn a_host_that_is_no_peer_any_more_is_forgotten() {
    let mut world = World::new(3, SECOND, 11);
    world.run(2 * SECOND, |_| false);
    world.dead.insert(name(0));
    world.run(3 * SECOND, |world| world.is_lost(0));
    let verdicts = world.core.verdicts();
    world.core.handle_peers(&watched(1..3, false));
    assert_eq!((world.core.unreachable().next(), world.core.verdicts() > verdicts), (None, true));
    world.core.handle_peers(&BTreeMap::new());
    assert_eq!((world.core.poll_timeout(), world.core.poll_echo(world.now)), (None, None));
    assert!(world.began < world.now);
}
