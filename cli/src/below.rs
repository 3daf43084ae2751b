//! Paths below another root directory.

use std::path::{Path, PathBuf};

/// The place that an absolute path has below `root`.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
