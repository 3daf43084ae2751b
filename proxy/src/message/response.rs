//! The response, from the called to the caller.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use prometheus::IntCounter;

use super::{Head, ReadHeadError, read_head};
use crate::http::body::ChunkError;
use crate::http::response::{self, Next};
use crate::http::{Body, HeadError, Parsed, RequestHead, ResponseHead};
use crate::http::{BodyScanner, Method};
use crate::leg::{Input, LegError, Output};
use crate::tunnel::{ResetCode, StreamError};

/// Progress of a response, for whoever waits beside it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Something of the final response was passed on, or is just about to be.
    pub(crate) begun: Cell<bool>,
    /// Nothing is to follow the response on the caller's connection: its last bytes may wait for the end, and go with it.
    pub(crate) is_last: Cell<bool>,
}

/// A response that was passed on whole.
#[derive(Debug)]
pub(crate) struct Received {
    /// Status code.
    pub(crate) status: u16,
    /// True if the called side would take another request on the same connection.
    pub(crate) keep_alive: bool,
    /// True if it turned the connection into something else.
    pub(crate) upgraded: bool,
    /// True if it was complete before its request was.
    pub(crate) early: bool,
}

impl Received {
    /// Returns true if the called side's connection may carry another request behind this one.
    ///
    /// An application that leaves a body unread takes it for the next request. So the body must be one that the method
    /// calls for, the request must have been whole before the answer was, and the answer must not be an error, which is often given
    /// by what reads no bodies.
    pub(crate) fn leaves_reusable(&self, request: &RequestHead) -> bool {
        let bodiless = request.body == Body::Empty;
        self.keep_alive && !self.early && (bodiless || (request.takes_body && self.status < 400))
    }

    /// Returns true if something may be left on the connection that nobody can see: a request's body that the application has not read
    /// though it has answered, or a body of its own behind an answer that has none (RFC 9112, section 6.3).
    pub(crate) fn leaves_doubt(&self, request: &RequestHead) -> bool {
        request.body != Body::Empty || request.method == Method::Head || matches!(self.status, 204 | 304)
    }
}

/// Reasons for which a response was not passed on whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseError {
    /// The called side broke off.
    #[error("it broke off: {0}")]
    Source(LegError),
    /// The called side ended before the first byte.
    #[error("it closed the connection without an answer")]
    NoAnswer,
    /// The called side ended too early.
    #[error("it closed the connection within its answer")]
    Truncated,
    /// The called side's answer is not HTTP/1 that can be passed on.
    #[error("its answer cannot be understood: {0}")]
    Malformed(Unreadable),
    /// The caller takes no more.
    #[error("the caller is gone: {0}")]
    Sink(LegError),
    /// An answer with this status is not taken.
    #[error("its answer is {0}")]
    Refused(u16),
}

/// Effect of hearing a final head.
#[derive(Debug)]
pub(crate) enum Taking {
    /// The head passes as it came.
    Kept,
    /// This head passes in its place.
    Changed(Vec<u8>),
    /// Nothing passes.
    Refused,
}

/// Part for which an answer is not passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The head cannot be read.
    #[error("{0}")]
    Head(HeadError),
    /// The chunks cannot be read.
    #[error("{0}")]
    Chunks(ChunkError),
    /// The sidecar beside the application has found it so, and says this of it.
    #[error("{0}")]
    Told(Rc<str>),
}

impl From<ChunkError> for ResponseError {
    fn from(error: ChunkError) -> Self {
        Self::Malformed(Unreadable::Chunks(error))
    }
}

impl From<LegError> for ResponseError {
    /// An answer that the application's sidecar could not read is the same as one that is read here.
    fn from(error: LegError) -> Self {
        match error {
            LegError::Stream(StreamError::Explained { code: ResetCode::ProtocolError, reason }) => {
                Self::Malformed(Unreadable::Told(reason))
            }
            LegError::Stream(StreamError::Reset(code @ ResetCode::ProtocolError)) => {
                Self::Malformed(Unreadable::Told(code.to_string().into()))
            }
            error @ (LegError::Tcp(_) | LegError::Stream(_)) => Self::Source(error),
        }
    }
}

impl Unreadable {
    /// For metrics; `None` when it was counted elsewhere.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Head(error) => Some(error.reason()),
            Self::Chunks(_) => Some("chunks"),
            Self::Told(_) => None,
        }
    }
}

/// Passes on interim heads, the final one and its body, and counts their bytes; `on_head` hears the final head, with its status, before
/// its bytes leave.
///
/// Behind an upgrade, what came after the head stays in `from`; behind any other response nothing may come.
pub(crate) async fn receive(
    from: &mut Input,
    to: &mut Output,
    asked: &RequestHead,
    progress: &Progress,
    count: &IntCounter,
    mut on_head: impl FnMut(u16, &[u8]) -> Taking,
) -> Result<Received, ResponseError> {
    loop {
        let Head { head, length, mut bytes } = next_head(from, asked.method).await?;
        if head.next == Next::Upgrade && !asked.may_upgrade {
            return Err(unreadable(HeadError::UnaskedSwitch));
        }
        let body = match head.next {
            Next::Head | Next::Upgrade => {
                from.unread(bytes.split_off(length));
                None
            }
            Next::Body(body) => {
                let mut scanner = BodyScanner::new(body);
                let end = length + scanner.advance(&bytes[length..])?;
                Some((scanner, end))
            }
        };
        let mut changed = None;
        if head.next != Next::Head {
            match on_head(head.status, &bytes[..length]) {
                Taking::Kept => {}
                Taking::Changed(text) => changed = Some(text),
                Taking::Refused => return Err(ResponseError::Refused(head.status)),
            }
            // Behind an interim head any answer may still come, also one of another endpoint or our own.
            progress.begun.set(true);
        }
        let received =
            |upgraded| Received { status: head.status, keep_alive: head.keep_alive, upgraded, early: false };
        let Some((mut scanner, end)) = body else {
            let bytes = with_head(changed, length, bytes);
            count.inc_by(bytes.len() as u64);
            to.write(bytes).await.map_err(ResponseError::Sink)?;
            if head.next == Next::Upgrade {
                return Ok(received(true));
            }
            continue;
        };
        let surplus = end < bytes.len();
        bytes.truncate(end);
        let bytes = with_head(changed, length, bytes);
        count.inc_by(bytes.len() as u64);
        let is_last = || !head.keep_alive || progress.is_last.get();
        pass(to, bytes, scanner.is_done() && is_last()).await?;
        let surplus = surplus | pass_body(from, to, &mut scanner, count, is_last).await?;
        let mut received = received(false);
        // Bytes that belong to no response: the connection cannot be trusted with another one.
        received.keep_alive &= !surplus;
        return Ok(received);
    }
}

/// Reads an answer that nobody hears, to its end.
pub(crate) async fn discard(from: &mut Input, method: Method) -> Result<(), ResponseError> {
    loop {
        let Head { head, length, mut bytes } = next_head(from, method).await?;
        let mut scanner = match head.next {
            Next::Head => {
                from.unread(bytes.split_off(length));
                continue;
            }
            Next::Upgrade => return Ok(()),
            Next::Body(body) => BodyScanner::new(body),
        };
        scanner.advance(&bytes[length..])?;
        while !scanner.is_done() {
            let Some(bytes) = from.read().await? else { break };
            scanner.advance(&bytes)?;
        }
        return Ok(());
    }
}

/// The bytes with this head in the place of theirs, which has this length.
fn with_head(head: Option<Vec<u8>>, length: usize, bytes: Bytes) -> Bytes {
    let Some(mut head) = head else { return bytes };
    head.extend_from_slice(&bytes[length..]);
    head.into()
}

async fn next_head(from: &mut Input, method: Method) -> Result<Head<ResponseHead>, ResponseError> {
    match read_head(from, |bytes| response::parse(bytes, method)).await {
        Ok(Some(head)) if head.head.is_clean => Ok(head),
        Ok(Some(head)) => mend(&head, method).map_err(unreadable),
        Ok(None) => Err(ResponseError::NoAnswer),
        Err(ReadHeadError::Leg(error)) => Err(error.into()),
        Err(ReadHeadError::Truncated) => Err(ResponseError::Truncated),
        Err(ReadHeadError::Head(error)) => Err(unreadable(error)),
    }
}

fn unreadable(error: HeadError) -> ResponseError {
    ResponseError::Malformed(Unreadable::Head(error))
}

/// The head as it may be passed on, and what it means then.
fn mend(head: &Head<ResponseHead>, method: Method) -> Result<Head<ResponseHead>, HeadError> {
    let (text, behind) = head.bytes.split_at(head.length);
    let mut bytes = response::rewritten(text);
    match response::parse(&bytes, method)? {
        Parsed::Complete(head, length) if head.is_clean && length == bytes.len() => {
            bytes.extend_from_slice(behind);
            Ok(Head { head, length, bytes: bytes.into() })
        }
        Parsed::Complete(..) | Parsed::Partial => Err(HeadError::Malformed("a field")),
    }
}

/// Passes a piece on; the connection's last one together with its end.
async fn pass(to: &mut Output, bytes: Bytes, is_last: bool) -> Result<(), ResponseError> {
    let written = if is_last { to.write_last(bytes).await } else { to.write(bytes).await };
    written.map_err(ResponseError::Sink)
}

/// Returns whether bytes came behind the body.
async fn pass_body(
    from: &mut Input,
    to: &mut Output,
    scanner: &mut BodyScanner,
    count: &IntCounter,
    is_last: impl Fn() -> bool,
) -> Result<bool, ResponseError> {
    while !scanner.is_done() {
        from.await_more();
        let Some(mut bytes) = from.read().await? else {
            return if scanner.may_end_with_connection() { Ok(false) } else { Err(ResponseError::Truncated) };
        };
        let end = scanner.advance(&bytes)?;
        let surplus: Bytes = bytes.split_off(end);
        count.inc_by(end as u64);
        pass(to, bytes, scanner.is_done() && is_last()).await?;
        if !surplus.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
