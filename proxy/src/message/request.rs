//! The request's body, from the caller to the called.

use bytes::Bytes;

use crate::http::BodyScanner;
use crate::http::body::ChunkError;
use crate::leg::{Input, LegError, Output};

/// Reasons for which a body did not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The caller broke off.
    #[error("the caller broke off: {0}")]
    Source(LegError),
    /// The caller ended too early.
    #[error("the caller ended within the body")]
    Truncated,
    /// The caller's chunks are malformed.
    #[error("{0}")]
    Malformed(#[from] ChunkError),
    /// The called side takes no more.
    #[error("the called side takes no more: {0}")]
    Sink(LegError),
}

/// Sends the rest of a body; `tap` sees each piece before it is sent, to keep it or to count it. Bytes behind the body stay in `from`.
///
/// Not cancel safe: a piece that `tap` saw may have been sent in part.
pub(crate) async fn send_body(
    from: &mut Input,
    to: &mut Output,
    scanner: &mut BodyScanner,
    mut tap: impl FnMut(&Bytes),
) -> Result<(), BodyError> {
    while !scanner.is_done() {
        from.await_more();
        let mut bytes = from.read().await.map_err(BodyError::Source)?.ok_or(BodyError::Truncated)?;
        let length = scanner.advance(&bytes)?;
        if length < bytes.len() {
            from.unread(bytes.split_off(length));
        }
        tap(&bytes);
        to.write(bytes).await.map_err(BodyError::Sink)?;
    }
    Ok(())
}
