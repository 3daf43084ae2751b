//! Read buffers that grow with the flow, and cost an idle connection nothing.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use crate::tunnel::DATA_SENT;

/// The sizes a buffer goes through, in bytes: the larger ones fill whole frames of a tunnel, and leave no small one over.
const SIZES: [usize; 3] = [2 * 1024, DATA_SENT, 16 * DATA_SENT];
const LARGEST: usize = SIZES.len() - 1;
/// Number of buffers of each size that a worker keeps for the next flow that needs one.
const KEPT: [usize; SIZES.len()] = [64, 0, 4];

thread_local! {
    static SPARE: RefCell<[Vec<BytesMut>; SIZES.len()]> = const { RefCell::new([const { Vec::new() }; SIZES.len()]) };
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
        if !self.bytes.try_reclaim(wanted)
            && let Some(spare) = SPARE.with_borrow_mut(|spare| spare[self.step].pop())
        {
            self.bytes = spare;
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

    /// Lets go of its memory while there is nothing to read: an idle connection holds none. The smallest stays as long as others hold
    /// what was read into it, and goes with the first rest after that.
    pub(super) fn rest(&mut self) {
        let size = SIZES[self.step];
        if self.bytes.capacity() == 0 {
            self.bytes = BytesMut::new();
        } else if self.bytes.try_reclaim(size) {
            let bytes = std::mem::take(&mut self.bytes);
            // One that a faster flow has left is not of this size.
            if bytes.capacity() < 2 * size {
                // A thread that ends keeps nothing.
                let _ =
                    SPARE.try_with(|spare| keep(&mut spare.borrow_mut()[self.step], KEPT[self.step], bytes));
            }
        } else if self.step > 0 {
            self.bytes = BytesMut::new();
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.rest();
    }
}

fn keep(spare: &mut Vec<BytesMut>, most: usize, bytes: BytesMut) {
    if spare.len() < most {
        spare.push(bytes);
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

    #[test]
    fn the_next_flow_reads_into_what_the_last_one_has_left() {
        let place = |buffer: &mut ReadBuffer| {
            let bytes = buffer.room();
            bytes.extend_from_slice(b"request");
            let room = bytes.capacity();
            buffer.take(room)
        };
        let (mut first, mut second) = (ReadBuffer::default(), ReadBuffer::default());
        let read = place(&mut first);
        let at = read.as_ptr();
        first.rest();
        assert_ne!(place(&mut second).as_ptr(), at, "somebody holds the bytes still");
        drop(read);
        first.rest();
        assert_eq!(first.bytes.capacity(), 0);
        let mut third = ReadBuffer::default();
        assert_eq!(place(&mut third).as_ptr(), at);
        drop((second, third));
        let spare = SPARE.with_borrow(|spare| spare.each_ref().map(Vec::len));
        assert_eq!(spare, [2, 0, 0]);
    }

    #[test]
    fn buffers_that_are_kept_have_their_number_and_size() {
        let kept = || SPARE.with_borrow(|spare| spare.each_ref().map(Vec::len));
        let mut buffers: Vec<_> = (0..2 * KEPT[0]).map(|_| ReadBuffer::default()).collect();
        for buffer in &mut buffers {
            read(buffer, 10);
        }
        drop(buffers);
        assert_eq!(kept(), [KEPT[0], 0, 0]);
        let mut slowed = ReadBuffer::default();
        for _ in 0..2 {
            read(&mut slowed, 1 << 20);
        }
        // It reads a little at a time into a large buffer still.
        for _ in 0..3 {
            read(&mut slowed, 1);
        }
        assert_eq!(slowed.step, 0);
        drop(slowed);
        SPARE.with_borrow(|[small, ..]| {
            assert!(small.iter().all(|bytes| bytes.capacity() < 2 * SIZES[0]));
        });
    }
}
