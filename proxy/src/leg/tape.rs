//! The beginning of what a caller sent, kept until nobody needs to send it again.

use std::cell::RefCell;

use bytes::Bytes;

/// The most bytes that are kept for a second try.
const LIMIT: usize = 64 * 1024;

/// A recording. It ends for good by its length, or when it is ended.
#[derive(Debug)]
pub(crate) struct Tape(RefCell<Option<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Tape {
    /// Records from now on.
    pub(crate) fn new() -> Self {
        Self(RefCell::new(Some(Recording::default())))
    }

    /// Keeps a piece, the first one whatever its length; the end of the caller's direction is nothing to keep.
    pub(crate) fn record(&self, piece: Option<&Bytes>) {
        let Some(piece) = piece else { return };
        let mut recording = self.0.borrow_mut();
        let Some(so_far) = recording.as_mut() else { return };
        so_far.length += piece.len();
        if so_far.length > LIMIT && !so_far.pieces.is_empty() {
            *recording = None;
        } else {
            so_far.pieces.push(piece.clone());
        }
    }

    /// Forgets everything: what was sent will not be sent again.
    pub(crate) fn end(&self) {
        *self.0.borrow_mut() = None;
    }

    /// The pieces, if all of them are still there.
    pub(crate) fn pieces(&self) -> Option<Vec<Bytes>> {
        self.0.borrow().as_ref().map(|recording| recording.pieces.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_that_is_too_long_or_ended_holds_nothing() {
        let tape = Tape::new();
        tape.record(Some(&Bytes::from_static(b"ab")));
        tape.record(None);
        assert_eq!(tape.pieces().unwrap(), [Bytes::from_static(b"ab")]);
        tape.record(Some(&Bytes::from(vec![0; LIMIT])));
        assert!(tape.pieces().is_none());
        let tape = Tape::new();
        tape.end();
        assert!(tape.pieces().is_none());
    }
}
