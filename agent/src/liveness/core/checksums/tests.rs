use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Peers that answer as a function says, by kind and in the order in which datagrams are sent.
struct Peers<F> {
    names: Vec<NodeName>,
    core: ChecksumCore,
    now: Instant,
    tokens: u64,
    sent: usize,
    answers: F,
    /// Answers and the time at which they come.
    coming: VecDeque<(Instant, NodeName, u64)>,
    round_trip: Duration,
}

impl<F: FnMut(ChecksumBy, Instant) -> bool> Peers<F> {
    fn new(number: usize, answers: F) -> Self {
        Self {
            names: (0..number).map(|number| format!("h{number}").parse().unwrap()).collect(),
            core: ChecksumCore::default(),
            now: Instant::now(),
            tokens: 0,
            sent: 0,
            answers,
            coming: VecDeque::new(),
            round_trip: Duration::from_millis(1),
        }
    }

    /// Lives through a second; returns how many peers are named at its end.
    fn second(&mut self) -> usize {
        while let Some((_, name, token)) = self.coming.pop_front_if(|(at, ..)| *at <= self.now) {
            self.core.handle_answer(&name, token);
        }
        let tokens = &mut self.tokens;
        let probes = self.core.poll(self.names.iter(), self.now, || {
            *tokens += 1;
            *tokens
        });
        assert!(probes.len() <= 2 * SAMPLE);
        self.sent += probes.len();
        for ChecksumProbe { to, token, by } in probes {
            if (self.answers)(by, self.now) {
                self.coming.push_back((self.now + self.round_trip, to, token));
            }
        }
        self.now += SECOND;
        self.core.wrong().count()
    }

    /// Lives through seconds; returns the most that were named at once.
    fn seconds(&mut self, seconds: usize) -> usize {
        (0..seconds).map(|_| self.second()).max().unwrap()
    }
}

#[test]
fn a_peer_that_gets_the_kernels_checksums_alone_is_named_until_it_gets_the_devices() {
    let broken = std::cell::Cell::new(false);
    let mut peers = Peers::new(1, |by, _| by == ChecksumBy::Kernel || !broken.get());
    assert_eq!(peers.seconds(100), 0);
    assert_eq!((peers.sent, peers.core.fault(&peers.names[0])), (10, Some(false)), "one in ten seconds");
    broken.set(true);
    let within = (1..).find(|_| peers.second() == 1).unwrap();
    assert!((20..=32).contains(&within), "{within}");
    assert_eq!(peers.core.fault(&peers.names[0]), Some(true));
    peers.sent = 0;
    assert_eq!((0..100).filter(|_| peers.second() == 1).count(), 100);
    assert_eq!(peers.sent, 40, "a pair in five seconds");
    broken.set(false);
    let within = (1..).find(|_| peers.second() == 0).unwrap();
    assert!(within <= 7, "{within}");
    assert_eq!(peers.seconds(1_000), 0);
}

#[test]
fn a_peer_that_answers_neither_kind_is_not_named_and_costs_little() {
    let mut peers = Peers::new(1, |_, _| false);
    assert_eq!(peers.seconds(600), 0);
    assert!(peers.sent <= 17 * 9, "{}", peers.sent);
    assert_eq!(peers.core.fault(&peers.names[0]), None, "of an older version, or behind a firewall");

    // One that was named, and then answers nothing any more, is named no longer.
    let mute = std::cell::Cell::new(false);
    let mut peers = Peers::new(1, |by, _| by == ChecksumBy::Kernel && !mute.get());
    assert_eq!(peers.seconds(30), 1);
    mute.set(true);
    assert_eq!((peers.seconds(50), peers.seconds(100)), (1, 0));
}

#[test]
fn loss_names_nobody_and_does_not_hide_who_gets_the_kernels_alone() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut passes = move || random.random_bool(0.8) && random.random_bool(0.8);
        let mut peers = Peers::new(100, |_, _| passes());
        assert_eq!(peers.seconds(40_000), 0, "seed {seed}: ten hours of a hundred hosts");

        let mut random = StdRng::seed_from_u64(seed);
        let mut passes = move || random.random_bool(0.8) && random.random_bool(0.8);
        let mut peers = Peers::new(10, |by, _| by == ChecksumBy::Kernel && passes());
        assert_eq!(peers.seconds(90), 10, "seed {seed}");
        let named: usize = (0..1_000).map(|_| peers.second()).sum();
        assert!(named > 9_900, "seed {seed}: {named} of 10,000");
    }
}

#[test]
fn a_kernel_that_answers_seldom_or_late_names_nobody() {
    for every in [1, 2, 3, 7, 10, 30] {
        let mut last = None::<Instant>;
        let mut peers = Peers::new(1, |_, now| {
            let answers = last.is_none_or(|last| now >= last + SECOND * every);
            last = if answers { Some(now) } else { last };
            answers
        });
        assert_eq!(peers.seconds(2_000), 0, "one answer in {every} s");
    }
    for millis in [900, 1_500, 3_000, 20_000] {
        let mut peers = Peers::new(3, |_, _| true);
        peers.round_trip = Duration::from_millis(millis);
        assert_eq!(peers.seconds(1_000), 0, "{millis} ms");
    }
}

#[test]
fn so_many_peers_are_asked_at_once_and_all_of_them_in_turn() {
    let mut peers = Peers::new(150, |_, _| true);
    peers.seconds(10);
    assert!(peers.names.iter().all(|name| peers.core.fault(name) == Some(false)));
    assert_eq!(peers.sent, 150);
    assert!(peers.core.poll(std::iter::empty(), peers.now, || 1).is_empty());
    assert!(peers.core.peers.is_empty(), "who is no peer is forgotten");
}

#[test]
fn answers_that_nobody_could_know_say_nothing_of_checksums() {
    let names: [NodeName; 2] = ["a", "b"].map(|name| name.parse().unwrap());
    let (mut core, mut now, mut tokens) = (ChecksumCore::default(), Instant::now(), 0);
    for _ in 0..30 {
        let probes = core.poll(names.iter(), now, || {
            tokens += 1;
            tokens
        });
        for ChecksumProbe { to, token, by } in probes {
            // Host b answers its own, and in the name of host a, which gets the kernel's alone.
            if to == names[1] || by == ChecksumBy::Kernel {
                core.handle_answer(&to, token);
            }
            if to == names[1] {
                core.handle_answer(&names[0], token);
            }
            core.handle_answer(&names[0], u64::MAX);
        }
        now += SECOND;
    }
    assert_eq!(core.wrong().collect::<Vec<_>>(), [&names[0]]);
    assert_eq!(core.fault(&names[1]), Some(false));
}
