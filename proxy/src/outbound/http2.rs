//! HTTP/2 connections of the workload: every request is balanced by itself.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::Reason;

use super::attempts::{Attempt, make_attempts};
use super::mirror::Beginning;
use super::routed::UNRESOLVED;
use super::terms::Terms;
use super::{ClientConnection, Outbound};
use crate::backend::{self, Backend, Purpose, Work};
use crate::balance::Outcome;
use crate::dispatch::{self, Failure, Repeatability};
use crate::http::MAX_HEAD;
use crate::http::answer::Status;
use crate::http2::{
    self, Account, Conduct, Connector, Lease, Peer, Pipe, Request, ResponseTerms, Window, answer, exchange,
};
use crate::protocol::Protocol;
use crate::request::RequestView;
use crate::rules::{Answer, Plan, Rules};

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
        Ok(backend) => match backend.rules() {
            None => ask(outbound, &backend, conduct, request, None).await,
            Some(rules) => Box::pin(ask_by(&rules, outbound, &backend, conduct, request)).await,
        },
        Err(text) => say(None, request, Status::Unavailable, &text).await,
    }
}

/// Serves a request to `parent` by the rules of its routes.
async fn ask_by(
    rules: &Rules,
    outbound: &Rc<Outbound>,
    parent: &Rc<Backend>,
    conduct: &Conduct,
    request: &mut Request,
) {
    let routes = &outbound.telemetry.routes;
    let forward = match Outbound::plan(rules, parent, RequestView::Http2(&request.head)) {
        Plan::Forward(forward) => forward,
        Plan::Answer(found, Answer { status, fields }) => {
            routes.route(&found.route.name).answered(status);
            parent.traffic.answered_here(status, request.began.elapsed());
            return answer::ruled(&mut request.respond, status, &fields);
        }
        Plan::NoRule => {
            let text = Outbound::without_rule(parent);
            return say(Some(parent), request, Status::NoRule, &text).await;
        }
        Plan::Unresolved(found) => {
            routes.route(&found.route.name).answered(Status::Unresolved.code());
            return say(Some(parent), request, Status::Unresolved, UNRESOLVED).await;
        }
    };
    let backend = match outbound.target(&forward).await {
        Ok(backend) => backend,
        Err(text) => return say(Some(parent), request, Status::Unresolved, &text).await,
    };
    for service in &forward.mirrors {
        let mut copied = Box::new(request.head.clone());
        forward.copy_http2(&mut copied);
        outbound.mirror(service, Beginning::Http2(copied, request.is_whole()), &request.copies);
    }
    if request.is_whole() {
        request.copies.end();
    }
    forward.change_http2(&mut request.head);
    let traffic = routes.route(&forward.found.route.name);
    let terms = Terms::new(&forward, &backend, &traffic, request.began);
    ask(outbound, &backend, conduct, request, Some(&terms)).await;
}

/// Tries endpoints until one answers, on these terms where a rule says any.
async fn ask(
    outbound: &Rc<Outbound>,
    backend: &Rc<Backend>,
    conduct: &Conduct,
    request: &mut Request,
    terms: Option<&Terms<'_>>,
) {
    backend.deposit();
    let mut exchange = Exchange { outbound, backend, conduct, request, terms };
    let Err(unanswered) = make_attempts(backend, None, &mut exchange).await else { return };
    if let (Some(terms), dispatch::Answer::Status(status)) = (terms, unanswered.answer) {
        terms.answered(answer::counted(request.head.headers(), status));
    }
    match unanswered.answer {
        dispatch::Answer::Reset(reason) => request.respond.send_reset(reason),
        dispatch::Answer::Status(status) => {
            say(Some(backend), request, status, &unanswered.text(backend)).await
        }
    }
}

/// A request and its response, at one endpoint after another.
struct Exchange<'a> {
    outbound: &'a Rc<Outbound>,
    backend: &'a Backend,
    conduct: &'a Conduct,
    request: &'a mut Request,
    terms: Option<&'a Terms<'a>>,
}

impl Attempt for Exchange<'_> {
    type Done = ();

    async fn make(&mut self, work: Work) -> Result<(), Failure> {
        let work = Rc::new(work);
        let terms = self.terms.map(|terms| terms as &dyn ResponseTerms);
        let account = Account::new(&self.backend.traffic, Some(&work), self.request.began).on(terms);
        let limited = self.terms.and_then(|terms| Some((terms, terms.begin()?)));
        let made = match limited {
            None => self.make_within(&work, &account).await,
            Some((terms, limit)) => {
                let made = Box::pin(tokio::time::timeout_at(limit, self.make_within(&work, &account))).await;
                made.unwrap_or_else(|_| Err(terms.late()))
            }
        };
        let Err(failure) = made else { return Ok(()) };
        work.blame(&failure);
        if matches!(failure, Failure::Late { .. }) && account.has_begun() {
            // A part of an answer cannot be taken back.
            self.request.respond.send_reset(Reason::CANCEL);
            return Ok(());
        }
        Err(failure)
    }

    fn repeatability(&self) -> Repeatability {
        let is_idempotent = self.request.head.method().is_idempotent();
        let usual = Repeatability { is_idempotent, is_kept: self.request.is_repeatable(), limit: None };
        self.terms.map_or(usual, |terms| terms.apply(usual))
    }

    fn pause(&self, failure: &Failure) -> Option<Duration> {
        self.terms.and_then(|terms| terms.pause(failure))
    }
}

/// A way to the endpoint of this work.
pub(super) fn connector(outbound: &Rc<Outbound>, work: &Rc<Work>) -> Connector {
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
}

impl Exchange<'_> {
    /// Makes the attempt that this account is of.
    async fn make_within(&mut self, work: &Rc<Work>, account: &Account<'_>) -> Result<(), Failure> {
        match self.lease(work).await {
            None => {
                work.report(Outcome::Abandoned);
                Ok(())
            }
            Some(lease) => exchange::attempt(self.request, lease?, account).await,
        }
    }

    /// A place on a connection to the endpoint of `work`; `None` when the client has given up meanwhile.
    async fn lease(&mut self, work: &Rc<Work>) -> Option<Result<Lease, Failure>> {
        let Self { outbound, conduct, request, .. } = self;
        let connect = || connector(outbound, work);
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
