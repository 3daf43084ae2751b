//! The overlay on real kernel devices: hosts are network namespaces joined by a veth pair. Needs root.

#[path = "kernel/drift.rs"]
mod drift;
#[path = "kernel/hosts.rs"]
mod hosts;
#[path = "kernel/networks.rs"]
mod networks;
#[path = "kernel/sidecar_rules.rs"]
mod sidecar_rules;
#[path = "kernel/traffic.rs"]
mod traffic;
