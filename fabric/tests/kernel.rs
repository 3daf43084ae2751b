//! The overlay on real kernel devices: hosts are network namespaces joined by a veth pair. Needs root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its scenery, too")]

#[path = "kernel/checksums.rs"]
mod checksums;
#[path = "kernel/drift.rs"]
mod drift;
#[path = "kernel/ears.rs"]
mod ears;
#[path = "kernel/echo.rs"]
mod echo;
#[path = "kernel/egress.rs"]
mod egress;
#[path = "kernel/families.rs"]
mod families;
#[path = "kernel/gate.rs"]
mod gate;
#[path = "kernel/guard.rs"]
mod guard;
#[path = "kernel/hosts.rs"]
mod hosts;
#[path = "kernel/lengths.rs"]
mod lengths;
#[path = "kernel/narrow.rs"]
mod narrow;
#[path = "kernel/networks.rs"]
mod networks;
#[path = "kernel/relocation.rs"]
mod relocation;
#[path = "kernel/services.rs"]
mod services;
#[path = "kernel/sidecar_rules.rs"]
mod sidecar_rules;
#[path = "kernel/traffic.rs"]
mod traffic;
