//! The sidecar: detects, routes, balances, encrypts and measures the calls of one workload.

pub mod tls;
pub mod tunnel;
