//! Freeing of flows beside the changes that it follows: a walk through many flows delays nobody's rules and names.
//!
//! A workload has one walk under way at most, which begins anew with the newest table where that changed meanwhile; a host has one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sealane_base::task;
use sealane_proto::types::NetworkName;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::sync::{Semaphore, watch};

use super::kernel::Namespace;
use super::metrics::ServiceMetrics;
use super::table::ServiceTable;
use super::walks::Walks;
use crate::netlink::NetlinkError;

/// Walks of this host that are under way.
static AT_ONCE: Semaphore = Semaphore::const_new(1);

/// Walks for the sake of connections. A walk that may not begin is left out: those connections find out by themselves.
static WALKS: Mutex<Walks> = Mutex::new(Walks::new());

/// The walks of one workload.
#[derive(Clone, Debug)]
pub(super) struct Freeing(Arc<watch::Sender<Work>>);

#[derive(Debug, Default)]
struct Work {
    /// The walk that is to begin next.
    next: Option<Walk>,
    /// True while somebody looks after walks.
    running: bool,
}

/// Walk through the flows of a namespace.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) hopper: Arc<Hopper>,
    pub(super) netns: NetNs,
    pub(super) network: NetworkName,
    /// The table by which flows go on.
    pub(super) table: Arc<ServiceTable>,
    /// True if flows of datagrams may have to leave, and not connections alone.
    pub(super) datagrams: bool,
    pub(super) metrics: Option<ServiceMetrics>,
}

impl Default for Freeing {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl Freeing {
    /// Walks as soon as there is room, in place of a walk that has not begun yet.
    pub(super) fn begin(&self, mut walk: Walk) {
        let idle = self.0.send_if_modified(|work| {
            walk.datagrams |= work.next.as_ref().is_some_and(|waiting| waiting.datagrams);
            work.next = Some(walk);
            !std::mem::replace(&mut work.running, true)
        });
        if idle {
            // It ends with the last walk.
            task::spawn("free-flows", self.clone().run()).detach();
        }
    }

    /// Forgets the walk that has not begun yet.
    pub(super) fn forget(&self) {
        self.0.send_if_modified(|work| {
            work.next = None;
            false
        });
    }

    /// Waits until no walk is under way or to begin.
    pub(super) async fn ended(&self) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(|work| !work.running).await;
    }

    fn next(&self) -> Option<Walk> {
        let mut next = None;
        self.0.send_if_modified(|work| {
            next = work.next.take();
            work.running = next.is_some();
            !work.running
        });
        next
    }

    async fn run(self) {
        loop {
            // What is wanted by then counts.
            let turn = AT_ONCE.acquire().await;
            let Some(walk) = self.next() else { return };
            let network = walk.network.clone();
            let walked = task::blocking(move || walk.walk()).await;
            drop(turn);
            match walked {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, %network, "flows stay with instances that are gone; tried again within a minute");
                }
                Err(error) => tracing::error!(%error, %network, "flows stay with instances that are gone"),
            }
        }
    }
}

impl Walk {
    fn walk(&self) -> Result<(), NetlinkError> {
        let walks = || WALKS.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        if !self.datagrams && !walks().may_begin(began) {
            return Ok(());
        }
        let Self { hopper, netns, network, table, .. } = self;
        let freed = Namespace { hopper, netns, network }.free_flows(table)?;
        walks().handle_walk(began.elapsed(), Instant::now());
        if let Some(metrics) = &self.metrics {
            metrics.count_freed(freed);
        }
        Ok(())
    }
}
