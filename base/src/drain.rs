//! Ending in order: everybody hears that the process drains, the last one to finish ends the wait.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// The side that starts the drain and waits for its end.
#[derive(Debug)]
pub struct Drain {
    signal: watch::Sender<bool>,
    alive: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

/// Held by work in progress: hears of the drain, and holds up its end until dropped.
#[derive(Clone, Debug)]
pub struct Draining {
    signal: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new() -> Self {
        let (alive, done) = mpsc::channel(1);
        Self { signal: watch::Sender::new(false), alive, done }
    }

    /// A handle for one piece of work.
    #[must_use]
    pub fn handle(&self) -> Draining {
        Draining { signal: self.signal.subscribe(), _alive: self.alive.clone() }
    }

    /// Tells everybody and waits until every handle is dropped, at most `deadline`.
    ///
    /// Returns whether all work ended by itself.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.signal.send_replace(true);
        drop(self.alive);
        let mut done = self.done;
        tokio::time::timeout(deadline, done.recv()).await.is_ok()
    }
}

impl Draining {
    /// Returns when the drain has begun. Cancel safe.
    pub async fn begun(&mut self) {
        // An error means that the `Drain` is gone, which is an end of its own kind.
        let _ = self.signal.wait_for(|&draining| draining).await;
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.signal.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_its_last_handle_or_its_deadline() {
        let drain = Drain::new();
        let mut work = drain.handle();
        let worker = crate::task::spawn("test", async move { work.begun().await });
        assert!(drain.drain(Duration::from_secs(1)).await);
        worker.await.unwrap();

        let drain = Drain::new();
        let _stuck = drain.handle();
        assert!(!drain.drain(Duration::from_secs(1)).await);
    }
}
