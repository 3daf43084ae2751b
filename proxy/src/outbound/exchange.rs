//! Exchange of one request and its response, over as many attempts as it takes.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::Outbound;
use super::attempt::{self, Ended};
use super::attempts::{Attempt, make_attempts};
use crate::backend::{Backend, Work};
use crate::dispatch::{Answer, Failure, Repeatability};
use crate::http::answer::{self, Manner, Status};
use crate::http::body::ChunkError;
use crate::http::{BodyScanner, RequestHead};
use crate::leg::{Input, Leg, ReplayBuffer};
use crate::message::Head;
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
        Ok(Self { head, scanner, replay, first, began: Instant::now(), client })
    }

    /// The request as routes see it.
    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView::Http1(&self.first)
    }
}

/// Serves one request.
pub(super) async fn serve(
    outbound: &Outbound,
    backend: &Rc<Backend>,
    near: &mut Leg,
    mut request: PendingRequest,
) -> After {
    backend.deposit();
    let mut exchange = Exchange { outbound, backend, near, request: &mut request };
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
}

impl Attempt for Exchange<'_> {
    type Done = Ended;

    async fn make(&mut self, work: Work) -> Result<Ended, Failure> {
        let Self { outbound, backend, near, request } = self;
        let (mut first, mut pieces) = (std::mem::take(&mut request.first), Vec::new());
        if first.is_empty() {
            pieces = request.replay.pieces().unwrap_or_default();
            first = if pieces.is_empty() { Bytes::new() } else { pieces.remove(0) };
        }
        Box::pin(attempt::make((outbound, &backend.traffic), &work, near, request, (first, pieces))).await
    }

    fn repeatability(&self) -> Repeatability {
        let PendingRequest { head, replay, .. } = &*self.request;
        Repeatability { is_idempotent: head.method.is_idempotent(), is_kept: replay.is_whole() }
    }
}

/// Answers in place of the service.
async fn answer(
    backend: &Backend,
    near: &mut Leg,
    request: &PendingRequest,
    status: Status,
    text: &str,
) -> After {
    tracing::debug!(target = %backend.label, status = status.code(), "{text}");
    backend.traffic.answered_here(status.code(), request.began.elapsed());
    // Behind a body that was not read to its end there is no next request.
    let close = !request.scanner.is_done() || !request.head.keep_alive;
    let bodiless = request.head.method == crate::http::Method::Head;
    match near.1.write(answer::local(status, text, Manner { bodiless, close })).await {
        Ok(()) if !request.scanner.is_done() => After::CloseEarly,
        Ok(()) if close => After::Close,
        Ok(()) => After::NextRequest,
        Err(_) => After::Reset,
    }
}
