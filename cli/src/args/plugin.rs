//! Verbs about the plugin that Docker manages.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// `sealane docker plugin`.
#[derive(Debug, Args)]
pub(crate) struct ManagedPlugin {
    #[command(subcommand)]
    pub(crate) action: PluginAction,
}

/// The verbs below `sealane docker plugin`.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginAction {
    /// Write the directory that `docker plugin create NAME DIR` makes a plugin of
    Build {
        /// Directory to create
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// Directory of the agent's socket for Docker (--docker-plugin), which is mounted into the plugin
        #[arg(long, value_name = "DIR", default_value = "/run/docker/plugins", value_hint = ValueHint::DirPath)]
        agent: PathBuf,
    },
    /// Serve as the plugin and pass on to the agent what dockerd says (dockerd starts it)
    #[command(hide = true)]
    Serve {
        /// Socket that dockerd connects to
        #[arg(long, value_name = "PATH")]
        listen: PathBuf,
        /// Socket of the agent
        #[arg(long, value_name = "PATH")]
        agent: PathBuf,
    },
}
