//! The admin server: `/metrics`, `/live`, `/ready` and what else a process shows, over HTTP/1.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::http1;
use crate::metrics::{self, Family};
use crate::places::{Places, Taken, Ticket};
use crate::ready::Readiness;
use crate::task::{self, Task};

/// Gathers the families to expose; called once per scrape.
pub type Gather = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Family>> + Send>> + Send + Sync>;

/// A page beside the usual ones.
#[derive(Clone)]
pub struct Page {
    /// Path, like `/targets`.
    pub path: &'static str,
    /// Content type, like `application/json`.
    pub content_type: &'static str,
    /// Renders the body; called once per request.
    pub body: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Largest number of connections that are served at once. A newcomer gets the place of the oldest one, of the source that
/// has most.
const MAX_CONNECTIONS: usize = 64;
/// Largest number of them that one source may have.
const MAX_OF_SOURCE: usize = 16;

/// Serves until aborted.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    gather: Gather,
    pages: Vec<Page>,
) -> io::Result<()> {
    let desk = Arc::new(Desk { readiness, gather, pages: pages.into() });
    let mut places = Places::new(MAX_CONNECTIONS, MAX_OF_SOURCE);
    let mut served: BTreeMap<Ticket, Task> = BTreeMap::new();
    let (ended, mut ends) = mpsc::unbounded_channel();
    loop {
        let (stream, peer) = tokio::select! {
            Some(ticket) = ends.recv() => {
                places.leave(ticket);
                served.remove(&ticket);
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "admin server cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let ticket = match places.take(peer.ip(), Instant::now()) {
            Taken::Free(ticket) => ticket,
            Taken::InPlaceOf(ticket, silent) => {
                // Aborted, and with that closed.
                served.remove(&silent);
                ticket
            }
            Taken::Full => continue,
        };
        let (desk, ended) = (desk.clone(), ended.clone());
        let serving = task::spawn("admin-connection", async move {
            desk.converse(stream).await;
            // Nobody listens any more when the server has ended.
            let _ = ended.send(ticket);
        });
        served.insert(ticket, serving);
    }
}

/// State that every connection needs.
struct Desk {
    readiness: Readiness,
    gather: Gather,
    pages: Arc<[Page]>,
}

impl Desk {
    async fn converse(&self, stream: TcpStream) {
        let respond =
            |request| respond(request, self.readiness.clone(), self.gather.clone(), self.pages.clone());
        http1::converse(stream, "admin", respond).await;
    }
}

async fn respond(
    request: Request<Incoming>,
    readiness: Readiness,
    gather: Gather,
    pages: Arc<[Page]>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => typed(metrics::CONTENT_TYPE, metrics::encode(&gather().await)),
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" => match readiness.waiting_for().as_slice() {
            [] => text(StatusCode::OK, "ready\n".to_owned()),
            parts => {
                let parts = parts.join(", ");
                text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {parts}\n"))
            }
        },
        path => match pages.iter().find(|page| page.path == path) {
            Some(page) => typed(page.content_type, (page.body)()),
            None => {
                let others: String = pages.iter().map(|page| format!(", {}", page.path)).collect();
                text(StatusCode::NOT_FOUND, format!("see /metrics, /live, /ready{others}\n"))
            }
        },
    }
}

fn typed(content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn who_leaves_connections_open_keeps_nobody_else_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gather: Gather = Arc::new(|| Box::pin(async { Vec::new() }));
        let _server = task::spawn("admin", serve(listener, Readiness::default(), gather, Vec::new()));
        let from = |last: u8| async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, last], 0).into()).unwrap();
            socket.connect(address).await.unwrap()
        };
        let mut idle = Vec::new();
        for number in 0..3 * MAX_CONNECTIONS as u8 {
            idle.push(from(1 + number % 8).await);
        }
        for last in [1, 9] {
            let mut asking = from(last).await;
            asking.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            asking.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{last}: {answer}");
        }
    }
}
