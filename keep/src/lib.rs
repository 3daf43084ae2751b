//! `sealane keep`: holds descriptors (DNS sockets, namespace handles, sidecar listeners) while the agent that made
//! them is away, and hands them back by name. One process per host, without configuration, without updates.
//!
//! Keep deliberately knows nothing of what it holds: no networks, no reading, no writing.
//!
//! # Protocol
//!
//! `<run-dir>/keep.sock`, SOCK_SEQPACKET, for root only. One request is one datagram of ASCII text, descriptors
//! attached; it gets exactly one answer, in order. Keys are 1 to 200 printable ASCII characters without spaces.
//!
//! | request | answer |
//! |---|---|
//! | `PUT <count> <key>` with 1 to 8 descriptors | `OK <count>`; what the key held before is closed |
//! | `GET <key>` | `OK <count>` with the descriptors, or `NONE` |
//! | `DELETE <key>` | `OK <removed>`: 1 or 0 |
//! | `DELETE-PREFIX <prefix>` | `OK <removed>` |
//! | `LIST` or `LIST <after>` | `KEYS`, then lines `<key> <count>` in order, as many as fit; none after the last |
//! | anything else | `ERROR <text>` |
//!
//! `PUT` names its count so that descriptors the kernel dropped on the way (at a limit of open files) are
//! noticed. A client that does not read its answers is disconnected; nobody else waits for it.
//!
//! Main types: [`serve`] is the process, [`Keep`] its client.

mod client;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lock;
mod protocol;
mod server;
mod start;
mod store;

pub use client::{Keep, Kept};
pub use error::KeepError;
pub use protocol::{MAX_DESCRIPTORS, MAX_KEY_LEN};
pub use server::serve;
pub use start::ensure_running;
