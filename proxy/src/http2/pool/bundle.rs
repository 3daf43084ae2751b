//! The connections to one endpoint, and the requests that wait for a place on one.
//!
//! Requests wait in the order in which they came. A place is taken on the first connection that has fewer than
//! [`STREAMS_PER_CONNECTION`]; as many connections are begun as the waiting need. Where there may be no further one, the
//! emptiest takes what its peer allows. A waiting request is refused only for what a connection has shown: that there is
//! none, or that it ends before its peer has said anything.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sealane_base::task;
use tokio::sync::{Notify, oneshot};

use super::connection::{Connection, Lease};
use super::demand::Demand;
use super::{Connector, ending};
use crate::dispatch::{Failure, OpenFailure};
use crate::http2::{CONNECTIONS_PER_ENDPOINT, Diagnosis, STREAMS_PER_CONNECTION, Window};
use crate::memory::{Memory, Usage};
use crate::route::Endpoint;

/// Number of connections in a row that may end before their peer has said anything, until those who wait are told.
const STILLBORN: usize = 3;
/// Time for which an endpoint that has refused a further connection is asked for none, as long as it serves others.
const PAUSE: Duration = Duration::from_secs(1);
/// Number of waiting requests from which on those are looked for that have gone.
const PRUNE_AT: usize = 256;

/// The connections to one endpoint that the same requests share.
#[derive(Debug)]
pub(crate) struct Bundle {
    endpoint: Endpoint,
    memory: Rc<Memory>,
    usage: Rc<Usage>,
    state: RefCell<State>,
    /// True if any request waits.
    crowded: Cell<bool>,
    /// True while places are being given out.
    serving: Cell<bool>,
    filled: Rc<Notify>,
}

#[derive(Debug)]
struct State {
    connections: Vec<Rc<Connection>>,
    connecting: usize,
    waiting: VecDeque<Waiting>,
    /// At how many that wait those are looked for that have gone.
    prune_at: usize,
    /// Number of requests that the last connection was allowed.
    limit: usize,
    /// Number of connections in a row that have ended before their peer said anything.
    stillborn: usize,
    /// Time at which a further connection was refused.
    refused: Option<Instant>,
}

/// A request that waits for a place.
struct Waiting {
    told: oneshot::Sender<Result<Lease, Failure>>,
    connect: Connector,
}

impl Bundle {
    pub(super) fn new(
        endpoint: Endpoint,
        memory: Rc<Memory>,
        usage: Rc<Usage>,
        filled: Rc<Notify>,
    ) -> Rc<Self> {
        let state = State {
            connections: Vec::new(),
            connecting: 0,
            waiting: VecDeque::new(),
            prune_at: PRUNE_AT,
            limit: STREAMS_PER_CONNECTION,
            stillborn: 0,
            refused: None,
        };
        let (crowded, serving) = (Cell::new(false), Cell::new(false));
        Rc::new(Self { endpoint, memory, usage, state: RefCell::new(state), crowded, serving, filled })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns its caller's usage of the sidecar.
    pub(crate) fn usage(&self) -> &Rc<Usage> {
        &self.usage
    }

    /// The window of a new connection.
    pub(super) fn window(&self) -> Window {
        Window::new(&self.memory, &self.usage)
    }

    /// A place on a connection; `connect` makes a way to the endpoint where there is none with room. Dropping the future
    /// gives the place in the queue up.
    ///
    /// # Errors
    /// When there is no connection.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        connect: impl FnOnce() -> Connector,
    ) -> Result<Lease, Failure> {
        if !self.crowded.get()
            && let Some(lease) = self.state.borrow_mut().place()
        {
            return Ok(lease);
        }
        let (told, outcome) = oneshot::channel();
        self.state.borrow_mut().wait(Waiting { told, connect: connect() });
        self.crowded.set(true);
        self.serve_waiting();
        outcome.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Gives places to those who wait, and begins the connections that they need.
    pub(super) fn serve_waiting(self: &Rc<Self>) {
        // A place that comes back meanwhile, since its request has gone, is seen by who is at it.
        if !self.crowded.get() || self.serving.replace(true) {
            return;
        }
        loop {
            let mut state = self.state.borrow_mut();
            while state.waiting.pop_front_if(|waiting| waiting.told.is_closed()).is_some() {}
            let next = if state.waiting.is_empty() { None } else { state.place() };
            let Some(lease) = next else { break };
            let waiting = state.waiting.pop_front();
            drop(state);
            if let Some(waiting) = waiting {
                // A request that has gone gives its place back.
                drop(waiting.told.send(Ok(lease)));
            }
        }
        let mut state = self.state.borrow_mut();
        self.crowded.set(!state.waiting.is_empty());
        let begun: Vec<Connector> = (0..state.missing()).filter_map(|_| state.connector()).collect();
        state.connecting += begun.len();
        drop(state);
        self.serving.set(false);
        for connect in begun {
            self.begin(&connect);
        }
    }

    fn begin(self: &Rc<Self>, connect: &Connector) {
        let (bundle, connecting) = (self.clone(), connect());
        task::spawn_local(async move {
            let result = match connecting.await {
                Ok(pipe) => Connection::establish(&bundle, pipe).await,
                Err(failure) => Err(failure),
            };
            bundle.settle(result);
        })
        .detach();
    }

    /// Puts a new connection where requests find it.
    fn settle(self: &Rc<Self>, result: Result<Rc<Connection>, OpenFailure>) {
        let mut state = self.state.borrow_mut();
        state.connecting -= 1;
        let failed = match result {
            Ok(connection) => {
                state.connections.push(connection);
                state.refused = None;
                self.filled.notify_one();
                None
            }
            Err(failure) => {
                state.refused = Some(Instant::now());
                state.connections.retain(|connection| connection.is_usable());
                let alone = state.connections.is_empty() && state.connecting == 0;
                alone.then_some(Failure::NotOpened(failure))
            }
        };
        drop(state);
        match failed {
            Some(failure) => self.fail_waiting(&failure),
            None => self.serve_waiting(),
        }
    }

    /// A connection has ended.
    pub(super) fn handle_end(self: &Rc<Self>, ended: &Rc<Diagnosis>) {
        let mut state = self.state.borrow_mut();
        state.connections.retain(|connection| !connection.is_of(ended));
        let failure = if ended.speaks_http1.get() {
            Some(Failure::Http1)
        } else if ended.heard.get() {
            None
        } else {
            state.stillborn += 1;
            let all = state.stillborn >= STILLBORN && state.connections.is_empty() && state.connecting == 0;
            all.then(|| self.stillborn())
        };
        drop(state);
        match failure {
            Some(failure) => self.fail_waiting(&failure),
            None => self.serve_waiting(),
        }
    }

    /// The failure of those who wait where connections come up and end before the endpoint has said anything on them.
    fn stillborn(&self) -> Failure {
        let text = format!("{} closes every connection as it comes up", self.endpoint.address);
        Failure::Unprocessed { reason: "connection_lost", text: text.into() }
    }

    /// Tells everybody who waits that there is no connection for them.
    fn fail_waiting(&self, failure: &Failure) {
        let mut state = self.state.borrow_mut();
        (state.stillborn, state.refused) = (0, None);
        let waiting = std::mem::take(&mut state.waiting);
        self.crowded.set(false);
        drop(state);
        for waiting in waiting {
            // An error means that the request has gone.
            let _ = waiting.told.send(Err(failure.clone()));
        }
    }

    /// Lets go of what is idle, old or over; whether anything is left.
    pub(super) fn sweep(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.connections.retain(|connection| connection.is_usable() && !connection.is_idle());
        state.connecting > 0 || !state.connections.is_empty()
    }
}

impl State {
    /// Queues a request, and forgets those that have gone, now and then.
    fn wait(&mut self, waiting: Waiting) {
        if self.waiting.len() >= self.prune_at {
            self.waiting.retain(|waiting| !waiting.told.is_closed());
            self.prune_at = (2 * self.waiting.len()).max(PRUNE_AT);
        }
        self.waiting.push_back(waiting);
    }

    /// A place for one request.
    fn place(&mut self) -> Option<Lease> {
        self.connections.retain(|connection| connection.is_usable());
        let soft = |one: &Connection| one.limit().min(STREAMS_PER_CONNECTION);
        if let Some(free) = self.connections.iter().find(|one| one.open() < soft(one)) {
            if free.was_heard() {
                (self.limit, self.stillborn) = (free.limit(), 0);
            }
            return Some(free.lease());
        }
        if self.connections.len() < CONNECTIONS_PER_ENDPOINT && !self.is_refusing() {
            return None;
        }
        let emptiest = self.connections.iter().min_by_key(|one| one.open())?;
        (emptiest.open() < emptiest.limit()).then(|| emptiest.lease())
    }

    /// Returns the number of connections to begin.
    fn missing(&self) -> usize {
        if self.is_refusing() {
            return 0;
        }
        let unheard = self.connections.iter().filter(|one| !one.was_heard());
        let per_connection = self.limit.min(STREAMS_PER_CONNECTION);
        let demand = Demand {
            waiting: self.waiting.len(),
            up: self.connections.len(),
            connecting: self.connecting,
            expected: unheard.map(|one| per_connection.saturating_sub(one.open())).sum(),
            per_connection,
        };
        demand.missing()
    }

    /// Returns true if the endpoint serves what it has, and has just refused more.
    fn is_refusing(&self) -> bool {
        !self.connections.is_empty() && self.refused.is_some_and(|at| at.elapsed() < PAUSE)
    }

    fn connector(&self) -> Option<Connector> {
        self.waiting.front().map(|waiting| waiting.connect.clone())
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Waiting")
    }
}
