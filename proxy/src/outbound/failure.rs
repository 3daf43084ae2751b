//! Failures of requests, the ways out, and the client's answers.

use crate::http::Method;
use crate::http::answer::Status;
use crate::message::ResponseError;
use crate::upstream::OpenFailure;

/// Number of times that a request is sent again that may have been worked on, or that took its time to fail.
pub(super) const MAX_RETRIES: usize = 3;
/// Number of times when it was turned away at once: it cost nobody anything, and the endpoint is not asked again.
pub(super) const MAX_REFUSALS: usize = 16;

/// Reasons for which one attempt got no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was sent.
    NotOpened(OpenFailure),
    /// Something was sent and no byte of an answer passed on.
    NoAnswer(ResponseError),
}

impl Failure {
    /// Returns true if the request may be sent again, as far as the request itself is concerned.
    pub(super) fn may_retry(&self, method: Method) -> bool {
        match self {
            Self::NotOpened(_) => true,
            Self::NoAnswer(_) if self.is_denied() => false,
            Self::NoAnswer(ResponseError::Source(error)) => error.never_processed() || method.is_idempotent(),
            Self::NoAnswer(ResponseError::NoAnswer | ResponseError::Truncated) => method.is_idempotent(),
            Self::NoAnswer(ResponseError::Malformed(_) | ResponseError::Sink(_)) => false,
        }
    }

    /// Returns the number of retries that a request may have had for this to be followed by another.
    pub(super) fn max_retries(&self) -> usize {
        match self {
            Self::NotOpened(failure) if failure.timed_out => MAX_RETRIES,
            Self::NotOpened(_) => MAX_REFUSALS,
            Self::NoAnswer(_) if self.is_refusal() => MAX_REFUSALS,
            Self::NoAnswer(_) => MAX_RETRIES,
        }
    }

    /// For metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NotOpened(failure) => failure.reason,
            Self::NoAnswer(ResponseError::Source(error)) => error.reason(),
            Self::NoAnswer(ResponseError::NoAnswer | ResponseError::Truncated) => "reset",
            Self::NoAnswer(ResponseError::Malformed(_) | ResponseError::Sink(_)) => "protocol",
        }
    }

    /// Returns true if it shows that the endpoint takes no work.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            // The endpoint was blamed when the way to it was not opened.
            Self::NotOpened(_) => false,
            Self::NoAnswer(ResponseError::Source(error)) => error.never_processed() && !error.is_denied(),
            Self::NoAnswer(_) => false,
        }
    }

    /// Returns true if the called side's rules forbid the call.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::NoAnswer(ResponseError::Source(error)) if error.is_denied())
    }

    /// The status that says it best.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::NotOpened(failure) if failure.timed_out => Status::Timeout,
            Self::NotOpened(_) => Status::Unavailable,
            Self::NoAnswer(_) if self.is_denied() => Status::Forbidden,
            Self::NoAnswer(ResponseError::Source(error)) if error.never_processed() => Status::Unavailable,
            Self::NoAnswer(_) => Status::BadGateway,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotOpened(failure) => failure.fmt(f),
            Self::NoAnswer(error) => error.fmt(f),
        }
    }
}
