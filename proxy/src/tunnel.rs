//! Multiplexed mTLS tunnels between two sidecars.
//!
//! A tunnel is one TLS 1.3 connection on which the connecting side opens many streams; each carries one opaque
//! connection or one HTTP/1 exchange as the application's own bytes. One task owns the connection and both of
//! its directions, so frames of many streams share TLS records and system calls. Everything here lives on one
//! thread (`Rc`, `RefCell`); only [`TlsSource`](crate::tls::TlsSource) is shared by workers.
//!
//! The connecting side has a [`TunnelPool`], the accepting side an [`Acceptor`]; both deal in [`Stream`]s.
//!
//! # The wire format, `sealane/1`
//!
//! TLS 1.3 with ALPN `sealane/1`, both sides authenticated by SPIFFE identity. The plaintext is a sequence of
//! frames; record boundaries mean nothing. Numbers are big endian.
//!
//! ```text
//!  0               1               2               3               4 ... 7         8 ...
//! +---------------------------------------------+-------------+-+-------------+-------------
//! |                 length (24)                 |  type (8)   |0| stream (31) | payload
//! +---------------------------------------------+-------------+-+-------------+-------------
//! ```
//!
//! `length` counts the payload alone: at most 16,384 bytes for DATA, 4,096 for any other type.
//! The bit before the stream is sent as 0 and ignored. Frames about the tunnel itself have stream 0.
//!
//! | type | frame | stream | payload |
//! |---|---|---|---|
//! | 0 | DATA | id | application bytes, counted against the credit |
//! | 1 | OPEN | id | kind u8 (0 opaque, 1 HTTP/1), port u16, then TLVs: type u8, length u8, value |
//! | 2 | END | id | empty: the sender's direction is complete |
//! | 3 | RESET | id | code u8, reason UTF-8 (may be empty, 256 bytes are read): both directions are over |
//! | 4 | WINDOW | id | credit u32, added to what the receiver of this frame may send |
//! | 5 | PING | 0 | 8 bytes, to be echoed |
//! | 6 | PONG | 0 | the 8 bytes of the PING |
//! | 7 | GOAWAY | 0 | last u32: the greatest stream that was or will be processed |
//! | 8 | HELLO | 0 | max_streams u32: how many streams may be open at once |
//!
//! TLVs of OPEN: 1 the called service's name; 2 the original destination, address (4 or 16 bytes) and port u16;
//! 3 the client's address in the same form; 5 the number of the client's connection (8 bytes), which no other of that tunnel has: what one
//! exchange may have left on a connection to the application concerns no other client; 4 what is spoken on an opaque stream, by its ALPN name: `h2` alone means
//! something, the receiver may then serve the requests of the HTTP/2 connection one by one, and says by RST_STREAM
//! 0x5ea10001 that it does not reach the application, by 0x5ea10002 that it lost it, by 0x5ea10003 that its answer breaks
//! the rules of HTTP/2, by 0x5ea10004 that the answer's head is too large. Of repeated ones the last stands. **Unknown frame types, unknown TLVs
//! and payload behind what is described here are ignored**: that is how the format grows.
//!
//! Rules:
//!
//! - The accepting side sends HELLO first, when it has verified the client. The connecting side opens nothing before
//!   it: so a client whose certificate is refused knows that nothing was processed.
//! - Only the connecting side opens; ids grow with every OPEN, starting at 1 or above. An OPEN that goes beyond
//!   `max_streams` is answered by RESET(REFUSED), one after GOAWAY by RESET(GONE); neither was processed.
//! - Every direction of every stream starts with 65,536 bytes of credit. The receiver returns credit as its
//!   application takes data, at the latest when half of the window is unreturned, and may return more than was taken
//!   (the window grows up to 1 MiB while the reader keeps up, within 16 MiB of growth per tunnel). So a tunnel
//!   holds at most `max_streams` x 64 KiB + 16 MiB of unread data itself; what is spoken on its streams has windows of its own.
//! - After RESET nothing more is said about a stream; frames about streams that are over are ignored, for they
//!   may cross a RESET. Data that arrived before a RESET is still delivered, and an END before it stands.
//! - What nobody does often has a pace (`share`): requests that are given up before their answer (CVE-2023-44487), and frames that carry
//!   nothing: PING, PONG, HELLO, GOAWAY, WINDOW of 0, DATA of no bytes, unknown ones. Who goes far beyond it loses the tunnel, and gets no
//!   other one for a second. All tunnels from one address are one peer's, and take turns as one.
//! - A malformed OPEN resets its stream (PROTOCOL_ERROR). These end the tunnel: a frame beyond its length limit, a
//!   known frame with a payload that is too short, DATA beyond the credit, credit beyond 2^31 - 1, a stream that was
//!   never opened, an OPEN from the accepting side or with an id that does not grow, DATA after END.
//! - RESET codes: 0 REFUSED, 1 UNREACHABLE, 2 RESET_BEFORE_RESPONSE, 3 CANCELLED, 4 PROTOCOL_ERROR, 5 INTERNAL,
//!   6 GONE, 7 DENIED; others are read as INTERNAL.
//! - After GOAWAY the streams up to `last` finish; then the accepting side closes. Its streams above were never processed.
//! - Each side closes with close_notify. A tunnel that ends otherwise has lost its streams.

mod accept;
mod away;
mod connect;
mod core;
mod driver;
mod error;
pub(crate) mod frame;
mod kin;
mod link;
mod liveness;
mod open;
mod piece;
mod pool;
mod settings;
mod share;
mod stats;
mod stream;

pub use accept::{AcceptError, Acceptor, Incoming, TunnelPeer};
pub(crate) use away::Away;
pub use away::AwayPeers;
pub use error::{OpenError, StreamError};
pub(crate) use frame::DATA_SENT;
pub use frame::ResetCode;
pub use open::OpenHeader;
pub use pool::{PeerKey, TunnelPool};
pub use settings::{Patience, Settings};
pub use stats::{Count, TunnelStats};
pub use stream::{RecvHalf, SendHalf, Stream};
