//! Memory of one worker for bytes that nobody has read yet: a budget, and the decisions by it. Pure but for the
//! question how much is held.
//!
//! Half of the budget is for windows: an HTTP/2 connection begins with a small one, which grows with its requests as long
//! as there is something left, and no peer gets more than half of that. What is held is asked of the allocator, so that
//! nothing is forgotten: from half of the budget on a peer may have only so many requests in progress and a connection only so
//! much that waits to be written, beyond all of it nothing may begin.

use std::cell::Cell;
use std::rc::Rc;

use sealane_sys::heap;

/// Number of requests that a peer may have in progress from half of the budget on, and on connections that it shares.
const FEW: usize = 64;

/// The memory of one worker.
#[derive(Debug)]
pub(crate) struct Memory {
    budget: usize,
    held: fn() -> usize,
    /// Growth of windows.
    grown: Cell<usize>,
}

/// Part of the budget that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// No more than half of it.
    None,
    /// More than half of it.
    Half,
    /// All of it, and more.
    All,
}

/// Usage of one peer.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Growth of its windows.
    grown: Cell<usize>,
    requests: Cell<usize>,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(crate) struct InProgress(Rc<Usage>);

impl Usage {
    /// Returns true if it has more requests in progress than it may have when memory is short, or others would wait
    /// behind it.
    pub(crate) fn is_heavy(&self) -> bool {
        self.requests.get() > FEW
    }

    /// Another request begins.
    pub(crate) fn begin(self: &Rc<Self>) -> InProgress {
        self.requests.set(self.requests.get() + 1);
        InProgress(self.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
    }
}

impl Memory {
    /// The memory of the worker that asks, of so many bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget, held: heap::held, grown: Cell::new(0) }
    }

    /// Makes a memory of so many bytes, of which so many are held.
    #[cfg(test)]
    pub(crate) fn held_is(budget: usize, held: fn() -> usize) -> Self {
        Self { budget, held, grown: Cell::new(0) }
    }

    /// The budget.
    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// Returns true if nothing may begin any more.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.shortage() == Shortage::All
    }

    /// Returns the part of the budget that is held.
    pub(crate) fn shortage(&self) -> Shortage {
        match (self.held)() {
            held if held > self.budget => Shortage::All,
            held if held > self.budget / 2 => Shortage::Half,
            _ => Shortage::None,
        }
    }

    /// Returns true if this peer may begin no further request.
    pub(crate) fn refuses(&self, peer: &Usage) -> bool {
        match self.shortage() {
            Shortage::None => false,
            Shortage::Half => peer.is_heavy(),
            Shortage::All => true,
        }
    }

    /// The size that a window of this peer has from now on, which is `now` and should be `wanted`, neither less than
    /// `least`: it grows as far as there is something left.
    pub(crate) fn window(&self, peer: &Usage, now: usize, wanted: usize, least: usize) -> usize {
        let wanted = wanted.max(least);
        if wanted > now {
            let left = (self.budget / 2).saturating_sub(self.grown.get());
            let own = (self.budget / 4).saturating_sub(peer.grown.get());
            let more = (wanted - now).min(left).min(own);
            self.move_by(peer, more, 0);
            now + more
        } else {
            self.move_by(peer, 0, now - wanted);
            wanted
        }
    }

    fn move_by(&self, peer: &Usage, more: usize, less: usize) {
        for sum in [&self.grown, &peer.grown] {
            sum.set((sum.get() + more).saturating_sub(less));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_peer_is_refused_before_a_quiet_one_and_both_beyond_the_budget() {
        let memory = |held| Memory::held_is(1000, held);
        for (held, in_progress, expected) in [
            ((|| 400) as fn() -> usize, 1000, false),
            (|| 500, 1000, false),
            (|| 600, 64, false),
            (|| 600, 65, true),
            (|| 1000, 0, false),
            (|| 1001, 0, true),
        ] {
            let peer = Usage { requests: Cell::new(in_progress), ..Usage::default() };
            assert_eq!(memory(held).refuses(&peer), expected, "{in_progress}");
            assert_eq!(memory(held).is_exhausted(), held() > 1000);
        }
        assert_eq!(memory(|| 0).budget(), 1000);
    }

    #[test]
    fn a_request_counts_until_it_ends() {
        let peer = Rc::new(Usage::default());
        let mut requests: Vec<InProgress> = (0..=FEW).map(|_| peer.begin()).collect();
        assert!(peer.is_heavy());
        requests.pop();
        assert!(!peer.is_heavy());
        requests.push(peer.begin());
        assert!(peer.is_heavy());
    }

    #[test]
    fn windows_grow_by_half_of_the_budget_and_those_of_one_peer_by_a_quarter() {
        let memory = Memory::held_is(1000, || 0);
        let shares = [Usage::default(), Usage::default(), Usage::default()];
        let grown = shares.each_ref().map(|share| memory.window(share, 10, 400, 10));
        assert_eq!(grown, [260, 260, 10]);
        // What one gives back, another may have.
        assert_eq!(memory.window(&shares[0], grown[0], 0, 10), 10);
        assert_eq!(memory.window(&shares[2], 10, 100, 10), 100);
        assert_eq!(memory.window(&shares[1], 260, 300, 10), 260);
        // And no more than that.
        assert_eq!(memory.window(&shares[1], 260, 200, 10), 200);
        assert_eq!(memory.window(&shares[1], 200, 400, 10), 260);
    }
}
