//! Connection to an endpoint, and a place on it.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::client::{ResponseFuture, SendRequest};
use sealane_base::task;

use super::{Bundle, MAX_IDLE};
use crate::dispatch::{Failure, OpenFailure};
use crate::http2::{Diagnosis, Outgoing, Peer, Pipe, STREAMS_PER_CONNECTION, Screen, SendBody, Turn, client};
use crate::route::Reach;

/// Time for which a connection takes new requests, so that the tunnel beneath can be renewed with its certificates.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Number of requests that an application gets before it has said how many it takes, and the time for which that is
/// waited for.
const FIRST: usize = 1;
const SILENCE: Duration = Duration::from_millis(100);

/// A connection that is up.
#[derive(Debug)]
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    diagnosis: Rc<Diagnosis>,
    bundle: Weak<Bundle>,
    /// Requests in progress.
    open: Rc<Cell<usize>>,
    outgoing: Rc<Outgoing>,
    used: Cell<Instant>,
    since: Instant,
    /// Until when its peer's word is waited for, if at all.
    awaited: Option<Instant>,
}

/// A place for one request on a connection.
#[derive(Debug)]
pub(crate) struct Lease {
    send: SendRequest<Bytes>,
    connection: Rc<Connection>,
}

impl Connection {
    /// Speaks HTTP/2 on a new way to the endpoint; the task that moves it ends with it, or when nobody needs it any more.
    pub(super) async fn establish(bundle: &Rc<Bundle>, pipe: Pipe) -> Result<Rc<Self>, OpenFailure> {
        let diagnosis = pipe.diagnosis();
        let now = Instant::now();
        let (peer, awaited) = match bundle.endpoint().reach {
            // It takes more than one connection ever carries.
            Reach::Tunnel(_) => (Peer::Sidecar { calls: false }, None),
            Reach::Plain => (Peer::Application, Some(now + SILENCE)),
        };
        let screen = Screen::new(pipe, peer);
        let turn = screen.turn();
        let handshake = client().initial_max_send_streams(STREAMS_PER_CONNECTION).handshake(screen).await;
        let (send, driver) = handshake.map_err(|error| OpenFailure {
            text: format!("no HTTP/2 with {}: {error}", bundle.endpoint().address),
            reason: "connection_lost",
            timed_out: false,
        })?;
        let (window, bundle) = (bundle.window(), Rc::downgrade(bundle));
        let (open, used) = (Rc::new(Cell::new(0)), Cell::new(now));
        let requests = open.clone();
        let connection = Rc::new(Self {
            send,
            diagnosis: diagnosis.clone(),
            bundle: bundle.clone(),
            open,
            outgoing: Outgoing::new(window.memory()),
            used,
            since: now,
            awaited,
        });
        task::spawn_local(async move {
            let mut driver = driver;
            let mut silence = pin!(tokio::time::sleep(SILENCE).fuse());
            let ended = poll_fn(|cx| {
                if let Some(size) = window.fit(requests.get()) {
                    driver.set_target_window_size(size);
                }
                let ended = Pin::new(&mut driver).poll(cx);
                // Whoever waits for its word waits no longer.
                let _ = awaited.map(|_| silence.as_mut().poll(cx));
                if ended.is_pending()
                    && let Some(bundle) = bundle.upgrade()
                {
                    // Its peer may take more than before.
                    bundle.serve_waiting();
                }
                ended
            });
            let ended = Turn::of(turn, ended).await;
            let Some(bundle) = bundle.upgrade() else { return };
            if let Err(error) = ended {
                tracing::debug!(address = %bundle.endpoint().address, %error, "connection of HTTP/2");
            }
            bundle.handle_end(&diagnosis);
        })
        .detach();
        Ok(connection)
    }

    /// A place for one more request.
    pub(super) fn lease(self: &Rc<Self>) -> Lease {
        self.open.set(self.open.get() + 1);
        Lease { send: self.send.clone(), connection: self.clone() }
    }

    /// Returns true if it takes requests at all.
    pub(super) fn is_usable(&self) -> bool {
        let ready = self.send.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_))) && self.since.elapsed() < MAX_AGE
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.get() == 0 && self.used.get().elapsed() >= MAX_IDLE
    }

    /// Requests in progress.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// Returns the number that its peer takes at once, as far as it has said.
    pub(super) fn limit(&self) -> usize {
        let silent = |until: Instant| !self.was_heard() && Instant::now() < until;
        if self.awaited.is_some_and(silent) { FIRST } else { self.send.current_max_send_streams() }
    }

    /// Returns true if its peer has said anything.
    pub(super) fn was_heard(&self) -> bool {
        self.diagnosis.heard.get()
    }

    /// Returns true if this is the connection with this diagnosis.
    pub(super) fn is_of(&self, diagnosis: &Rc<Diagnosis>) -> bool {
        Rc::ptr_eq(&self.diagnosis, diagnosis)
    }
}

impl Lease {
    /// Returns the diagnosis of the connection.
    pub(in crate::http2) fn diagnosis(&self) -> Rc<Diagnosis> {
        self.connection.diagnosis.clone()
    }

    /// Returns what waits on the connection.
    pub(in crate::http2) fn outgoing(&self) -> &Outgoing {
        &self.connection.outgoing
    }

    /// Begins a request.
    ///
    /// # Errors
    /// When the connection takes none; nothing was sent.
    pub(in crate::http2) async fn open(
        &mut self,
        head: http::Request<()>,
        ended: bool,
    ) -> Result<(ResponseFuture, SendBody), h2::Error> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        self.send.send_request(head, ended)
    }

    /// Judges that no request could begin.
    pub(in crate::http2) fn refused(&self, error: &h2::Error) -> Failure {
        if self.connection.diagnosis.speaks_http1.get() {
            Failure::Http1
        } else if error.is_io() || error.is_go_away() {
            Failure::Gone
        } else {
            tracing::debug!(%error, "a request that cannot be sent");
            Failure::Reset(h2::Reason::PROTOCOL_ERROR)
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.open.set(self.connection.open.get().saturating_sub(1));
        self.connection.used.set(Instant::now());
        if let Some(bundle) = self.connection.bundle.upgrade() {
            bundle.serve_waiting();
        }
    }
}
