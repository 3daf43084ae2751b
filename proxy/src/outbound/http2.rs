//! HTTP/2 connections of the workload: every request is balanced by itself.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::Call;
use super::failure::{MAX_REFUSALS, MAX_RETRIES};
use crate::balance::{Outcome, Pick};
use crate::http::MAX_HEAD;
use crate::http::answer::Status;
use crate::http2::{
    self, Account, Conduct, Connector, Failure, Lease, Peer, Request, Window, answer, exchange,
};
use crate::leg::Pipe;
use crate::telemetry::Carried;
use crate::upstream::{self, Errand, Upstream, Work};
use crate::worker::{Resolved, Worker};

/// Serves one connection to its end.
pub(super) async fn serve(call: Call, upstream: &Rc<Upstream>) {
    let _open = upstream.traffic.connected(Carried::Http2);
    let Call { worker, mut near, destination, draining } = call;
    let mut drain = draining.clone();
    tokio::select! {
        biased;
        filled = near.0.fill() => if filled.is_err() { return },
        () = drain.ending() => return,
    }
    let pipe = Pipe::new(near, Some(upstream.traffic.bytes()));
    let client = Rc::default();
    let window = Window::new(&worker.memory, &client);
    let conduct = Rc::new(Conduct::new(&worker.memory, &client, worker.http2.unrest(), Instant::now()));
    let serve = |mut request| {
        let (worker, conduct) = (worker.clone(), conduct.clone());
        async move {
            serve_request(&worker, destination, &conduct, &mut request).await;
            conduct.handle_end(&request);
        }
    };
    if let Err(error) = http2::serve_all(pipe, Peer::Client, &window, &draining, serve).await {
        tracing::debug!(%destination, %error, "connection of HTTP/2");
    }
}

async fn serve_request(
    worker: &Rc<Worker>,
    destination: SocketAddr,
    conduct: &Conduct,
    request: &mut Request,
) {
    if request.is_too_much {
        worker.telemetry.memory.refusals.inc();
        let text = format!(
            "this sidecar holds more than it may for requests in progress ({} MiB)",
            worker.memory.budget() >> 20
        );
        return say(None, request, Status::Unavailable, &text).await;
    }
    if request.is_too_large() {
        let text = format!("the request's head is larger than {} KiB", MAX_HEAD / 1024);
        return say(None, request, Status::HeadTooLarge, &text).await;
    }
    match worker.resolve(destination) {
        Resolved::Upstream(upstream) => make_attempts(worker, &upstream, conduct, request).await,
        Resolved::Unmapped(service) => {
            let text = format!("{service} has no port {} any more", destination.port());
            say(None, request, Status::Unavailable, &text).await;
        }
        Resolved::Nowhere => {
            let text = format!("nothing is known of {destination}");
            say(None, request, Status::Unavailable, &text).await;
        }
    }
}

/// Tries endpoints until one answers.
async fn make_attempts(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    conduct: &Conduct,
    request: &mut Request,
) {
    upstream.deposit();
    let mut tried: Vec<Pick> = Vec::new();
    loop {
        let Some(work) = upstream.pick(&tried) else {
            let text = format!("no instance of {} is ready", upstream.label);
            return say(Some(upstream), request, Status::Unavailable, &text).await;
        };
        tried.push(work.pick);
        let work = Rc::new(work);
        let failure = match lease(worker, upstream, &work, conduct, request).await {
            None => return work.report(Outcome::Abandoned),
            Some(Err(failure)) => failure,
            Some(Ok(lease)) => {
                let account = Account::new(&upstream.traffic, Some(&work), request.began);
                match exchange::attempt(request, lease, &account).await {
                    Ok(()) => return,
                    Err(failure) => failure,
                }
            }
        };
        blame(&work, &failure);
        let limit = if failure.is_cheap() { MAX_REFUSALS } else { MAX_RETRIES };
        let again = tried.len() <= limit && failure.may_retry(request.head.method());
        if again && request.is_repeatable() && may_retry(upstream, &failure) {
            tracing::debug!(target = %upstream.label, %failure, "sending a request again");
            continue;
        }
        if let Failure::Reset(reason) = failure {
            // Codes mean something to clients, such as those of gRPC.
            return request.respond.send_reset(reason);
        }
        let text = if matches!(failure, Failure::Denied) {
            upstream.denial()
        } else {
            format!("{} gave no answer: {failure}", upstream.label)
        };
        return say(Some(upstream), request, failure.status(), &text).await;
    }
}

/// A place on a connection to the endpoint of `work`; `None` when the client has given up meanwhile.
async fn lease(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    work: &Rc<Work>,
    conduct: &Conduct,
    request: &mut Request,
) -> Option<Result<Lease, Failure>> {
    let connect = || -> Connector {
        let (worker, upstream, work) = (worker.clone(), upstream.clone(), work.clone());
        Rc::new(move || {
            let (worker, upstream, work) = (worker.clone(), upstream.clone(), work.clone());
            let connecting = async move {
                let mut nothing = Bytes::new();
                let errand = Errand { carried: Carried::Http2, repeatable: true, client: None };
                let far = upstream::open(&worker, &upstream, &work, errand, &mut nothing).await?;
                Ok(Pipe::new(far.legs, None))
            };
            connecting.boxed_local()
        })
    };
    let bundle = conduct.apart(request).unwrap_or(&worker.http2).to(&work.endpoint);
    let mut leased = pin!(bundle.lease(connect));
    tokio::select! {
        biased;
        leased = &mut leased => Some(leased),
        () = std::future::poll_fn(|cx| request.poll_abandoned(cx)) => None,
    }
}

/// Returns true if the target may be asked again: always where it only wants another connection, else within its
/// budget.
fn may_retry(upstream: &Upstream, failure: &Failure) -> bool {
    if matches!(failure, Failure::Gone) {
        upstream.move_on(failure.reason());
        return true;
    }
    upstream.retry(failure.reason())
}

fn blame(work: &Work, failure: &Failure) {
    let reason = failure.reason();
    match failure {
        // The endpoint was blamed when the way to it was not opened.
        Failure::NotOpened(_) => {}
        // It only wants another connection, or does what it should.
        Failure::Gone | Failure::Denied => work.report(Outcome::Abandoned),
        Failure::Stillborn(_) => work.report_failure(Outcome::Refused, reason),
        Failure::Refused => work.report_failure(Outcome::Overloaded(Duration::ZERO), reason),
        Failure::Unreachable => work.report_failure(Outcome::Refused, reason),
        Failure::Lost { .. }
        | Failure::Malformed
        | Failure::TooLarge
        | Failure::Http1
        | Failure::Reset(_) => work.report_failure(Outcome::Broken, reason),
    }
}

/// Answers in place of the service.
async fn say(upstream: Option<&Rc<Upstream>>, request: &mut Request, status: Status, text: &str) {
    let Request { head, respond, began, .. } = request;
    if let Some(upstream) = upstream {
        tracing::debug!(target = %upstream.label, status = status.code(), "{text}");
        upstream.traffic.answered_here(answer::counted(head.headers(), status), began.elapsed());
    }
    answer::local(respond, head.headers(), status, text).await;
}
