//! Memory for what has arrived and waits for its reader. Large pieces lie in blocks that are used again and again:
//! the allocator would give their pages back to the kernel and fault them in anew, at a cost of its own for every one.

use std::cell::RefCell;

use bytes::Bytes;

use super::frame::DATA_SENT;

/// The size of a block: a whole frame of DATA.
const BLOCK: usize = DATA_SENT;
/// From which length on a piece lies in a block, so that at most half of one is wasted.
const LARGE: usize = BLOCK / 2;
/// Number of free blocks that a worker keeps as long as its tunnels are busy.
const KEPT: usize = 32;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A block in use; free again when it is dropped.
struct Block(Vec<u8>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut block = std::mem::take(&mut self.0);
        block.clear();
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(block);
            }
        });
    }
}

/// A copy of `data` that stays.
pub(super) fn keep(data: &[u8]) -> Bytes {
    if !(LARGE..=BLOCK).contains(&data.len()) {
        return Bytes::copy_from_slice(data);
    }
    let mut block = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BLOCK));
    block.extend_from_slice(data);
    Bytes::from_owner(Block(block))
}

/// Gives free blocks back: a busy time is over.
pub(super) fn shrink() {
    FREE.take();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> usize {
        FREE.with_borrow(Vec::len)
    }

    #[test]
    fn blocks_are_used_again_and_given_back_at_rest() {
        let data: Vec<u8> = (0..BLOCK).map(|n| (n % 251) as u8).collect();
        for length in [0, 1, LARGE - 1, LARGE, BLOCK] {
            assert_eq!(keep(&data[..length]), data[..length]);
        }
        assert_eq!(free(), 1, "one after the other, they shared one");
        let many: Vec<Bytes> = (0..2 * KEPT).map(|_| keep(&data)).collect();
        assert_eq!(free(), 0);
        drop(many);
        assert_eq!(free(), KEPT);
        shrink();
        assert_eq!(free(), 0);
    }
}
