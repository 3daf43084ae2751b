//! The vocabulary that Sealane's parts share: names and numbers that are parsed once ([`types`]), what a mesh
//! consists of ([`resource`]), identities and how TLS checks them ([`identity`]), and the protocols between the
//! parts ([`wire`], [`client`], [`sidecar`], [`peer`]).
//!
//! Nothing here decides: whoever receives a [`resource::NetworkSnapshot`] may trust its form, not its wisdom.
//! Agent, proxy and control never import each other; they meet here.

pub mod census;
pub mod client;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod identity;
pub mod peer;
pub mod resource;
pub mod sidecar;
pub mod token;
pub mod types;
pub mod wire;

pub use resource::{document, gateway};
