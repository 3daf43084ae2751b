//! Connections to endpoints, shared by the requests of one worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use h2::client::{ResponseFuture, SendRequest};
use sealane_base::task::{self, Task};
use tokio::sync::{Notify, oneshot};

use super::{CONNECTIONS_PER_ENDPOINT, Failure, STREAMS_PER_CONNECTION, SendBody, client};
use crate::leg::{Pipe, Story};
use crate::route::Endpoint;
use crate::upstream::OpenFailure;

/// How long a connection is kept without a request.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// How long a connection takes new requests, so that the tunnel beneath can be renewed with its certificates.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// How often a connection may turn out to be over before it was used.
const ATTEMPTS: usize = 3;

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    endpoints: RefCell<HashMap<Endpoint, Known>>,
    filled: Notify,
}

type Connecting = Shared<LocalBoxFuture<'static, Result<(), OpenFailure>>>;

#[derive(Debug, Default)]
struct Known {
    connections: Vec<Rc<Connection>>,
    connecting: Option<(Connecting, Rc<Task>)>,
}

#[derive(Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    story: Rc<Story>,
    /// Requests in progress.
    open: Cell<usize>,
    used: Cell<Instant>,
    since: Instant,
}

/// A place for one request on a connection.
#[derive(Debug)]
pub(crate) struct Lease {
    send: SendRequest<Bytes>,
    connection: Rc<Connection>,
}

impl Pool {
    /// A place on a connection to the endpoint; `connect` makes one when there is none with room, at most once at a time.
    ///
    /// # Errors
    /// When there is no connection.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        connect: impl Fn() -> LocalBoxFuture<'static, Result<Pipe, OpenFailure>>,
    ) -> Result<Lease, OpenFailure> {
        for _ in 0..ATTEMPTS {
            if let Some(lease) = self.room(endpoint) {
                return Ok(lease);
            }
            let (connecting, _task) = self.connecting(endpoint, &connect);
            connecting.await?;
        }
        self.room(endpoint).ok_or_else(|| OpenFailure {
            text: format!("{} closes every connection as it comes up", endpoint.address),
            reason: "connection_lost",
            timed_out: false,
        })
    }

    /// A place on the first connection that has room; on the emptiest when there may be no further one.
    fn room(&self, endpoint: &Endpoint) -> Option<Lease> {
        let mut endpoints = self.endpoints.borrow_mut();
        let known = endpoints.get_mut(endpoint)?;
        known.connections.retain(|connection| connection.is_usable());
        let free = known.connections.iter().find(|connection| connection.has_room());
        let full = known.connections.len() >= CONNECTIONS_PER_ENDPOINT;
        let connection = match free {
            None if full => known.connections.iter().min_by_key(|connection| connection.open.get())?,
            free => free?,
        };
        connection.open.set(connection.open.get() + 1);
        Some(Lease { send: connection.send.clone(), connection: connection.clone() })
    }

    fn connecting(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        connect: impl Fn() -> LocalBoxFuture<'static, Result<Pipe, OpenFailure>>,
    ) -> (Connecting, Rc<Task>) {
        let mut endpoints = self.endpoints.borrow_mut();
        let known = endpoints.entry(endpoint.clone()).or_default();
        if let Some(connecting) = &known.connecting {
            return connecting.clone();
        }
        let (done, outcome) = oneshot::channel();
        let (pool, endpoint, connect) = (self.clone(), endpoint.clone(), connect());
        let task = task::spawn_local(async move {
            let result = match connect.await {
                Ok(pipe) => Box::pin(establish(pipe, &endpoint)).await,
                Err(failure) => Err(failure),
            };
            // An error means that nobody waits any more.
            let _ = done.send(pool.settle(&endpoint, result));
        });
        let ended = Err(OpenFailure {
            text: "this sidecar is ending".to_owned(),
            reason: "not_ready",
            timed_out: false,
        });
        let outcome = outcome.map(|sent| sent.unwrap_or(ended)).boxed_local().shared();
        let connecting = (outcome, Rc::new(task));
        known.connecting = Some(connecting.clone());
        connecting
    }

    /// Puts a new connection where requests find it.
    fn settle(
        &self,
        endpoint: &Endpoint,
        result: Result<Rc<Connection>, OpenFailure>,
    ) -> Result<(), OpenFailure> {
        let mut endpoints = self.endpoints.borrow_mut();
        let known = endpoints.entry(endpoint.clone()).or_default();
        known.connecting = None;
        match result {
            Ok(connection) => {
                known.connections.push(connection);
                self.filled.notify_one();
                Ok(())
            }
            Err(failure) => {
                if known.connections.is_empty() {
                    endpoints.remove(endpoint);
                }
                Err(failure)
            }
        }
    }

    /// Lets go of what is idle, old or over, as long as it is polled; requests in progress go on.
    pub(crate) async fn sweep(&self) {
        loop {
            self.filled.notified().await;
            while !self.endpoints.borrow().is_empty() {
                tokio::time::sleep(MAX_IDLE / 3).await;
                self.endpoints.borrow_mut().retain(|_, known| {
                    known.connections.retain(|connection| connection.is_usable() && !connection.is_idle());
                    known.connecting.is_some() || !known.connections.is_empty()
                });
            }
        }
    }
}

impl Connection {
    /// Whether it takes requests at all.
    fn is_usable(&self) -> bool {
        let ready = self.send.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_))) && self.since.elapsed() < MAX_AGE
    }

    fn has_room(&self) -> bool {
        self.open.get() < self.send.current_max_send_streams().min(STREAMS_PER_CONNECTION)
    }

    fn is_idle(&self) -> bool {
        self.open.get() == 0 && self.used.get().elapsed() >= MAX_IDLE
    }
}

impl Lease {
    /// What is known of the connection.
    pub(super) fn story(&self) -> Rc<Story> {
        self.connection.story.clone()
    }

    /// Begins a request.
    ///
    /// # Errors
    /// When the connection takes none; nothing was sent.
    pub(super) async fn open(
        &mut self,
        head: http::Request<()>,
        ended: bool,
    ) -> Result<(ResponseFuture, SendBody), h2::Error> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        self.send.send_request(head, ended)
    }

    /// What it means that no request could begin.
    pub(super) fn refused(&self, error: &h2::Error) -> Failure {
        if self.connection.story.speaks_http1.get() {
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
    }
}

/// Speaks HTTP/2 on a new connection; its task ends with it, or when nobody needs it any more.
async fn establish(pipe: Pipe, endpoint: &Endpoint) -> Result<Rc<Connection>, OpenFailure> {
    let (story, address) = (pipe.story(), endpoint.address);
    let (send, driver) = client().handshake(pipe).await.map_err(|error| OpenFailure {
        text: format!("no HTTP/2 with {address}: {error}"),
        reason: "connection_lost",
        timed_out: false,
    })?;
    task::spawn_local(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%address, %error, "connection of HTTP/2");
        }
    })
    .detach();
    let now = Instant::now();
    Ok(Rc::new(Connection { send, story, open: Cell::new(0), used: Cell::new(now), since: now }))
}
