//! Bytes that wait to be written to one connection: a reader that takes nothing holds up its own, and costs no more than a little when memory
//! is short.
//!
//! A stream of a body without a reader is held back by its window. Where a client opens windows and does not read its connection, crate
//! h2 keeps as much for every stream as it is given.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::memory::{Memory, Shortage};

/// Bytes that may wait on one connection when memory is short.
const SHORT: usize = 512 * 1024;
/// Bytes that are written at a time when all of it is held.
const PIECE: usize = 16 * 1024;

/// Bytes that wait on one connection, as far as they were counted.
#[derive(Debug)]
pub(crate) struct Outgoing {
    memory: Rc<Memory>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

/// A piece that waits; it is written when it is dropped, or never will be.
struct Counted {
    piece: Bytes,
    waiting: Arc<Waiting>,
}

impl Outgoing {
    /// Makes that of a new connection of the worker with this memory.
    pub(crate) fn new(memory: &Rc<Memory>) -> Rc<Self> {
        Rc::new(Self { memory: memory.clone(), waiting: Arc::default() })
    }

    /// Returns true if memory is short, so that a sender had better not go on before its reader does.
    pub(super) fn is_short(&self) -> bool {
        self.memory.shortage() != Shortage::None
    }

    /// Ready with the number of bytes that may be written now.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let (most, piece) = match self.memory.shortage() {
            Shortage::None => return Poll::Ready(usize::MAX),
            Shortage::Half => (SHORT, usize::MAX),
            Shortage::All => (1, PIECE),
        };
        if self.waiting.bytes.load(Ordering::Relaxed) < most {
            return Poll::Ready(piece);
        }
        let mut wakers = self.waiting.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Returns the piece as it is to be written: counted when memory is short.
    pub(super) fn count(&self, piece: Bytes) -> Bytes {
        if piece.is_empty() || !self.is_short() {
            return piece;
        }
        self.waiting.bytes.fetch_add(piece.len(), Ordering::Relaxed);
        Bytes::from_owner(Counted { piece, waiting: self.waiting.clone() })
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.waiting.bytes.fetch_sub(self.piece.len(), Ordering::Relaxed);
        let wakers = std::mem::take(&mut *self.waiting.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(outgoing: &Outgoing) -> Option<usize> {
        match outgoing.poll_room(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(room) => Some(room),
            Poll::Pending => None,
        }
    }

    #[test]
    fn as_long_as_there_is_memory_nothing_is_counted() {
        let outgoing = Outgoing::new(&Rc::new(Memory::held_is(100, || 50)));
        let pieces: Vec<_> = (0..100).map(|_| outgoing.count(Bytes::from(vec![1; 100_000]))).collect();
        assert_eq!((room(&outgoing), pieces.len()), (Some(usize::MAX), 100));
    }

    #[test]
    fn when_memory_is_short_a_connection_waits_until_what_it_has_is_written() {
        let outgoing = Outgoing::new(&Rc::new(Memory::held_is(100, || 51)));
        let mut pieces = Vec::new();
        while room(&outgoing).is_some() {
            pieces.push(outgoing.count(Bytes::from(vec![7; 64 * 1024])));
        }
        assert_eq!(pieces.len(), 8);
        assert_eq!(pieces.pop().unwrap(), vec![7; 64 * 1024]);
        assert_eq!(room(&outgoing), Some(usize::MAX));
    }

    #[test]
    fn when_all_memory_is_held_a_connection_has_one_small_piece() {
        let outgoing = Outgoing::new(&Rc::new(Memory::held_is(100, || 101)));
        assert_eq!(room(&outgoing), Some(PIECE));
        let piece = outgoing.count(Bytes::from_static(b"x"));
        assert_eq!(room(&outgoing), None);
        drop(piece);
        assert_eq!(room(&outgoing), Some(PIECE));
    }
}
