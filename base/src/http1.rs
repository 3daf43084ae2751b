//! HTTP/1 on a single connection, for the pages that a process shows of itself and for plugins.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// The time that a client may take for its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest request head, in bytes, and number of fields in it.
const MAX_HEAD: usize = 32 * 1024;
const MAX_FIELDS: usize = 64;

/// Answers the requests of `stream`, one after another, until it ends; a head must be there within ten seconds. `whose`
/// names the connection in the log.
pub async fn converse<F, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    whose: &'static str,
    respond: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let answer = service_fn(|request| {
        let response = respond(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, whose, "connection");
    }
}
