//! The harness of the end-to-end tests: a mesh of the real binary on hosts of a lab, and real programs in it.
//!
//! The harness asserts nothing about Sealane and knows it from outside alone: by its command line, its ports and its
//! files. What goes wrong panics, with the tails of every log. Main type: [`Mesh`].
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a harness fails by panicking and prints why")]

mod daemon;
mod docker;
mod load;
mod mesh;
mod metrics;
pub mod names;
mod program;
mod release;
mod running;
mod sharing;
mod site;
mod wait;

pub use daemon::Daemon;
pub use docker::{BUSYBOX, CREATE, Dockerd, SERVE};
pub use load::{Load, LoadReport};
pub use mesh::Mesh;
pub use metrics::Metrics;
pub use program::{sealane, testapp};
pub use release::{Release, kernel};
pub use running::{Finished, Running, lab_sh};
pub use site::Site;
pub use wait::{PATIENCE, eventually};
