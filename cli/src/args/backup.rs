//! Verbs about control's store.

use std::path::PathBuf;

use clap::Args;

use super::process::DataDir;

/// `sealane backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where it is written, replacing what is there, readable by its owner alone; `-`: standard output
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `sealane restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// What `sealane backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Move the store that is there aside
    #[arg(long)]
    pub(crate) force: bool,
}
