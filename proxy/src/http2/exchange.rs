//! Attempt at one request: both directions at once, until both have ended or something breaks.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Response, Version, response};

use super::failure::classify;
use super::pump::{self, PumpError, pump};
use super::{Account, Lease, Outgoing, SendBody, reason_of};
use crate::copies::{CopiedBody, Copies, Piece};
use crate::dispatch::Failure;
use crate::duplex::{Half, both};
use crate::http::MAX_HEAD;
use crate::leg::ReplayBuffer;

/// A request of a client, as far as it was read.
pub(crate) struct Request {
    pub(crate) head: http::Request<()>,
    /// Answers it.
    pub(crate) respond: SendResponse<Bytes>,
    pub(crate) began: Instant,
    /// True if the sidecar holds too much to take it.
    pub(crate) is_too_much: bool,
    body: RecvStream,
    /// Bytes that wait on the client's connection.
    outgoing: Rc<Outgoing>,
    given_up: bool,
    /// Body as far as it was read, as long as it may be sent again.
    replay: ReplayBuffer,
    /// Copies of the body.
    pub(crate) copies: Copies,
}

/// End of the answer, or of the request.
type Direction = Half<Result<(), Broke>, Result<(), PumpError>>;

/// Reasons for which an attempt ended before its time.
enum Broke {
    /// The client gave it up.
    Near(Reason),
    /// The endpoint did, before its answer.
    Far(h2::Error),
    /// The endpoint did, and the client was told.
    Told,
    /// An answer with this status is not passed on.
    Refused(u16),
}

impl Request {
    /// A request whose head has come.
    pub(crate) fn new(
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
        outgoing: Rc<Outgoing>,
    ) -> Self {
        let (mut head, body) = request.into_parts();
        if head.uri.authority().is_none() {
            // Named by its Host field alone; HTTP/2 lets pass what came so from HTTP/1 (RFC 9113, section 8.3.1).
            head.version = Version::HTTP_11;
        }
        let head = http::Request::from_parts(head, ());
        Self {
            head,
            respond,
            began: Instant::now(),
            is_too_much: false,
            body,
            outgoing,
            given_up: false,
            replay: ReplayBuffer::new(),
            copies: Copies::default(),
        }
    }

    /// Returns true if it has no body, or all of that was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Returns true if another attempt could send everything again.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.replay.is_whole()
    }

    /// Returns true if the client has given the request up.
    pub(crate) fn is_abandoned(&mut self) -> bool {
        self.poll_abandoned(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Returns true if it ended because the client wanted no more of it.
    pub(crate) fn was_given_up(&self) -> bool {
        self.given_up
    }

    /// Returns true if its fields are larger than is passed on (RFC 9113, section 6.5.2).
    pub(crate) fn is_too_large(&self) -> bool {
        let fields = self.head.headers().iter();
        let fields: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        let path = self.head.uri().path_and_query().map_or(0, |path| path.as_str().len());
        let authority = self.head.uri().authority().map_or(0, |authority| authority.as_str().len());
        fields + path + authority >= MAX_HEAD
    }

    /// Ready when the client gives the request up.
    pub(crate) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let given_up = self.respond.poll_reset(cx).map(|_| ());
        self.given_up |= given_up.is_ready();
        given_up
    }
}

/// Sends the request and passes its response on.
///
/// # Errors
/// When the client got nothing of an answer.
pub(crate) async fn attempt(
    request: &mut Request,
    mut lease: Lease,
    account: &Account<'_>,
) -> Result<(), Failure> {
    let diagnosis = lease.diagnosis();
    let pieces = request.replay.pieces().unwrap_or_default();
    let ended = pieces.is_empty() && request.body.is_end_stream();
    // What cannot be sent was not sent, whatever the error.
    let opened = lease.open(request.head.clone(), ended).await;
    let (response, mut upload) = opened.map_err(|error| lease.refused(&error))?;
    let stream = response.stream_id().as_u32();
    let Request { respond, body, outgoing, replay, copies, .. } = request;
    let broke = {
        let forth = pin!(forward(pieces, body, (&mut upload, lease.outgoing()), (replay, copies), ended));
        let back = pin!(answer(response, (respond, outgoing), replay, account));
        both(back, forth, ends()).await
    };
    match broke {
        Ok(()) => Ok(()),
        Err(Broke::Near(reason)) => {
            upload.send_reset(reason);
            request.given_up = true;
            account.abandoned();
            Ok(())
        }
        Err(Broke::Refused(status)) => {
            upload.send_reset(Reason::CANCEL);
            Err(Failure::Unwanted(status))
        }
        Err(Broke::Told) => {
            upload.send_reset(Reason::CANCEL);
            Ok(())
        }
        Err(Broke::Far(error)) => Err(classify(&error, &diagnosis, stream)),
    }
}

/// The request, with `pieces` of its body that were sent before.
async fn forward(
    pieces: Vec<Bytes>,
    body: &mut RecvStream,
    (upload, outgoing): (&mut SendBody, &Outgoing),
    (replay, copies): (&ReplayBuffer, &Copies),
    ended: bool,
) -> Result<(), PumpError> {
    if ended {
        return Ok(());
    }
    for piece in pieces {
        pump::send(upload, outgoing, piece, false).await.map_err(PumpError::Sink)?;
    }
    // Trailers are not kept: behind them nothing is sent again.
    pump(
        body,
        (upload, outgoing),
        |piece| {
            replay.record(Some(piece));
            copies.tap(piece);
        },
        |trailers| {
            copies.end();
            if trailers.is_some() {
                replay.end();
            }
        },
    )
    .await
}

/// The response: interim ones, the final head, the body, the trailers.
async fn answer(
    response: ResponseFuture,
    (respond, outgoing): (&mut SendResponse<Bytes>, &Outgoing),
    replay: &ReplayBuffer,
    account: &Account<'_>,
) -> Result<(), Broke> {
    let (mut head, mut body) = final_head(response, respond).await?;
    if account.refuses(&head, replay.is_whole()) {
        return Err(Broke::Refused(head.status.as_u16()));
    }
    replay.end();
    let only = body.is_end_stream();
    account.head(&head, only);
    account.change(&mut head);
    let near = respond.send_response(Response::from_parts(head, ()), only);
    let mut near = near.map_err(|error| Broke::Near(reason_of(&error)))?;
    if only {
        account.finished();
        return Ok(());
    }
    match pump(&mut body, (&mut near, outgoing), |_| {}, |trailers| account.end(trailers)).await {
        Ok(()) => {
            account.finished();
            Ok(())
        }
        Err(PumpError::Sink(reason)) => Err(Broke::Near(reason)),
        Err(PumpError::Source(error)) => {
            let reason = reason_of(&error);
            near.send_reset(reason);
            account.broken_off(reason);
            Err(Broke::Told)
        }
    }
}

/// Passes interim responses on until the final one comes, or the client goes.
async fn final_head(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Result<(response::Parts, RecvStream), Broke> {
    let response = poll_fn(|cx| {
        if let Poll::Ready(reset) = respond.poll_reset(cx) {
            return Poll::Ready(Err(Broke::Near(reset.unwrap_or(Reason::CANCEL))));
        }
        while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            // A client that does not take it is gone, as the next poll says.
            let _ = respond.send_informational(interim);
        }
        Pin::new(&mut response).poll(cx).map_err(Broke::Far)
    });
    Ok(response.await?.into_parts())
}

/// Sends a copy of a request, and reads an answer that nobody hears.
///
/// # Errors
/// When it was not sent whole, or not answered.
pub(crate) async fn copy(
    head: http::Request<()>,
    mut lease: Lease,
    (mut body, ended): (CopiedBody, bool),
) -> Result<(), Failure> {
    let diagnosis = lease.diagnosis();
    let (response, mut upload) = lease.open(head, ended).await.map_err(|error| lease.refused(&error))?;
    let stream = response.stream_id().as_u32();
    if !ended && !send_copy(&mut body, (&mut upload, lease.outgoing())).await {
        upload.send_reset(Reason::CANCEL);
        return Err(Failure::Reset(Reason::CANCEL));
    }
    let hear = async {
        let mut answer = response.await?.into_body();
        while let Some(piece) = answer.data().await {
            answer.flow_control().release_capacity(piece?.len())?;
        }
        Ok(())
    };
    hear.await.map_err(|error: h2::Error| classify(&error, &diagnosis, stream))
}

/// Sends a copied body, as far as it is wanted; false when the copy was given up.
async fn send_copy(body: &mut CopiedBody, (upload, outgoing): (&mut SendBody, &Outgoing)) -> bool {
    loop {
        let sent = match body.next().await {
            Some(Piece::Bytes(piece)) => pump::send(upload, outgoing, piece, false).await,
            Some(Piece::End) => {
                // One that wants no more of it may answer all the same.
                let _ = upload.send_data(Bytes::new(), true);
                return true;
            }
            None => return false,
        };
        if sent.is_err() {
            return true;
        }
    }
}

/// An exchange has ended when both directions have. An answer may end before its request, which then goes on as long as both sides
/// like.
fn ends() -> impl FnMut(Direction) -> Option<Result<(), Broke>> {
    let (mut sent, mut answered) = (false, false);
    move |half| {
        match half {
            Half::First(Ok(())) => answered = true,
            Half::First(Err(broke)) => return Some(Err(broke)),
            // An endpoint that wants no more of the request may answer it all the same.
            Half::Second(Ok(()) | Err(PumpError::Sink(_))) => sent = true,
            Half::Second(Err(PumpError::Source(_))) if answered => sent = true,
            Half::Second(Err(PumpError::Source(error))) => return Some(Err(Broke::Near(reason_of(&error)))),
        }
        (sent && answered).then_some(Ok(()))
    }
}
