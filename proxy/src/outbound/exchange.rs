//! Exchange of one request and its response, over as many attempts as it takes.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Outbound;
use super::attempt::{self, Ended};
use super::attempts::{Attempt, make_attempts};
use super::terms::Terms;
use crate::backend::{Backend, Work};
use crate::copies::Copies;
use crate::dispatch::{Answer, Failure, Repeatability};
use crate::http::answer::{self, Manner, Status};
use crate::http::body::ChunkError;
use crate::http::{BodyScanner, RequestHead};
use crate::http2::ResponseTerms as _;
use crate::leg::{Input, Leg, ReplayBuffer};
use crate::message::{Head, Progress};
use crate::request::RequestView;

/// A request as far as it has been read.
pub(super) struct PendingRequest {
    pub(super) head: RequestHead,
    /// Follows its body.
    pub(super) scanner: BodyScanner,
    /// Bytes that were read of it so far, as long as they may be sent again.
    pub(super) replay: ReplayBuffer,
    /// The first bytes, for the first attempt.
    pub(super) first: Bytes,
    pub(super) began: Instant,
    /// The connection that it came by.
    pub(super) client: u64,
    /// Copies of its body.
    pub(super) copies: Copies,
    /// Length of its head.
    length: usize,
}

/// Future of the client's connection.
pub(super) enum After {
    /// The connection may carry another request.
    NextRequest,
    /// The connection is closed in order.
    Close,
    /// The connection is closed, while the client may still be sending its request.
    CloseEarly,
    /// The connection is over: the client has said that it sends nothing more.
    Leave,
    /// The connection breaks off: the client must see that something is missing.
    Reset,
    /// The connection belongs to another protocol now.
    Upgraded(Box<Leg>),
}

impl PendingRequest {
    /// Takes what belongs to the request from the bytes of its head; the rest goes back to `from`.
    ///
    /// # Errors
    /// When the body begins malformed.
    pub(super) fn new(head: Head<RequestHead>, from: &mut Input, client: u64) -> Result<Self, ChunkError> {
        let Head { head, length, bytes: mut first } = head;
        let mut scanner = BodyScanner::new(head.body);
        let end = length + scanner.advance(&first[length..])?;
        if end < first.len() {
            from.unread(first.split_off(end));
        }
        let replay = ReplayBuffer::new();
        replay.record(Some(&first));
        let (began, copies) = (Instant::now(), Copies::default());
        Ok(Self { head, scanner, replay, first, began, client, copies, length })
    }

    /// The request as routes see it.
    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView::Http1(&self.first)
    }

    /// The first bytes with another head.
    pub(super) fn changed(&self, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Bytes {
        let (head, behind) = self.first.split_at(self.length);
        let mut changed = change(head);
        changed.extend_from_slice(behind);
        changed.into()
    }

    /// Puts other first bytes in the place of these.
    pub(super) fn replace(&mut self, first: Bytes) {
        self.replay = ReplayBuffer::new();
        self.replay.record(Some(&first));
        self.first = first;
    }
}

/// Serves one request, on these terms where a rule says any.
pub(super) async fn serve(
    outbound: &Outbound,
    backend: &Rc<Backend>,
    near: &mut Leg,
    mut request: PendingRequest,
    terms: Option<&Terms<'_>>,
) -> After {
    backend.deposit();
    let mut exchange = Exchange { outbound, backend, near, request: &mut request, terms };
    match make_attempts(backend, None, &mut exchange).await {
        Ok(Ended::Answered(after)) => after,
        Ok(Ended::BadRequest) => {
            answer(backend, near, &request, Status::BadRequest, "the chunked body is malformed").await
        }
        Err(unanswered) => {
            let status = match unanswered.answer {
                Answer::Status(status) => status,
                // No endpoint of HTTP/1 says one.
                Answer::Reset(_) => Status::BadGateway,
            };
            if let Some(terms) = terms {
                terms.answered(status.code());
            }
            answer(backend, near, &request, status, &unanswered.text(backend)).await
        }
    }
}

/// A request and its response, at one endpoint after another.
struct Exchange<'a> {
    outbound: &'a Outbound,
    backend: &'a Backend,
    near: &'a mut Leg,
    request: &'a mut PendingRequest,
    terms: Option<&'a Terms<'a>>,
}

impl Attempt for Exchange<'_> {
    type Done = Ended;

    async fn make(&mut self, work: Work) -> Result<Ended, Failure> {
        let Self { outbound, backend, near, request, terms } = self;
        let (mut first, mut pieces) = (std::mem::take(&mut request.first), Vec::new());
        if first.is_empty() {
            pieces = request.replay.pieces().unwrap_or_default();
            first = if pieces.is_empty() { Bytes::new() } else { pieces.remove(0) };
        }
        let sent = (first, pieces);
        if let Some(terms) = terms
            && let Some(limit) = terms.begin()
        {
            return Box::pin(self.make_within(limit, &work, sent)).await;
        }
        let (parts, progress) = ((*outbound, &*backend.traffic), Progress::default());
        Box::pin(attempt::make(parts, &work, near, request, sent, (&progress, *terms))).await
    }

    fn repeatability(&self) -> Repeatability {
        let PendingRequest { head, replay, .. } = &*self.request;
        let (is_idempotent, is_kept) = (head.method.is_idempotent(), replay.is_whole());
        let usual = Repeatability { is_idempotent, is_kept, limit: None };
        self.terms.map_or(usual, |terms| terms.apply(usual))
    }

    fn pause(&self, failure: &Failure) -> Option<Duration> {
        self.terms.and_then(|terms| terms.pause(failure))
    }
}

impl Exchange<'_> {
    /// Makes an attempt that must have ended by this time.
    async fn make_within(
        &mut self,
        limit: tokio::time::Instant,
        work: &Work,
        sent: (Bytes, Vec<Bytes>),
    ) -> Result<Ended, Failure> {
        let Self { outbound, backend, near, request, terms } = self;
        let (parts, progress) = ((*outbound, &*backend.traffic), Progress::default());
        let attempt = attempt::make(parts, work, near, request, sent, (&progress, *terms));
        if let Ok(ended) = tokio::time::timeout_at(limit, attempt).await {
            return ended;
        }
        let failure = terms.map_or(Failure::Late { again: false }, Terms::late);
        work.blame(&failure);
        // A part of an answer cannot be taken back.
        if progress.begun.get() { Ok(Ended::Answered(After::Reset)) } else { Err(failure) }
    }
}

/// Answers in place of the service.
pub(super) async fn answer(
    backend: &Backend,
    near: &mut Leg,
    request: &PendingRequest,
    status: Status,
    text: &str,
) -> After {
    tracing::debug!(target = %backend.label, status = status.code(), "{text}");
    let bodiless = request.head.method == crate::http::Method::Head;
    let local = |close| answer::local(status, text, Manner { bodiless, close });
    say(backend, near, request, status.code(), local).await
}

/// Says an answer in place of the service, which depends on whether the connection closes behind it.
pub(super) async fn say(
    backend: &Backend,
    near: &mut Leg,
    request: &PendingRequest,
    status: u16,
    answer: impl FnOnce(bool) -> Bytes,
) -> After {
    backend.traffic.answered_here(status, request.began.elapsed());
    // Behind a body that was not read to its end there is no next request.
    let close = !request.scanner.is_done() || !request.head.keep_alive;
    match near.1.write(answer(close)).await {
        Ok(()) if !request.scanner.is_done() => After::CloseEarly,
        Ok(()) if close => After::Close,
        Ok(()) => After::NextRequest,
        Err(_) => After::Reset,
    }
}
