//! Resources of a mesh, as every part sees them. Each has a file of its own, with its form on the wire and, where people write it,
//! its document: messages and documents become these types there, once.

mod block;
mod change;
mod control_addr;
mod delta;
mod digest;
pub mod document;
mod facts;
pub mod gateway;
mod network;
mod node;
mod route;
mod service;
mod snapshot;
mod space;
mod subject;
mod view;
mod whereabouts;
mod workload;

pub use block::Block;
pub use change::NetworkChange;
pub use control_addr::{ControlAddr, ControlAddrError};
pub use delta::{Astray, Difference, NetworkDelta, Totals};
pub use digest::{Digest, Row, Rows, Voucher, find};
pub use facts::{Edition, OwnerFacts};
pub use network::{Egress, Network};
pub use node::Node;
pub use route::{Route, RouteDocument, RouteId, RouteIdError, RouteKind};
pub use service::{External, Service};
pub use snapshot::{NetworkContent, NetworkSnapshot};
pub use space::{AddressSpace, way_out};
pub use subject::{SubjectKind, SubjectKindError};
pub use whereabouts::{HostPlaces, Whereabouts};
pub use workload::Workload;
