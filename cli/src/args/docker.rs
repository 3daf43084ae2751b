//! Verbs about Docker on this host.

use clap::{Args, Subcommand};

use super::ManagedPlugin;

/// `sealane docker`.
#[derive(Debug, Args)]
pub(crate) struct Docker {
    #[command(subcommand)]
    pub(crate) action: DockerAction,
}

/// What can be done about it.
#[derive(Debug, Subcommand)]
pub(crate) enum DockerAction {
    /// A plugin that Docker manages, as its swarms want it
    Plugin(ManagedPlugin),
}
