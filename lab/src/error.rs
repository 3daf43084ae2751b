//! Errors of a lab.

use std::io;

/// Reasons for which a lab could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces are made by root alone.
    #[error("a lab of namespaces needs root; run it again with sudo")]
    NeedsRoot,
    /// The calling process still lives in the machine's own namespaces.
    #[error("a lab is built inside namespaces of its own only: enter them with sealane_lab::isolate first")]
    NotIsolated,
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    System {
        /// Step that was tried.
        what: String,
        /// Error of the kernel.
        source: io::Error,
    },
    /// iproute2 refused, or is not there.
    #[error("`{command}` failed: {reason} (it is Debian's package iproute2)")]
    Tool {
        /// The command line and what it was fed.
        command: String,
        /// Words of the failure.
        reason: String,
    },
    /// The underlay has no address left.
    #[error("host {0} is one too many: the underlay 192.0.2.0/24 has addresses for 200 hosts")]
    TooManyHosts(String),
}

impl LabError {
    /// Words for [`Result::map_err`].
    pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: source.into() }
    }
}
