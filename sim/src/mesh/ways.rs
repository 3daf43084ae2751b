//! Ways between hosts: which are cut and since when, what is lost, and which machines run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Shortest and longest time of a packet on its way, in microseconds.
const WAY: (u64, u64) = (200, 1_000);

/// Cause for which packets of some hosts do not reach some others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Packets of one host do not reach the other one.
    OneWay(u8, u8),
    /// Hosts inside reach each other alone, and so do the others.
    Island(BTreeSet<u8>),
}

impl Cut {
    fn stops(&self, from: u8, to: u8) -> bool {
        match self {
            Self::OneWay(one, other) => (*one, *other) == (from, to),
            Self::Island(inside) => inside.contains(&from) != inside.contains(&to),
        }
    }
}

/// The network beneath.
#[derive(Debug)]
pub(super) struct Ways {
    hosts: u8,
    cuts: Vec<Cut>,
    /// Machines that run.
    on: BTreeSet<u8>,
    /// Ways that are open, by who sends and who receives.
    open: Vec<bool>,
    /// Pairs that reach each other, both ways, or not; and since when.
    whole: Vec<(bool, Instant)>,
    /// Packets in a hundred that are lost, each way; and since when.
    pub(super) loss: (u32, Instant),
    random: StdRng,
}

impl Ways {
    pub(super) fn new(hosts: u8, seed: [u8; 32], now: Instant) -> Self {
        let pairs = usize::from(hosts) * usize::from(hosts);
        let random = StdRng::from_seed(seed);
        let (open, whole) = (vec![true; pairs], vec![(true, now); pairs]);
        Self { hosts, cuts: vec![], on: (0..hosts).collect(), open, whole, loss: (0, now), random }
    }

    fn place(&self, from: u8, to: u8) -> usize {
        usize::from(from) * usize::from(self.hosts) + usize::from(to)
    }

    /// Adds a cut.
    pub(super) fn cut(&mut self, cut: Cut, now: Instant) {
        self.cuts.push(cut);
        self.follow(now);
    }

    /// Takes a cut away.
    pub(super) fn mend(&mut self, cut: &Cut, now: Instant) {
        self.cuts.retain(|known| known != cut);
        self.follow(now);
    }

    /// Takes all cuts away.
    pub(super) fn heal(&mut self, now: Instant) {
        self.cuts.clear();
        self.follow(now);
    }

    /// A machine runs from now on, or does not.
    pub(super) fn switch(&mut self, host: u8, on: bool, now: Instant) {
        if on {
            self.on.insert(host)
        } else {
            self.on.remove(&host)
        };
        self.follow(now);
    }

    pub(super) fn lose(&mut self, percent: u32, now: Instant) {
        self.loss = (percent, now);
    }

    fn follow(&mut self, now: Instant) {
        for from in 0..self.hosts {
            for to in 0..self.hosts {
                let open = !self.cuts.iter().any(|cut| cut.stops(from, to));
                let place = self.place(from, to);
                self.open[place] = open && self.on.contains(&from) && self.on.contains(&to);
            }
        }
        for from in 0..self.hosts {
            for to in 0..self.hosts {
                let whole = self.open[self.place(from, to)] && self.open[self.place(to, from)];
                let place = self.place(from, to);
                if self.whole[place].0 != whole {
                    self.whole[place] = (whole, now);
                }
            }
        }
    }

    pub(super) fn is_on(&self, host: u8) -> bool {
        self.on.contains(&host)
    }

    /// Says whether two hosts reach each other, and since when that is so.
    pub(super) fn whole(&self, one: u8, other: u8) -> (bool, Instant) {
        self.whole[self.place(one, other)]
    }

    /// The fate of a packet: the time that it takes, or nothing if it does not arrive.
    pub(super) fn carry(&mut self, from: u8, to: u8) -> Option<Duration> {
        let lost = self.loss.0 > 0 && self.random.random_range(0..100) < self.loss.0;
        let open = self.open[self.place(from, to)];
        (open && !lost).then(|| Duration::from_micros(self.random.random_range(WAY.0..WAY.1)))
    }

    /// A number below this one.
    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random.random_range(0..below.max(1))
    }

    /// A seed for somebody else.
    pub(super) fn seed(&mut self) -> [u8; 32] {
        self.random.random()
    }
}
