//! Choosing an endpoint: power of two choices by peak EWMA latency, with ejection. Pure: time and chance are arguments.
//!
//! The cost of an endpoint is its latency, raised at once by a slow answer and forgotten slowly, times the work that
//! is pending there for its weight and one. Weights say how often an endpoint is drawn; drained ones are not here.
//! An endpoint that refuses is ejected for a while that doubles, and comes back by one probe. One that has work and is
//! silent far longer than its latency is left out until it answers; a client that gives up waiting for it ejects it. One that
//! was slow and is not asked any more gets a trial now and then.

mod ejection;
mod ewma;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use sealane_proto::types::Weight;

use ejection::Ejection;
use ewma::PeakEwma;
use trial::Trials;

/// Latency that a failed or overloaded answer counts as at least.
const PENALTY: Duration = Duration::from_secs(1);

/// Cost ratio from which on the endpoint drawn by weight is left for another. Who sets weights wants these shares: that
/// an instance is on the next host, or the latency of who is asked less forgotten sooner, must not outweigh them; one
/// that hangs or drowns must.
const NOTICEABLE: f64 = 4.0;

/// Latency in seconds from which on a trial is worth it, as shorter ones are forgotten soon.
const WORTH_A_TRIAL: f64 = 0.01;
/// The longest latency of an endpoint that is tried: it is what its caller may have to wait for.
const MOST_OF_A_TRIAL: Duration = Duration::from_secs(2);

/// An endpoint that answers nothing for so many times its latency, and for [`PATIENCE`] at least, is left out.
const SILENCES: f64 = 8.0;
const PATIENCE: Duration = Duration::from_millis(500);

/// The endpoints of one target. `K` names an endpoint and survives configurations.
#[derive(Debug)]
pub(crate) struct Balancer<K> {
    endpoints: Vec<State<K>>,
    /// Mean of the weights.
    mean_weight: f64,
    /// True if all have the same weight.
    even: bool,
    next_id: u64,
}

/// Endpoint as it was picked. It stays valid when the endpoints change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    /// Index in [`Balancer::key`], as long as the endpoints do not change.
    index: usize,
    id: u64,
    at: Instant,
    is_trial: bool,
}

/// Outcome of a piece of work at its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered, so long after it began.
    Answered(Duration),
    /// Answered that it is overloaded or failing (429, 503), so long after it began.
    Overloaded(Duration),
    /// Broke after it was accepted.
    Broken,
    /// Never accepted: refused, unreachable, going away.
    Refused,
    /// Ended for reasons that say nothing of the endpoint but how long it was waited for.
    Abandoned,
}

#[derive(Debug)]
struct State<K> {
    key: K,
    id: u64,
    weight: u16,
    pending: u32,
    /// Number of those without a verdict yet, and the time since when there was none on any of them.
    unanswered: u32,
    silent_since: Option<Instant>,
    latency: PeakEwma,
    trials: Trials,
    ejection: Ejection,
}

impl<K> State<K> {
    /// An endpoint of which nothing is known.
    fn new(key: K, id: u64) -> Self {
        let (latency, trials, ejection) = (PeakEwma::default(), Trials::default(), Ejection::default());
        Self { key, id, weight: 0, pending: 0, unanswered: 0, silent_since: None, latency, trials, ejection }
    }

    /// Takes in the duration of a call. Of a trial, `other` is the latency of the quickest other endpoint, in seconds.
    fn observe(&mut self, latency: Duration, other: Option<f64>, now: Instant) {
        match other.map(|other| is_slow(latency.as_secs_f64(), other)) {
            Some(true) => self.trials.handle_slow(),
            Some(false) => {
                self.trials.handle_quick();
                return self.latency.renew(latency, now);
            }
            None => {}
        }
        self.latency.observe(latency, now);
    }

    /// Returns the time for which it may be silent.
    fn patience(&self) -> Duration {
        self.latency.last().map_or(PATIENCE, |latency| latency.mul_f64(SILENCES).max(PATIENCE))
    }

    /// Returns true if it has work and says nothing.
    fn is_hanging(&self, now: Instant) -> bool {
        let silent = self.silent_since.map(|since| now.saturating_duration_since(since));
        self.unanswered > 0 && silent.is_some_and(|silent| silent >= self.patience())
    }
}

impl<K: Eq + Hash + Clone> Balancer<K> {
    /// A balancer over these endpoints.
    pub(crate) fn new(keys: impl IntoIterator<Item = (K, Weight)>) -> Self {
        let mut balancer = Self { endpoints: Vec::new(), mean_weight: 1.0, even: true, next_id: 0 };
        balancer.update(keys);
        balancer
    }

    /// The endpoints from now on, each once; known ones keep what was learned of them.
    pub(crate) fn update(&mut self, keys: impl IntoIterator<Item = (K, Weight)>) {
        let known = std::mem::take(&mut self.endpoints);
        let mut known: HashMap<K, State<K>> =
            known.into_iter().map(|state| (state.key.clone(), state)).collect();
        for (key, weight) in keys {
            let mut state = known.remove(&key).unwrap_or_else(|| {
                self.next_id += 1;
                State::new(key, self.next_id)
            });
            state.weight = weight.get().max(1);
            self.endpoints.push(state);
        }
        let total: f64 = self.endpoints.iter().map(|state| f64::from(state.weight)).sum();
        self.mean_weight = total / self.endpoints.len().max(1) as f64;
        self.even = self.endpoints.array_windows().all(|[a, b]| a.weight == b.weight);
    }

    /// Returns the number of endpoints.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The endpoint that was picked, unless it is gone since.
    pub(crate) fn key(&self, pick: Pick) -> Option<&K> {
        self.position(pick).map(|index| &self.endpoints[index].key)
    }

    /// Picks one for a piece of work that begins now and must end by [`Self::release`].
    ///
    /// Endpoints in `tried` are taken only when there is no other, ejected ones only when all are. `random` is uniform.
    pub(crate) fn pick(&mut self, now: Instant, random: u64, tried: &[Pick]) -> Option<Pick> {
        let fresh = |state: &State<K>| !tried.iter().any(|pick| pick.id == state.id);
        let admitted = |state: &State<K>| state.ejection.admits(now) && !state.is_hanging(now);
        let trial = if tried.is_empty() { self.due_trial(now, admitted) } else { None };
        let index = if tried.is_empty() {
            trial.or_else(|| self.choose(now, random, admitted))
        } else {
            self.choose(now, random, |state| fresh(state) && admitted(state))
                .or_else(|| self.choose(now, random, fresh))
                .or_else(|| self.choose(now, random, admitted))
        };
        let index = index.or_else(|| self.choose(now, random, |_| true))?;
        let state = &mut self.endpoints[index];
        state.pending += 1;
        if state.unanswered == 0 {
            state.silent_since = Some(now);
        }
        state.unanswered += 1;
        state.ejection.handle_start(now);
        Some(Pick { index, id: state.id, at: now, is_trial: trial.is_some() })
    }

    /// The first verdict on a piece of work, which must come before its [`Self::report`], or it ends without one.
    pub(crate) fn settle(&mut self, pick: Pick, outcome: Option<Outcome>, now: Instant) {
        let Some(index) = self.position(pick) else { return };
        let state = &mut self.endpoints[index];
        state.unanswered = state.unanswered.saturating_sub(1);
        if outcome.is_some_and(|outcome| outcome != Outcome::Abandoned) {
            state.silent_since = Some(now);
        }
    }

    /// Takes in the outcome of a piece of work; returns true if the endpoint was ejected by it.
    pub(crate) fn report(&mut self, pick: Pick, outcome: Outcome, now: Instant) -> bool {
        let Some(index) = self.position(pick) else { return false };
        let other = if pick.is_trial { self.quickest_but(index, now) } else { None };
        let state = &mut self.endpoints[index];
        let mut observe = |latency| state.observe(latency, other, now);
        match outcome {
            Outcome::Answered(latency) => observe(latency),
            Outcome::Overloaded(latency) => observe(latency.max(PENALTY)),
            Outcome::Broken => observe(PENALTY),
            Outcome::Refused => return state.ejection.handle_refusal(now),
            Outcome::Abandoned if now.saturating_duration_since(pick.at) >= state.patience() => {
                return state.ejection.handle_hang(now);
            }
            Outcome::Abandoned => {
                state.ejection.handle_abandoned();
                return false;
            }
        }
        state.ejection.handle_success();
        false
    }

    /// The work no longer counts as pending.
    pub(crate) fn release(&mut self, pick: Pick) {
        if let Some(index) = self.position(pick) {
            let pending = &mut self.endpoints[index].pending;
            *pending = pending.saturating_sub(1);
        }
    }

    fn position(&self, pick: Pick) -> Option<usize> {
        let here = self.endpoints.get(pick.index).is_some_and(|state| state.id == pick.id);
        if here { Some(pick.index) } else { self.endpoints.iter().position(|state| state.id == pick.id) }
    }

    /// An endpoint that has nothing to do, was not heard of for a while, and is noticeably slower than another one by what is known of it.
    fn due_trial(&self, now: Instant, may: impl Fn(&State<K>) -> bool) -> Option<usize> {
        let is_due = |state: &State<K>| {
            state.pending == 0
                && state.latency.idle(now).is_some_and(|idle| state.trials.is_due(idle))
                && state.latency.last() <= Some(MOST_OF_A_TRIAL)
        };
        let due = self.endpoints.iter().enumerate().filter(|(_, state)| is_due(state) && may(state));
        let mut due = due.peekable();
        // Nearly always there is none, and latencies are not worth computing.
        due.peek()?;
        // The quickest of all is not slow beside itself.
        let quickest = self.latencies(now).min_by(f64::total_cmp)?;
        let is_slow =
            |state: &State<K>| state.latency.estimate(now).is_some_and(|own| is_slow(own, quickest));
        due.find(|(_, state)| is_slow(state)).map(|(index, _)| index)
    }

    /// The latency of the quickest endpoint but this one, in seconds, where any is known.
    fn quickest_but(&self, index: usize, now: Instant) -> Option<f64> {
        let others = self.endpoints.iter().enumerate().filter(|(other, _)| *other != index);
        others.filter_map(|(_, state)| state.latency.estimate(now)).min_by(f64::total_cmp)
    }

    /// The cheaper of two that are drawn from those that `may` be taken.
    fn choose(&self, now: Instant, random: u64, may: impl Fn(&State<K>) -> bool) -> Option<usize> {
        let count = self.endpoints.iter().filter(|state| may(state)).count();
        let nth = |n: usize| {
            let candidates = self.endpoints.iter().enumerate().filter(|(_, state)| may(state));
            candidates.map(|(index, _)| index).nth(n)
        };
        if count < 2 {
            return nth(0);
        }
        if !self.even {
            return self.choose_weighted(now, random, may);
        }
        // Two different ones, each pair as likely as any other.
        let first = (random >> 32) as usize % count;
        let second = (first + 1 + (random & 0xffff_ffff) as usize % (count - 1)) % count;
        Some(self.cheaper(nth(first)?, nth(second)?, 1.0, now))
    }

    /// The same by weights: each of the two is drawn by them, and both may be the same one. So shares are those of
    /// the weights while nobody is noticeably slower or busier for its weight than others.
    fn choose_weighted(&self, now: Instant, random: u64, may: impl Fn(&State<K>) -> bool) -> Option<usize> {
        let candidates = || self.endpoints.iter().enumerate().filter(|(_, state)| may(state));
        let total: u64 = candidates().map(|(_, state)| u64::from(state.weight)).sum();
        let draw = |random: u64| {
            let mut rest = ((random & 0xffff_ffff) * total) >> 32;
            candidates().find_map(|(index, state)| match rest.checked_sub(state.weight.into()) {
                Some(more) => {
                    rest = more;
                    None
                }
                None => Some(index),
            })
        };
        Some(self.cheaper(draw(random >> 32)?, draw(random)?, NOTICEABLE, now))
    }

    /// The first, unless the second costs less even times `margin`.
    fn cheaper(&self, first: usize, second: usize, margin: f64, now: Instant) -> usize {
        let unknown = self.typical_latency(now);
        let cheaper = self.cost(second, now, unknown) * margin < self.cost(first, now, unknown);
        if cheaper { second } else { first }
    }

    fn cost(&self, index: usize, now: Instant, unknown: f64) -> f64 {
        let state = &self.endpoints[index];
        let share = f64::from(state.weight) / self.mean_weight;
        state.latency.estimate(now).unwrap_or(unknown) * (f64::from(state.pending) / share + 1.0)
    }

    /// Returns the latency that a newcomer is taken to have: as good as the others on average, so that it gets its
    /// share and no flood.
    fn typical_latency(&self, now: Instant) -> f64 {
        match self.latencies(now).count() {
            0 => 1e-3,
            count => self.latencies(now).sum::<f64>() / count as f64,
        }
    }

    /// The latencies that are known, in seconds.
    fn latencies(&self, now: Instant) -> impl Iterator<Item = f64> {
        self.endpoints.iter().filter_map(move |state| state.latency.estimate(now))
    }
}

/// Returns true if an endpoint of this latency gets next to no work beside one of the other, both in seconds.
fn is_slow(own: f64, other: f64) -> bool {
    own > other * NOTICEABLE && own > WORTH_A_TRIAL
}
