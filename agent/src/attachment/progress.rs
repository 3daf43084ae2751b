//! Progress of an attachment, as its asker hears it.

use tokio::sync::mpsc;

use super::{Attached, Failure};

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
pub(crate) struct Progress(mpsc::Sender<Result<Event, Failure>>);

impl Progress {
    /// Makes a channel of both ends.
    #[must_use]
    pub(crate) fn channel(room: usize) -> (Self, mpsc::Receiver<Result<Event, Failure>>) {
        let (sender, receiver) = mpsc::channel(room);
        (Self(sender), receiver)
    }

    /// Something is waited for.
    pub(crate) async fn waiting(&self, what: String) {
        self.say(Ok(Event::Waiting(what))).await;
    }

    /// Tells that the attachment is there.
    pub(crate) async fn attached(&self, attached: Attached) {
        self.say(Ok(Event::Attached(attached))).await;
    }

    /// Tells that it failed.
    pub(crate) async fn failed(&self, failure: impl Into<Failure>) {
        self.say(Err(failure.into())).await;
    }

    /// Returns when the asker has left. Cancel safe.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }

    async fn say(&self, word: Result<Event, Failure>) {
        // An asker that left needs no word.
        let _ = self.0.send(word).await;
    }
}
