//! Relaying one HTTP/1 message from leg to leg, as its own bytes.

mod request;
mod response;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::http::{self, HeadError, Parsed};
use crate::leg::{Input, LegError};

pub(crate) use request::{BodyError, send_body};
pub(crate) use response::{Progress, Received, ResponseError, Taking, Unreadable, discard, receive};

/// A head with the bytes it came in, and what came behind it.
#[derive(Debug)]
pub(crate) struct Head<T> {
    /// Meaning of the head.
    pub(crate) head: T,
    /// Length in `bytes`.
    pub(crate) length: usize,
    /// The head, and the first bytes behind it.
    pub(crate) bytes: Bytes,
}

/// Reasons for which no head was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadHeadError {
    /// The leg broke.
    #[error("{0}")]
    Leg(#[from] LegError),
    /// The leg ended within it.
    #[error("the connection ended within a head")]
    Truncated,
    /// The head is refused.
    #[error("{0}")]
    Head(#[from] HeadError),
}

/// Reads a head; `None` when the leg ends before its first byte. Not cancel safe once a part has arrived.
pub(crate) async fn read_head<T>(
    from: &mut Input,
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, HeadError>,
) -> Result<Option<Head<T>>, ReadHeadError> {
    let Some(mut first) = from.read().await? else { return Ok(None) };
    // Nearly always the whole head comes at once and is parsed where it stands.
    let empty = http::empty_lines(&first);
    first.advance(empty);
    if let Parsed::Complete(head, length) = parse(&first)? {
        return Ok(Some(Head { head, length, bytes: first }));
    }
    let mut gathered = BytesMut::from(first);
    loop {
        from.await_more();
        let Some(more) = from.read().await? else {
            return if gathered.is_empty() { Ok(None) } else { Err(ReadHeadError::Truncated) };
        };
        let seen = gathered.len();
        gathered.extend_from_slice(&more);
        if seen == 0 {
            let empty = http::empty_lines(&gathered);
            gathered.advance(empty);
        }
        if !http::has_head(&gathered, seen) && gathered.len() < http::MAX_HEAD {
            continue;
        }
        if let Parsed::Complete(head, length) = parse(&gathered)? {
            return Ok(Some(Head { head, length, bytes: gathered.freeze() }));
        }
    }
}
