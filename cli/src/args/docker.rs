//! Verbs about Docker on this host.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::ManagedPlugin;

/// Socket of Docker's plugin, unless another one is named.
pub(crate) const PLUGIN: &str = "/run/docker/plugins/sealane.sock";

/// `sealane docker`.
#[derive(Debug, Args)]
pub(crate) struct Docker {
    #[command(subcommand)]
    pub(crate) action: DockerAction,
}

/// The verbs below `sealane docker`.
#[derive(Debug, Subcommand)]
pub(crate) enum DockerAction {
    /// Install the agent of this host as Docker's network plugin, whose socket exists before dockerd starts
    Install(Installed),
    /// Remove what `install` has installed
    Uninstall(Installed),
    /// Build the managed plugin that swarms need
    Plugin(ManagedPlugin),
}

/// The place of the plugin and of the files about it.
#[derive(Debug, Args)]
pub(crate) struct Installed {
    /// Socket of the plugin; Docker names the plugin after it
    #[arg(long, value_name = "PATH", default_value = PLUGIN, value_parser = socket)]
    pub(crate) plugin: PathBuf,
    /// Write the files below this directory, and start nothing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) root: Option<PathBuf>,
}

pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if path.is_absolute() && plain && path.extension().is_some_and(|end| end == "sock") {
        Ok(path)
    } else {
        Err("it must be the absolute path of a socket, like /run/docker/plugins/sealane.sock".to_owned())
    }
}
