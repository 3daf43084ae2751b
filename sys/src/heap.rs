//! The heap of this process: how much of it is in use, by thread and in all.
#![allow(unsafe_code, reason = "GlobalAlloc passes on to the system's allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

use crate::resident::anonymous;

/// By how much a thread's count may be ahead of the sum of all.
const DRIFT: isize = 64 * 1024;

thread_local! {
    /// Bytes that this thread has taken and not given back, and those of them that are not in the sum yet.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

static TOTAL: AtomicIsize = AtomicIsize::new(0);

/// The system's allocator, which counts what is taken from it. Costs about a nanosecond per call: the sum of all threads
/// is only moved every 64 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Counted;

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing, since the thread's count is
// constant at its start and has no destructor.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller has promised.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            count(signed(layout.size()));
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller has promised.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            count(signed(layout.size()));
        }
        pointer
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller has promised.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        if !moved.is_null() {
            count(signed(size) - signed(layout.size()));
        }
        moved
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller has promised.
        unsafe { System.dealloc(pointer, layout) };
        count(-signed(layout.size()));
    }
}

/// A layout's size is never more than `isize::MAX`.
fn signed(size: usize) -> isize {
    size as isize
}

fn count(bytes: isize) {
    HELD.with(|held| {
        let (all, ahead) = held.get();
        let mut ahead = ahead + bytes;
        if ahead.abs() >= DRIFT {
            TOTAL.fetch_add(ahead, Ordering::Relaxed);
            ahead = 0;
        }
        held.set((all + bytes, ahead));
    });
}

/// Returns the bytes that this thread has taken and not given back; 0 where [`Counted`] is not the allocator.
#[must_use]
pub fn held() -> usize {
    HELD.with(|held| usize::try_from(held.get().0).unwrap_or(0))
}

/// Returns the bytes in use, to within some tens of KiB per thread; 0 where [`Counted`] is not the allocator.
#[must_use]
pub fn total() -> usize {
    usize::try_from(TOTAL.load(Ordering::Relaxed)).unwrap_or(0)
}

/// Returns the bytes of its own memory that this process holds without using them; `None` when /proc is not mounted.
#[must_use]
pub fn unused() -> Option<usize> {
    Some(anonymous().ok()?.saturating_sub(total()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counted = Counted;

    #[test]
    fn what_a_thread_takes_and_gives_back_is_counted() {
        let before = held();
        let taken: Vec<Vec<u8>> = (0..100).map(|_| vec![1; 100_000]).collect();
        assert!(held() - before >= 10_000_000, "{}", held() - before);
        assert!(total() >= 9_000_000);
        drop(taken);
        assert!(held() - before < 100_000);
        // Another thread's are its own.
        std::thread::spawn(|| assert!(held() < 1_000_000)).join().unwrap();
    }
}
