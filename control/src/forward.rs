//! Service of a control plane that does not lead, for people: calls go to the one that does.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use sealane_proto::resource::ControlAddr;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;

use crate::fellows::Fellows;
use crate::operator;
use crate::serve::{is_refusal, refusal};

/// Limit for the beginning of an answer to a question.
const ANSWER: Duration = Duration::from_secs(2);
/// Largest question.
const QUESTION: usize = 64 << 10;
/// Largest change: thousands of documents.
const CHANGE: usize = 64 << 20;
/// Time for which a change waits for a control plane that leads.
const LED: Duration = Duration::from_secs(5);
/// Pause before a control plane is asked again that has said that it does not lead.
const AGAIN: Duration = Duration::from_millis(100);
/// Questions that each control plane answers for itself.
const OWN: [&str; 1] = ["/Status"];

/// Passes the calls of a service on.
#[derive(Clone)]
pub(crate) struct Forwarding<S> {
    fellows: Fellows,
    /// Answers what is asked while none leads, and whatever is wanted of a mesh that is lost.
    inner: S,
    /// True if calls change something: none of them is answered here.
    changes: bool,
}

impl<S> Forwarding<S> {
    /// A service whose calls change something.
    pub(crate) fn changes(inner: S, fellows: Fellows) -> Self {
        Self { fellows, inner, changes: true }
    }

    /// A service that only answers questions.
    pub(crate) fn questions(inner: S, fellows: Fellows) -> Self {
        Self { fellows, inner, changes: false }
    }
}

type Answered = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Forwarding<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answered {
        let (inner, fellows) = (self.inner.clone(), self.fellows.clone());
        if self.changes && !fellows.is_bereft() {
            return Box::pin(change(fellows, request));
        }
        if OWN.iter().any(|own| request.uri().path().ends_with(own)) || fellows.is_bereft() {
            return Box::pin(self.inner.call(request));
        }
        Box::pin(ask(fellows, inner, request))
    }
}

/// A request that can be made again.
struct Call {
    head: http::request::Parts,
    body: Bytes,
}

impl Call {
    /// Reads a request of so many bytes at most.
    async fn read(request: http::Request<Body>, largest: usize) -> Result<Self, http::Response<Body>> {
        let (head, body) = request.into_parts();
        match Limited::new(body, largest).collect().await {
            Ok(body) => Ok(Self { head, body: body.to_bytes() }),
            Err(error) => Err(Status::invalid_argument(error.to_string()).into_http()),
        }
    }

    fn request(&self) -> http::Request<Body> {
        http::Request::from_parts(self.head.clone(), Body::new(Full::new(self.body.clone())))
    }
}

/// Passes on what changes something. Whoever says that it does not lead has done nothing: the one that does is waited for.
async fn change(
    fellows: Fellows,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible> {
    let deadline = Instant::now() + LED;
    operator::sign(&mut request);
    let call = match Call::read(request, CHANGE).await {
        Ok(call) => call,
        Err(refused) => return Ok(refused),
    };
    while let Some((address, channel)) = fellows.leader(deadline).await {
        match pass(channel, call.request()).await {
            Ok(answer) if is_refusal(&answer) && Instant::now() + AGAIN < deadline => sleep(AGAIN).await,
            Ok(answer) if is_refusal(&answer) => break,
            Ok(answer) => return Ok(answer),
            Err(reason) => return Ok(lost(&address, &reason).into_http()),
        }
    }
    Ok(refusal(fellows.named_leader().as_ref()).into_http())
}

/// Passes a question on; what is not answered soon is answered here.
async fn ask<S>(
    fellows: Fellows,
    mut inner: S,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let deadline = Instant::now() + ANSWER;
    let call = match Call::read(request, QUESTION).await {
        Ok(call) => call,
        Err(refused) => return Ok(refused),
    };
    while let Some((address, channel)) = fellows.leader_to_ask(deadline).await {
        match timeout_at(deadline, pass(channel, call.request())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) | Err(_) => fellows.doubt(&address),
        }
    }
    inner.call(call.request()).await
}

async fn pass(mut channel: Channel, request: http::Request<Body>) -> Result<http::Response<Body>, String> {
    let words = |error: tonic::transport::Error| sealane_proto::client::of_loss(&error).unwrap_or_default();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(words)?;
    channel.call(request).await.map_err(words)
}

fn lost(leader: &ControlAddr, reason: &str) -> Status {
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    Status::unavailable(format!(
        "the answer of the control plane that leads, at {leader}, was lost{reason}: what was asked for may have happened; look, and try \
         again"
    ))
}

impl<S: NamedService> NamedService for Forwarding<S> {
    const NAME: &'static str = S::NAME;
}
