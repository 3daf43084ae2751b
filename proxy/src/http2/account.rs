//! Account of one attempt at a request: its verdict on the endpoint, and its metrics.

use std::cell::Cell;
use std::time::{Duration, Instant};

use h2::Reason;
use http::{HeaderMap, response};

use super::grpc;
use crate::backend::Work;
use crate::balance::Outcome;
use crate::telemetry::Traffic;

/// The books of one attempt.
///
/// A request of HTTP counts with its head; a call of gRPC has its status at its end, and counts with the latency of its
/// first byte all the same.
pub(crate) struct Account<'a> {
    traffic: &'a Traffic,
    work: Option<&'a Work>,
    asked: Instant,
    tried: Instant,
    /// Time at which a call of gRPC was first answered.
    call: Cell<Option<Duration>>,
    terms: Option<&'a dyn ResponseTerms>,
    /// True once the final head has come, and is passed on.
    begun: Cell<bool>,
}

/// Terms on which answers are passed on.
pub(crate) trait ResponseTerms {
    /// Returns true if an answer with this status is not passed on; whether its request is kept for another attempt decides as well.
    fn refuses(&self, status: u16, is_kept: bool) -> bool;

    /// Changes an answer's fields.
    fn change(&self, fields: &mut HeaderMap);

    /// Notes the status of an answer that is passed on.
    fn answered(&self, status: u16);
}

impl<'a> Account<'a> {
    /// For an attempt that begins now at a request that came at `asked`.
    pub(crate) fn new(traffic: &'a Traffic, work: Option<&'a Work>, asked: Instant) -> Self {
        let (call, begun) = (Cell::new(None), Cell::new(false));
        Self { traffic, work, asked, tried: Instant::now(), call, terms: None, begun }
    }

    /// The same for an answer that is passed on on these terms.
    pub(crate) fn on(self, terms: Option<&'a dyn ResponseTerms>) -> Self {
        Self { terms, ..self }
    }

    /// Returns true if a part of the answer was passed on.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// The head of a final response has come, to a request that is kept for another attempt or is not; whether it is not passed on.
    pub(super) fn refuses(&self, head: &response::Parts, is_kept: bool) -> bool {
        let status = head.status.as_u16();
        let refused = self.terms.is_some_and(|terms| terms.refuses(status, is_kept));
        if refused {
            self.judge(status);
        }
        refused
    }

    /// Changes the head of a final response to what is passed on.
    pub(super) fn change(&self, head: &mut response::Parts) {
        self.begun.set(true);
        if let Some(terms) = self.terms {
            terms.change(&mut head.headers);
        }
    }

    /// The client is answered with this status.
    fn answered(&self, status: u16, latency: Duration) {
        self.traffic.answered(status, latency);
        if let Some(terms) = self.terms {
            terms.answered(status);
        }
    }

    /// The head of the final response has come; `only` when there is nothing behind it.
    pub(super) fn head(&self, head: &response::Parts, only: bool) {
        let (latency, status) = (self.asked.elapsed(), head.status.as_u16());
        if status == 200 && grpc::is_grpc(&head.headers) {
            self.call.set(Some(latency));
            if only {
                return self.end(Some(&head.headers));
            }
            return self.report(Outcome::Answered(self.tried.elapsed()));
        }
        self.answered(status, latency);
        self.judge(status);
    }

    /// The response has come to its end.
    pub(super) fn end(&self, trailers: Option<&HeaderMap>) {
        let Some(latency) = self.call.take() else { return };
        let status = grpc::http_status(trailers.and_then(grpc::status));
        self.answered(status, latency);
        self.judge(status);
    }

    /// All of the response was passed on.
    pub(super) fn finished(&self) {
        self.traffic.finished(self.asked.elapsed());
    }

    /// The client has given the request up.
    pub(super) fn abandoned(&self) {
        if let Some(latency) = self.call.take() {
            self.answered(grpc::http_status(Some(grpc::CANCELLED)), latency);
        }
        self.report(Outcome::Abandoned);
    }

    /// The endpoint broke its answer off.
    pub(super) fn broken_off(&self, reason: Reason) {
        if let Some(latency) = self.call.take() {
            self.answered(grpc::http_status(None), latency);
        }
        if reason != Reason::CANCEL
            && let Some(work) = self.work
        {
            work.report_failure(Outcome::Broken, "reset");
        }
    }

    fn judge(&self, status: u16) {
        let latency = self.tried.elapsed();
        self.report(match status {
            429 | 503 => Outcome::Overloaded(latency),
            _ => Outcome::Answered(latency),
        });
    }

    fn report(&self, outcome: Outcome) {
        if let Some(work) = self.work {
            work.report(outcome);
        }
    }
}
