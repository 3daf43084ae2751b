//! Counts of what hosts saw, and times between reports and control's words about them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use sealane_base::mutex::lock;
use serde::Serialize;
use tokio::time::Instant;

/// Number of different complaints that are kept.
const COMPLAINTS: usize = 32;

/// Counters of all hosts together, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// States of networks that came.
    pub(crate) states: AtomicU64,
    /// Deltas of networks that came.
    pub(crate) deltas: AtomicU64,
    /// Deltas that led on from nothing that the host had.
    pub(crate) astray: AtomicU64,
    /// Bytes of all messages that came.
    pub(crate) bytes: AtomicU64,
    /// Acknowledgements that went.
    pub(crate) acks: AtomicU64,
    /// Streams that ended although they were welcomed.
    pub(crate) lost_streams: AtomicU64,
    /// Attempts to connect that came to no welcome.
    pub(crate) failed_connects: AtomicU64,
    /// Workloads that control refused.
    pub(crate) refused: AtomicU64,
    complaints: Mutex<BTreeMap<String, u64>>,
}

/// Values of [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) states: u64,
    pub(crate) deltas: u64,
    pub(crate) astray: u64,
    pub(crate) bytes: u64,
    pub(crate) acks: u64,
    pub(crate) lost_streams: u64,
    pub(crate) failed_connects: u64,
    pub(crate) refused: u64,
}

impl Counters {
    /// Counts as of now.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            states: self.states.load(Relaxed),
            deltas: self.deltas.load(Relaxed),
            astray: self.astray.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            acks: self.acks.load(Relaxed),
            lost_streams: self.lost_streams.load(Relaxed),
            failed_connects: self.failed_connects.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    /// Notes words about something that went wrong.
    pub(crate) fn complain(&self, words: &str) {
        // Names of hosts and streams differ; kinds of complaints are few.
        let kind: String =
            words.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(240).collect();
        let mut complaints = lock(&self.complaints);
        if complaints.len() < COMPLAINTS || complaints.contains_key(&kind) {
            *complaints.entry(kind).or_default() += 1;
        }
    }

    /// Takes the complaints since the last time.
    pub(crate) fn complaints(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *lock(&self.complaints))
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            states: self.states - earlier.states,
            deltas: self.deltas - earlier.deltas,
            astray: self.astray - earlier.astray,
            bytes: self.bytes - earlier.bytes,
            acks: self.acks - earlier.acks,
            lost_streams: self.lost_streams - earlier.lost_streams,
            failed_connects: self.failed_connects - earlier.failed_connects,
            refused: self.refused - earlier.refused,
        }
    }
}

/// Reports that are measured together.
#[derive(Debug, Default)]
pub(crate) struct Round {
    times: Mutex<Times>,
}

/// Times of a round's reports, in milliseconds from their tickets' moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Hosts that have heard of the round: no times, but a count.
    pub(crate) taken: usize,
    pub(crate) welcomed: Vec<f64>,
    pub(crate) answered: Vec<f64>,
    pub(crate) settled: Vec<f64>,
}

impl Round {
    /// Ticket of a report that is due at this moment.
    pub(crate) fn ticket(self: &Arc<Self>, since: Instant) -> Ticket {
        Ticket { round: self.clone(), since }
    }

    /// Looks at the times so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Times) -> T) -> T {
        look(&lock(&self.times))
    }

    /// Returns the times so far.
    pub(crate) fn times(&self) -> Times {
        self.look(Times::clone)
    }
}

/// One report of a round.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    round: Arc<Round>,
    since: Instant,
}

impl Ticket {
    /// The host has heard of it.
    pub(crate) fn taken(&self) {
        lock(&self.round.times).taken += 1;
    }

    /// The host's stream was welcomed.
    pub(crate) fn welcomed(&self) {
        lock(&self.round.times).welcomed.push(self.millis());
    }

    /// Control has the report.
    pub(crate) fn answered(&self) {
        lock(&self.round.times).answered.push(self.millis());
    }

    /// Every host works by it.
    pub(crate) fn settled(&self) {
        lock(&self.round.times).settled.push(self.millis());
    }

    fn millis(&self) -> f64 {
        self.since.elapsed().as_secs_f64() * 1e3
    }
}

/// Quantiles of times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    /// Of these times; none of none.
    pub(crate) fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let count = times.len();
        let last = count.checked_sub(1)?;
        // Nearest rank from above: of few times, the 99th percentile is the longest.
        let at = |hundredths: usize| times[(last * hundredths).div_ceil(100)];
        Some(Self { count, p50: at(50), p90: at(90), p99: at(99), max: at(100) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_times_are_times_that_were() {
        assert_eq!(Quantiles::of(vec![]), None);
        let one = Quantiles::of(vec![7.0]).unwrap();
        assert_eq!((one.p50, one.p99, one.max), (7.0, 7.0, 7.0));
        let ten = Quantiles::of((1..=10).rev().map(f64::from).collect()).unwrap();
        assert_eq!((ten.count, ten.p50, ten.p90, ten.p99), (10, 6.0, 10.0, 10.0));
        let many = Quantiles::of((0..=1000).map(f64::from).collect()).unwrap();
        assert_eq!((many.p50, many.p90, many.p99, many.max), (500.0, 900.0, 990.0, 1000.0));
    }

    #[test]
    fn complaints_that_differ_in_numbers_are_one() {
        let counters = Counters::default();
        counters.complain("the agent of host-00001 fell silent");
        counters.complain("the agent of host-00732 fell silent");
        assert_eq!(counters.complaints(), [("the agent of host-##### fell silent".to_owned(), 2)].into());
        assert!(counters.complaints().is_empty());
    }

    #[test]
    fn a_late_word_counts_for_the_round_that_it_is_of() {
        let [first, second] = [(); 2].map(|()| Arc::new(Round::default()));
        let late = first.ticket(Instant::now());
        second.ticket(Instant::now()).settled();
        late.settled();
        assert_eq!(first.look(|times| times.settled.len()), 1);
        assert_eq!(second.look(|times| times.settled.len()), 1);
    }
}
