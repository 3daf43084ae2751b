//! Routes to the hosts whose ways take shorter packets than others: what the search has found, brought to the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_fabric::overlay::{EchoAddr, NarrowHosts, OverlayError};
use sealane_proto::types::NodeName;

use super::{Work, words};
use crate::workload::Workloads;

/// Time after which what an agent before this one has left goes, when nobody shares a network with this host until then.
const FORGET: Duration = Duration::from_secs(10);
/// Least time between a failure and the next attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// The routes as the kernel was asked for them.
pub(super) struct Ways {
    began: Instant,
    /// Routes of an agent before this one, until their hosts are known again.
    left: NarrowHosts,
    /// True once hosts are known.
    known: bool,
    /// Routes that the kernel has; `None` at first and after a failure.
    there: Option<NarrowHosts>,
    /// A change under way.
    pub(super) putting: Option<Work<Result<NarrowHosts, OverlayError>>>,
    failed: Option<Instant>,
    problem: Option<String>,
}

impl Ways {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            left: NarrowHosts::new(),
            known: false,
            there: None,
            putting: None,
            failed: None,
            problem: None,
        }
    }

    /// Reads what an agent before this one has left.
    pub(super) async fn recall(&mut self, workloads: &Workloads) {
        match workloads.kernel().overlay.narrow_ways().await {
            Ok(left) => self.left = left,
            Err(error) => tracing::debug!(%error, "routes of an earlier agent cannot be read"),
        }
    }

    /// Tells which of these hosts have such a route from before, with its length; once each.
    pub(super) fn remember<'a>(
        &mut self,
        peers: &'a BTreeMap<NodeName, EchoAddr>,
    ) -> Vec<(&'a NodeName, u32)> {
        self.known |= !peers.is_empty();
        let left =
            |(name, at): (&'a NodeName, &EchoAddr)| Some((name, self.left.remove(&at.underlay.to_ip())?));
        peers.iter().filter_map(left).collect()
    }

    /// Begins to bring the kernel to these lengths, unless it has them or just failed.
    pub(super) fn put(
        &mut self,
        workloads: &Arc<Workloads>,
        narrow: impl Iterator<Item = (IpAddr, u32)>,
        now: Instant,
    ) {
        let rests = self.failed.is_some_and(|failed| now < failed + AGAIN);
        let unknown = !self.known && now < self.began + FORGET;
        if self.putting.is_some() || rests || unknown {
            return;
        }
        let mut wanted = NarrowHosts::new();
        for (host, length) in narrow {
            let known = wanted.entry(host).or_insert(length);
            *known = length.min(*known);
        }
        if self.there.as_ref() == Some(&wanted) {
            return;
        }
        let workloads = workloads.clone();
        self.putting = Some(Box::pin(async move {
            workloads.kernel().overlay.ensure_narrow_ways(wanted.clone()).await.map(|()| wanted)
        }));
    }

    /// Takes in what became of a change.
    pub(super) fn take(&mut self, put: Result<NarrowHosts, OverlayError>, now: Instant) {
        match put {
            Ok(there) => {
                tracing::info!(
                    hosts = there.len(),
                    "routes to hosts whose ways take shorter packets are set"
                );
                (self.there, self.failed, self.problem) = (Some(there), None, None);
            }
            Err(error) => {
                (self.there, self.failed) = (None, Some(now));
                self.problem = Some(words::untold(&error));
            }
        }
    }

    /// Says what keeps the kernel from having them.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.clone()
    }
}
