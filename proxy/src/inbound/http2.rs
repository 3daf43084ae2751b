//! An HTTP/2 connection that came by a tunnel: its requests go to the application, on connections that all callers share.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use sealane_base::drain::Draining;

use crate::dial::FirstWord;
use crate::http2::{self, Account, Failure, Request, exchange};
use crate::leg::{self, Input, Output, Pipe};
use crate::route::{Endpoint, Reach};
use crate::telemetry::{Carried, Traffic};
use crate::upstream::OpenFailure;
use crate::worker::Worker;

/// How often a request is offered to the application that certainly has not seen it: it may close or bound connections
/// as it likes, and says so only when a request is under way.
const OFFERS: usize = 3;

/// Serves the connection to its end.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    near: (Input, Output),
    application: SocketAddr,
    traffic: &Arc<Traffic>,
    draining: Draining,
) {
    let _open = traffic.connected(Carried::Http2);
    let pipe = Pipe::new(near, Some(traffic.bytes()));
    let connection = match http2::server().handshake(pipe).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%application, %error, "no HTTP/2 with the caller's sidecar"),
    };
    let serve = |request| {
        let (worker, traffic) = (worker.clone(), traffic.clone());
        async move { serve_request(&worker, application, &traffic, request).await }
    };
    if let Err(error) = http2::accept_all(connection, &draining, serve).await {
        tracing::debug!(%application, %error, "connection of HTTP/2");
    }
}

async fn serve_request(
    worker: &Rc<Worker>,
    application: SocketAddr,
    traffic: &Traffic,
    mut request: Request,
) {
    let endpoint = Endpoint { address: application, reach: Reach::Plain };
    for offer in 1.. {
        let failure = match worker
            .http2
            .lease(&endpoint, || connect(worker.clone(), application).boxed_local())
            .await
        {
            Err(failure) => Failure::NotOpened(failure),
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
