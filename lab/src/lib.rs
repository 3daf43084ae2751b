//! Hosts as namespaces on one machine, for `sealane demo` and for the tests.
//!
//! Everything of a lab lives in pid, mount and network namespaces of its own ([`isolate`]), so that the end of its
//! owner, kill -9 included, ends every process, namespace, link, mount and file of it by construction: there is
//! nothing to clean up and nothing that could be forgotten.
//!
//! Nothing here knows of Sealane: a [`Host`] is an empty machine with the default folders of one. Main type: [`Lab`].

mod capture;
mod error;
mod host;
mod ip;
pub mod isolate;
mod underlay;

pub use capture::{Capture, Frames, Vxlan};
pub use error::LabError;
pub use host::{Host, Root};
pub use isolate::{control_group, isolated};
pub use underlay::Lab;
