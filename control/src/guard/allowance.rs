//! Allowances of hosts: bytes of messages under way, and calls a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealane_proto::types::NodeName;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::LARGEST;
use super::metered::Meter;
use crate::pace::{Pace, TooOften};
use crate::registry::Directory;

/// Limit for all hosts' large messages under way together, in KiB: once read, one takes up to some twenty times as much.
const ALL_KIBIBYTES: usize = 32 << 10;
/// Calls: one every 20 ms in the long run, and those of a host that takes up all its workloads at once.
const CALLS: Pace = Pace::new(Duration::from_millis(20), 512);

/// Every host's allowance.
#[derive(Debug)]
pub(super) struct Allowances {
    all: Arc<Semaphore>,
    hosts: Mutex<BTreeMap<NodeName, Arc<Allowance>>>,
}

/// Allowance of one host.
#[derive(Debug)]
pub(super) struct Allowance {
    kibibytes: Arc<Semaphore>,
    calls: Mutex<Pace>,
}

impl Default for Allowances {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL_KIBIBYTES)), hosts: Mutex::default() }
    }
}

impl Allowances {
    /// A host's allowance. Those of hosts that are no part of the mesh any more are forgotten.
    pub(super) fn of(&self, node: &NodeName, directory: &Directory) -> Arc<Allowance> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() > 2 * directory.nodes.len() + 64 {
            hosts.retain(|node, _| directory.nodes.contains_key(node));
        }
        let own = hosts.entry(node.clone()).or_insert_with(|| {
            let kibibytes = Arc::new(Semaphore::new(LARGEST >> 10));
            Arc::new(Allowance { kibibytes, calls: Mutex::new(CALLS) })
        });
        own.clone()
    }
}

impl Allowance {
    /// Returns the time that a call must wait for its turn.
    pub(super) fn pace(&self, now: Instant) -> Result<Duration, TooOften> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).next(now)
    }

    /// Returns the meter that grants room to this host's messages.
    pub(super) fn meter(&self, all: &Allowances) -> Meter {
        Meter::new(self.kibibytes.clone(), all.all.clone())
    }
}
