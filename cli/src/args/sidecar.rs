//! Verbs about sidecars.

use clap::{Args, Subcommand};
use sealane_proto::types::WorkloadRef;

/// `sealane sidecar`.
#[derive(Debug, Args)]
pub(crate) struct Sidecar {
    #[command(subcommand)]
    pub(crate) action: SidecarAction,
}

/// What can be done with sidecars.
#[derive(Debug, Subcommand)]
pub(crate) enum SidecarAction {
    /// Replace sidecars of this host by new ones of the agent's version, without breaking a connection
    Restart(Restarted),
}

/// Which sidecars.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Restarted {
    /// Workload whose sidecars are replaced, in all of its networks or in one
    #[arg(value_name = "WORKLOAD[.NETWORK]")]
    pub(crate) workload: Option<WorkloadRef>,
    /// Replace all sidecars of this host, one after another
    #[arg(long)]
    pub(crate) all: bool,
}
