//! Copies of requests for other backends, whose answers nobody hears.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use sealane_base::task;

use super::Outbound;
use super::http2::connector;
use crate::backend::{self, Backend, Choice, Purpose, Work};
use crate::copies::{CopiedBody, Copies, Piece};
use crate::dispatch::Failure;
use crate::http::RequestHead;
use crate::http2::exchange;
use crate::leg::LegError;
use crate::message::discard;
use crate::protocol::Protocol;
use crate::rules::ServiceAt;
use crate::tunnel::ResetCode;

/// Limit for an answer that nobody hears, from the end of its request.
const ANSWER: Duration = Duration::from_secs(30);
/// The most copies that a worker has in progress.
pub(super) const MAX_COPIES: usize = 1024;

/// The beginning of a copy.
pub(super) enum Beginning {
    /// Of a request of HTTP/1, as far as it was read.
    Http1(RequestHead, Bytes),
    /// Of a request of HTTP/2; whether it has no body.
    Http2(Box<http::Request<()>>, bool),
}

/// Reasons for which a copy did not get through.
enum Failed {
    /// The copy fell behind, or its request was broken off.
    Abandoned,
    /// The endpoint did not take the copy.
    Endpoint,
}

impl Outbound {
    /// Begins a copy for a service, of a request whose body is copied as it comes.
    pub(super) fn mirror(self: &Rc<Self>, service: &ServiceAt, beginning: Beginning, copies: &Copies) {
        let copying = self.copying.clone();
        if Rc::strong_count(&copying) > MAX_COPIES || self.memory.is_exhausted() {
            return self.telemetry.routes.copies.with_label_values(&["abandoned"]).inc();
        }
        let (outbound, service) = (self.clone(), service.clone());
        let (body, end) = copies.begin(&self.memory);
        task::spawn_local(async move {
            let Choice::Backend(backend) = outbound.choose_service(&service).await else {
                return outbound.telemetry.routes.copies.with_label_values(&["failed"]).inc();
            };
            let copied = tokio::select! {
                copied = copy(&outbound, &backend, beginning, body) => copied,
                () = end.over(ANSWER) => Err(Failed::Abandoned),
            };
            let result = match copied {
                Ok(()) => "sent",
                Err(Failed::Abandoned) => "abandoned",
                Err(Failed::Endpoint) => "failed",
            };
            outbound.telemetry.routes.copies.with_label_values(&[result]).inc();
            drop(copying);
        })
        .detach();
    }
}

async fn copy(
    outbound: &Rc<Outbound>,
    backend: &Rc<Backend>,
    beginning: Beginning,
    body: CopiedBody,
) -> Result<(), Failed> {
    let work = backend.pick(&[]).ok_or(Failed::Endpoint)?;
    match beginning {
        Beginning::Http1(head, first) => copy_http1(outbound, &work, &head, first, body).await,
        Beginning::Http2(head, is_ended) => {
            let work = Rc::new(work);
            let bundle = outbound.http2.to(&work.endpoint);
            let failed = |failure: Failure| {
                tracing::debug!(endpoint = %work.endpoint.address, %failure, "a copy of a request");
                Failed::Endpoint
            };
            let lease = bundle.lease(|| connector(outbound, &work)).await.map_err(failed)?;
            exchange::copy(*head, lease, (body, is_ended)).await.map_err(failed)
        }
    }
}

async fn copy_http1(
    outbound: &Outbound,
    work: &Work,
    head: &RequestHead,
    mut first: Bytes,
    mut body: CopiedBody,
) -> Result<(), Failed> {
    let purpose = Purpose { protocol: Protocol::Http1, is_repeatable: false, client: None };
    let opened = backend::open(&outbound.pools, work, purpose, &mut first).await;
    let (input, output) = &mut opened.map_err(|_| Failed::Endpoint)?.leg;
    let broke = |_: LegError| Failed::Endpoint;
    let send = async {
        output.write(first).await.map_err(broke)?;
        while let Some(piece) = body.next().await {
            match piece {
                Piece::Bytes(bytes) => output.write(bytes).await.map_err(broke)?,
                Piece::End => {
                    output.end_message();
                    return Ok(());
                }
            }
        }
        output.reset(ResetCode::Cancelled);
        Err(Failed::Abandoned)
    };
    let mut answer = pin!(discard(input, head.method));
    tokio::select! {
        // An answer that comes before the end of its request is one as well.
        answered = &mut answer => return answered.map_err(|_| Failed::Endpoint),
        sent = send => sent?,
    }
    answer.await.map_err(|_| Failed::Endpoint)
}
