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
    /// Make this host's agent Docker's network plugin, whose socket is there before dockerd starts
    Install(Installed),
    /// Take back what `install` has put in place
    Uninstall(Installed),
    /// A plugin that Docker manages, as its swarms want it
    Plugin(ManagedPlugin),
}

/// The place of the plugin and of the files about it.
#[derive(Debug, Args)]
pub(crate) struct Installed {
    /// The plugin's socket; Docker calls the plugin by its name
    #[arg(long, value_name = "PATH", default_value = PLUGIN, value_parser = socket)]
    pub(crate) plugin: PathBuf,
    /// Write files below this folder and start nothing
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
