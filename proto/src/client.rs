//! Clients of the gRPC services: over a unix socket, and to control over mTLS with reconnection.

mod clock;
mod connect;
mod controls;
mod ending;
mod join;
mod link;
mod lookout;
mod search;
pub mod uplink;
mod words;

pub use clock::ClockPair;
pub use connect::{ConnectError, TlsIdentity, control_channel, unix_channel};
pub use controls::Controls;
pub use join::{JoinError, Joined, join};
pub use link::{CarriedNetworks, Followed, Link, LinkEvent, LinkInputs, LinkReport, Rejection};
pub use words::of_loss;
