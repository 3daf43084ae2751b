//! The names of what agents make in their data directory: whoever makes it, and whoever cleans a host, know them from here.

pub(crate) const CONTAINERS: &str = "containers";
pub(crate) const DOCKER: &str = "docker";
pub(crate) const IDENTITIES: &str = "identities";
pub(crate) const NETWORKS: &str = "networks";
/// In the data directory, the host's identity.
pub const NODE: &str = "node";
pub(crate) const OWNERS: &str = "owners";
pub(crate) const RESERVATIONS: &str = "reservations";
pub(crate) const WORKLOADS: &str = "workloads";

/// All folders that agents make in the data directory.
pub const DATA: [&str; 8] = [CONTAINERS, DOCKER, IDENTITIES, NETWORKS, NODE, OWNERS, RESERVATIONS, WORKLOADS];
