//! HTTP/1 connections of the workload: request by request, each balanced by itself.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::Call;
use super::exchange::{self, After, Request};
use crate::http::answer::{self, Manner, Status};
use crate::http::{HeadError, request};
use crate::leg::{Input, Output};
use crate::message::{ReadHeadError, read_head};
use crate::telemetry::Carried;
use crate::tunnel::ResetCode;
use crate::upstream::Upstream;
use crate::worker::Resolved;

/// How long, and for how many bytes, a closing connection listens, so that its last words are not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Serves one connection to its end.
pub(super) async fn serve(mut call: Call, upstream: &Rc<Upstream>) {
    let _open = upstream.traffic.connected(Carried::Http);
    let draining = call.draining.clone();
    let mut draining = pin!(async move {
        let mut draining = draining;
        draining.begun().await;
    });
    loop {
        // Between two requests a drain may close the connection; a client that had sent one already sends it again.
        tokio::select! {
            biased;
            filled = call.near.0.fill() => if filled.is_err() { return },
            () = &mut draining => return close(call.near).await,
        }
        let request = match read_head(&mut call.near.0, request::parse).await {
            Ok(Some(head)) => Request::new(head, &mut call.near.0),
            Ok(None) => return close(call.near).await,
            Err(ReadHeadError::Leg(_) | ReadHeadError::Truncated) => return,
            Err(ReadHeadError::Head(error)) => return refuse(call, error).await,
        };
        let Ok(request) = request else { return refuse(call, HeadError::AmbiguousLength).await };
        let upstream = match call.worker.resolve(call.destination) {
            Resolved::Upstream(upstream) => upstream,
            Resolved::Unmapped(_) | Resolved::Nowhere => {
                return call.near.1.reset(ResetCode::Cancelled);
            }
        };
        match Box::pin(exchange::serve(&call.worker, &upstream, &mut call.near, request)).await {
            After::NextRequest => {}
            After::Close => return close(call.near).await,
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

async fn refuse(mut call: Call, error: HeadError) {
    let status = match error {
        HeadError::TooLarge => Status::HeadTooLarge,
        HeadError::Malformed | HeadError::AmbiguousLength => Status::BadRequest,
    };
    let answer = answer::local(status, &error.to_string(), Manner { bodiless: false, close: true });
    if call.near.1.write(answer).await.is_ok() {
        close(call.near).await;
    }
}

/// Says the end, and waits for the client's.
async fn close((mut input, mut output): (Input, Output)) {
    if output.finish().is_err() {
        return;
    }
    let drain = async {
        let mut left = LINGER_BYTES;
        while let Ok(Some(bytes)) = input.read().await {
            let Some(rest) = left.checked_sub(bytes.len()) else { return };
            left = rest;
        }
    };
    // A client that neither ends nor reads has had its time.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
