//! The sidecars of this host: started, spoken to, started again when they die, found again after a restart.
//!
//! A sidecar outlives the agent and connects again to the next one; what it needs to work on without an agent,
//! it has.

mod leaving;
mod ledger;
mod metrics;
mod process;
mod pulse;
mod registry;
mod strays;
mod supervisor;
mod telling;

use sealane_proto::resource::Workload;
use sealane_proto::types::{NetworkName, WorkloadName};

pub(crate) use metrics::ToldMetrics;
pub(crate) use process::{end, listeners_of, stop_of, stop_unknown};
pub(crate) use pulse::{BEAT, LOST, SILENT};
pub(crate) use registry::Registry;
pub use strays::sidecars_of;
pub(crate) use strays::stop_unrecorded;
pub(crate) use supervisor::{Command, Equipment, SidecarParts, Supervisor};

/// Key of a sidecar: the workload that it serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The network.
    pub(crate) network: NetworkName,
    /// The workload in it.
    pub(crate) workload: WorkloadName,
}

impl Key {
    /// Of this workload.
    #[must_use]
    pub(crate) fn of(workload: &Workload) -> Self {
        Self { network: workload.network.clone(), workload: workload.name.clone() }
    }

    /// The name of its files.
    #[must_use]
    pub(crate) fn record_name(&self) -> String {
        format!("{}.{}", self.network, self.workload)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.workload)
    }
}
