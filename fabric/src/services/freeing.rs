//! Freeing of flows beside the changes that it follows: a walk through many flows delays nobody's rules and names.
//!
//! A workload has one walk under way at most, which ends by the newest table; a host has one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sealane_base::mutex::lock;
use sealane_base::task;
use sealane_proto::types::NetworkName;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::kernel::Namespace;
use super::metrics::ServiceMetrics;
use super::table::ServiceTable;
use super::walks::Walks;
use crate::netlink::{Flow, NetlinkError};

/// Walks of this host that are under way.
static AT_ONCE: Semaphore = Semaphore::const_new(1);

/// Walks for the sake of connections. One that may not begin waits.
static WALKS: Mutex<Walks> = Mutex::new(Walks::new());

/// Time for an instance to answer the beginning of a connection that a walk has met: most are under way at that moment. It is over before
/// the first repetition of a SYN, one second after it (RFC 6298, section 2).
const ANSWER: Duration = Duration::from_millis(250);

/// The walks of one workload.
#[derive(Clone, Debug)]
pub(super) struct Freeing(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// The table by which flows go on, also while the kernel gets its rules.
    newest: Mutex<Arc<ServiceTable>>,
    work: watch::Sender<Work>,
}

#[derive(Debug, Default)]
struct Work {
    /// The walk that is to begin next.
    next: Option<Walk>,
    /// True while somebody looks after walks.
    running: bool,
    /// Walks that were asked for so far.
    asked: u64,
    /// The last of them that has ended, with all before.
    ended: u64,
}

/// A walk through the flows of a namespace.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) hopper: Arc<Hopper>,
    pub(super) netns: NetNs,
    pub(super) network: NetworkName,
    /// True if flows of datagrams may have to leave, and not connections alone.
    pub(super) datagrams: bool,
    pub(super) metrics: Option<ServiceMetrics>,
}

impl Default for Freeing {
    fn default() -> Self {
        Self(Arc::new(State::default()))
    }
}

impl Freeing {
    /// Tells the table that the kernel's rules are about to be of: what a walk has met leaves by no older one.
    pub(super) fn follow(&self, table: &Arc<ServiceTable>) {
        *lock(&self.0.newest) = table.clone();
    }

    fn newest(&self) -> Arc<ServiceTable> {
        lock(&self.0.newest).clone()
    }

    /// Walks as soon as there is room, in place of a walk that has not begun yet.
    pub(super) fn begin(&self, mut walk: Walk) {
        let idle = self.0.work.send_if_modified(|work| {
            walk.datagrams |= work.next.as_ref().is_some_and(|waiting| waiting.datagrams);
            work.next = Some(walk);
            work.asked += 1;
            !std::mem::replace(&mut work.running, true)
        });
        if idle {
            // It ends with the last walk.
            task::spawn("free-flows", self.clone().run()).detach();
        }
    }

    /// Forgets the walk that has not begun yet.
    pub(super) fn forget(&self) {
        self.0.work.send_if_modified(|work| work.next.take().is_some());
    }

    /// Returns true if no walk is under way or to begin.
    pub(super) fn is_idle(&self) -> bool {
        let work = self.0.work.borrow();
        work.ended == work.asked
    }

    /// Waits until all walks that were asked for so far have ended.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut work = self.0.work.subscribe();
        let asked = work.borrow().asked;
        async move {
            // A sender that is gone walks no more.
            let _ = work.wait_for(|work| work.ended >= asked).await;
        }
    }

    /// Takes the walk that is next, and its number.
    fn next(&self) -> Option<(u64, Walk)> {
        let mut next = None;
        self.0.work.send_if_modified(|work| {
            next = work.next.take().map(|walk| (work.asked, walk));
            work.running = next.is_some();
            if !work.running {
                work.ended = work.asked;
            }
            !work.running
        });
        next
    }

    /// Returns the time from which the walk that is next may begin, if it has to wait.
    fn rests_until(&self) -> Option<Instant> {
        let connections = self.0.work.borrow().next.as_ref().is_some_and(|next| !next.datagrams);
        let rest = lock(&WALKS).may_begin_at();
        rest.filter(|at| connections && *at > Instant::now())
    }

    /// Waits for the turn of the walk that is next.
    async fn turn(&self) -> Option<SemaphorePermit<'static>> {
        loop {
            let turn = AT_ONCE.acquire().await.ok();
            let Some(at) = self.rests_until() else { return turn };
            drop(turn);
            // One for the sake of datagrams may be wanted meanwhile, or none any more.
            let mut work = self.0.work.subscribe();
            let other = work.wait_for(|work| work.next.as_ref().is_none_or(|next| next.datagrams));
            let _ = tokio::time::timeout_at(at.into(), other).await;
        }
    }

    async fn run(self) {
        loop {
            let turn = self.turn().await;
            let Some((number, walk)) = self.next() else { return };
            let (network, freeing) = (walk.network.clone(), self.clone());
            let walked = task::blocking(move || {
                let begun = walk.walk(|| freeing.newest());
                (walk, begun)
            });
            let walked = walked.await;
            drop(turn);
            self.0.work.send_modify(|work| work.ended = number);
            match walked {
                Ok((_, Ok(begun))) if begun.is_empty() => {}
                Ok((walk, Ok(begun))) => {
                    task::spawn("free-unanswered", self.clone().look_again(walk, begun)).detach();
                }
                Ok((_, Err(error))) => {
                    tracing::warn!(%error, %network, "flows stay with instances that are gone; tried again within a minute");
                }
                Err(error) => tracing::error!(%error, %network, "flows stay with instances that are gone"),
            }
        }
    }

    /// Frees those connections that nobody answers.
    async fn look_again(self, walk: Walk, begun: Vec<Flow>) {
        tokio::time::sleep(ANSWER).await;
        let network = walk.network.clone();
        let freed = task::blocking(move || {
            let freed = walk.namespace().free_unanswered(&begun, || self.newest());
            freed.map(|freed| walk.count(freed))
        });
        if let Ok(Err(error)) = freed.await {
            // A namespace may have ended meanwhile.
            tracing::debug!(%error, %network, "unanswered connections stay with instances that are gone");
        }
    }
}

impl Walk {
    fn namespace(&self) -> Namespace<'_> {
        Namespace { hopper: &self.hopper, netns: &self.netns, network: &self.network }
    }

    fn count(&self, freed: usize) {
        if let Some(metrics) = &self.metrics {
            metrics.count_freed(freed);
        }
    }

    fn walk(&self, newest: impl Fn() -> Arc<ServiceTable>) -> Result<Vec<Flow>, NetlinkError> {
        let began = Instant::now();
        let (freed, begun) = self.namespace().free_flows(newest)?;
        lock(&WALKS).handle_walk(began.elapsed(), Instant::now());
        self.count(freed);
        Ok(begun)
    }
}
