//! Checks of instances: the questions, and what the answers come to.
//!
//! A workload is asked by its own host, in its own namespace, from a loopback address: nobody of the network calls from there, nor
//! does a sidecar, so that no application takes a check for a call. An instance outside every network is asked by every host for itself.

mod ask;
mod exec;
mod grpc;
mod http;
mod judge;
mod limits;
mod watch;

pub(crate) use ask::{Way, ask};
pub(crate) use exec::Shell;
pub(crate) use judge::{Health, Judge};
pub(crate) use limits::CheckLimits;
pub(crate) use watch::{Subject, watch};
