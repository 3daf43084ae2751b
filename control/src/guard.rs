//! Before a call is read: whether its caller may make it at all, how large it may be, how often, how long.
//!
//! gRPC reads a message whole before the call is looked at. So callers are looked at here, by their certificates, and
//! what they send is measured while it comes: nobody costs memory that has not been granted.

mod allowance;
mod metered;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntCounterVec;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::registry::Registry;
use crate::serve::Peer;
use allowance::Allowances;
use metered::{Meter, Metered};

/// Limit for any call, its message included. A stream's answers come after that.
const CALL: Duration = Duration::from_secs(30);
/// Largest message before a host is known: names, a token, a certificate request.
const SMALL: usize = 64 << 10;
/// The largest message of a host: a report of a hundred thousand workloads.
const LARGEST: usize = 16 << 20;

/// A service behind its guard.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    registry: Arc<Registry>,
    allowances: Arc<Allowances>,
    refused: IntCounterVec,
}

/// Permission of a caller.
struct Admission {
    largest: usize,
    meter: Meter,
    /// Time that the call waits first: so that one host does not take everybody's time.
    wait: Duration,
}

/// Refusal of a call: a word for the metrics, words for the caller.
type Refusal = (&'static str, Status);

impl<S> Guarded<S> {
    pub(crate) fn new(inner: S, registry: Arc<Registry>, refused: IntCounterVec) -> Self {
        Self { inner, registry, allowances: Arc::default(), refused }
    }

    fn admit(&self, request: &http::Request<Body>) -> Result<Admission, Refusal> {
        let Some(peer) = request.extensions().get::<Peer>() else {
            return Err(("no_peer", Status::internal("the connection does not say who it is from")));
        };
        peer.spoke.note();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        if method == "Join" {
            return Ok(Admission { largest: SMALL, meter: Meter::default(), wait: Duration::ZERO });
        }
        let directory = self.registry.directory();
        // A stream is how a host comes that a restored store has forgotten.
        let node = if method == "Sync" {
            peer.host(&directory).map(|host| host.node)
        } else {
            peer.member(&directory)
        };
        let node = node.map_err(|status| match peer.identity {
            Some(_) => ("not_a_host", status),
            None => ("no_certificate", status),
        })?;
        let allowance = self.allowances.of(&node, &directory);
        let wait = allowance.pace(Instant::now()).map_err(|error| {
            let status = Status::unavailable(format!("node {node} {error}"));
            ("too_often", status)
        })?;
        let largest = if method == "Sync" { LARGEST } else { SMALL };
        Ok(Admission { largest, meter: allowance.meter(&self.allowances), wait })
    }
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let refused = self.refused.clone();
        let refuse = move |(reason, status): Refusal| {
            refused.with_label_values(&[reason]).inc();
            Ok(status.into_http())
        };
        let Admission { largest, meter, wait } = match self.admit(&request) {
            Ok(admission) => admission,
            Err(refusal) => return Box::pin(std::future::ready(refuse(refusal))),
        };
        let mut inner = self.inner.clone();
        let request = request.map(|body| Body::new(Metered::new(body, meter, largest, self.refused.clone())));
        Box::pin(async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            match timeout(CALL, inner.call(request)).await {
                Ok(response) => response,
                Err(_) => refuse(("too_slow", Status::deadline_exceeded("the call took longer than 30 s"))),
            }
        })
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}
