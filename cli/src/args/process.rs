//! Verbs about Sealane's own processes.

use std::path::PathBuf;

use clap::Args;

/// Where state lives that outlives a reboot.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataDir {
    /// Where state lives that outlives a reboot
    #[arg(long, env = "SEALANE_DATA_DIR", value_name = "DIR", default_value = "/var/lib/sealane")]
    pub(crate) data_dir: PathBuf,
}

/// `sealane clean`.
#[derive(Debug, Args)]
pub(crate) struct Clean {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Keep the data directory, so that the host can come back as who it was
    #[arg(long)]
    pub(crate) keep_data: bool,
}
