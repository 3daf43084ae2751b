//! An HTTP/2 connection that came by a tunnel: its requests go to the application, on connections that it
//! shares with no other.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use h2::Reason;
use sealane_base::drain::Draining;

use super::Inbound;
use super::door::Admitted;
use crate::dial::FirstWord;
use crate::dispatch::{Failure, OpenFailure};
use crate::http::answer::Status;
use crate::http2::{self, Account, Bundle, Connector, Peer, Pipe, Request, Window, answer, exchange};
use crate::leg::{self, Leg};
use crate::protocol::Protocol;
use crate::request::RequestView;
use crate::route::{Endpoint, Reach};
use crate::telemetry::Traffic;

/// Number of times that a request is offered to the application that certainly has not seen it: it may close or bound
/// connections as it likes, and says so only when a request is under way.
const OFFERS: usize = 8;

/// A connection of one caller.
struct Served {
    inbound: Rc<Inbound>,
    call: Admitted,
    bundle: Rc<Bundle>,
    traffic: Arc<Traffic>,
}

/// Serves the connection of this caller to its end.
pub(super) async fn serve(
    inbound: &Rc<Inbound>,
    near: Leg,
    call: Admitted,
    traffic: Arc<Traffic>,
    draining: Draining,
) {
    let Some(caller) = call.call().caller.principal else { return };
    let _open = traffic.connected(Protocol::Http2);
    let pipe = Pipe::new(near, Some(traffic.bytes()));
    let application = call.application();
    let bundle = inbound.http2.of(caller, Endpoint { address: application, reach: Reach::Plain });
    let window = Window::new(&inbound.memory, bundle.usage());
    let served = Rc::new(Served { inbound: inbound.clone(), call, bundle, traffic });
    let serve = |request| {
        let served = served.clone();
        async move { served.serve_request(request).await }
    };
    if let Err(error) = http2::serve_all(pipe, Peer::Sidecar { calls: true }, &window, &draining, serve).await
    {
        tracing::debug!(%application, %error, "connection of HTTP/2");
    }
}

impl Served {
    async fn serve_request(&self, mut request: Request) {
        if request.is_too_much {
            self.inbound.telemetry.memory.refusals.inc();
            return request.respond.send_reset(Reason::REFUSED_STREAM);
        }
        if let Err(text) = self.call.pass(&self.inbound, Some(RequestView::Http2(&request.head))) {
            let Request { head, respond, .. } = &mut request;
            return answer::local(respond, head.headers(), Status::Forbidden, &text).await;
        }
        for offer in 1.. {
            let leased = tokio::select! {
                biased;
                leased = self.bundle.lease(|| self.connector()) => leased,
                () = std::future::poll_fn(|cx| request.poll_abandoned(cx)) => return,
            };
            let failure = match leased {
                Err(failure) => failure,
                Ok(lease) => {
                    let account = Account::new(&self.traffic, None, request.began);
                    match exchange::attempt(&mut request, lease, &account).await {
                        Ok(()) => return,
                        Err(failure) => failure,
                    }
                }
            };
            let unseen = matches!(failure, Failure::Gone | Failure::Refused);
            if !unseen || offer >= OFFERS || !request.is_repeatable() {
                let application = self.call.application();
                tracing::debug!(%application, %failure, "a request is not answered");
                return request.respond.send_reset(http2::to_reset(&failure));
            }
        }
    }

    /// Makes connections to the application; it outlives the requests that it is made for, so it holds none of them.
    fn connector(&self) -> Connector {
        let (inbound, call) = (self.inbound.clone(), self.call.clone());
        Rc::new(move || {
            let (inbound, call) = (inbound.clone(), call.clone());
            async move { connect(&inbound, &call).await }.boxed_local()
        })
    }
}

async fn connect(inbound: &Inbound, call: &Admitted) -> Result<Pipe, OpenFailure> {
    let connected = call.connect(inbound, FirstWord::Ours).await;
    let stream = connected.map_err(|error| OpenFailure::plain(call.application(), &error))?;
    Ok(Pipe::new(leg::tcp(stream), None))
}
