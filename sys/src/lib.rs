//! The Linux edge that several processes of Sealane share: network namespaces, descriptors that travel
//! between processes, and processes that are watched without being children.
//!
//! Everything here is synchronous and knows neither tokio nor meshes; it changes no network configuration
//! (that is the agent's netlink module). Main type: [`NetNs`].

pub mod account;
pub mod changes;
pub mod clock;
pub mod confine;
pub mod fdpass;
pub mod heap;
pub mod hop;
pub mod memfd;
pub mod mounts;
mod netns;
mod process;
pub mod resident;
pub mod run_dir;
pub mod spawn;
pub mod tap;
pub mod tcp;

pub use netns::{NetNs, NetNsError};
pub use process::{Process, ProcessError, boot_id};
pub use run_dir::RunDir;
