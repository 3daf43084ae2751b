//! The generated messages, and what reads their fields. Messages of resources become these beside them, in [`crate::resource`].
//!
//! A message that does not parse is refused whole with a [`WireError`] that names the field.

mod fields;
mod protocols;
mod values;

/// The generated messages, clients and servers of package `sealane.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
#[allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("sealane.v1");
}

/// The metadata of a status that says that the same request may succeed later by itself.
pub const RETRY: &str = "sealane-retry";

/// The metadata of a status of a control plane that does not lead: address of the one that does.
pub const LEADER: &str = "sealane-leader";

pub use fields::WireError;
pub(crate) use fields::{Fields, all, each, text, texts};
pub use protocols::{OLDEST_PROTOCOL, PROTOCOL, ProtocolError, agree};
pub use values::weight;
