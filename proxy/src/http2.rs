//! HTTP/2 (RFC 9113) as the sidecar speaks it on both sides, so that every request of a connection goes its own way.
//!
//! A request is passed on frame by frame with its flow control: what the receiver does not read, the sender does not
//! send. Trailers, interim responses, early answers, RST_STREAM codes and half-closed streams pass as they came; PING,
//! SETTINGS, GOAWAY and windows belong to each connection. HTTP/1 is not translated into HTTP/2 nor the other way round.

mod accept;
mod account;
pub(crate) mod answer;
pub(crate) mod exchange;
mod failure;
mod grpc;
mod pool;
mod pump;

use bytes::Bytes;
use h2::Reason;

use crate::http::MAX_HEAD;
use crate::leg::Pipe;

pub(crate) use accept::accept_all;
pub(crate) use account::Account;
pub(crate) use exchange::Request;
pub(crate) use failure::Failure;
pub(crate) use pool::{Lease, Pool};

/// How many requests a connection to an endpoint carries before another one is made.
const STREAMS_PER_CONNECTION: usize = 64;
/// How many connections there are to one endpoint at most; beyond, requests share what there is.
const CONNECTIONS_PER_ENDPOINT: usize = 16;
/// How many bytes of one message wait here for a reader that is slower than its writer.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all messages of a connection: slow readers of full windows do not hold up the other requests.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_PER_CONNECTION as u32;
/// How many requests a client may have in progress on one connection.
const MAX_CLIENT_STREAMS: u32 = 1000;
/// The longest DATA frame that is read in one piece.
const MAX_FRAME: u32 = 64 * 1024;
/// How many bytes of one message wait to be written.
const SEND_BUFFER: usize = 256 * 1024;
/// How many requests that were reset before they were served may pile up: more is an attack (CVE-2023-44487).
const PENDING_RESETS: usize = 100;

/// Between sidecars: no connection to the application, nothing was processed.
pub(crate) const UNREACHABLE: u32 = 0x5ea1_0001;
/// Between sidecars: the connection to the application was lost before it answered.
pub(crate) const LOST: u32 = 0x5ea1_0002;

/// How connections of clients are served.
pub(crate) fn server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_CLIENT_STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// How connections to endpoints are made.
pub(crate) fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .initial_max_send_streams(STREAMS_PER_CONNECTION)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false);
    builder
}

/// What a broken stream tells the other side: the same.
fn reason_of(error: &h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::INTERNAL_ERROR)
}

type Connection = h2::server::Connection<Pipe, Bytes>;
type SendBody = h2::SendStream<Bytes>;
