//! HTTP/1 on a single connection, for the pages that a process shows of itself and for plugins.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// The time that a client may take for its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the requests of `stream`, one after another, until it ends; a head must be there within ten seconds. `whose`
/// names the connection in the log.
pub async fn converse<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    whose: &'static str,
    respond: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<Full<Bytes>>>,
{
    let answer = service_fn(|request| {
        let response = respond(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, whose, "connection");
    }
}
