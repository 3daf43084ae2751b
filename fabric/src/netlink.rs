//! The kernel's links, addresses, neighbours and forwarding tables, by rtnetlink: the one room that changes the host.
//!
//! Requests are answered by the kernel before send(2) returns, so the sockets are synchronous; the caller keeps
//! them away from the event loop. A [`Socket`] belongs to the namespace it was opened in and works from any
//! thread. Nothing here decides anything: what should be there is the overlay's business.

mod address;
mod checksums;
mod conntrack;
mod conversation;
mod ear;
mod echo;
mod echo_requests;
mod error;
mod link;
mod narrow;
mod neighbour;
pub mod netfilter;
mod notices;
mod packet;
mod route;
mod socket;
mod sysctl;

/// The UDP port of VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;

pub use address::Address;
pub use checksums::{ChecksumBy, ChecksumProber, DISCARD};
pub use conntrack::{Flow, FlowState};
pub use ear::{Ear, Heard, Notice};
pub use echo::{EchoAnswer, EchoRequest, EchoSocket, UnsentEcho};
pub use echo_requests::RequestCounter;
pub use error::{NetlinkError, Refusal};
pub use link::{Link, LinkRequest};
pub use narrow::{NarrowRoute, NarrowTable};
pub(crate) use neighbour::neighbour_address;
pub use neighbour::{
    FdbEntry, Neighbour, VXLAN_STATE, bridge_fdb_entry, neighbour_entry, own_fdb_entry, vxlan_fdb_entry,
};
pub use netlink_packet_route::link::InfoKind;
pub use notices::{Notices, Subject};
pub use packet::checksum;
pub use packet::{PacketListener, PacketSocket};
pub use route::{ResolvedRoute, Route};
pub use socket::{NetlinkRequest, Socket};
pub use sysctl::{Sysctl, SysctlError};
