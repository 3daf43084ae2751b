//! Service of a control plane that does not lead, for people: calls go to the one that does.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use sealane_proto::resource::ControlAddr;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;

use crate::fellows::Fellows;
use crate::operator;
use crate::serve::refusal;

/// Limit for the beginning of an answer to a question.
const ANSWER: Duration = Duration::from_secs(2);
/// Largest question.
const QUESTION: usize = 64 << 10;
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
        let is_own = OWN.iter().any(|own| request.uri().path().ends_with(own));
        match fellows.leader_now().filter(|_| !is_own && !fellows.is_bereft()) {
            Some(leader) => Box::pin(ask(fellows, leader, inner, request)),
            None => Box::pin(self.inner.call(request)),
        }
    }
}

/// Passes on what changes something.
async fn change(
    fellows: Fellows,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible> {
    let Some((address, channel)) = fellows.leader().await else {
        return Ok(refusal(fellows.roster().borrow().leader.as_ref()).into_http());
    };
    operator::sign(&mut request);
    Ok(pass(channel, request).await.unwrap_or_else(|reason| lost(&address, &reason).into_http()))
}

/// Passes a question on; what is not answered soon is answered here.
async fn ask<S>(
    fellows: Fellows,
    (address, channel): (ControlAddr, Channel),
    mut inner: S,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let (head, body) = request.into_parts();
    let question = match Limited::new(body, QUESTION).collect().await {
        Ok(question) => question.to_bytes(),
        Err(error) => return Ok(Status::invalid_argument(error.to_string()).into_http()),
    };
    let again = || http::Request::from_parts(head.clone(), Body::new(Full::new(question.clone())));
    match timeout(ANSWER, pass(channel, again())).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => {
            fellows.doubt(&address);
            inner.call(again()).await
        }
    }
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
