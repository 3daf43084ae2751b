//! The search on ways of any length that change, lose and delay.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const PATIENCE: Duration = Duration::from_millis(50);
const LENGTHS: Lengths = Lengths { least: 626, most: 1_500 };

/// A way, and a search on it.
struct World {
    search: PathSearch,
    now: Instant,
    /// The longest packets that pass.
    limit: u32,
    /// Echoes in a hundred that get no answer whatever their length.
    loss: u32,
    random: StdRng,
    token: u64,
    echoes: u32,
}

impl World {
    fn new(lengths: Lengths, limit: u32) -> Self {
        let now = Instant::now();
        let mut search = PathSearch::default();
        search.handle_lengths(Some(lengths), now);
        let random = StdRng::from_seed([7; 32]);
        Self { search, now, limit, loss: 0, random, token: 0, echoes: 0 }
    }

    /// Goes on for so long, or until `until` says so; answers the time that passed.
    fn run(&mut self, time: Duration, until: impl Fn(&PathSearch) -> bool) -> Duration {
        let (from, end) = (self.now, self.now + time);
        while self.now < end && !until(&self.search) {
            self.step(true);
        }
        self.now - from
    }

    fn step(&mut self, short: bool) {
        self.search.handle_time(PATIENCE, short, self.now);
        if let Some((_, length)) = self.search.due(self.now) {
            self.token += 1;
            self.echoes += 1;
            self.search.handle_sent(self.token, self.now);
            assert!(self.search.due(self.now).is_none(), "one at a time");
            let passes = length <= self.limit && self.random.random_range(0..100) >= self.loss;
            if short && passes {
                self.now += PATIENCE / 10;
                self.search.handle_answer(self.token, self.now);
            }
        }
        self.now += PATIENCE / 2;
    }
}

const WHILE: Duration = Duration::from_secs(60);

proptest! {
    /// RFC 8899, section 5.3: the search ends with the exact length, in a bounded number of echoes.
    #[test]
    fn the_exact_length_is_found_and_found_again_when_the_way_changes(
        limits in proptest::collection::vec(626_u32..1_600, 1..6),
        most in 700_u32..9_100,
    ) {
        let lengths = Lengths { most, ..LENGTHS };
        let mut world = World::new(lengths, most);
        world.run(WHILE, |search| search.passes() == Some(most));
        for limit in limits {
            world.limit = limit;
            let wanted = (limit < most).then_some(limit);
            let took = world.run(WHILE, |search| search.settled() == wanted && !search.is_searching());
            prop_assert!(took < WHILE, "{limit} of {most} is not found, but {:?}", world.search);
            // What was found stays.
            for _ in 0..200 {
                world.run(Duration::from_secs(1), |_| false);
                prop_assert_eq!(world.search.settled(), wanted);
                // The least length is taken for granted until an echo has shown it, too.
                let (passes, is_least) = (world.search.passes(), limit == lengths.least);
                prop_assert!(passes == wanted.or(Some(most)) || (is_least && passes.is_none()), "{passes:?}");
                prop_assert_eq!(world.search.lost(), wanted.map(|_| most));
            }
        }
    }

    /// The length in force passes, whatever is lost by chance: a mistake makes packets shorter, and is corrected.
    #[test]
    fn chance_makes_no_length_too_great_and_none_too_small_for_long(limit in 700_u32..1_500, loss in 0_u32..40) {
        let mut world = World::new(LENGTHS, limit);
        world.loss = loss;
        world.run(WHILE, |search| search.settled().is_some());
        let mut right = 0;
        for _ in 0..600 {
            world.run(Duration::from_secs(1), |_| false);
            let settled = world.search.settled().unwrap();
            prop_assert!(settled <= limit);
            right += u32::from(limit == settled);
        }
        prop_assert!(right > 300, "{right} of 600 s at {loss} % loss");
    }

    #[test]
    fn nothing_is_looked_for_where_nothing_is_lost_or_short_echoes_are(loss in 0_u32..30, seed in any::<u8>()) {
        let mut world = World::new(LENGTHS, LENGTHS.most);
        (world.loss, world.random) = (loss, StdRng::from_seed([seed; 32]));
        world.run(Duration::from_secs(120), |search| search.lost().is_some());
        prop_assert_eq!(world.search.lost(), None);
        for _ in 0..1_000 {
            world.step(false);
        }
        prop_assert_eq!(world.search.lost(), None);
    }

    /// In any history, the search asks for lengths within its range and remembers no more than it may.
    #[test]
    fn any_history_keeps_lengths_in_range(steps in proptest::collection::vec((0_u8..7, 1_u64..60, 600_u32..1_600), 1..300)) {
        let mut world = World::new(LENGTHS, 1_400);
        let (mut now, mut lengths) = (world.now, LENGTHS);
        for (step, number, length) in steps {
            let search = &mut world.search;
            match step {
                0 => search.handle_answer(number, now),
                1 => search.handle_unsent(number, true, now),
                2 => search.handle_unsent(number, false, now),
                3 => {
                    lengths.most = length.max(lengths.least);
                    search.handle_lengths(Some(lengths), now);
                }
                4 => search.handle_known(length.max(lengths.least), now),
                _ => now += Duration::from_millis(number * 10),
            }
            search.handle_time(PATIENCE, true, now);
            if let Some((_, length)) = search.due(now) {
                prop_assert!((lengths.least..=lengths.most).contains(&length), "{length} {search:?}");
                search.handle_sent(number, now);
            }
            prop_assert!(search.settled().is_none_or(|settled| settled < lengths.most), "{search:?}");
            prop_assert!(search.sent.len() <= REMEMBERED);
        }
    }
}

#[test]
fn a_black_hole_is_known_after_echoes_in_a_row_and_a_whole_way_costs_one_echo_in_two_seconds() {
    let mut world = World::new(LENGTHS, LENGTHS.most);
    world.run(Duration::from_secs(100), |_| false);
    assert!((45..=55).contains(&world.echoes), "{} echoes", world.echoes);
    world.limit = 1_350;
    world.echoes = 0;
    let took = world.run(WHILE, |search| search.settled().is_some());
    assert_eq!(world.search.settled(), Some(1_350));
    assert!(took < Duration::from_secs(6) && world.echoes < 70, "{took:?}, {} echoes", world.echoes);
    // A turn of looking for more costs a handful of echoes.
    world.echoes = 0;
    world.run(Duration::from_secs(150), |_| false);
    assert!(world.echoes < 75 + 10 * 2 * ATTEMPTS_UP + 10, "{} echoes", world.echoes);
}

#[test]
fn a_way_that_takes_less_than_every_way_should_is_told_from_one_that_takes_just_that() {
    let mut world = World::new(LENGTHS, LENGTHS.least - 1);
    let await_passing = |world: &mut World, limit: u32, expected: Passing, passes: Option<u32>| {
        world.limit = limit;
        world.run(WHILE, |search| search.passing() == expected);
        assert_eq!((world.search.passing(), world.search.passes()), (expected, passes), "{limit}");
    };
    await_passing(&mut world, LENGTHS.least - 1, Passing::Less(626), None);
    await_passing(&mut world, LENGTHS.least, Passing::Bytes(626), Some(626));
    let changed = world.run(WHILE, |search| search.passing() != Passing::Bytes(626));
    assert!(changed >= WHILE, "what is known stays known while more is tried: {changed:?}");
    await_passing(&mut world, LENGTHS.least - 100, Passing::Less(626), None);
    world.limit = LENGTHS.most;
    world.run(WHILE, |search| search.lost().is_none());
    assert_eq!((world.search.lost(), world.search.passes()), (None, Some(1_500)));
}

#[test]
fn a_way_that_grows_is_used_in_full_within_the_time_of_a_turn() {
    for grown in [1_360, 1_352, 1_499, 1_500, 1_600] {
        let mut world = World::new(LENGTHS, 1_350);
        world.run(WHILE, |search| search.settled().is_some());
        world.limit = grown;
        let wanted = Some(grown).filter(|grown| *grown < 1_500);
        let took = world.run(WHILE, |search| search.settled() == wanted);
        assert!(took < RAISE + Duration::from_secs(5), "{grown}: {took:?}");
    }
}

#[test]
fn a_way_that_grows_while_it_is_searched_is_not_called_narrow() {
    let is_last =
        |search: &PathSearch| matches!(&search.phase, Phase::Searching(Search { next: Candidate::Last, .. }));
    for steps in 0.. {
        let mut world = World::new(LENGTHS, 1_380);
        world.run(WHILE, PathSearch::is_searching);
        (0..steps).for_each(|_| world.step(true));
        if is_last(&world.search) {
            assert!(steps > 20, "the search takes a while, and not {steps} steps");
            return;
        }
        world.limit = 1_500;
        let took = world.run(WHILE, |search| search.lost().is_none() || search.settled().is_some());
        assert_eq!((world.search.lost(), world.search.settled()), (None, None), "after {steps} steps");
        assert!(took < Duration::from_secs(2), "{took:?} after {steps} steps");
    }
}

#[test]
fn what_an_earlier_agent_found_stays_until_more_passes() {
    let mut world = World::new(LENGTHS, 1_350);
    world.search = PathSearch::default();
    world.search.handle_known(1_350, world.now);
    assert_eq!(world.search.due(world.now), None, "nobody has said how long packets may be");
    world.search.handle_lengths(Some(LENGTHS), world.now);
    for _ in 0..1_000 {
        world.step(true);
        assert_eq!(world.search.settled(), Some(1_350));
    }
    world.search.handle_known(1_350, world.now);
    world.limit = 1_500;
    let took = world.run(WHILE, |search| search.settled().is_none());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_length_that_the_device_does_not_take_is_lost_and_one_that_is_not_sent_for_another_reason_says_nothing() {
    let mut world = World::new(LENGTHS, 1_350);
    world.run(WHILE, |search| search.settled().is_some());
    let now = world.now + RAISE;
    world.search.handle_time(PATIENCE, true, now);
    assert_eq!(world.search.due(now).map(|(_, length)| length), Some(LENGTHS.most));
    world.search.handle_sent(1_000_000, now);
    world.search.handle_unsent(1_000_000, false, now);
    assert_eq!(world.search.due(now), None);
    let now = now + USUAL;
    world.search.handle_sent(1_000_001, now);
    world.search.handle_unsent(1_000_001, true, now);
    assert_eq!(world.search.due(now).map(|(_, length)| length), Some(1_351));
    assert_eq!(world.search.settled(), Some(1_350));
}
