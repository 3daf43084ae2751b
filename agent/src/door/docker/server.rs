//! HTTP/1 over the plugin's unix socket.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use sealane_base::http1;
use sealane_base::socket::Step;
use sealane_base::task::{self, Task};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at};

use super::wire::Call;
use super::{Docker, socket};
use crate::attachment::{FailureKind, RequestFailure};

/// Content type that dockerd expects of plugins.
const CONTENT: &str = "application/vnd.docker.plugins.v1.2+json";
/// The largest call.
const LARGEST: usize = 1 << 20;
/// Interval at which addresses that nobody uses are looked for; the first look comes after one interval.
const SWEEP: Duration = Duration::from_secs(10);
/// Pause before accepting again after a failure.
const AGAIN: Duration = Duration::from_millis(50);

/// Listens at `path` until the task is dropped, after taking up what an earlier agent has left.
///
/// # Errors
/// When the socket cannot be bound.
pub(crate) fn serve(docker: Arc<Docker>, path: &Path) -> io::Result<Task> {
    let (path, kernel) = (path.to_owned(), docker.workloads.kernel());
    let (keeper, run_dir) = (kernel.keeper.clone(), kernel.run_dir.clone());
    let mut listener = socket::listen(&path, &run_dir, &keeper)?;
    Ok(task::spawn("docker-plugin", async move {
        docker.take_up().await;
        let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
        loop {
            let step = tokio::select! {
                step = listener.step() => step,
                _ = sweep.tick() => {
                    docker.sweep().await;
                    continue;
                }
            };
            match step {
                Ok(Step::BoundAnew) => socket::hold(&listener, &path, &run_dir, &keeper),
                // A conversation ends with dockerd, or with what it asks.
                Ok(Step::Accepted(stream)) => {
                    let docker = docker.clone();
                    let conversation =
                        http1::converse(stream, "dockerd", move |request| respond(docker.clone(), request));
                    task::spawn("docker-conversation", conversation).detach();
                }
                Err(error) => {
                    tracing::warn!(%error, "the Docker plugin's socket cannot accept");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }))
}

async fn respond(docker: Arc<Docker>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    // What has begun is ended, whether or not dockerd still waits for it.
    let (asked, body) = (path.clone(), Limited::new(request.into_body(), LARGEST));
    let answered = match body.collect().await {
        Ok(body) => {
            let (body, (tell, told)) = (body.to_bytes(), oneshot::channel());
            let call = async move {
                let answered = match Call::parse(&asked, &body) {
                    Ok(call) => docker.handle(call).await,
                    Err(failure) => Err(failure),
                };
                // dockerd may have left.
                let _ = tell.send(answered);
            };
            task::spawn("docker-call", call).detach();
            told.await.unwrap_or_else(|_| {
                Err(RequestFailure::new(FailureKind::Broken, "sealane: the call failed; see the agent's log"))
            })
        }
        Err(error) => Err(RequestFailure::new(
            FailureKind::Wrong,
            format!("sealane: Docker's request cannot be read: {error}"),
        )),
    };
    response(&answered.unwrap_or_else(|failure| refusal(&path, &failure)))
}

fn refusal(path: &str, failure: &RequestFailure) -> Value {
    tracing::warn!(call = path, %failure, "Docker is refused a call");
    json!({Call::error_name(path): failure.to_string()})
}

fn response(answer: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
    response
}
