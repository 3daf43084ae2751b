//! Verbs about control's store.

use std::path::PathBuf;

use clap::Args;

use super::process::DataDir;

/// `sealane backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// File to write, which its owner alone may read; replaced if it exists; - for standard output
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `sealane restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// File that `sealane backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Move an existing store aside
    #[arg(long)]
    pub(crate) force: bool,
}
