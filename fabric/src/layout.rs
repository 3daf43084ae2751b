//! Names of what stands for kernel state in the run directory.

/// In the run directory, a handle per namespace of a network or a workload.
pub const NETNS: &str = "netns";
/// In the run directory, written while forwarding is on that was off before.
pub const FORWARDING: &str = "ip_forward-was-off";
