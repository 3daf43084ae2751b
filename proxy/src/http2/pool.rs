//! Connections to endpoints, shared by the requests of one worker.

mod bundle;
mod connection;
mod demand;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use sealane_proto::identity::Principal;
use tokio::sync::Notify;

use super::{Pipe, Unrest};
use crate::dispatch::{Failure, OpenFailure};
use crate::memory::{Memory, Usage};
use crate::route::Endpoint;

pub(crate) use bundle::Bundle;
pub(crate) use connection::Lease;

/// Time for which a connection is kept without a request.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    memory: Rc<Memory>,
    /// Connections for the own workload's requests.
    own: RefCell<HashMap<Endpoint, Rc<Bundle>>>,
    /// Usage of the sidecar by callers of the own application.
    callers: RefCell<HashMap<Principal, Weak<Usage>>>,
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
        let bundle = Bundle::new(endpoint.clone(), self.memory.clone(), Rc::default(), self.filled.clone());
        self.own.borrow_mut().insert(endpoint.clone(), bundle.clone());
        bundle
    }

    /// Returns the time at which one of the own workload's clients was last seen to give up too many requests.
    pub(crate) fn unrest(&self) -> &Unrest {
        &self.unrest
    }

    /// Connections of one caller's to the own application, shared with nobody: none can spoil what another one uses.
    pub(crate) fn of(&self, caller: &Principal, endpoint: Endpoint) -> Rc<Bundle> {
        let mut callers = self.callers.borrow_mut();
        let known = callers.get(caller).and_then(Weak::upgrade);
        let usage = known.unwrap_or_else(|| {
            callers.retain(|_, usage| usage.strong_count() > 0);
            let usage = Rc::default();
            callers.insert(caller.clone(), Rc::downgrade(&usage));
            usage
        });
        Bundle::new(endpoint, self.memory.clone(), usage, self.filled.clone())
    }

    /// Lets go of what is idle, old or over, as long as it is polled; requests in progress go on.
    pub(crate) async fn sweep(&self) {
        loop {
            self.filled.notified().await;
            while !self.own.borrow().is_empty() {
                tokio::time::sleep(MAX_IDLE / 3).await;
                self.own.borrow_mut().retain(|_, bundle| bundle.sweep() || Rc::strong_count(bundle) > 1);
            }
        }
    }
}

/// Builds the failure of a request that waited for a connection when the sidecar ended.
fn ending() -> Failure {
    Failure::NotOpened(OpenFailure {
        text: "this sidecar is ending".to_owned(),
        reason: "not_ready",
        timed_out: false,
    })
}
