//! Exchange of one request and its response, over as many attempts as it takes.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::attempt::{self, Ended};
use super::failure::Failure;
use crate::balance::{Outcome, Pick};
use crate::http::answer::{self, Manner, Status};
use crate::http::body::ChunkError;
use crate::http::{BodyScanner, RequestHead};
use crate::leg::{Input, Output, Tape};
use crate::message::Head;
use crate::upstream::Upstream;
use crate::worker::Worker;

/// A request as far as it has been read.
pub(super) struct Request {
    pub(super) head: RequestHead,
    /// Follows its body.
    pub(super) scanner: BodyScanner,
    /// Tape of what was read of it so far, as long as it may be sent again.
    pub(super) tape: Tape,
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
    Upgraded((Input, Output)),
}

impl Request {
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
        let tape = Tape::new();
        tape.record(Some(&first));
        Ok(Self { head, scanner, tape, first, began: Instant::now(), client })
    }
}

/// Serves one request.
pub(super) async fn serve(
    worker: &Worker,
    upstream: &Rc<Upstream>,
    near: &mut (Input, Output),
    mut request: Request,
) -> After {
    upstream.deposit();
    let mut tried: Vec<Pick> = Vec::new();
    let mut pieces = vec![std::mem::take(&mut request.first)];
    loop {
        let Some(work) = upstream.pick(&tried) else {
            let text = format!("no instance of {} is ready", upstream.label);
            return answer(upstream, near, &request, Status::Unavailable, &text).await;
        };
        tried.push(work.pick);
        let failure = match Box::pin(attempt::make(worker, upstream, &work, near, &mut request, pieces)).await
        {
            Ended::Answered(after) => return after,
            Ended::BadRequest => {
                let text = "the chunked body is malformed";
                return answer(upstream, near, &request, Status::BadRequest, text).await;
            }
            Ended::Failed(failure) => failure,
        };
        blame(&work, &failure);
        let again = tried.len() <= failure.max_retries() && failure.may_retry(request.head.method);
        match request.tape.pieces() {
            Some(sent) if again && upstream.retry(failure.reason()) => {
                tracing::debug!(target = %upstream.label, %failure, "sending a request again");
                pieces = sent;
            }
            Some(_) | None => {
                let text = match failure.is_denied() {
                    true => upstream.denial(),
                    false => format!("{} gave no answer: {failure}", upstream.label),
                };
                return answer(upstream, near, &request, failure.status(), &text).await;
            }
        }
    }
}

fn blame(work: &crate::upstream::Work, failure: &Failure) {
    match failure {
        Failure::NotOpened(_) => {}
        // It does what it should.
        Failure::NoAnswer(_) if failure.is_denied() => work.report(Outcome::Abandoned),
        Failure::NoAnswer(_) if failure.is_refusal() => {
            work.report_failure(Outcome::Refused, failure.reason());
        }
        Failure::NoAnswer(_) => work.report_failure(Outcome::Broken, failure.reason()),
    }
}

/// Answers in place of the service.
async fn answer(
    upstream: &Upstream,
    near: &mut (Input, Output),
    request: &Request,
    status: Status,
    text: &str,
) -> After {
    tracing::debug!(target = %upstream.label, status = status.code(), "{text}");
    upstream.traffic.answered_here(status.code(), request.began.elapsed());
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
