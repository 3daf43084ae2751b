//! HTTP/1 connections of the workload: request by request, each balanced by itself.
//!
//! Seldom ends have futures of their own, so that those which each connection and request needs are small.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::ClientConnection;
use super::exchange::{self, After, PendingRequest};
use super::routed;
use crate::backend::Backend;
use crate::http::answer::{self, Manner, Status};
use crate::http::request;
use crate::leg::{Input, LINGER, close, linger};
use crate::message::{ReadHeadError, read_head};
use crate::protocol::Protocol;
use crate::tunnel::ResetCode;

/// Limit for a head from its first byte; a client that says nothing between two requests may stay.
const HEAD: Duration = Duration::from_secs(60);
/// Time for which a connection listens that closes behind an answer which came before its request was whole. Many clients read only
/// when they have sent everything.
const LINGER_EARLY: Duration = Duration::from_secs(30);
/// Length of a client's pause after which the connection listens no longer.
const LINGER_PAUSE: Duration = Duration::from_secs(5);
/// Number of connections of a worker that may do so; further ones close as any other.
const MAX_LINGERING: usize = 512;

/// Serves one connection to its end.
pub(super) async fn serve(mut client: ClientConnection, backend: &Rc<Backend>) {
    let _open = backend.traffic.connected(Protocol::Http1);
    let (number, draining) = (client.outbound.number_client(), client.draining.clone());
    let mut draining = pin!(async move {
        let mut draining = draining;
        draining.ending().await;
    });
    loop {
        // Between two requests a drain may close the connection; a client that had sent one already sends it again.
        tokio::select! {
            biased;
            filled = client.near.0.fill() => if filled.is_err() { return },
            () = &mut draining => return Box::pin(close(&mut client.near)).await,
        }
        let request = match read(&mut client.near.0, number, HEAD).await {
            Ok(request) => request,
            Err(NoRequest::End) => return Box::pin(close(&mut client.near)).await,
            Err(NoRequest::Gone) => return,
            Err(NoRequest::Refused(status, text)) => return Box::pin(refuse(client, status, &text)).await,
        };
        let choice = client.outbound.choose(client.destination, Some(request.view())).await;
        let backend = match choice.backend(client.destination) {
            Ok(backend) => backend,
            Err(text) => return Box::pin(refuse(client, Status::Unavailable, &text)).await,
        };
        let (outbound, near) = (&client.outbound, &mut client.near);
        let after = match backend.rules() {
            None => Box::pin(exchange::serve(outbound, &backend, near, request, None)).await,
            Some(rules) => Box::pin(routed::serve(outbound, &backend, &rules, near, request)).await,
        };
        match after {
            After::NextRequest => {}
            After::Close => return Box::pin(close(&mut client.near)).await,
            After::CloseEarly => return Box::pin(close_early(client)).await,
            After::Leave => return,
            After::Reset => return client.near.1.reset(ResetCode::Cancelled),
            After::Upgraded(mut far) => {
                let relay = crate::tcp::relay(&mut client.near, &mut far, backend.traffic.bytes());
                if Box::pin(relay).await.is_err() {
                    far.1.reset(ResetCode::Cancelled);
                    client.near.1.reset(ResetCode::Cancelled);
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
async fn read(from: &mut Input, client: u64, limit: Duration) -> Result<PendingRequest, NoRequest> {
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
    PendingRequest::new(head, from, client).map_err(|error| bad(error.to_string()))
}

/// Answers in place of the service, and closes.
async fn refuse(mut client: ClientConnection, status: Status, text: &str) {
    tracing::debug!(destination = %client.destination, status = status.code(), "{text}");
    let answer = answer::local(status, text, Manner { bodiless: false, close: true });
    if client.near.1.write(answer).await.is_ok() {
        close_early(client).await;
    }
}

/// Says the end while the client may still be sending its request.
async fn close_early(client: ClientConnection) {
    let ClientConnection { outbound, near: (mut input, mut output), mut draining, .. } = client;
    if output.finish().is_err() {
        return;
    }
    let lingering = &outbound.lingering;
    if lingering.get() >= MAX_LINGERING {
        outbound.telemetry.bounds.lingering_full.inc();
        return linger(&mut input, LINGER, LINGER).await;
    }
    lingering.update(|count| count + 1);
    tokio::select! {
        () = linger(&mut input, LINGER_EARLY, LINGER_PAUSE) => {}
        () = draining.ending() => linger(&mut input, LINGER, LINGER).await,
    }
    lingering.update(|count| count - 1);
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
