//! x
mod ca;
pub mod core;
mod metrics;
mod registry;
mod store;
