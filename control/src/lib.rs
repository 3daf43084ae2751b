//! x
mod ca;
pub mod core;
mod metrics;
mod store;
