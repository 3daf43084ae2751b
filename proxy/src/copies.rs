//! Copies of a request's body for those who listen in: they share its bytes, and never hold it up.
//!
//! Pieces that a copy's receiver has not taken yet cost memory, so a copy ends where it falls too far behind, or where memory is short.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::memory::{Memory, Shortage};

/// The most bytes that one copy may be behind.
const BEHIND: usize = 256 * 1024;

/// The copies of one request; nearly always there are none.
#[derive(Debug, Default)]
pub(crate) struct Copies(RefCell<Vec<Copy>>);

/// Copy of a request, as its sender sees it.
#[derive(Debug)]
struct Copy {
    sent: UnboundedSender<Piece>,
    ended: oneshot::Sender<()>,
    behind: Rc<Cell<usize>>,
    memory: Rc<Memory>,
}

/// A body that is copied, as its receiver sees it.
#[derive(Debug)]
pub(crate) struct CopiedBody {
    received: UnboundedReceiver<Piece>,
    behind: Rc<Cell<usize>>,
}

/// End of a copy, for whoever waits beside it.
#[derive(Debug)]
pub(crate) struct CopyEnd(oneshot::Receiver<()>);

/// A part of a copied body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of it.
    Bytes(Bytes),
    /// The end of it.
    End,
}

impl Copies {
    /// Begins another copy, of what is tapped from now on.
    pub(crate) fn begin(&self, memory: &Rc<Memory>) -> (CopiedBody, CopyEnd) {
        let ((sent, received), (ended, end)) = (unbounded_channel(), oneshot::channel());
        let behind = Rc::<Cell<usize>>::default();
        self.0.borrow_mut().push(Copy { sent, ended, behind: behind.clone(), memory: memory.clone() });
        (CopiedBody { received, behind }, CopyEnd(end))
    }

    /// Takes a piece of the body along.
    pub(crate) fn tap(&self, piece: &Bytes) {
        self.0.borrow_mut().retain(|copy| copy.take(piece));
    }

    /// Notes that the body has come to its end.
    pub(crate) fn end(&self) {
        for copy in self.0.take() {
            // One that nobody receives any more needs no end.
            let _ = copy.sent.send(Piece::End);
            let _ = copy.ended.send(());
        }
    }
}

impl Copy {
    /// Takes a piece along; false where the copy ends without it.
    fn take(&self, piece: &Bytes) -> bool {
        let behind = self.behind.get() + piece.len();
        if behind > BEHIND || self.memory.shortage() != Shortage::None {
            return false;
        }
        self.behind.set(behind);
        self.sent.send(Piece::Bytes(piece.clone())).is_ok()
    }
}

impl CopiedBody {
    /// The next part; `None` when the copy was given up. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        let piece = self.received.recv().await?;
        if let Piece::Bytes(bytes) = &piece {
            self.behind.set(self.behind.get().saturating_sub(bytes.len()));
        }
        Some(piece)
    }
}

impl CopyEnd {
    /// Returns when the copy was given up, or so long after the end of its request.
    pub(crate) async fn over(self, patience: Duration) {
        if self.0.await.is_ok() {
            tokio::time::sleep(patience).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(held: fn() -> usize) -> Rc<Memory> {
        Rc::new(Memory::held_is(100, held))
    }

    #[tokio::test]
    async fn a_copy_has_all_that_came_behind_its_beginning() {
        let copies = Copies::default();
        copies.tap(&Bytes::from_static(b"before"));
        let (mut copy, end) = copies.begin(&memory(|| 0));
        copies.tap(&Bytes::from_static(b"a"));
        copies.end();
        copies.tap(&Bytes::from_static(b"behind"));
        assert_eq!(copy.next().await, Some(Piece::Bytes(Bytes::from_static(b"a"))));
        assert_eq!(copy.next().await, Some(Piece::End));
        assert_eq!(copy.next().await, None);
        end.over(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_copy_that_falls_behind_ends_and_another_goes_on() {
        let (copies, memory) = (Copies::default(), memory(|| 0));
        let ((mut slow, end), (mut quick, _)) = (copies.begin(&memory), copies.begin(&memory));
        let half = Bytes::from(vec![0; BEHIND / 2]);
        for _ in 0..3 {
            copies.tap(&half);
            assert_eq!(quick.next().await, Some(Piece::Bytes(half.clone())));
        }
        copies.end();
        assert_eq!(quick.next().await, Some(Piece::End));
        end.over(Duration::MAX).await;
        for expected in [Some(Piece::Bytes(half.clone())), Some(Piece::Bytes(half)), None] {
            assert_eq!(slow.next().await, expected);
        }
    }

    #[tokio::test]
    async fn where_memory_is_short_nothing_is_copied() {
        let copies = Copies::default();
        let (mut copy, end) = copies.begin(&memory(|| 51));
        copies.tap(&Bytes::from_static(b"a"));
        assert_eq!(copy.next().await, None);
        end.over(Duration::MAX).await;
    }
}
