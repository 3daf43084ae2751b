//! Attempt at a request: both directions at once, until the response is complete or something breaks.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use prometheus::IntCounter;

use super::Outbound;
use super::exchange::{After, PendingRequest};
use super::terms::Terms;
use crate::backend::{self, Connection, Purpose, Work};
use crate::balance::Outcome;
use crate::copies::Copies;
use crate::dial::{Client, IdleKey};
use crate::dispatch::Failure;
use crate::duplex::{Half, both};
use crate::http::{BodyScanner, RequestHead};
use crate::http2::ResponseTerms as _;
use crate::leg::{Input, Leg, Output, ReplayBuffer};
use crate::message::{BodyError, Progress, Received, ResponseError, Taking, receive, send_body};
use crate::protocol::Protocol;
use crate::telemetry::Traffic;
use crate::tunnel::ResetCode;

/// Limit for a stream from the last byte of its response to its end.
const END: Duration = Duration::from_secs(1);

/// Ending of an attempt that is not followed by another.
pub(super) enum Ended {
    /// The client has got an answer, or part of one, or is gone.
    Answered(After),
    /// The client's body is malformed, and nothing was answered yet.
    BadRequest,
}

/// End of the response, or of the request.
type Direction = Half<Result<Received, ResponseError>, Result<(), BodyError>>;

/// Endings of the two directions together.
enum Outcomes {
    /// The response came to its end; the request's side is as `sent` says.
    Response(Result<Received, ResponseError>),
    /// The request could not be read to its end.
    Request(BodyError),
}

/// The request, as it is sent.
struct Upload<'a> {
    scanner: &'a mut BodyScanner,
    replay: &'a ReplayBuffer,
    copies: &'a Copies,
    may_upgrade: bool,
}

/// Progress of the request.
#[derive(Default)]
struct Sent {
    whole: Cell<bool>,
    /// The response is complete: nobody needs to watch the client any more.
    answered: Cell<bool>,
}

/// Sends the request to the endpoint of `work`, `pieces` of it first, and passes its response on, on the terms of its rule where it has one.
///
/// # Errors
/// When the client has got nothing.
pub(super) async fn make(
    (outbound, traffic): (&Outbound, &Traffic),
    work: &Work,
    near: &mut Leg,
    request: &mut PendingRequest,
    (mut first, pieces): (Bytes, Vec<Bytes>),
    (progress, terms): (&Progress, Option<&Terms<'_>>),
) -> Result<Ended, Failure> {
    let length = first.len();
    let (is_repeatable, client) = (request.head.method.is_idempotent(), Some(request.client));
    let purpose = Purpose { protocol: Protocol::Http1, is_repeatable, client };
    let opened = tokio::select! {
        biased;
        opened = backend::open(&outbound.pools, work, purpose, &mut first) => opened,
        _ = poll_fn(|cx| near.0.poll_broken(cx)) => {
            work.report(Outcome::Abandoned);
            return Ok(Ended::Answered(After::Reset));
        }
    };
    let mut far = opened.map_err(Failure::NotOpened)?;
    // The time until a tunnel stands says nothing of the requests that follow on it.
    let since = Instant::now();
    let sent = Sent::default();
    let (head, counts) = (request.head, traffic.bytes());
    counts.0.inc_by((length - first.len()) as u64);
    let asked = request.began;
    let PendingRequest { scanner, replay, copies, .. } = request;
    let on_head = |status: u16, text: &[u8]| {
        let latency = since.elapsed();
        work.report(match status {
            429 | 503 => Outcome::Overloaded(latency),
            _ => Outcome::Answered(latency),
        });
        if terms.is_some_and(|terms| terms.refuses(status, replay.is_whole())) {
            return Taking::Refused;
        }
        traffic.answered(status, asked.elapsed());
        terms.map_or(Taking::Kept, |terms| terms.take(status, text))
    };
    let outcomes = {
        let (input, output) = &mut far.leg;
        let pieces = std::iter::once(first).chain(pieces);
        let back = pin!(receive(input, &mut near.1, &head, progress, &counts.1, on_head));
        let on_whole = || {
            sent.whole.set(true);
            // A client that has said so sends nothing more.
            progress.is_last.set(!head.keep_alive);
        };
        let mut upload = Upload { scanner, replay, copies, may_upgrade: head.may_upgrade };
        let forth = pin!(forward(&mut near.0, output, &mut upload, pieces, &counts.0, (&sent, on_whole)));
        both(back, forth, ends(&sent)).await
    };
    if let Outcomes::Response(Ok(Received { upgraded: false, .. })) = &outcomes {
        traffic.finished(asked.elapsed());
    }
    let asked = (&head, client);
    conclude((outbound, work), near, far, asked, outcomes, (sent.whole.get(), progress.begun.get())).await
}

/// Concludes an attempt; `whole` tells if the request was sent whole, `begun` if the client got anything.
async fn conclude(
    (outbound, work): (&Outbound, &Work),
    near: &mut Leg,
    mut far: Connection,
    (head, client): (&RequestHead, Client),
    outcomes: Outcomes,
    (whole, begun): (bool, bool),
) -> Result<Ended, Failure> {
    match outcomes {
        Outcomes::Response(Ok(received)) => {
            let stays = received.keep_alive && head.keep_alive && whole;
            if received.upgraded {
                if let Some((_, used)) = &far.plain {
                    outbound.pools.dialer.set_upgraded(&used.stream);
                }
                return Ok(Ended::Answered(After::Upgraded(Box::new(far.leg))));
            }
            let parting = if stays { None } else { Some(&mut near.1) };
            settle(outbound, far, (&received, head, client), whole, parting).await;
            Ok(Ended::Answered(match stays {
                true => After::NextRequest,
                false if whole && !head.keep_alive && near.0.is_silent() => After::Leave,
                false if whole => After::Close,
                false => After::CloseEarly,
            }))
        }
        Outcomes::Response(Err(error)) => {
            far.leg.1.reset(ResetCode::Cancelled);
            if matches!(error, ResponseError::Sink(_)) {
                return Ok(Ended::Answered(After::Reset));
            }
            if let ResponseError::Malformed(what) = &error
                && let Some(reason) = what.reason()
            {
                outbound.telemetry.note_unreadable(work.endpoint.address, reason, what);
            }
            if begun {
                work.report_failure(Outcome::Broken, "reset");
                return Ok(Ended::Answered(After::Reset));
            }
            let failure = Failure::of_response(&error);
            work.blame(&failure);
            Err(failure)
        }
        Outcomes::Request(error) => {
            far.leg.1.reset(ResetCode::Cancelled);
            work.report(Outcome::Abandoned);
            Ok(match error {
                BodyError::Malformed(_) if !begun => Ended::BadRequest,
                BodyError::Malformed(_)
                | BodyError::Source(_)
                | BodyError::Truncated
                | BodyError::Sink(_) => Ended::Answered(After::Reset),
            })
        }
    }
}

/// Sends the request; then watches that the client stays until the response is complete.
async fn forward(
    from: &mut Input,
    to: &mut Output,
    upload: &mut Upload<'_>,
    pieces: impl Iterator<Item = Bytes>,
    count: &IntCounter,
    (sent, on_whole): (&Sent, impl Fn()),
) -> Result<(), BodyError> {
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        count.inc_by(piece.len() as u64);
        to.write(piece).await.map_err(BodyError::Sink)?;
    }
    let (replay, copies) = (upload.replay, upload.copies);
    send_body(from, to, upload.scanner, |piece| {
        replay.record(Some(piece));
        copies.tap(piece);
        count.inc_by(piece.len() as u64);
    })
    .await?;
    // What may be upgraded needs its way to the application open.
    upload.copies.end();
    if !upload.may_upgrade {
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

/// An attempt has ended with the response. That may be complete before its request is: then the request goes on, if the
/// connection is to be used again.
fn ends(sent: &Sent) -> impl FnMut(Direction) -> Option<Outcomes> {
    let (mut response, mut stuck) = (None, false);
    move |half| match (half, response.take()) {
        (Half::First(result), _) => {
            sent.answered.set(true);
            let early = !sent.whole.get();
            match result {
                Ok(received) if early && !stuck && received.keep_alive && !received.upgraded => {
                    response = Some(Received { early, ..received });
                    None
                }
                result => Some(Outcomes::Response(result)),
            }
        }
        // The request is complete, or not to be completed; the response is, either way.
        (Half::Second(_), Some(received)) => Some(Outcomes::Response(Ok(received))),
        // The called side wants no more of the request; what it answers stands.
        (Half::Second(Ok(()) | Err(BodyError::Sink(_))), None) => {
            stuck = true;
            None
        }
        (Half::Second(Err(error)), None) => Some(Outcomes::Request(error)),
    }
}

/// Puts away the far side after a complete response; `parting` is a caller's side that ends with it.
async fn settle(
    outbound: &Outbound,
    far: Connection,
    (received, head, client): (&Received, &RequestHead, Client),
    whole: bool,
    parting: Option<&mut Output>,
) {
    let Connection { leg: (mut input, mut output), plain } = far;
    match plain {
        Some((address, mut used)) => {
            if received.leaves_reusable(head) && whole && !input.is_over() {
                used.in_doubt |= received.leaves_doubt(head);
                outbound.pools.idle.put(IdleKey { peer: None, address }, client, used);
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
