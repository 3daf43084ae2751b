//! Who a peer is: SPIFFE identities and how TLS checks them.

mod id;
mod verify;

pub use id::{ParseSpiffeIdError, Principal, SpiffeId};
pub use verify::{Expected, PeerError, PeerVerifier, Trust, TrustError, peer_identity};
