//! Sealane's own processes: from their start to the signal that ends them.

mod pidfile;

use std::path::Path;

use crate::failure::{Failure, require_root};
pub(crate) use pidfile::running;

/// `sealane keep`. It keeps its own pid file, in the same manner, and needs this process to have one thread.
pub(crate) fn keep(run_dir: &Path) -> Result<(), Failure> {
    require_root("keep")?;
    sealane_keep::serve(run_dir).map_err(|error| Failure::new(error.to_string()))
}
