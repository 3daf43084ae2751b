//! Verbs about control's store.

use std::path::PathBuf;

use clap::Args;

use super::process::{DataDir, EtcdStore, Store};

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
    /// Kind of the store that the backup becomes
    #[arg(long, value_enum, default_value_t)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) place: EtcdStore,
    /// Move an existing store aside; one in etcd is replaced, with a backup of it in the data directory
    #[arg(long)]
    pub(crate) force: bool,
}
