//! Read buffers that grow with the flow, and cost an idle connection nothing.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use crate::tunnel::DATA_SENT;

/// The sizes a buffer goes through, in bytes: the larger ones fill whole frames of a tunnel, and leave no small one over.
const SIZES: [usize; 3] = [2 * 1024, DATA_SENT, 16 * DATA_SENT];
const LARGEST: usize = SIZES.len() - 1;
/// Number of the largest buffers that a worker keeps for the next flow that needs one.
const KEPT: usize = 4;

thread_local! {
    static LARGE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A buffer for one direction of one connection.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    step: usize,
}

impl ReadBuffer {
    /// Room for the next read: the whole capacity.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let wanted = SIZES[self.step];
        if self.step == LARGEST
            && !self.bytes.try_reclaim(wanted)
            && let Some(kept) = LARGE.with_borrow_mut(Vec::pop)
        {
            self.bytes = kept;
        }
        // Takes the whole allocation back if nobody holds a part of it any more.
        self.bytes.reserve(wanted);
        &mut self.bytes
    }

    /// Takes the bytes of the last read; `room` was how much it could have.
    pub(super) fn take(&mut self, room: usize) -> Bytes {
        let got = self.bytes.len();
        if got >= room {
            self.step = (self.step + 1).min(LARGEST);
        } else if got * 32 < room {
            self.step = self.step.saturating_sub(1);
        }
        self.bytes.split().freeze()
    }

    /// Lets go of its memory while there is nothing to read: an idle connection holds none.
    pub(super) fn rest(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if self.step == LARGEST && bytes.capacity() > 0 && bytes.try_reclaim(SIZES[LARGEST]) {
            LARGE.with_borrow_mut(|kept| {
                if kept.len() < KEPT {
                    kept.push(bytes);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut ReadBuffer, available: usize) -> usize {
        let bytes = buffer.room();
        let room = bytes.capacity();
        bytes.extend_from_slice(&vec![0; available.min(room)]);
        buffer.take(room).len()
    }

    #[test]
    fn a_buffer_grows_with_its_flow_and_an_idle_one_holds_nothing() {
        let mut buffer = ReadBuffer::default();
        let mut sizes = Vec::new();
        for _ in 0..4 {
            sizes.push(read(&mut buffer, 1 << 20));
        }
        assert!(sizes[0] < 8 * 1024 && sizes[3] >= SIZES[LARGEST], "{sizes:?}");
        buffer.rest();
        assert_eq!(buffer.bytes.capacity(), 0);
        read(&mut buffer, 10);
        read(&mut buffer, 10);
        assert!(buffer.room().capacity() < SIZES[LARGEST] || buffer.step < LARGEST);
    }
}
