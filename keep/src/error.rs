//! Errors of keep.

use std::io;
use std::path::PathBuf;

use sealane_sys::RunDir;

/// Reasons for which keep could not be started, reached or did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Another keep serves this run directory; it holds the descriptors, so there is nothing to do.
    #[error("keep already runs in {run_dir} as process {pid}")]
    AlreadyRunning {
        /// The run directory.
        run_dir: RunDir,
        /// The process that serves it.
        pid: String,
    },
    /// The run directory cannot be used.
    #[error("keep cannot serve at {path}: {source}")]
    Serve {
        /// The file that could not be made.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The socket does not answer.
    #[error("keep cannot be reached at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The process could not be started, or ended before it served.
    #[error("keep cannot be started from {binary}: {reason}")]
    Start {
        /// The program.
        binary: PathBuf,
        /// Cause of the failure.
        reason: String,
    },
    /// The key is not one.
    #[error("{0:?} is not a key: 1 to 200 printable ASCII characters without spaces")]
    Key(String),
    /// The connection broke, or no answer came in time. The client is of no use any more; connect again.
    #[error("the connection to keep broke: {0}")]
    Broken(#[source] io::Error),
    /// Keep answered with an error.
    #[error("keep refused: {0}")]
    Refused(String),
}
