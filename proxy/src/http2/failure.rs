//! Why an attempt at a request brought no answer, what may be done about it, and what the client is told.

use h2::Reason;
use http::Method;

use super::{LOST, UNREACHABLE};
use crate::http::answer::Status;
use crate::leg::Story;
use crate::upstream::OpenFailure;

/// Why one attempt brought no answer; nothing was passed on to the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing was sent.
    #[error("{0}")]
    NotOpened(OpenFailure),
    /// The endpoint takes no more requests on this connection, and has not seen this one.
    #[error("its connection takes no more requests")]
    Gone,
    /// The endpoint cannot take the request now, and has not processed it.
    #[error("it refuses the request")]
    Refused,
    /// The endpoint's sidecar does not reach the application.
    #[error("the application takes no connection")]
    Unreachable,
    /// The connection broke; the request may have been processed.
    #[error("the connection was lost before the answer")]
    Lost {
        /// How it broke, for metrics.
        reason: &'static str,
    },
    /// There is no HTTP/2 at the port.
    #[error(
        "it speaks HTTP/1 only, the client speaks HTTP/2 and the sidecar does not translate; hint: call it by HTTP/1.1"
    )]
    Http1,
    /// The endpoint has reset the request.
    #[error("it reset the request: {0}")]
    Reset(Reason),
}

impl Failure {
    /// What an error of a connection means that has this story.
    pub(super) fn of(error: &h2::Error, story: &Story) -> Self {
        if story.speaks_http1.get() {
            return Self::Http1;
        }
        if error.is_go_away() && error.is_remote() {
            // Streams up to the last one that the peer named do not get this error.
            return Self::Gone;
        }
        match error.reason().filter(|_| error.is_reset()) {
            Some(Reason::REFUSED_STREAM) => Self::Refused,
            Some(Reason::HTTP_1_1_REQUIRED) => Self::Http1,
            Some(reason) if u32::from(reason) == UNREACHABLE => Self::Unreachable,
            Some(reason) if u32::from(reason) == LOST => Self::Lost { reason: "connection_lost" },
            Some(reason) => Self::Reset(reason),
            None if story.never_processed.get() => Self::Gone,
            None => Self::Lost { reason: story.reason.get().unwrap_or("connection_lost") },
        }
    }

    /// Whether the request may be sent again.
    pub(crate) fn may_retry(&self, method: &Method) -> bool {
        match self {
            Self::NotOpened(_) | Self::Gone | Self::Refused | Self::Unreachable => true,
            Self::Lost { .. } => method.is_idempotent(),
            Self::Http1 | Self::Reset(_) => false,
        }
    }

    /// Whether it cost nobody anything.
    pub(crate) fn is_cheap(&self) -> bool {
        match self {
            Self::NotOpened(failure) => !failure.timed_out,
            Self::Gone | Self::Refused | Self::Unreachable => true,
            Self::Lost { .. } | Self::Http1 | Self::Reset(_) => false,
        }
    }

    /// For metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotOpened(failure) => failure.reason,
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Lost { reason } => reason,
            Self::Http1 => "protocol",
            Self::Reset(_) => "reset",
        }
    }

    /// The status that says it best.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NotOpened(failure) if failure.timed_out => Status::Timeout,
            Self::NotOpened(_) | Self::Gone | Self::Refused | Self::Unreachable => Status::Unavailable,
            Self::Lost { .. } | Self::Http1 | Self::Reset(_) => Status::BadGateway,
        }
    }

    /// How the receiving sidecar says it to the calling one.
    pub(crate) fn to_reset(&self) -> Reason {
        match self {
            Self::NotOpened(_) | Self::Unreachable => UNREACHABLE.into(),
            Self::Gone | Self::Refused => Reason::REFUSED_STREAM,
            Self::Lost { .. } => LOST.into(),
            Self::Http1 => Reason::HTTP_1_1_REQUIRED,
            Self::Reset(reason) => *reason,
        }
    }
}
