//! The sidecar: detects, routes, balances, encrypts and measures the calls of one workload.
//!
//! It decides nothing about the mesh: its agent hands it listeners, an identity and configurations, and it goes on
//! with what it has when the agent is gone. Main types: [`Settings`] and [`run`] for the process, [`Core`] for the
//! sidecar without its agent.
//!
//! A call walks `listen` (original destination) -> `outbound` (`detect`) -> `route` -> `backend` (`balance`) -> `tunnel` -> the
//! other sidecar's `tunnel` -> `inbound` (its door: `policy`) -> the application; what follows a failure, `dispatch` decides. `http2`
//! carries what was HTTP/2 on either side; `rules` say what becomes of requests to a service with routes. `http`, `request`, `rules`, `route`, `policy`, `dispatch`, `balance`, `budget`, `memory`,
//! `scope` and `detect` are pure. Each worker thread has connections, tunnels and balancers of its own.

mod agent;
mod backend;
mod balance;
#[cfg(feature = "benching")]
pub mod benching;
mod budget;
mod confine;
mod copies;
mod core;
mod detect;
mod dial;
mod dispatch;
mod duplex;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod http2;
mod inbound;
mod inquiry;
mod leg;
mod listen;
mod memory;
mod message;
mod outbound;
mod policy;
mod protocol;
mod refusal;
mod request;
mod resident;
mod route;
mod rules;
mod scope;
mod snapshot;
mod tcp;
mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tls;
mod trouble;
pub mod tunnel;
mod worker;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::{NetworkName, WorkloadName};

/// The allocator of the tests, as the binary's.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: sealane_sys::heap::Counted = sealane_sys::heap::Counted;

pub use self::confine::confine;
pub use self::core::Core;
pub use listen::{OriginalDst, Redirected};
pub use protocol::Protocol;

/// Settings of a sidecar process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agent's socket for sidecars ([`sealane_sys::RunDir::sidecar_socket`]).
    pub agent_socket: PathBuf,
    /// The workload's network.
    pub network: NetworkName,
    /// The workload.
    pub workload: WorkloadName,
    /// The ports that the rules in the workload's namespace redirect to.
    pub ports: SidecarPorts,
    /// Number of threads that serve connections; 0 is taken for 1.
    pub workers: usize,
    /// Bytes that a worker may hold for requests in progress.
    pub memory: usize,
    /// Limit for work in progress after SIGTERM.
    pub drain_deadline: Duration,
}

/// Reasons for which a sidecar cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No thread, event loop or signal handler.
    #[error("the sidecar cannot start its workers: {0}")]
    Worker(io::Error),
    /// The metrics contradict each other.
    #[error("the sidecar's metrics: {0}")]
    Metrics(prometheus::Error),
}

/// Runs a sidecar in the network namespace of the caller until it is drained, by its agent or by SIGTERM.
///
/// # Errors
/// When it cannot start. An agent that is not there is waited for.
pub fn run(settings: Settings) -> Result<(), RunError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Worker)?;
    runtime.block_on(agent::run(settings))
}
