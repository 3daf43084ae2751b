//! Ending in order: everybody hears that the process drains, the last one to finish ends the wait.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Progress of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// No new work; what rests may stay.
    Leaving,
    /// Resting connections are closed.
    Ending,
}

/// The side that starts the drain and waits for its end.
#[derive(Debug)]
pub struct Drain {
    stage: watch::Sender<Stage>,
    alive: Option<mpsc::Sender<()>>,
    done: mpsc::Receiver<()>,
}

/// Held by work in progress: hears of the drain, and holds up its end until dropped.
#[derive(Clone, Debug)]
pub struct Draining {
    stage: watch::Receiver<Stage>,
    _alive: Option<mpsc::Sender<()>>,
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
        Self { stage: watch::Sender::new(Stage::Serving), alive: Some(alive), done }
    }

    /// A handle for one piece of work.
    #[must_use]
    pub fn handle(&self) -> Draining {
        Draining { stage: self.stage.subscribe(), _alive: self.alive.clone() }
    }

    /// Begins to drain, without an end to what rests.
    pub fn leave(&mut self) {
        self.stage.send_replace(Stage::Leaving);
        self.alive = None;
    }

    /// Returns when every handle is dropped, after [`Drain::leave`]. Cancel safe.
    pub async fn left(&mut self) {
        // Nothing is ever sent.
        let _ = self.done.recv().await;
    }

    /// Tells everybody and waits until every handle is dropped, at most `deadline`.
    ///
    /// Returns whether all work ended by itself.
    pub async fn drain(mut self, deadline: Duration) -> bool {
        self.stage.send_replace(Stage::Ending);
        self.alive = None;
        tokio::time::timeout(deadline, self.left()).await.is_ok()
    }
}

impl Draining {
    /// Returns when the drain has begun. Cancel safe.
    pub async fn begun(&mut self) {
        self.reached(Stage::Leaving).await;
    }

    /// Returns when what rests is to end. Cancel safe.
    pub async fn ending(&mut self) {
        self.reached(Stage::Ending).await;
    }

    async fn reached(&mut self, wanted: Stage) {
        // An error means that the `Drain` is gone, which is an end of its own kind.
        let _ = self.stage.wait_for(|&stage| stage >= wanted).await;
    }

    /// Returns true if resting connections are to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        *self.stage.borrow() == Stage::Ending
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

    #[tokio::test(start_paused = true)]
    async fn what_rests_may_stay_until_the_end() {
        let mut drain = Drain::new();
        let mut work = drain.handle();
        drain.leave();
        work.begun().await;
        assert!(!work.is_ending());
        assert!(tokio::time::timeout(Duration::from_secs(1), drain.left()).await.is_err());
        drop(work);
        drain.left().await;

        let mut drain = Drain::new();
        let mut work = drain.handle();
        drain.leave();
        let resting = crate::task::spawn("test", async move { work.ending().await });
        assert!(drain.drain(Duration::from_secs(1)).await);
        resting.await.unwrap();
    }
}
