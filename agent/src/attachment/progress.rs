//! Progress of an attachment, as its asker hears it.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Attached, RequestFailure};

/// The time that something may take which nobody is told of.
const SOON: Duration = Duration::from_millis(700);

/// A word to the asker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Names, in words, the event that is waited for.
    Waiting(String),
    /// Ends the attachment with success: the last word.
    Attached(Attached),
}

/// Tells whoever asked for a workload how it goes. An asker that leaves wants nothing any more.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    asker: mpsc::Sender<Result<Event, RequestFailure>>,
    waits: Waits,
}

/// Last event that was waited for, in words, for whoever looks at the workload meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits(Arc<Mutex<Option<String>>>);

impl Waits {
    /// Returns the words.
    pub(crate) fn words(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, what: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.to_owned());
    }
}

impl Progress {
    /// Makes a channel of both ends.
    #[must_use]
    pub(crate) fn channel(room: usize) -> (Self, mpsc::Receiver<Result<Event, RequestFailure>>) {
        let (sender, receiver) = mpsc::channel(room);
        (Self { asker: sender, waits: Waits::default() }, receiver)
    }

    /// Something is waited for.
    pub(crate) async fn waiting(&self, what: String) {
        self.waits.set(&what);
        self.say(Ok(Event::Waiting(what))).await;
    }

    /// Returns what shows, from now on too, the event that is waited for.
    pub(crate) fn waits(&self) -> Waits {
        self.waits.clone()
    }

    /// Waits for `work`, and says soon that it waits for `what`.
    pub(crate) async fn meanwhile<T>(
        &self,
        what: impl FnOnce() -> String,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        match tokio::time::timeout(SOON, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                self.waiting(what()).await;
                work.await
            }
        }
    }

    /// Tells that the attachment is there.
    pub(crate) async fn attached(&self, attached: Attached) {
        self.say(Ok(Event::Attached(attached))).await;
    }

    /// Tells that it failed.
    pub(crate) async fn failed(&self, failure: impl Into<RequestFailure>) {
        self.say(Err(failure.into())).await;
    }

    /// Returns when the asker has left. Cancel safe.
    pub(crate) async fn closed(&self) {
        self.asker.closed().await;
    }

    async fn say(&self, word: Result<Event, RequestFailure>) {
        // An asker that left needs no word.
        let _ = self.asker.send(word).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_said_and_what_does_not_is_not() {
        let (progress, mut said) = Progress::channel(1);
        let what = || "control".to_owned();
        progress.meanwhile(what, tokio::time::sleep(SOON / 2)).await;
        assert!(said.try_recv().is_err());
        progress.meanwhile(what, tokio::time::sleep(SOON * 2)).await;
        assert_eq!(said.try_recv().unwrap().unwrap(), Event::Waiting("control".to_owned()));
        assert_eq!(progress.waits().words().as_deref(), Some("control"));
    }
}
