use std::collections::HashMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

impl<K: Eq + Hash + Clone> Balancer<K> {
    fn finish(&mut self, pick: Pick, outcome: Outcome, now: Instant) -> bool {
        self.settle(pick, Some(outcome), now);
        let ejected = self.report(pick, outcome, now);
        self.release(pick);
        ejected
    }
}

fn weighted<K>(keys: impl IntoIterator<Item = K>) -> impl Iterator<Item = (K, Weight)> {
    keys.into_iter().map(|key| (key, Weight::default()))
}

const MS: Duration = Duration::from_millis(1);

/// Sends `requests`, one per millisecond, to endpoints of these latencies; returns how many each got.
fn simulate(seed: u64, latencies: &[Duration], requests: u32) -> Vec<u32> {
    simulate_weights(seed, latencies, &vec![1; latencies.len()], requests)
}

fn simulate_weights(seed: u64, latencies: &[Duration], weights: &[u32], requests: u32) -> Vec<u32> {
    let (mut random, mut now) = (StdRng::seed_from_u64(seed), Instant::now());
    let weights = weights.iter().map(|&weight| Weight::try_from(weight).unwrap());
    let mut balancer = Balancer::new((0..latencies.len()).zip(weights));
    let mut running: Vec<(Instant, Pick, Duration)> = Vec::new();
    let mut counts = vec![0; latencies.len()];
    for _ in 0..requests {
        now += MS;
        running.retain(|&(end, pick, latency)| {
            let over = end <= now;
            if over {
                balancer.finish(pick, Outcome::Answered(latency), now);
            }
            !over
        });
        let pick = balancer.pick(now, random.random(), &[]).unwrap();
        let key = *balancer.key(pick).unwrap();
        counts[key] += 1;
        let latency = latencies[key].mul_f64(random.random_range(0.8..1.2));
        running.push((now + latency, pick, latency));
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equal_endpoints_get_equal_shares(seed: u64, count in 2_usize..8) {
        let counts = simulate(seed, &vec![5 * MS; count], 4000);
        let fair = 4000 / u32::try_from(count).unwrap();
        for share in &counts {
            prop_assert!((fair / 2..fair * 2).contains(share), "{:?}", counts);
        }
    }

    #[test]
    fn shares_are_those_of_the_weights_whether_work_piles_up_or_not(seed: u64, slow: bool, scale in 1_u32..200) {
        let latency = if slow { 20 * MS } else { MS / 2 };
        let counts = simulate_weights(seed, &[latency; 3], &[scale, 2 * scale, 5 * scale], 8000);
        for (count, fair) in counts.iter().zip([1000, 2000, 5000]) {
            prop_assert!((fair / 2..fair * 3 / 2).contains(count), "{:?}", counts);
        }
    }

    #[test]
    fn a_slow_endpoint_gets_less(seed: u64) {
        let counts = simulate(seed, &[5 * MS, 5 * MS, 100 * MS], 4000);
        prop_assert!(counts[2] * 4 < counts[0] && counts[2] > 0, "{:?}", counts);
    }

    #[test]
    fn whatever_happens_a_pick_is_one_of_the_endpoints(
        steps in proptest::collection::vec((any::<u64>(), 0_u8..6, 0_u64..3000), 1..200),
    ) {
        let mut now = Instant::now();
        let mut balancer = Balancer::new(weighted(0..4_u32));
        let mut open = Vec::new();
        for (random, step, wait) in steps {
            now += Duration::from_millis(wait);
            match step {
                0 => balancer.update(weighted(0..u32::try_from(random % 5).unwrap())),
                1 => if let Some(pick) = open.pop() { balancer.finish(pick, Outcome::Refused, now); },
                2 => if let Some(pick) = open.pop() { balancer.finish(pick, Outcome::Answered(MS), now); },
                3 => if let Some(pick) = open.pop() { balancer.finish(pick, Outcome::Abandoned, now); },
                _ => match balancer.pick(now, random, &open) {
                    Some(pick) => {
                        prop_assert!(balancer.key(pick).is_some());
                        open.push(pick);
                    }
                    None => prop_assert!(balancer.endpoints.is_empty()),
                },
            }
        }
    }
}

/// The endpoints after an update, each with what it had learned before, found by looking through all of them for each.
fn updated(before: &[(u32, u64)], keys: &[u32]) -> Vec<(u32, Option<u64>)> {
    let learned = |key: u32| before.iter().find(|(known, _)| *known == key).map(|(_, id)| *id);
    keys.iter().map(|&key| (key, learned(key))).collect()
}

proptest! {
    #[test]
    fn an_update_keeps_the_order_of_the_new_and_what_is_known_of_the_old(
        rounds in proptest::collection::vec(proptest::collection::vec(0_u32..40, 0..60), 1..6),
    ) {
        let mut balancer = Balancer::new(weighted(0..10_u32));
        for mut keys in rounds {
            let mut seen = std::collections::HashSet::new();
            keys.retain(|key| seen.insert(*key));
            let before: Vec<_> = balancer.endpoints.iter().map(|state| (state.key, state.id)).collect();
            let newest = balancer.next_id;
            balancer.update(weighted(keys.iter().copied()));
            let after = balancer.endpoints.iter().map(|state| (state.key, (state.id <= newest).then_some(state.id)));
            prop_assert_eq!(after.collect::<Vec<_>>(), updated(&before, &keys));
        }
    }
}

fn shares(balancer: &mut Balancer<&'static str>, now: Instant) -> HashMap<&'static str, u32> {
    let mut shares = HashMap::new();
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..100 {
        let pick = balancer.pick(now, random.random(), &[]).unwrap();
        *shares.entry(*balancer.key(pick).unwrap()).or_default() += 1;
        balancer.finish(pick, Outcome::Answered(MS), now);
    }
    shares
}

fn refuse(balancer: &mut Balancer<&'static str>, key: &str, now: Instant) {
    finish_one(balancer, key, Outcome::Refused, now);
}

/// Ends a piece of work of this endpoint so; returns true if that ejected it.
fn finish_one(balancer: &mut Balancer<&'static str>, key: &str, outcome: Outcome, now: Instant) -> bool {
    let pick = hold(balancer, key, now);
    balancer.finish(pick, outcome, now)
}

/// Begins a piece of work at this endpoint.
fn hold(balancer: &mut Balancer<&'static str>, key: &str, now: Instant) -> Pick {
    let mut others = Vec::new();
    let held = loop {
        let pick = balancer.pick(now, 0, &others).unwrap();
        if *balancer.key(pick).unwrap() == key {
            break pick;
        }
        others.push(pick);
    };
    for pick in others {
        balancer.finish(pick, Outcome::Abandoned, now);
    }
    held
}

/// The endpoint that is taken by this chance, for work that comes to nothing.
fn taken(balancer: &mut Balancer<&'static str>, random: u64, now: Instant) -> &'static str {
    let pick = balancer.pick(now, random, &[]).unwrap();
    let key = *balancer.key(pick).unwrap();
    balancer.finish(pick, Outcome::Abandoned, now);
    key
}

/// The endpoints of two that are taken when the one and when the other is drawn first.
fn taken_of_two(balancer: &mut Balancer<&'static str>, now: Instant) -> [&'static str; 2] {
    [0, 1].map(|first| taken(balancer, first << 32, now))
}

/// A balancer of endpoints of these weights and latencies, of which one that is not known is zero.
fn learned(endpoints: &[(&'static str, u32, Duration)], now: Instant) -> Balancer<&'static str> {
    let weighted = endpoints.iter().map(|&(key, weight, _)| (key, Weight::try_from(weight).unwrap()));
    let mut balancer = Balancer::new(weighted);
    for &(key, _, latency) in endpoints.iter().filter(|(_, _, latency)| !latency.is_zero()) {
        finish_one(&mut balancer, key, Outcome::Answered(latency), now);
    }
    balancer
}

#[test]
fn an_ejected_endpoint_gets_nothing_until_its_probe_succeeds() {
    let now = Instant::now();
    let mut balancer = Balancer::new(weighted(["a", "b", "c"]));
    refuse(&mut balancer, "b", now);
    assert_eq!(shares(&mut balancer, now).get("b"), None);
    let later = now + 300 * MS;
    // One probe, and nothing beside it.
    let picks: Vec<_> = (0..50_u64).map(|n| balancer.pick(later, n << 32 | n, &[]).unwrap()).collect();
    let probes = picks.iter().filter(|&&pick| balancer.key(pick) == Some(&"b")).count();
    assert_eq!(probes, 1);
    for pick in picks {
        balancer.finish(pick, Outcome::Answered(MS), later);
    }
    assert!(shares(&mut balancer, later)["b"] > 10);
}

#[test]
fn refusals_in_a_row_double_the_ejection() {
    let mut now = Instant::now();
    let mut balancer = Balancer::new(weighted(["a", "b"]));
    for wait in [200, 400, 800] {
        refuse(&mut balancer, "b", now);
        now += Duration::from_millis(wait - 1);
        assert_eq!(shares(&mut balancer, now).get("b"), None, "{wait}");
        now += Duration::from_millis(1);
    }
}

#[test]
fn when_all_are_ejected_all_are_used() {
    let now = Instant::now();
    let mut balancer = Balancer::new(weighted(["a", "b"]));
    refuse(&mut balancer, "a", now);
    refuse(&mut balancer, "b", now);
    assert!(balancer.pick(now, 7, &[]).is_some());
    assert_eq!(Balancer::<u8>::new([]).pick(now, 7, &[]), None);
}

#[test]
fn a_retry_goes_where_nobody_went_yet() {
    let now = Instant::now();
    let mut balancer = Balancer::new(weighted(["a", "b", "c"]));
    for random in 0..50 {
        let first = balancer.pick(now, random * 0x1_0000_0001, &[]).unwrap();
        let second = balancer.pick(now, random, &[first]).unwrap();
        let third = balancer.pick(now, random, &[first, second]).unwrap();
        let mut keys = [first, second, third].map(|pick| *balancer.key(pick).unwrap());
        keys.sort_unstable();
        assert_eq!(keys, ["a", "b", "c"]);
    }
}

#[test]
fn what_was_learned_survives_a_change_of_endpoints() {
    let now = Instant::now();
    let mut balancer = Balancer::new(weighted(["a", "b", "c"]));
    refuse(&mut balancer, "c", now);
    let kept = balancer.pick(now, 0, &[]).unwrap();
    let key = *balancer.key(kept).unwrap();
    balancer.update(weighted(["d", "c", "b", "a"]));
    assert_eq!(balancer.key(kept), Some(&key));
    assert_eq!(shares(&mut balancer, now).get("c"), None);
    balancer.update(weighted(["d", "c", "b", "a"]));
    assert_eq!(balancer.key(kept), Some(&key), "in the order of before as well");
    balancer.update(weighted(["d"]));
    assert_eq!(balancer.key(kept), None);
    assert!(!balancer.finish(kept, Outcome::Refused, now));
}

/// Four clients, one request at a time each; endpoint 0 of three answers nothing from `frozen` on, until `thawed`, and its
/// clients give up after ten seconds. Returns how many requests it got per second.
fn freeze(seed: u64, frozen: Duration, thawed: Duration, length: Duration) -> Vec<u32> {
    let began = Instant::now();
    let (mut random, mut balancer) = (StdRng::seed_from_u64(seed), Balancer::new(weighted(0..3)));
    let mut clients: Vec<Option<(Pick, usize, Instant)>> = vec![None; 4];
    let mut got = vec![0; usize::try_from(length.as_secs()).unwrap()];
    for tick in 0..u32::try_from(length.as_millis() / 25).unwrap() {
        let passed = 25 * MS * tick;
        let now = began + passed;
        let hangs = |endpoint: usize| endpoint == 0 && (frozen..thawed).contains(&passed);
        for client in &mut clients {
            if let Some((pick, endpoint, since)) = *client {
                if !hangs(endpoint) {
                    balancer.finish(pick, Outcome::Answered(now - since), now);
                } else if now - since >= Duration::from_secs(10) {
                    balancer.finish(pick, Outcome::Abandoned, now);
                } else {
                    continue;
                }
            }
            let pick = balancer.pick(now, random.random(), &[]).unwrap();
            let endpoint = *balancer.key(pick).unwrap();
            got[usize::try_from(passed.as_secs()).unwrap()] += u32::from(endpoint == 0);
            *client = Some((pick, endpoint, now));
        }
    }
    got
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_endpoint_that_hangs_is_left_out_but_for_probes_and_comes_back_when_it_answers(seed: u64) {
        let seconds = Duration::from_secs;
        let got = freeze(seed, seconds(5), seconds(75), seconds(180));
        let while_frozen: u32 = got[6..75].iter().sum();
        prop_assert!(while_frozen <= 8, "{:?}", got);
        let afterwards: u32 = got[120..].iter().sum();
        prop_assert!(afterwards > 60 * 20, "{:?}", got);
    }
}

#[test]
fn who_answers_slowly_but_answers_is_not_left_out() {
    // Everything takes as long, so that nobody is silent for longer than usual.
    for latency in [1, 400, 1200] {
        let counts = simulate(7, &[MS * latency; 3], 6000);
        assert!(counts.iter().all(|&count| count > 1000), "{latency}: {counts:?}");
    }
}

#[test]
fn when_all_hang_all_are_asked() {
    let (mut balancer, now) = (Balancer::new(weighted(0..2)), Instant::now());
    let mut random = StdRng::seed_from_u64(7);
    let mut counts = [0; 2];
    for n in 0..100 {
        let pick = balancer.pick(now + n * Duration::from_secs(1), random.random(), &[]).unwrap();
        counts[*balancer.key(pick).unwrap()] += 1;
    }
    assert!(counts.iter().all(|&count| count >= 40), "{counts:?}");
}

#[test]
fn two_different_ones_are_drawn_and_the_quicker_is_taken() {
    let now = Instant::now();
    let mut balancer = learned(&[("a", 1, 64 * MS), ("b", 1, 32 * MS), ("c", 1, 16 * MS)], now);
    for (first, expected) in [(0, ["b", "c"]), (1, ["c", "b"]), (2, ["c", "c"])] {
        for second in 0..8_usize {
            let random = first << 32 | second as u64;
            assert_eq!(taken(&mut balancer, random, now), expected[second % 2], "{first} {second}");
        }
    }
}

#[test]
fn work_that_waits_makes_an_endpoint_as_costly_as_a_slower_one() {
    let now = Instant::now();
    let mut balancer = learned(&[("a", 1, 16 * MS), ("b", 1, 64 * MS)], now);
    let mut held = Vec::new();
    for expected in [["a", "a"], ["a", "a"], ["a", "a"], ["a", "b"], ["b", "b"]] {
        assert_eq!(taken_of_two(&mut balancer, now), expected, "with {} pieces of work", held.len());
        held.push(hold(&mut balancer, "a", now));
    }
    held.into_iter().for_each(|pick| balancer.release(pick));
    assert_eq!(taken_of_two(&mut balancer, now), ["a", "a"]);
    let mut unknown = learned(&[("a", 1, Duration::ZERO), ("b", 1, Duration::ZERO)], now);
    hold(&mut unknown, "a", now);
    assert_eq!(taken_of_two(&mut unknown, now), ["b", "b"], "nobody has answered yet");
}

#[test]
fn weights_decide_until_one_costs_four_times_as_much_for_its_weight() {
    let now = Instant::now();
    // Chances in quarters: the first is for the endpoint that is drawn first.
    let by_chance = |balancer: &mut Balancer<_>, [first, second]: [u64; 2]| {
        taken(balancer, (first << 30) << 32 | second << 30, now)
    };
    let mut equal = learned(&[("a", 1, MS), ("b", 1, MS), ("c", 2, MS)], now);
    assert_eq!([0, 1, 2, 3].map(|chance| by_chance(&mut equal, [chance, 0])), ["a", "b", "c", "c"]);
    for (latency, expected) in [(11, "b"), (13, "a")] {
        let mut balancer = learned(&[("a", 1, 16 * MS), ("b", 3, latency * MS)], now);
        assert_eq!(by_chance(&mut balancer, [0, 3]), "a");
        // With half of the mean weight, one piece of work counts as two: 48 ms against 4 times those of the other.
        hold(&mut balancer, "a", now);
        assert_eq!(by_chance(&mut balancer, [0, 3]), expected, "{latency} ms");
        assert_eq!(by_chance(&mut balancer, [3, 0]), "b");
    }
}

#[test]
fn a_newcomer_counts_as_the_others_do_on_average() {
    let now = Instant::now();
    let mut balancer = learned(&[("a", 1, 16 * MS), ("b", 1, 48 * MS), ("c", 1, Duration::ZERO)], now);
    let (a_or_c, b_or_c) = (1, 1 << 32);
    assert_eq!((taken(&mut balancer, a_or_c, now), taken(&mut balancer, b_or_c, now)), ("a", "c"));
    hold(&mut balancer, "a", now);
    hold(&mut balancer, "a", now);
    assert_eq!(taken(&mut balancer, a_or_c, now), "c");
}

#[test]
fn answers_of_failing_endpoints_count_as_slow_however_quick_they_are() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    for (outcome, latency) in [
        (Outcome::Overloaded(MS), second),
        (Outcome::Overloaded(3 * second), 3 * second),
        (Outcome::Broken, second),
    ] {
        for (other, expected) in [(latency - 100 * MS, ["b", "b"]), (latency + 100 * MS, ["a", "a"])] {
            let mut balancer = learned(&[("a", 1, Duration::ZERO), ("b", 1, other)], now);
            assert!(!finish_one(&mut balancer, "a", outcome, now), "it was not refused");
            assert_eq!(taken_of_two(&mut balancer, now), expected, "{outcome:?}, {other:?}");
        }
    }
}

#[test]
fn one_that_has_work_may_be_silent_for_eight_times_its_latency_and_half_a_second_at_least() {
    let began = Instant::now();
    for (latency, patience) in [(10, 500), (100, 800), (1000, 8000)] {
        let mut balancer = learned(&[("a", 1, latency * MS), ("b", 1, 1_000_000 * MS)], began);
        let since = began + 9000 * MS;
        let (work, last) = (hold(&mut balancer, "a", since), since + patience * MS - MS);
        let other = hold(&mut balancer, "a", last);
        balancer.settle(other, None, last);
        assert_eq!(taken(&mut balancer, 0, last), "a", "{latency} ms");
        assert_eq!(taken(&mut balancer, 0, last + MS), "b", "{latency} ms");
        assert!(!balancer.finish(other, Outcome::Abandoned, last + MS), "it was waited for a moment only");
        assert!(balancer.finish(work, Outcome::Abandoned, last + MS), "a client gives up");
    }
    let mut balancer = learned(&[("a", 1, 100 * MS), ("b", 1, 1_000_000 * MS)], began);
    let impatient = hold(&mut balancer, "a", began);
    assert!(!balancer.finish(impatient, Outcome::Abandoned, began + 799 * MS));
}

#[test]
fn a_probe_that_comes_to_nothing_makes_way_for_the_next_one() {
    let now = Instant::now();
    let mut balancer = Balancer::new(weighted(["a", "b"]));
    refuse(&mut balancer, "a", now);
    let back = now + 200 * MS;
    assert_eq!(taken(&mut balancer, 0, back), "a");
    assert_eq!(taken(&mut balancer, 0, back + 799 * MS), "b");
    assert_eq!(taken(&mut balancer, 0, back + 800 * MS), "a");
}

#[test]
fn an_endpoint_that_was_slow_once_is_tried_after_a_second_and_gets_its_share_again() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let mut balancer = learned(&[("a", 1, 5 * MS), ("b", 1, 5 * MS)], now);
    finish_one(&mut balancer, "b", Outcome::Broken, now);
    // The other one is asked all the time.
    let at = |balancer: &mut Balancer<&'static str>, after: Duration| {
        finish_one(balancer, "a", Outcome::Answered(5 * MS), now + after);
        taken_of_two(balancer, now + after)
    };
    assert_eq!(at(&mut balancer, second - MS), ["a", "a"], "it has broken one call");
    let trial = balancer.pick(now + second, 0, &[]).unwrap();
    assert_eq!(balancer.key(trial), Some(&"b"));
    assert_eq!(at(&mut balancer, second), ["a", "a"], "one at a time");
    balancer.finish(trial, Outcome::Answered(4 * MS), now + second + 4 * MS);
    assert_eq!(at(&mut balancer, second + 5 * MS), ["b", "b"], "it is the quicker one");
}

#[test]
fn an_endpoint_that_stays_slow_is_tried_less_and_less() {
    let (start, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut balancer = learned(&[("a", 1, 5 * MS), ("b", 1, 5 * MS)], start);
    finish_one(&mut balancer, "b", Outcome::Broken, start);
    let mut tried = 0;
    for millisecond in 1..=30_000 {
        let now = start + millisecond * MS;
        let pick = balancer.pick(now, random.random(), &[]).unwrap();
        let slow = balancer.key(pick) == Some(&"b");
        tried += u32::from(slow);
        balancer.finish(pick, Outcome::Answered(if slow { Duration::from_secs(1) } else { 5 * MS }), now);
    }
    assert_eq!(tried, 4, "after 1, 2, 4 and 8 s each");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn endpoints_of_latencies_that_differ_little_have_no_trials(seed: u64) {
        let latencies = [MS / 5, MS / 2, 3 * MS, 9 * MS];
        let (mut random, mut now) = (StdRng::seed_from_u64(seed), Instant::now());
        let mut balancer = Balancer::new(weighted(0..4_usize));
        for _ in 0..2_000 {
            now += Duration::from_millis(random.random_range(1..40));
            let pick = balancer.pick(now, random.random(), &[]).unwrap();
            prop_assert!(!pick.is_trial);
            let latency = latencies[*balancer.key(pick).unwrap()];
            balancer.finish(pick, Outcome::Answered(latency), now);
        }
    }
}
