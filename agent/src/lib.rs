//! The agent of one host: overlay networks, DNS, workloads and their sidecars.
//!
//! It decides nothing that concerns other hosts (control does) and carries no byte of the workloads (the kernel
//! and the sidecars do).

pub mod dns;
pub mod health;
pub mod netlink;
pub mod nft;
pub mod overlay;
