//! Identities of peers (SPIFFE) and their verification in TLS.

mod id;
mod serial;
mod verify;

pub use id::{ParseSpiffeIdError, Principal, SpiffeId};
pub use serial::{SerialPrefix, SerialPrefixError};
pub(crate) use verify::signatures;
pub use verify::{Expected, PeerError, PeerVerifier, Trust, TrustError, peer_identity, peer_key};
