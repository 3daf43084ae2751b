//! Addresses of a network's workloads, as they follow its changes: while two have one, nobody can tell them apart by it. Pure.

use sealane_base::shared_map::SharedMap;
use sealane_fabric::transition::workload;
use sealane_proto::resource::{NetworkChange, NetworkContent, Workload};
use sealane_proto::types::OverlayIp;

/// Number of workloads at each address. A copy shares with the one before what has not changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    counts: SharedMap<OverlayIp, u32>,
    /// Number of addresses that several workloads have.
    doubled: usize,
}

impl Addresses {
    /// The addresses in a network.
    pub(super) fn of(content: &NetworkContent) -> Self {
        let mut addresses = Self::default();
        content.workloads.iter().for_each(|workload| addresses.add(workload));
        addresses
    }

    /// The addresses after a change of the network that was `before`.
    pub(super) fn after(&self, before: &NetworkContent, change: &NetworkChange) -> Self {
        let mut after = self.clone();
        let names = change.workloads.iter().map(|workload| &workload.name).chain(&change.workloads_gone);
        names.filter_map(|name| workload(before, name)).for_each(|known| after.remove(known));
        change.workloads.iter().for_each(|workload| after.add(workload));
        after
    }

    /// Returns true if each address is that of one workload.
    pub(super) fn are_clear(&self) -> bool {
        self.doubled == 0
    }

    fn add(&mut self, workload: &Workload) {
        let count = self.counts.get(&workload.address).map_or(1, |count| count + 1);
        self.counts.insert(workload.address, count);
        self.doubled += usize::from(count == 2);
    }

    fn remove(&mut self, workload: &Workload) {
        match self.counts.get(&workload.address).copied() {
            Some(count) if count > 1 => {
                self.counts.insert(workload.address, count - 1);
                self.doubled -= usize::from(count == 2);
            }
            _ => drop(self.counts.remove(&workload.address)),
        }
    }
}
