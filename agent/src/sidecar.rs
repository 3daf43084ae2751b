//! The sidecars of this host: started, spoken to, started again when they die, found again after a restart.
//!
//! A sidecar outlives the agent and connects again to the next one; what it needs to work on without an agent,
//! it has.

mod ears;
mod leaving;
mod ledger;
mod metrics;
mod process;
mod pulse;
mod registry;
mod scope;
mod supervisor;
mod telling;
mod unrecorded;

use std::path::PathBuf;
use std::sync::Arc;

use sealane_proto::sidecar::SidecarPorts;

pub(crate) use ears::listens;
pub(crate) use metrics::ToldMetrics;
pub(crate) use process::{end, listeners_of, stop_of, stop_unknown};
pub(crate) use pulse::{BEAT, LOST, SILENT};
pub(crate) use registry::Registry;
pub(crate) use supervisor::{Command, Equipment, SidecarParts, Supervisor};
pub use unrecorded::sidecars_of;
pub(crate) use unrecorded::stop_unrecorded;

/// Handle of this host's sidecars.
#[derive(Clone, Debug)]
pub(crate) struct Sidecars {
    /// The supervised ones.
    pub(crate) registry: Arc<Registry>,
    /// The program of new ones, which is our own.
    pub(crate) binary: PathBuf,
    /// Ports at which each listens.
    pub(crate) ports: SidecarPorts,
    /// Metrics of the messages to them.
    pub(crate) told: ToldMetrics,
}
