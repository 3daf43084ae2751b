//! The beginning of what a caller sent, kept until nobody needs to send it again.

use std::cell::RefCell;

use bytes::Bytes;

/// The most bytes that are kept for a second try.
const LIMIT: usize = 64 * 1024;

/// Buffer of what may be sent again. It ends for good by its length, or when it is ended.
#[derive(Debug)]
pub(crate) struct ReplayBuffer(RefCell<Option<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<Bytes>,
    length: usize,
}

impl ReplayBuffer {
    /// Records from now on.
    pub(crate) fn new() -> Self {
        Self(RefCell::new(Some(Kept::default())))
    }

    /// Keeps a piece, the first one whatever its length; the end of the caller's direction is nothing to keep.
    pub(crate) fn record(&self, piece: Option<&Bytes>) {
        let Some(piece) = piece else { return };
        let mut kept = self.0.borrow_mut();
        let Some(so_far) = kept.as_mut() else { return };
        so_far.length += piece.len();
        if so_far.length > LIMIT && !so_far.pieces.is_empty() {
            *kept = None;
        } else {
            so_far.pieces.push(piece.clone());
        }
    }

    /// Forgets everything: what was sent will not be sent again.
    pub(crate) fn end(&self) {
        *self.0.borrow_mut() = None;
    }

    /// Returns true if all pieces are still there.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// The pieces, if all of them are still there.
    pub(crate) fn pieces(&self) -> Option<Vec<Bytes>> {
        self.0.borrow().as_ref().map(|kept| kept.pieces.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_too_long_or_ended_holds_nothing() {
        let buffer = ReplayBuffer::new();
        buffer.record(Some(&Bytes::from_static(b"ab")));
        buffer.record(None);
        assert_eq!(buffer.pieces().unwrap(), [Bytes::from_static(b"ab")]);
        buffer.record(Some(&Bytes::from(vec![0; LIMIT])));
        assert!(buffer.pieces().is_none());
        let buffer = ReplayBuffer::new();
        buffer.end();
        assert!(buffer.pieces().is_none());
    }
}
