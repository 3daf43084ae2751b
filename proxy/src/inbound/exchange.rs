//! HTTP/1 exchange that came by a tunnel, with the application.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use prometheus::IntCounter;

use super::Inbound;
use super::door::{self, Admitted};
use crate::dial::{Client, FirstWord, Used};
use crate::duplex::{Half, both};
use crate::http::answer::{self, Manner, Status};
use crate::http::{BodyScanner, Method, RequestHead, request};
use crate::leg::{self, Input, Output};
use crate::message::{
    self, BodyError, Head, Progress, Received, ResponseError, Taking, Unreadable, read_head,
};
use crate::request::RequestView;
use crate::tcp;
use crate::telemetry::Traffic;
use crate::tunnel::{ResetCode, Stream};

/// Serves one exchange to its end.
pub(super) async fn serve(
    inbound: &Inbound,
    stream: Stream,
    call: Admitted,
    client: Client,
    traffic: &Arc<Traffic>,
) {
    let mut near = leg::stream(stream);
    let head = match read_head(&mut near.0, request::parse).await {
        Ok(Some(head)) => head,
        Ok(None) | Err(_) => return near.1.reset(ResetCode::ProtocolError),
    };
    let began = Instant::now();
    if let Err(text) = call.pass(inbound, Some(RequestView::Http1(&head.bytes))) {
        return deny(&mut near, &head.head, &text).await;
    }
    let (mut connection, kept) = match connect(inbound, &call, client, &head.head).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::debug!(application = %call.application(), %error, "the application takes no connection");
            return near.1.reset_because(ResetCode::Unreachable, door::unreachable(&error));
        }
    };
    let mut far = leg::tcp(connection.stream.clone());
    let (progress, state, asked) = (Progress::default(), State::default(), head.head);
    let (sent, received) = traffic.bytes();
    let on_head = counted(traffic, began);
    let result = {
        let back = pin!(message::receive(&mut far.0, &mut near.1, &asked, &progress, received, on_head));
        let forth = pin!(forward(&mut near.0, &mut far.1, head, sent, &state));
        both(forth, back, ends(&state)).await
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
            if received.leaves_reusable(&asked) && state.whole.get() && !far.0.is_over() {
                connection.in_doubt |= received.leaves_doubt(&asked);
                inbound.pools.idle.put(call.into_way(), client, connection);
            }
        }
        Err(Broke::Unreadable(what)) => {
            far.1.reset(ResetCode::Cancelled);
            if let Some(reason) = what.reason() {
                inbound.telemetry.note_unreadable(call.application(), reason, &what);
            }
            near.1.reset_because(ResetCode::ProtocolError, &what.to_string());
        }
        Err(Broke::Otherwise(code)) => {
            far.1.reset(ResetCode::Cancelled);
            let unanswered = !progress.begun.get() && code == ResetCode::Internal;
            if unanswered && kept {
                inbound.pools.idle.note_closed(call.application(), Instant::now());
            }
            near.1.reset(if unanswered { ResetCode::ResetBeforeResponse } else { code });
        }
    }
}

/// Answers a request that may not pass.
async fn deny(near: &mut leg::Leg, head: &RequestHead, text: &str) {
    let manner = Manner { bodiless: head.method == Method::Head, close: true };
    if near.1.write(answer::local(Status::Forbidden, text, manner)).await.is_ok() {
        near.1.end_message();
    }
}

/// Progress of the two directions, as each must know of the other.
#[derive(Default)]
struct State {
    /// The request was sent whole.
    whole: Cell<bool>,
    /// The response is complete.
    answered: Cell<bool>,
}

/// End of the request, or of the response.
type Direction = Half<Result<(), BodyError>, Result<Received, ResponseError>>;

/// Ways in which an exchange broke.
enum Broke {
    /// The application's answer cannot be passed on.
    Unreadable(Unreadable),
    /// The peer's sidecar is told this.
    Otherwise(ResetCode),
}

/// A connection, and whether it has carried a request before.
async fn connect(
    inbound: &Inbound,
    call: &Admitted,
    client: Client,
    head: &RequestHead,
) -> io::Result<(Used, bool)> {
    if let Some(kept) = inbound.pools.idle.take(call.way(), client, head.method.is_idempotent()) {
        return Ok((kept, true));
    }
    let stream = call.connect(inbound, FirstWord::Ours).await?;
    Ok((Used { stream, in_doubt: false }, false))
}

/// Sends the request to the application, and then watches whether the caller stays until it is answered.
async fn forward(
    from: &mut Input,
    to: &mut Output,
    head: Head<RequestHead>,
    count: &IntCounter,
    state: &State,
) -> Result<(), BodyError> {
    send(from, to, head, count).await?;
    state.whole.set(true);
    poll_fn(|cx| {
        if state.answered.get() {
            return Poll::Ready(Ok(()));
        }
        from.poll_broken(cx).map(|error| Err(BodyError::Source(error)))
    })
    .await
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

/// Counts an answer, which passes as it came.
fn counted(traffic: &Traffic, began: Instant) -> impl FnMut(u16, &[u8]) -> Taking {
    move |status, _| {
        traffic.answered(status, began.elapsed());
        Taking::Kept
    }
}

/// An exchange has ended when the response is complete, and the request too if the application listens on.
fn ends(state: &State) -> impl FnMut(Direction) -> Option<Result<Received, Broke>> {
    let broke = |code| Some(Err(Broke::Otherwise(code)));
    let (mut over, mut response) = (false, None);
    move |half| {
        match half {
            Half::First(sent) => {
                over = true;
                match sent {
                    // The application may have answered before it closed.
                    Ok(()) | Err(BodyError::Sink(_)) => {}
                    Err(_) if response.is_some() => {}
                    Err(BodyError::Source(_) | BodyError::Truncated) => return broke(ResetCode::Cancelled),
                    Err(BodyError::Malformed(_)) => return broke(ResetCode::ProtocolError),
                }
            }
            Half::Second(Ok(received)) => {
                state.answered.set(true);
                response = Some(Received { early: !state.whole.get(), ..received });
            }
            Half::Second(Err(ResponseError::Sink(_))) => return broke(ResetCode::Cancelled),
            Half::Second(Err(ResponseError::Malformed(what))) => return Some(Err(Broke::Unreadable(what))),
            Half::Second(Err(
                ResponseError::Source(_)
                | ResponseError::NoAnswer
                | ResponseError::Truncated
                | ResponseError::Refused(_),
            )) => return broke(ResetCode::Internal),
        }
        // An early answer does not end the request, if the application goes on listening.
        let goes_on =
            |received: &Received| !over && !state.whole.get() && received.keep_alive && !received.upgraded;
        response.take_if(|received| !goes_on(received)).map(Ok)
    }
}
