//! DNS for workloads: each asks a socket of its own namespace, and the agent answers.
//!
//! A question walks from [`server`](serve) (sockets, no decisions) through [`answer()`] (messages, pure) into a
//! [`NameView`] of immutable [`Zone`]s (names, pure); what is not ours goes to the [`Forwarder`]. The sockets are made
//! by the caller in the right namespace and outlive the agent in keep: what is asked meanwhile waits in their
//! queues and is answered late rather than refused.

mod answer;
mod forward;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod message;
mod metrics;
mod neighbour;
mod resolv;
mod reverse;
mod server;
mod service;
mod shares;
mod sockets;
mod targets;
mod view;
mod zone;

pub use answer::{Outcome, Transport, answer};
pub use forward::{ForwardConfig, Forwarder};
pub use message::Rcode;
pub use metrics::{DnsMetrics, NetworkMetrics};
pub use neighbour::Neighbour;
pub use resolv::{Resolv, Server};
pub use server::{DnsServer, serve};
pub(crate) use service::NameService;
pub use shares::Askers;
pub use sockets::{DnsSockets, PORT};
pub use view::NameView;
pub use zone::Zone;
