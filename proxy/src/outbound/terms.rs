//! Terms on which a rule lets a request be passed on: time, further attempts, changes of its answer.

use std::cell::Cell;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::dispatch::{Failure, Repeatability};
use crate::http2::ResponseTerms;
use crate::message::Taking;
use crate::rules::Forward;
use crate::telemetry::RouteTraffic;

/// Number of further attempts for the status of an answer, where the rule says none.
const ATTEMPTS: usize = 3;
/// Number that a rule may say at most.
const MOST_ATTEMPTS: usize = 16;
/// Number of times that the pause before a further attempt doubles.
const DOUBLINGS: usize = 5;

/// The terms of one request.
pub(super) struct Terms<'a> {
    forward: &'a Forward<'a>,
    backend: &'a Backend,
    traffic: &'a RouteTraffic,
    /// Time of the last word.
    until: Option<Instant>,
    /// Number of attempts that have begun.
    attempts: Cell<usize>,
}

impl<'a> Terms<'a> {
    /// The terms of a request that came at `began`, and is for `backend`.
    pub(super) fn new(
        forward: &'a Forward<'a>,
        backend: &'a Backend,
        traffic: &'a RouteTraffic,
        began: std::time::Instant,
    ) -> Self {
        let until = forward.limits.request.map(|limit| Instant::from_std(began) + limit);
        Self { forward, backend, traffic, until, attempts: Cell::new(0) }
    }

    /// Begins an attempt; returns the time by which it must have ended.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.attempts.set(self.attempts.get() + 1);
        let own = self.forward.limits.attempt.map(|limit| Instant::now() + limit);
        own.into_iter().chain(self.until).min()
    }

    /// The failure of an attempt that did not end in time.
    pub(super) fn late(&self) -> Failure {
        Failure::Late { again: self.forward.retry.is_some() && self.has_time() }
    }

    fn has_time(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }

    /// The number of further attempts that the rule allows.
    fn limit(&self) -> Option<usize> {
        let attempts = self.forward.retry?.attempts?;
        Some(usize::try_from(attempts).unwrap_or(MOST_ATTEMPTS).min(MOST_ATTEMPTS))
    }

    /// The repeatability of a request, as the rule changes it.
    pub(super) fn apply(&self, request: Repeatability) -> Repeatability {
        Repeatability { is_kept: request.is_kept && self.has_time(), limit: self.limit(), ..request }
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&self, failure: &Failure) -> Option<Duration> {
        let backoff = self.forward.retry?.backoff.filter(|_| *failure != Failure::Gone)?;
        let doublings = self.attempts.get().saturating_sub(1).min(DOUBLINGS);
        // Those who failed at the same time are not to come again at the same time.
        let pause = backoff * (1 << doublings) + backoff.mul_f64(rand::random::<f64>() / 4.0);
        let left = self.until.map_or(pause, |until| until.saturating_duration_since(Instant::now()));
        Some(pause.min(left))
    }

    /// Says what becomes of an answer of HTTP/1 with this head.
    pub(super) fn take(&self, status: u16, head: &[u8]) -> Taking {
        self.traffic.answered(status);
        if self.forward.keeps_response() {
            return Taking::Kept;
        }
        Taking::Changed(self.forward.changed_answer(head))
    }
}

impl ResponseTerms for Terms<'_> {
    fn refuses(&self, status: u16, is_kept: bool) -> bool {
        let asks_again = self.forward.retry.is_some_and(|retry| retry.codes.contains(&status));
        let limit = self.limit().unwrap_or(ATTEMPTS);
        asks_again && is_kept && self.attempts.get() <= limit && self.has_time() && self.backend.withdraw()
    }

    fn change(&self, fields: &mut HeaderMap) {
        self.forward.change_answer(fields);
    }

    fn answered(&self, status: u16) {
        self.traffic.answered(status);
    }
}
