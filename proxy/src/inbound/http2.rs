//! An HTTP/2 connection that came by a tunnel: its requests go to the application, on connections that it
//! shares with no other.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use h2::Reason;
use sealane_base::drain::Draining;
use sealane_proto::identity::Principal;

use crate::dial::FirstWord;
use crate::http2::{self, Account, Bundle, Connector, Failure, Peer, Request, Window, exchange};
use crate::leg::{self, Input, Output, Pipe};
use crate::route::{Endpoint, Reach};
use crate::telemetry::{Carried, Traffic};
use crate::upstream::OpenFailure;
use crate::worker::Worker;

/// Number of times that a request is offered to the application that certainly has not seen it: it may close or bound
/// connections as it likes, and says so only when a request is under way.
const OFFERS: usize = 8;

/// Serves the connection of this caller to its end.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    near: (Input, Output),
    application: SocketAddr,
    caller: &Principal,
    traffic: &Arc<Traffic>,
    draining: Draining,
) {
    let _open = traffic.connected(Carried::Http2);
    let pipe = Pipe::new(near, Some(traffic.bytes()));
    let bundle = worker.http2.of(caller, Endpoint { address: application, reach: Reach::Plain });
    let window = Window::new(&worker.memory, bundle.usage());
    let serve = |request| {
        let (worker, bundle, traffic) = (worker.clone(), bundle.clone(), traffic.clone());
        async move { serve_request(&worker, &bundle, application, &traffic, request).await }
    };
    if let Err(error) = http2::serve_all(pipe, Peer::Sidecar { calls: true }, &window, &draining, serve).await
    {
        tracing::debug!(%application, %error, "connection of HTTP/2");
    }
}

async fn serve_request(
    worker: &Rc<Worker>,
    bundle: &Rc<Bundle>,
    application: SocketAddr,
    traffic: &Traffic,
    mut request: Request,
) {
    if request.is_too_much {
        worker.telemetry.memory.refusals.inc();
        return request.respond.send_reset(Reason::REFUSED_STREAM);
    }
    for offer in 1.. {
        let leased = tokio::select! {
            biased;
            leased = bundle.lease(|| connector(worker, application)) => leased,
            () = std::future::poll_fn(|cx| request.poll_abandoned(cx)) => return,
        };
        let failure = match leased {
            Err(failure) => failure,
            Ok(lease) => {
                let account = Account::new(traffic, None, request.began);
                match exchange::attempt(&mut request, lease, &account).await {
                    Ok(()) => return,
                    Err(failure) => failure,
                }
            }
        };
        let unseen = matches!(failure, Failure::Gone | Failure::Refused);
        if !unseen || offer >= OFFERS || !request.is_repeatable() {
            tracing::debug!(%application, %failure, "a request is not answered");
            return request.respond.send_reset(failure.to_reset());
        }
    }
}

fn connector(worker: &Rc<Worker>, application: SocketAddr) -> Connector {
    let worker = worker.clone();
    Rc::new(move || connect(worker.clone(), application).boxed_local())
}

async fn connect(worker: Rc<Worker>, application: SocketAddr) -> Result<Pipe, OpenFailure> {
    match super::connect(&worker, application, FirstWord::Ours).await {
        Ok(stream) => Ok(Pipe::new(leg::tcp(stream), None)),
        Err(error) => Err(OpenFailure {
            text: format!("no connection to {application}: {error}"),
            reason: "connect",
            timed_out: error.kind() == std::io::ErrorKind::TimedOut,
        }),
    }
}
