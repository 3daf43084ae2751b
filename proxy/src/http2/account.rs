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
}

impl<'a> Account<'a> {
    /// For an attempt that begins now at a request that came at `asked`.
    pub(crate) fn new(traffic: &'a Traffic, work: Option<&'a Work>, asked: Instant) -> Self {
        Self { traffic, work, asked, tried: Instant::now(), call: Cell::new(None) }
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
        self.traffic.answered(status, latency);
        self.judge(status);
    }

    /// The response has come to its end.
    pub(super) fn end(&self, trailers: Option<&HeaderMap>) {
        let Some(latency) = self.call.take() else { return };
        let status = grpc::http_status(trailers.and_then(grpc::status));
        self.traffic.answered(status, latency);
        self.judge(status);
    }

    /// All of the response was passed on.
    pub(super) fn finished(&self) {
        self.traffic.finished(self.asked.elapsed());
    }

    /// The client has given the request up.
    pub(super) fn abandoned(&self) {
        if let Some(latency) = self.call.take() {
            self.traffic.answered(grpc::http_status(Some(grpc::CANCELLED)), latency);
        }
        self.report(Outcome::Abandoned);
    }

    /// The endpoint broke its answer off.
    pub(super) fn broken_off(&self, reason: Reason) {
        if let Some(latency) = self.call.take() {
            self.traffic.answered(grpc::http_status(None), latency);
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
