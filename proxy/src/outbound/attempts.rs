//! Attempts at a request or connection, at one endpoint after another: the same loop for all protocols.

use std::rc::Rc;
use std::time::Duration;

use crate::backend::{Backend, Work};
use crate::balance::Pick;
use crate::dispatch::{Answer, Failure, Next, Repeatability};
use crate::http::answer::Status;

/// Something that is asked of one endpoint after another.
pub(super) trait Attempt {
    /// Outcome of an attempt that is not followed by another.
    type Done;

    /// Asks the endpoint of `work`, which is blamed for what fails.
    ///
    /// # Errors
    /// When it brought no answer.
    async fn make(&mut self, work: Work) -> Result<Self::Done, Failure>;

    /// Returns what another attempt depends on.
    fn repeatability(&self) -> Repeatability;

    /// Returns the time to wait before the attempt that follows this failure, where it is not made at once.
    fn pause(&self, _failure: &Failure) -> Option<Duration> {
        None
    }
}

/// End of the attempts without an answer of an endpoint.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// Failure of the last attempt; `None` when there was nobody to ask.
    pub(super) failure: Option<Failure>,
    /// Answer for the client.
    pub(super) answer: Answer,
}

/// Makes attempts at endpoints of `backend` until one is not followed by another. The first may have been picked before.
///
/// # Errors
/// When no endpoint answers.
pub(super) async fn make_attempts<A: Attempt>(
    backend: &Rc<Backend>,
    mut picked: Option<Work>,
    asked: &mut A,
) -> Result<A::Done, Unanswered> {
    let mut tried: Vec<Pick> = Vec::new();
    loop {
        let Some(work) = picked.take().or_else(|| backend.pick(&tried)) else {
            return Err(Unanswered { failure: None, answer: Answer::Status(Status::Unavailable) });
        };
        tried.push(work.pick);
        let failure = match asked.make(work).await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        match backend.next(&failure, tried.len(), asked.repeatability()) {
            Next::Again => {
                tracing::debug!(target = %backend.label, %failure, "asking another endpoint");
                if let Some(pause) = asked.pause(&failure) {
                    Box::pin(tokio::time::sleep(pause)).await;
                }
            }
            Next::Answer(answer) => return Err(Unanswered { failure: Some(failure), answer }),
        }
    }
}

impl Unanswered {
    /// Words for the client.
    pub(super) fn text(&self, backend: &Backend) -> String {
        match &self.failure {
            None => format!("no instance of {} is ready", backend.label),
            Some(Failure::Denied) => backend.denial(),
            Some(failure) => format!("{} gave no answer: {failure}", backend.label),
        }
    }
}
