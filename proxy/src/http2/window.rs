//! The window of one connection: how much of all its bodies may wait here for readers that are slow.

use std::cell::Cell;
use std::rc::Rc;

use super::{CONNECTION_WINDOW, EASY_WINDOW, LEAST_WINDOW, STREAM_WINDOW};
use crate::memory::{Memory, Usage};

/// A window, as far as the worker's memory lets it grow; dropped, it gives back what it has grown by.
#[derive(Debug)]
pub(crate) struct Window {
    memory: Rc<Memory>,
    peer: Rc<Usage>,
    now: Cell<usize>,
}

impl Window {
    /// The window of a new connection of this peer.
    pub(crate) fn new(memory: &Rc<Memory>, peer: &Rc<Usage>) -> Self {
        Self { memory: memory.clone(), peer: peer.clone(), now: Cell::new(LEAST_WINDOW) }
    }

    /// Returns the usage of the peer.
    pub(super) fn peer(&self) -> &Rc<Usage> {
        &self.peer
    }

    /// The memory that it is part of.
    pub(super) fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    /// The size from now on with so many requests in progress, if that is another one: enough for all of them, so that
    /// no slow reader holds up another.
    pub(super) fn fit(&self, requests: usize) -> Option<u32> {
        let now = self.now.get();
        let wanted = requests.next_power_of_two() * STREAM_WINDOW as usize;
        let wanted = wanted.clamp(EASY_WINDOW, CONNECTION_WINDOW as usize);
        // It shrinks late, since requests come and go.
        if wanted == now || (wanted < now && wanted > now / 4) {
            return None;
        }
        let fitted = self.memory.window(&self.peer, now, wanted, LEAST_WINDOW);
        self.now.set(fitted);
        (fitted != now).then(|| u32::try_from(fitted).unwrap_or(CONNECTION_WINDOW))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.memory.window(&self.peer, self.now.get(), 0, LEAST_WINDOW);
    }
}
