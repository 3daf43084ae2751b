//! The names of what agents make in their run and data directories: whoever makes it, and whoever cleans a host, know them from here.

pub use sealane_fabric::layout::{FORWARDING, NETNS};
use sealane_proto::sidecar::ROOM;

/// In the run directory, a pid file per sidecar.
pub const SIDECARS: &str = "sidecars";
/// In the run directory, a resolv.conf per workload.
pub(crate) const RESOLV: &str = "resolv";
/// In the run directory, a namespace per virtual machine.
pub(crate) const TAPS: &str = "taps";
/// In the run directory: which socket Docker calls its plugin at, and where, for the next agent and for whoever removes it.
pub(crate) const DOCKER_PLUGIN: &str = "docker-plugin";

/// All that agents make in the run directory, beside sockets and pid files.
pub const RUN: [&str; 7] = [ROOM, DOCKER_PLUGIN, FORWARDING, NETNS, RESOLV, SIDECARS, TAPS];

pub(crate) const CONTAINERS: &str = "containers";
pub(crate) const DOCKER: &str = "docker";
pub(crate) const IDENTITIES: &str = "identities";
pub(crate) const NETWORKS: &str = "networks";
/// In the data directory, the host's identity.
pub const NODE: &str = "node";
pub(crate) const RESERVATIONS: &str = "reservations";
pub(crate) const WORKLOADS: &str = "workloads";

/// All folders that agents make in the data directory.
pub const DATA: [&str; 7] = [CONTAINERS, DOCKER, IDENTITIES, NETWORKS, NODE, RESERVATIONS, WORKLOADS];
