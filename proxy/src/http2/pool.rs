//! Connections to endpoints, shared by the requests of one worker.

mod bundle;
mod connection;
mod demand;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use sealane_proto::identity::Principal;
use tokio::sync::Notify;

use super::{Failure, Unrest};
use crate::leg::Pipe;
use crate::memory::Memory;
use crate::route::Endpoint;
use crate::upstream::OpenFailure;

pub(crate) use bundle::Bundle;
pub(crate) use connection::Lease;

/// How long a connection is kept without a request.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    memory: Rc<Memory>,
    /// Those of the own workload's requests.
    own: RefCell<HashMap<Endpoint, Rc<Bundle>>>,
    /// Those to the own application, by caller: none can spoil what another one uses.
    callers: RefCell<HashMap<(Endpoint, Principal), Rc<Bundle>>>,
    filled: Rc<Notify>,
    unrest: Unrest,
}

/// Makes a way to an endpoint.
pub(crate) type Connector = Rc<dyn Fn() -> LocalBoxFuture<'static, Result<Pipe, OpenFailure>>>;

impl Pool {
    /// A pool without connections, which holds no more than this memory allows.
    pub(crate) fn new(memory: Rc<Memory>) -> Self {
        Self {
            memory,
            own: RefCell::default(),
            callers: RefCell::default(),
            filled: Rc::default(),
            unrest: Rc::default(),
        }
    }

    /// The connections of the own workload's requests to this endpoint.
    pub(crate) fn to(&self, endpoint: &Endpoint) -> Rc<Bundle> {
        if let Some(bundle) = self.own.borrow().get(endpoint) {
            return bundle.clone();
        }
        let bundle = Bundle::new(endpoint.clone(), self.memory.clone(), self.filled.clone());
        self.own.borrow_mut().insert(endpoint.clone(), bundle.clone());
        bundle
    }

    /// When one of the own workload's clients was last seen to give up too many requests.
    pub(crate) fn unrest(&self) -> &Unrest {
        &self.unrest
    }

    /// The connections of this caller's requests to the own application.
    pub(crate) fn of(&self, caller: &Principal, endpoint: Endpoint) -> Rc<Bundle> {
        let mut callers = self.callers.borrow_mut();
        let bundle = callers.entry((endpoint, caller.clone()));
        let new = |(endpoint, _): &(Endpoint, Principal)| {
            Bundle::new(endpoint.clone(), self.memory.clone(), self.filled.clone())
        };
        bundle.or_insert_with_key(new).clone()
    }

    /// Lets go of what is idle, old or over, as long as it is polled; requests in progress go on.
    pub(crate) async fn sweep(&self) {
        loop {
            self.filled.notified().await;
            while !(self.own.borrow().is_empty() && self.callers.borrow().is_empty()) {
                tokio::time::sleep(MAX_IDLE / 3).await;
                let is_needed = |bundle: &Rc<Bundle>| bundle.sweep() || Rc::strong_count(bundle) > 1;
                self.own.borrow_mut().retain(|_, bundle| is_needed(bundle));
                self.callers.borrow_mut().retain(|_, bundle| is_needed(bundle));
            }
        }
    }
}

/// What a request is told that waited for a connection when the sidecar ended.
fn ending() -> Failure {
    Failure::NotOpened(OpenFailure {
        text: "this sidecar is ending".to_owned(),
        reason: "not_ready",
        timed_out: false,
    })
}
