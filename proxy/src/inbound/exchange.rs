//! HTTP/1 exchange that came by a tunnel, with the application.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use prometheus::IntCounter;

use crate::dial::{Client, FirstWord, IdleKey, Used};
use crate::http::{BodyScanner, RequestHead, request};
use crate::leg::{self, Input, Output};
use crate::message::{self, BodyError, Head, Progress, Received, ResponseError, Unreadable, read_head};
use crate::tcp;
use crate::telemetry::Traffic;
use crate::tunnel::{ResetCode, Stream};
use crate::worker::Worker;

/// Serves one exchange to its end.
pub(super) async fn serve(
    worker: &Worker,
    stream: Stream,
    application: IdleKey,
    client: Client,
    traffic: &Arc<Traffic>,
) {
    let mut near = leg::stream(stream);
    let head = match read_head(&mut near.0, request::parse).await {
        Ok(Some(head)) => head,
        Ok(None) | Err(_) => return near.1.reset(ResetCode::ProtocolError),
    };
    let began = Instant::now();
    let (mut connection, kept) = match connect(worker, &application, client, &head.head).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::debug!(application = %application.address, %error, "the application takes no connection");
            return near.1.reset_because(ResetCode::Unreachable, super::unreachable(&error));
        }
    };
    let mut far = leg::tcp(connection.stream.clone());
    let (progress, whole) = (Progress::default(), Cell::new(false));
    let asked = head.head;
    let (sent, received) = traffic.bytes();
    let result = {
        let back = pin!(message::receive(&mut far.0, &mut near.1, &asked, &progress, received, |status| {
            traffic.answered(status, began.elapsed());
        }));
        let forth = pin!(forward(&mut near.0, &mut far.1, head, sent, &whole));
        both(forth, back, &whole).await
    };
    match result {
        Ok(received) if received.upgraded => {
            if Box::pin(tcp::relay(&mut near, &mut far, traffic.bytes())).await.is_err() {
                near.1.reset(ResetCode::Cancelled);
                far.1.reset(ResetCode::Cancelled);
            }
        }
        Ok(received) => {
            near.1.end_message();
            traffic.finished(began.elapsed());
            if received.leaves_reusable(&asked) && whole.get() && !far.0.is_over() {
                connection.in_doubt |= received.leaves_doubt(&asked);
                worker.idle.put(application, client, connection);
            }
        }
        Err(Broke::Unreadable(what)) => {
            far.1.reset(ResetCode::Cancelled);
            worker.note_unreadable(application.address, &what);
            near.1.reset_because(ResetCode::ProtocolError, &what.to_string());
        }
        Err(Broke::Otherwise(code)) => {
            far.1.reset(ResetCode::Cancelled);
            let unanswered = !progress.begun.get() && code == ResetCode::Internal;
            if unanswered && kept {
                worker.idle.note_closed(application.address, Instant::now());
            }
            near.1.reset(if unanswered { ResetCode::ResetBeforeResponse } else { code });
        }
    }
}

/// Ways in which an exchange broke.
enum Broke {
    /// The application's answer cannot be passed on.
    Unreadable(Unreadable),
    /// The peer's sidecar is told this.
    Otherwise(ResetCode),
}

/// A connection, and whether it has carried a request before.
async fn connect(
    worker: &Worker,
    application: &IdleKey,
    client: Client,
    head: &RequestHead,
) -> io::Result<(Used, bool)> {
    if let Some(kept) = worker.idle.take(application, client, head.method.is_idempotent()) {
        return Ok((kept, true));
    }
    let stream = super::connect(worker, application.address, FirstWord::Ours).await?;
    Ok((Used { stream, in_doubt: false }, false))
}

/// Sends the request to the application, and then watches whether the caller stays; ends only with what broke.
async fn forward(
    from: &mut Input,
    to: &mut Output,
    head: Head<RequestHead>,
    count: &IntCounter,
    whole: &Cell<bool>,
) -> BodyError {
    match send(from, to, head, count).await {
        Ok(()) => whole.set(true),
        Err(error) => return error,
    }
    BodyError::Source(poll_fn(|cx| from.poll_broken(cx)).await)
}

async fn send(
    from: &mut Input,
    to: &mut Output,
    head: Head<RequestHead>,
    count: &IntCounter,
) -> Result<(), BodyError> {
    let Head { head, length, mut bytes } = head;
    let mut scanner = BodyScanner::new(head.body);
    let end = length + scanner.advance(&bytes[length..])?;
    if end < bytes.len() {
        from.unread(bytes.split_off(end));
    }
    count.inc_by(bytes.len() as u64);
    to.write(bytes).await.map_err(BodyError::Sink)?;
    message::send_body(from, to, &mut scanner, |piece| count.inc_by(piece.len() as u64)).await
}

/// Polls both directions until the response is complete, and the request too if the application listens on.
///
/// # Errors
/// With how it broke.
async fn both(
    mut forth: Pin<&mut impl Future<Output = BodyError>>,
    mut back: Pin<&mut impl Future<Output = Result<Received, ResponseError>>>,
    whole: &Cell<bool>,
) -> Result<Received, Broke> {
    let broke = |code| Poll::Ready(Err(Broke::Otherwise(code)));
    let mut over = false;
    let mut response = None;
    poll_fn(|cx| {
        if !over && let Poll::Ready(error) = forth.as_mut().poll(cx) {
            over = true;
            match error {
                // The application may have answered before it closed.
                BodyError::Sink(_) => {}
                _ if response.is_some() => {}
                BodyError::Source(_) | BodyError::Truncated => return broke(ResetCode::Cancelled),
                BodyError::Malformed(_) => return broke(ResetCode::ProtocolError),
            }
        }
        if response.is_none()
            && let Poll::Ready(received) = back.as_mut().poll(cx)
        {
            match received {
                Ok(received) => response = Some(Received { early: !whole.get(), ..received }),
                Err(ResponseError::Sink(_)) => return broke(ResetCode::Cancelled),
                Err(ResponseError::Malformed(what)) => return Poll::Ready(Err(Broke::Unreadable(what))),
                Err(ResponseError::Source(_) | ResponseError::NoAnswer | ResponseError::Truncated) => {
                    return broke(ResetCode::Internal);
                }
            }
        }
        match response.take() {
            // An early answer does not end the request, if the application goes on listening.
            Some(received) if !over && !whole.get() && received.keep_alive && !received.upgraded => {
                response = Some(received);
                Poll::Pending
            }
            Some(received) => Poll::Ready(Ok(received)),
            None => Poll::Pending,
        }
    })
    .await
}
