//! HTTP/2 (RFC 9113) as the sidecar speaks it on both sides, so that every request of a connection goes its own way.
//!
//! A request is passed on frame by frame with its flow control: what the receiver does not read, the sender does not
//! send. Trailers, interim responses, early answers, RST_STREAM codes and half-closed streams pass as they came; PING,
//! SETTINGS, GOAWAY and windows belong to each connection. HTTP/1 is not translated into HTTP/2 nor the other way round.

mod accept;
mod account;
pub(crate) mod answer;
mod conduct;
pub(crate) mod exchange;
mod failure;
mod grpc;
mod outgoing;
mod pipe;
mod pool;
mod pump;
pub(crate) mod screen;
mod window;

use bytes::Bytes;
use h2::Reason;

use crate::http::MAX_HEAD;

pub(crate) use accept::serve_all;
pub(crate) use account::{Account, ResponseTerms};
pub(crate) use conduct::{Conduct, Unrest};
pub(crate) use exchange::Request;
pub(crate) use failure::to_reset;
pub(crate) use outgoing::Outgoing;
use pipe::Diagnosis;
pub(crate) use pipe::Pipe;
pub(crate) use pool::{Bundle, Connector, Lease, Pool};
pub(crate) use screen::{Cause, Peer};
use screen::{Screen, Turn};
pub(crate) use window::Window;

/// Number of requests that a connection to an endpoint carries before another one is made.
const STREAMS_PER_CONNECTION: usize = 64;
/// Number of connections to one endpoint at most; beyond, requests share what there is.
const CONNECTIONS_PER_ENDPOINT: usize = 16;
/// Bytes of one message that wait here for a reader that is slower than its writer.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all messages of a connection, as far as the worker's memory allows it: slow readers of full windows do not
/// hold up the other requests.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_PER_CONNECTION as u32;
/// Part of that which a connection has as long as there is memory, however few requests it carries.
const EASY_WINDOW: usize = 1024 * 1024;
/// Part that it has whatever happens: there is no less (RFC 9113, section 6.9.2).
const LEAST_WINDOW: usize = 65_535;
/// Cost of the small DATA frames that may wait here, beyond their bytes.
const DATA_FRAMES: usize = CONNECTION_WINDOW as usize / 2;
/// Number of requests that a client may have in progress on one connection.
const MAX_CLIENT_STREAMS: u32 = 1000;
/// The longest DATA frame that is read in one piece.
const MAX_FRAME: u32 = 64 * 1024;
/// Bytes of one message that wait to be written.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest head that is read, so that it can be answered in the words of whoever sent it.
const MAX_HEAD_READ: usize = 4 * MAX_HEAD;
/// The same of an answer: behind the screen, which knows what is too large, h2 reads everything that it lets pass.
const MAX_ANSWER_READ: usize = 16 * MAX_HEAD;
/// Number of a client's requests that were reset before they were served and may pile up: more is an attack
/// (CVE-2023-44487).
const PENDING_RESETS: usize = MAX_CLIENT_STREAMS as usize;
/// The same between sidecars, where the resets of all clients of a workload come together, which are bounded already.
const PENDING_RESETS_OF_ALL: usize = 64 * PENDING_RESETS;

/// Between sidecars: no connection to the application, nothing was processed.
pub(crate) const UNREACHABLE: u32 = 0x5ea1_0001;
/// Between sidecars: the connection to the application was lost before it answered.
pub(crate) const LOST: u32 = 0x5ea1_0002;

/// Between sidecars: the application's answer breaks the rules of HTTP/2.
pub(crate) const MALFORMED: u32 = 0x5ea1_0003;
/// Between sidecars: the head of the application's answer is too large.
pub(crate) const TOO_LARGE: u32 = 0x5ea1_0004;

/// Configures the serving of connections that this peer makes.
fn server(peer: Peer) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(u32::try_from(MAX_HEAD_READ).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_CLIENT_STREAMS)
        .data_frame_budget(DATA_FRAMES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_send_buffer_size(SEND_BUFFER);
    if let Peer::Sidecar { .. } = peer {
        // Many clients share it: what one of them does must not end it.
        builder
            .max_pending_accept_reset_streams(PENDING_RESETS_OF_ALL)
            .max_local_error_reset_streams(None)
            .data_frame_budget(usize::MAX);
    }
    builder
}

/// Configures connections to endpoints. Many clients share them: no number of requests that go wrong ends one.
fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(u32::try_from(MAX_ANSWER_READ).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(None)
        .data_frame_budget(usize::MAX)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false);
    builder
}

/// Returns the reason that a broken stream tells the other side: the same.
fn reason_of(error: &h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::INTERNAL_ERROR)
}

type Connection = h2::server::Connection<Screen, Bytes>;
type SendBody = h2::SendStream<Bytes>;
