//! HTTP/2 connections of the workload: every request is balanced by itself.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::attempts::{Attempt, make_attempts};
use super::{ClientConnection, Outbound};
use crate::backend::{self, Backend, Purpose, Work};
use crate::balance::Outcome;
use crate::dispatch::{Answer, Failure, Repeatability};
use crate::http::MAX_HEAD;
use crate::http::answer::Status;
use crate::http2::{self, Account, Conduct, Connector, Lease, Peer, Pipe, Request, Window, answer, exchange};
use crate::protocol::Protocol;
use crate::request::RequestView;

/// Serves one connection to its end.
pub(super) async fn serve(client: ClientConnection, backend: &Rc<Backend>) {
    let _open = backend.traffic.connected(Protocol::Http2);
    let ClientConnection { outbound, mut near, destination, draining, .. } = client;
    let mut drain = draining.clone();
    tokio::select! {
        biased;
        filled = near.0.fill() => if filled.is_err() { return },
        () = drain.ending() => return,
    }
    let pipe = Pipe::new(near, Some(backend.traffic.bytes()));
    let usage = Rc::default();
    let window = Window::new(&outbound.memory, &usage);
    let conduct = Rc::new(Conduct::new(&outbound.memory, &usage, outbound.http2.unrest(), Instant::now()));
    let serve = |mut request| {
        let (outbound, conduct) = (outbound.clone(), conduct.clone());
        async move {
            serve_request(&outbound, destination, &conduct, &mut request).await;
            conduct.handle_end(&request);
        }
    };
    if let Err(error) = http2::serve_all(pipe, Peer::Client, &window, &draining, serve).await {
        tracing::debug!(%destination, %error, "connection of HTTP/2");
    }
}

async fn serve_request(
    outbound: &Rc<Outbound>,
    destination: SocketAddr,
    conduct: &Conduct,
    request: &mut Request,
) {
    if request.is_too_much {
        outbound.telemetry.memory.refusals.inc();
        let text = format!(
            "this sidecar holds more than it may for requests in progress ({} MiB)",
            outbound.memory.budget() >> 20
        );
        return say(None, request, Status::Unavailable, &text).await;
    }
    if request.is_too_large() {
        let text = format!("the request's head is larger than {} KiB", MAX_HEAD / 1024);
        return say(None, request, Status::HeadTooLarge, &text).await;
    }
    let choice = outbound.choose(destination, Some(RequestView::Http2(&request.head))).await;
    match choice.backend(destination) {
        Ok(backend) => ask(outbound, &backend, conduct, request).await,
        Err(text) => say(None, request, Status::Unavailable, &text).await,
    }
}

/// Tries endpoints until one answers.
async fn ask(outbound: &Rc<Outbound>, backend: &Rc<Backend>, conduct: &Conduct, request: &mut Request) {
    backend.deposit();
    let mut exchange = Exchange { outbound, backend, conduct, request };
    let Err(unanswered) = make_attempts(backend, None, &mut exchange).await else { return };
    match unanswered.answer {
        Answer::Reset(reason) => request.respond.send_reset(reason),
        Answer::Status(status) => say(Some(backend), request, status, &unanswered.text(backend)).await,
    }
}

/// A request and its response, at one endpoint after another.
struct Exchange<'a> {
    outbound: &'a Outbound,
    backend: &'a Backend,
    conduct: &'a Conduct,
    request: &'a mut Request,
}

impl Attempt for Exchange<'_> {
    type Done = ();

    async fn make(&mut self, work: Work) -> Result<(), Failure> {
        let work = Rc::new(work);
        let failure = match self.lease(&work).await {
            None => {
                work.report(Outcome::Abandoned);
                return Ok(());
            }
            Some(Err(failure)) => failure,
            Some(Ok(lease)) => {
                let account = Account::new(&self.backend.traffic, Some(&work), self.request.began);
                match exchange::attempt(self.request, lease, &account).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                }
            }
        };
        work.blame(&failure);
        Err(failure)
    }

    fn repeatability(&self) -> Repeatability {
        let is_idempotent = self.request.head.method().is_idempotent();
        Repeatability { is_idempotent, is_kept: self.request.is_repeatable() }
    }
}

impl Exchange<'_> {
    /// A place on a connection to the endpoint of `work`; `None` when the client has given up meanwhile.
    async fn lease(&mut self, work: &Rc<Work>) -> Option<Result<Lease, Failure>> {
        let Self { outbound, conduct, request, .. } = self;
        let connect = || -> Connector {
            let (pools, work) = (outbound.pools.clone(), work.clone());
            Rc::new(move || {
                let (pools, work) = (pools.clone(), work.clone());
                let connecting = async move {
                    let purpose = Purpose { protocol: Protocol::Http2, is_repeatable: true, client: None };
                    let connection = backend::open(&pools, &work, purpose, &mut Bytes::new()).await?;
                    Ok(Pipe::new(connection.leg, None))
                };
                connecting.boxed_local()
            })
        };
        let bundle = conduct.apart(request).unwrap_or(&outbound.http2).to(&work.endpoint);
        let mut leased = pin!(bundle.lease(connect));
        tokio::select! {
            biased;
            leased = &mut leased => Some(leased),
            () = std::future::poll_fn(|cx| request.poll_abandoned(cx)) => None,
        }
    }
}

/// Answers in place of the service.
async fn say(backend: Option<&Rc<Backend>>, request: &mut Request, status: Status, text: &str) {
    let Request { head, respond, began, .. } = request;
    if let Some(backend) = backend {
        tracing::debug!(target = %backend.label, status = status.code(), "{text}");
        backend.traffic.answered_here(answer::counted(head.headers(), status), began.elapsed());
    }
    answer::local(respond, head.headers(), status, text).await;
}
