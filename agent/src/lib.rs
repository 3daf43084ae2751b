//! The agent of one host: overlay networks, DNS, workloads and their sidecars.
//!
//! It decides nothing that concerns other hosts (control does) and carries no byte of the workloads (the kernel
//! and the sidecars do). Main type: [`Agent`].

mod agent;
mod attachment;
mod certs;
mod check;
mod controls;
mod disk;
pub mod dns;
mod door;
mod engine;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gateway;
mod host;
mod ipam;
mod keeper;
mod kernel;
pub mod labels;
pub mod layout;
mod liveness;
mod matrix;
mod metrics;
mod node;
mod outside;
mod peer;
mod registrar;
mod renewal;
mod sidecar;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stale_state;
pub mod tap;
#[cfg(test)]
mod testing;
mod trouble;
mod underlay;
mod workload;

pub use agent::{Agent, Config, has_joined, joined_as, start};
pub use certs::key::KeyError;
pub use disk::{DiskError, RecordError};
pub use door::docker::retire as retire_docker_plugin;
pub use error::StartError;
pub use node::NodeError;
pub use registrar::ReadDocuments;
pub use sidecar::sidecars_of;
pub use underlay::SourceError;

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
