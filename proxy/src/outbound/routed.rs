//! Requests to a service that has routes: their rules say what becomes of them.

use std::rc::Rc;

use super::Outbound;
use super::exchange::{self, After, PendingRequest, say};
use super::mirror::Beginning;
use super::terms::Terms;
use crate::backend::{Backend, Choice};
use crate::http::answer::{self, Status};
use crate::leg::Leg;
use crate::request::RequestView;
use crate::rules::{Answer, Forward, Listener, Plan, Rules};

impl Outbound {
    /// Finds out what becomes of a request to `parent` by its rules.
    pub(super) fn plan<'a>(rules: &'a Rules, parent: &Backend, request: RequestView<'_>) -> Plan<'a> {
        let listener = Listener { scheme: "http", port: parent.port.get() };
        rules.plan(request, listener, rand::random)
    }

    /// The words for a request that no rule is for.
    pub(super) fn without_rule(parent: &Backend) -> String {
        format!("no rule of the routes of {} is for this request", parent.label)
    }

    /// The backend that serves a request by its rule.
    ///
    /// # Errors
    /// Where there is none: words for the client.
    pub(super) async fn target(&self, forward: &Forward<'_>) -> Result<Rc<Backend>, String> {
        let service = forward.service;
        match self.choose_service(service).await {
            Choice::Backend(backend) => Ok(backend),
            Choice::Unmapped(_) | Choice::Nowhere | Choice::Untold => Err(format!(
                "route {} leads to port {} of {}, which is not there",
                forward.found.route.name, service.port, service.name
            )),
        }
    }
}

/// Words for a request whose target rules and backends may read in two ways.
const ODD_TARGET: &str =
    "the target of the request has none of its forms: a path, or a URL without a fragment";

/// The words for a request whose rule has no backend.
pub(super) const UNRESOLVED: &str = "the rule of the route has no backend, or one that does not exist";

/// Serves one request of HTTP/1 to `parent` by its rules.
pub(super) async fn serve(
    outbound: &Rc<Outbound>,
    parent: &Rc<Backend>,
    rules: &Rules,
    near: &mut Leg,
    mut request: PendingRequest,
) -> After {
    if !request.view().has_plain_target() {
        return exchange::answer(parent, near, &request, Status::BadRequest, ODD_TARGET).await;
    }
    let forward = match Outbound::plan(rules, parent, request.view()) {
        Plan::Forward(forward) => forward,
        Plan::Answer(found, Answer { status, fields }) => {
            outbound.telemetry.routes.route(&found.route.name).answered(status);
            let text = |close| answer::ruled(status, &fields, close);
            return say(parent, near, &request, status, text).await;
        }
        Plan::NoRule => {
            let text = Outbound::without_rule(parent);
            return exchange::answer(parent, near, &request, Status::NoRule, &text).await;
        }
        Plan::Unresolved(found) => {
            outbound.telemetry.routes.route(&found.route.name).answered(Status::Unresolved.code());
            return exchange::answer(parent, near, &request, Status::Unresolved, UNRESOLVED).await;
        }
    };
    let backend = match outbound.target(&forward).await {
        Ok(backend) => backend,
        Err(text) => return exchange::answer(parent, near, &request, Status::Unresolved, &text).await,
    };
    for service in &forward.mirrors {
        let copied = request.changed(|head| forward.copied_http1(head));
        outbound.mirror(service, Beginning::Http1(request.head, copied), &request.copies);
    }
    if request.scanner.is_done() {
        request.copies.end();
    }
    if !forward.keeps_request() {
        let changed = request.changed(|head| forward.changed_http1(head));
        request.replace(changed);
    }
    let traffic = outbound.telemetry.routes.route(&forward.found.route.name);
    let terms = Terms::new(&forward, &backend, &traffic, request.began);
    exchange::serve(outbound, &backend, near, request, Some(&terms)).await
}
