//! HTTP/1 connections of the workload: request by request, each balanced by itself.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::Call;
use super::exchange::{self, After, Request};
use crate::http::answer::{self, Manner, Status};
use crate::http::request;
use crate::leg::{Input, Output};
use crate::message::{ReadHeadError, read_head};
use crate::telemetry::Carried;
use crate::tunnel::ResetCode;
use crate::upstream::Upstream;
use crate::worker::Resolved;

/// Limit for a head from its first byte; a client that says nothing between two requests may stay.
const HEAD: Duration = Duration::from_secs(60);
/// Time for which a closing connection listens, so that its last words are not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// The same behind an answer that came before its request was whole: for a client that goes on sending so long, and for one
/// that has paused for so long. Many clients read only when they have sent everything.
const LINGER_EARLY: Duration = Duration::from_secs(30);
const LINGER_PAUSE: Duration = Duration::from_secs(5);
/// Number of connections of a worker that may do so; further ones close as any other.
const MAX_LINGERING: usize = 512;

/// Serves one connection to its end.
pub(super) async fn serve(mut call: Call, upstream: &Rc<Upstream>) {
    let _open = upstream.traffic.connected(Carried::Http);
    let (client, draining) = (call.worker.number_client(), call.draining.clone());
    let mut draining = pin!(async move {
        let mut draining = draining;
        draining.ending().await;
    });
    loop {
        // Between two requests a drain may close the connection; a client that had sent one already sends it again.
        tokio::select! {
            biased;
            filled = call.near.0.fill() => if filled.is_err() { return },
            () = &mut draining => return close(call.near).await,
        }
        let request = match read(&mut call.near.0, client, HEAD).await {
            Ok(request) => request,
            Err(NoRequest::End) => return close(call.near).await,
            Err(NoRequest::Gone) => return,
            Err(NoRequest::Refused(status, text)) => return refuse(call, status, &text).await,
        };
        let upstream = match call.worker.resolve(call.destination) {
            Resolved::Upstream(upstream) => upstream,
            Resolved::Unmapped(service) => {
                let text = format!("{service} has no port {} any more", call.destination.port());
                return refuse(call, Status::Unavailable, &text).await;
            }
            Resolved::Nowhere => {
                let text = format!("nothing is known of {}", call.destination);
                return refuse(call, Status::Unavailable, &text).await;
            }
        };
        match Box::pin(exchange::serve(&call.worker, &upstream, &mut call.near, request)).await {
            After::NextRequest => {}
            After::Close => return close(call.near).await,
            After::CloseEarly => return close_early(call).await,
            After::Leave => return,
            After::Reset => return call.near.1.reset(ResetCode::Cancelled),
            After::Upgraded(mut far) => {
                if crate::tcp::relay(&mut call.near, &mut far, upstream.traffic.bytes()).await.is_err() {
                    far.1.reset(ResetCode::Cancelled);
                    call.near.1.reset(ResetCode::Cancelled);
                }
                return;
            }
        }
    }
}

/// Reasons for which there is no request to serve.
#[derive(Debug)]
enum NoRequest {
    /// The client has ended in order.
    End,
    /// The client is gone, or ended within a head.
    Gone,
    /// The client is told what is wrong.
    Refused(Status, String),
}

/// Reads a request as far as its head, whose first byte is there; the whole of it must come within `limit`.
async fn read(from: &mut Input, client: u64, limit: Duration) -> Result<Request, NoRequest> {
    let bad = |text: String| NoRequest::Refused(Status::BadRequest, text);
    let head = match tokio::time::timeout(limit, read_head(from, request::parse)).await {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) => return Err(NoRequest::End),
        Ok(Err(ReadHeadError::Leg(_) | ReadHeadError::Truncated)) => return Err(NoRequest::Gone),
        Ok(Err(ReadHeadError::Head(error))) if error.is_size() => {
            return Err(NoRequest::Refused(Status::HeadTooLarge, error.to_string()));
        }
        Ok(Err(ReadHeadError::Head(error))) => return Err(bad(error.to_string())),
        Err(_) => {
            let text = format!("the head of the request was not complete within {limit:?}");
            return Err(NoRequest::Refused(Status::RequestTimeout, text));
        }
    };
    Request::new(head, from, client).map_err(|error| bad(error.to_string()))
}

/// Answers in place of the service, and closes.
async fn refuse(mut call: Call, status: Status, text: &str) {
    tracing::debug!(destination = %call.destination, status = status.code(), "{text}");
    let answer = answer::local(status, text, Manner { bodiless: false, close: true });
    if call.near.1.write(answer).await.is_ok() {
        close_early(call).await;
    }
}

/// Says the end, and waits for the client's.
pub(crate) async fn close((mut input, mut output): (Input, Output)) {
    if output.finish().is_ok() {
        linger(&mut input, LINGER, LINGER).await;
    }
}

/// Says the end while the client may still be sending its request.
async fn close_early(call: Call) {
    let Call { worker, near: (mut input, mut output), mut draining, .. } = call;
    if output.finish().is_err() {
        return;
    }
    let lingering = &worker.lingering;
    if lingering.get() >= MAX_LINGERING {
        worker.telemetry.bounds.lingering_full.inc();
        return linger(&mut input, LINGER, LINGER).await;
    }
    lingering.update(|count| count + 1);
    tokio::select! {
        () = linger(&mut input, LINGER_EARLY, LINGER_PAUSE) => {}
        () = draining.ending() => linger(&mut input, LINGER, LINGER).await,
    }
    lingering.update(|count| count - 1);
}

/// Reads what the client still sends until it ends, or pauses for so long; `most` in all. One that does neither has had its time.
async fn linger(input: &mut Input, most: Duration, pause: Duration) {
    let drain = async { while let Ok(Ok(Some(_))) = tokio::time::timeout(pause, input.read()).await {} };
    let _ = tokio::time::timeout(most, drain).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::leg;

    #[tokio::test]
    async fn a_head_that_does_not_come_to_its_end_is_answered_with_408() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut near, _) = leg::tcp(Rc::new(listener.accept().await.unwrap().0));
        client.write_all(b"GET / HTTP/1.1\r\nslow: ").await.unwrap();
        let refused = read(&mut near, 1, Duration::from_millis(50)).await;
        let Err(NoRequest::Refused(Status::RequestTimeout, text)) = refused else { panic!() };
        assert_eq!(text, "the head of the request was not complete within 50ms");
    }
}
