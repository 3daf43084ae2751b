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
    /// Write what `docker plugin create NAME DIR` makes a plugin of; DIR is made, and may not be there
    Build {
        /// Where to
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// The folder of the agent's socket for Docker (its --docker-plugin); it is mounted into the plugin
        #[arg(long, value_name = "DIR", default_value = "/run/docker/plugins", value_hint = ValueHint::DirPath)]
        agent: PathBuf,
    },
    /// Be the plugin (dockerd starts it): pass on to the agent what dockerd says
    #[command(hide = true)]
    Serve {
        /// Where dockerd connects to
        #[arg(long, value_name = "PATH")]
        listen: PathBuf,
        /// The agent's socket
        #[arg(long, value_name = "PATH")]
        agent: PathBuf,
    },
}
