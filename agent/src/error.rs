//! Errors of an agent's start.

use std::io;
use std::net::SocketAddr;

use sealane_fabric::overlay::{self, OverlayError, preflight};
use sealane_keep::KeepError;
use sealane_proto::identity::TrustError;

use crate::disk::{DiskError, RecordError};
use crate::node::NodeError;

/// Reasons for which an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine lacks something.
    #[error("this host cannot run an agent: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Missing(Vec<preflight::Missing>),
    /// No identity.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The disk is full or faulty.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A record on disk is another version's.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The stored roots are no certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The kernel does not do what is asked.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The kernel cannot be reached.
    #[error(transparent)]
    Kernel(#[from] overlay::StartError),
    /// No keep.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A port is taken.
    #[error(
        "cannot serve metrics on {address}: {}; hint: choose another port with --metrics-port",
        sealane_base::text::plain(source)
    )]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The metrics cannot be set up.
    #[error("cannot set up metrics: {0}")]
    Registry(#[from] prometheus::Error),
    /// Files, sockets or threads.
    #[error(transparent)]
    Io(io::Error),
}
