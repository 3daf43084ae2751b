//! The admin server: `/metrics`, `/live` and `/ready` over HTTP/1.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::{self, Family};
use crate::ready::Readiness;
use crate::task;

/// Gathers the families to expose; called once per scrape.
pub type Gather = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Family>> + Send>> + Send + Sync>;

/// How many connections are served at once; further ones wait in the accept queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until aborted.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, readiness: Readiness, gather: Gather) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "admin server cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (readiness, gather) = (readiness.clone(), gather.clone());
        task::spawn("admin-connection", async move {
            let answer = service_fn(|request| respond(request, readiness.clone(), gather.clone()));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "admin connection");
            }
            drop(place);
        })
        .detach();
    }
}

async fn respond(
    request: Request<Incoming>,
    readiness: Readiness,
    gather: Gather,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    if request.method() != Method::GET {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n".to_owned()));
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, metrics::encode(&gather().await));
            let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" => match readiness.waiting_for().as_slice() {
            [] => text(StatusCode::OK, "ready\n".to_owned()),
            parts => {
                let parts = parts.join(", ");
                text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {parts}\n"))
            }
        },
        _ => text(StatusCode::NOT_FOUND, "see /metrics, /live and /ready\n".to_owned()),
    })
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
