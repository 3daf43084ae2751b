//! The admin server: `/metrics`, `/live`, `/ready` and what else a process shows, over HTTP/1.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

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
    /// Path, like `/targets`, and none of the usual ones.
    pub path: &'static str,
    /// Content type, like `application/json`.
    pub content_type: &'static str,
    /// Renders the body, or says why there is none now, which is answered with 503; called once per request.
    pub body: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
}

/// Largest number of connections that are served at once. A newcomer gets the place of the oldest one, of the source that
/// has most.
const MAX_CONNECTIONS: usize = 64;
/// Largest number of them that one source may have.
const MAX_OF_SOURCE: usize = 16;
/// Limit for putting an answer together: what is asked of sidecars has shorter ones.
const TIMEOUT: Duration = Duration::from_secs(10);

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
    let router = router(readiness, gather, pages);
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
        let (router, ended) = (router.clone(), ended.clone());
        let serving = task::spawn("admin-connection", async move {
            http1::converse(stream, "admin", |request| respond(router.clone(), request)).await;
            // Nobody listens any more when the server has ended.
            let _ = ended.send(ticket);
        });
        served.insert(ticket, serving);
    }
}

async fn respond(router: Router, request: Request<Incoming>) -> Response {
    match timeout(TIMEOUT, TowerToHyperService::new(router).call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            let text = format!("the answer took longer than {seconds} s to put together; ask again\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// The pages by their paths.
fn router(readiness: Readiness, gather: Gather, pages: Vec<Page>) -> Router {
    let others: String = pages.iter().map(|page| format!(", {}", page.path)).collect();
    let hint = format!("see /metrics, /live, /ready{others}\n");
    let mut router = Router::new()
        .route("/metrics", get(move || show_metrics(gather.clone())))
        .route("/live", get(async || "live\n"))
        .route("/ready", get(async move || show_readiness(&readiness)));
    for Page { path, content_type, body } in pages {
        router = router.route(
            path,
            get(async move || match body() {
                Ok(body) => ([(CONTENT_TYPE, content_type)], body).into_response(),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
            }),
        );
    }
    router
        .fallback(async move || (StatusCode::NOT_FOUND, hint))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n"))
}

async fn show_metrics(gather: Gather) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::encode(&gather().await))
}

fn show_readiness(readiness: &Readiness) -> Response {
    match readiness.waiting_for().as_slice() {
        [] => "ready\n".into_response(),
        parts => {
            let text = format!("not ready: {}\n", parts.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    async fn ask(mut stream: TcpStream, request: &str) -> String {
        stream
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_found_by_path_and_a_slow_one_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gather: Gather = Arc::new(|| Box::pin(std::future::pending()));
        let page = |path, body| Page { path, content_type: "application/json", body };
        let targets = page("/targets", Arc::new(|| Ok("[]".to_owned())));
        let nothing = page("/nothing", Arc::new(|| Err("nothing is known".to_owned())));
        let pages = vec![targets, nothing];
        let _server = task::spawn("admin", serve(listener, Readiness::default(), gather, pages));
        let table = [
            ("GET /live", "HTTP/1.1 200 ", "live\n"),
            ("GET /ready", "HTTP/1.1 200 ", "ready\n"),
            ("GET /targets", "HTTP/1.1 200 ", "[]"),
            ("GET /nothing", "HTTP/1.1 503 ", "nothing is known\n"),
            ("GET /", "HTTP/1.1 404 ", "see /metrics, /live, /ready, /targets, /nothing\n"),
            ("POST /live", "HTTP/1.1 405 ", "only GET is served here\n"),
            (
                "GET /metrics",
                "HTTP/1.1 503 ",
                "the answer took longer than 10 s to put together; ask again\n",
            ),
        ];
        for (request, status, body) in table {
            let answer = ask(TcpStream::connect(address).await.unwrap(), request).await;
            assert!(
                answer.starts_with(status) && answer.ends_with(&format!("\r\n\r\n{body}")),
                "{request}: {answer}"
            );
            let kind = if body == "[]" { "application/json" } else { "text/plain; charset=utf-8" };
            assert!(answer.contains(&format!("content-type: {kind}\r\n")), "{request}: {answer}");
        }
    }

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
            let answer = ask(from(last).await, "GET /live").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{last}: {answer}");
        }
    }
}
