//! Readiness of workloads: their ports are listened on, found out without touching the application.
//!
//! The kernel is asked for the socket that a packet to address and port would reach (sock_diag(7)), one small
//! message per port and family of addresses. So a bind to the address, to 0.0.0.0 or to :: counts, for the families that it takes
//! (a sidecar finds the application at the other one), whoever made it, no connection is ever opened, and the cost does not grow with the number of sockets on the host: a
//! dump would walk the host's whole table of listeners for every workload.
//!
//! A virtual machine's sockets are its own kernel's: that one is asked by connecting.
//!
//! Main types: [`Listening`] asks once, [`watch()`] keeps asking.

mod diag;
mod dial;
mod families;
mod idle;
mod listening;
mod pace;
mod watch;

pub use dial::{dial, silence};
pub use families::Families;
pub use idle::reason;
pub use listening::{Listening, check_kernel};
pub use watch::{ProbeTarget, watch};
