//! TLS between sidecars: identities that are renewed under way, and configurations made from them.
//!
//! TLS 1.3 only, AES-128-GCM before the rest (the fastest of aws-lc-rs where the CPU has AES). Key exchange is
//! X25519: a handshake is on nobody's request path once a tunnel is pooled, but rollouts make many at once, and
//! X25519MLKEM768 takes more time and 2.2 KiB more per handshake. It is offered second, so that it can be put
//! first on one side alone. No early data: it could be replayed.

mod config;
mod source;

pub use source::{TlsError, TlsSource};

pub(crate) use config::{ALPN, leaf_expiry};
