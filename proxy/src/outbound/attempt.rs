//! Attempt at a request: both directions at once, until the response is complete or something breaks.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use prometheus::IntCounter;

use super::exchange::{After, Request};
use super::failure::Failure;
use crate::balance::Outcome;
use crate::dial::{Client, IdleKey};
use crate::http::RequestHead;
use crate::leg::{Input, Output};
use crate::message::{BodyError, Progress, Received, ResponseError, receive, send_body};
use crate::telemetry::Carried;
use crate::tunnel::ResetCode;
use crate::upstream::{self, Errand, Far, Upstream, Work};
use crate::worker::Worker;

/// Limit for a stream from the last byte of its response to its end.
const END: Duration = Duration::from_secs(1);

/// Ending of an attempt.
pub(super) enum Ended {
    /// The client has got an answer, or part of one, or is gone.
    Answered(After),
    /// The client's body is malformed, and nothing was answered yet.
    BadRequest,
    /// The client has got nothing.
    Failed(Failure),
}

/// Endings of the two directions together.
enum Outcomes {
    /// The response came to its end; the request's side is as `sent` says.
    Response(Result<Received, ResponseError>),
    /// The request could not be read to its end.
    Request(BodyError),
}

/// Progress of the request.
#[derive(Default)]
struct Sent {
    whole: Cell<bool>,
    /// The response is complete: nobody needs to watch the client any more.
    answered: Cell<bool>,
}

/// Sends the request to the endpoint of `work`, `pieces` of it first, and passes its response on.
pub(super) async fn make(
    worker: &Worker,
    upstream: &Upstream,
    work: &Work,
    near: &mut (Input, Output),
    request: &mut Request,
    pieces: Vec<Bytes>,
) -> Ended {
    let began = Instant::now();
    let mut pieces = pieces.into_iter();
    let mut first = pieces.next().unwrap_or_default();
    let length = first.len();
    let (repeatable, client) = (request.head.method.is_idempotent(), Some(request.client));
    let errand = Errand { carried: Carried::Http, repeatable, client };
    let opened = tokio::select! {
        biased;
        opened = upstream::open(worker, upstream, work, errand, &mut first) => opened,
        _ = poll_fn(|cx| near.0.poll_broken(cx)) => {
            work.report(Outcome::Abandoned);
            return Ended::Answered(After::Reset);
        }
    };
    let mut far = match opened {
        Ok(far) => far,
        Err(failure) => return Ended::Failed(Failure::NotOpened(failure)),
    };
    let (progress, sent) = (Progress::default(), Sent::default());
    let (head, counts) = (request.head, upstream.traffic.bytes());
    counts.0.inc_by((length - first.len()) as u64);
    let (asked, since) = (request.began, began);
    let on_head = |status: u16| {
        let latency = since.elapsed();
        upstream.traffic.answered(status, asked.elapsed());
        work.report(match status {
            429 | 503 => Outcome::Overloaded(latency),
            _ => Outcome::Answered(latency),
        });
    };
    let outcomes = {
        let (input, output) = &mut far.legs;
        let pieces = std::iter::once(first).chain(pieces);
        let back = pin!(receive(input, &mut near.1, &head, &progress, &counts.1, on_head));
        let on_whole = || {
            sent.whole.set(true);
            // A client that has said so sends nothing more.
            progress.is_last.set(!head.keep_alive);
        };
        let forth = pin!(forward(&mut near.0, output, request, pieces, &counts.0, (&sent, on_whole)));
        both(forth, back, &sent).await
    };
    if let Outcomes::Response(Ok(Received { upgraded: false, .. })) = &outcomes {
        upstream.traffic.finished(asked.elapsed());
    }
    let asked = (&head, client);
    conclude((worker, work), near, far, asked, outcomes, (sent.whole.get(), progress.begun.get())).await
}

/// Concludes an attempt; `whole` tells if the request was sent whole, `begun` if the client got anything.
async fn conclude(
    (worker, work): (&Worker, &Work),
    near: &mut (Input, Output),
    mut far: Far,
    (head, client): (&RequestHead, Client),
    outcomes: Outcomes,
    (whole, begun): (bool, bool),
) -> Ended {
    match outcomes {
        Outcomes::Response(Ok(received)) => {
            let stays = received.keep_alive && head.keep_alive && whole;
            if received.upgraded {
                return Ended::Answered(After::Upgraded(far.legs));
            }
            let parting = if stays { None } else { Some(&mut near.1) };
            settle(worker, far, (&received, head, client), whole, parting).await;
            Ended::Answered(match stays {
                true => After::NextRequest,
                false if whole && !head.keep_alive && near.0.is_silent() => After::Leave,
                false if whole => After::Close,
                false => After::CloseEarly,
            })
        }
        Outcomes::Response(Err(error)) => {
            far.legs.1.reset(ResetCode::Cancelled);
            if matches!(error, ResponseError::Sink(_)) {
                return Ended::Answered(After::Reset);
            }
            if let ResponseError::Malformed(what) = &error {
                worker.note_unreadable(work.endpoint.address, what);
            }
            if begun {
                work.report_failure(Outcome::Broken, "reset");
                return Ended::Answered(After::Reset);
            }
            Ended::Failed(Failure::NoAnswer(error))
        }
        Outcomes::Request(error) => {
            far.legs.1.reset(ResetCode::Cancelled);
            work.report(Outcome::Abandoned);
            match error {
                BodyError::Malformed(_) if !begun => Ended::BadRequest,
                BodyError::Malformed(_)
                | BodyError::Source(_)
                | BodyError::Truncated
                | BodyError::Sink(_) => Ended::Answered(After::Reset),
            }
        }
    }
}

/// Sends the request; then watches that the client stays until the response is complete.
async fn forward(
    from: &mut Input,
    to: &mut Output,
    request: &mut Request,
    pieces: impl Iterator<Item = Bytes>,
    count: &IntCounter,
    (sent, on_whole): (&Sent, impl Fn()),
) -> Result<(), BodyError> {
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        count.inc_by(piece.len() as u64);
        to.write(piece).await.map_err(BodyError::Sink)?;
    }
    let tape = &request.tape;
    send_body(from, to, &mut request.scanner, |piece| {
        tape.record(Some(piece));
        count.inc_by(piece.len() as u64);
    })
    .await?;
    // What may be upgraded needs its way to the application open.
    if !request.head.may_upgrade {
        to.end_message();
    }
    on_whole();
    poll_fn(|cx| {
        if sent.answered.get() {
            return Poll::Ready(Ok(()));
        }
        from.poll_broken(cx).map(|error| Err(BodyError::Source(error)))
    })
    .await
}

/// Polls both directions. A response may be complete before its request is: then the request goes on, if the
/// connection is to be used again.
async fn both(
    mut forth: Pin<&mut impl Future<Output = Result<(), BodyError>>>,
    mut back: Pin<&mut impl Future<Output = Result<Received, ResponseError>>>,
    sent: &Sent,
) -> Outcomes {
    let (mut response, mut stuck) = (None, false);
    poll_fn(|cx| {
        if response.is_none()
            && let Poll::Ready(result) = back.as_mut().poll(cx)
        {
            sent.answered.set(true);
            let early = !sent.whole.get();
            match result {
                Ok(received) if early && !stuck && received.keep_alive && !received.upgraded => {
                    response = Some(Received { early, ..received });
                }
                result => return Poll::Ready(Outcomes::Response(result)),
            }
        }
        if stuck {
            return Poll::Pending;
        }
        match (forth.as_mut().poll(cx), response.take()) {
            (Poll::Pending, waiting) => response = waiting,
            // The request is complete, or not to be completed; the response is, either way.
            (Poll::Ready(_), Some(received)) => return Poll::Ready(Outcomes::Response(Ok(received))),
            // The called side wants no more of the request; what it answers stands.
            (Poll::Ready(Ok(()) | Err(BodyError::Sink(_))), None) => stuck = true,
            (Poll::Ready(Err(error)), None) => return Poll::Ready(Outcomes::Request(error)),
        }
        Poll::Pending
    })
    .await
}

/// Puts away the far side after a complete response; `parting` is a caller's side that ends with it.
async fn settle(
    worker: &Worker,
    far: Far,
    (received, head, client): (&Received, &RequestHead, Client),
    whole: bool,
    parting: Option<&mut Output>,
) {
    let Far { legs: (mut input, mut output), plain } = far;
    match plain {
        Some((address, mut used)) => {
            if received.leaves_reusable(head) && whole && !input.is_over() {
                used.in_doubt |= received.leaves_doubt(head);
                worker.idle.put(IdleKey { caller: None, address }, client, used);
            }
        }
        None if whole => {
            output.end_message();
            // A stream that is dropped before its end resets the application's connection.
            let mut end = pin!(input.read());
            if end.as_mut().now_or_never().is_none() {
                // The caller does not wait for it. One that is gone will be noticed.
                let _ = parting.map(Output::finish);
                let _ = tokio::time::timeout(END, end).await;
            }
        }
        None => output.reset(ResetCode::Cancelled),
    }
}
