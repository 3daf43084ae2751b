//! Failures of attempts at a request, the ways out, and the client's answers.

use std::net::SocketAddr;

use h2::Reason;
use http::Method;

use super::{Cause, LOST, MALFORMED, TOO_LARGE, UNREACHABLE};
use crate::http::MAX_HEAD;
use crate::http::answer::Status;
use crate::leg::{DENIED, Story};
use crate::upstream::OpenFailure;

/// Reasons for which one attempt brought no answer; nothing was passed on to the client.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing was sent.
    #[error("{0}")]
    NotOpened(OpenFailure),
    /// Connections come up and end before the endpoint has said anything on them.
    #[error("{0} closes every connection as it comes up")]
    Stillborn(SocketAddr),
    /// The endpoint takes no more requests on this connection, and has not seen this one.
    #[error("its connection takes no more requests")]
    Gone,
    /// The endpoint cannot take the request now, and has not processed it.
    #[error("it refuses the request")]
    Refused,
    /// The endpoint's rules forbid the call.
    #[error("its rules forbid the call")]
    Denied,
    /// The endpoint's sidecar does not reach the application.
    #[error("the application takes no connection")]
    Unreachable,
    /// The connection broke; the request may have been processed.
    #[error("the connection was lost before the answer")]
    Lost {
        /// Name of the breakage, for metrics.
        reason: &'static str,
    },
    /// The answer breaks the rules of HTTP/2, or the connection did: asked again, it would do so again.
    #[error("its answer breaks the rules of HTTP/2")]
    Malformed,
    /// The answer's head is larger than is passed on.
    #[error("the head of its answer is larger than {} KiB", MAX_HEAD / 1024)]
    TooLarge,
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
    /// Judges an error of this stream, on a connection that has this story.
    pub(super) fn of(error: &h2::Error, story: &Story, stream: u32) -> Self {
        if story.speaks_http1.get() {
            return Self::Http1;
        }
        if error.is_go_away() && error.is_remote() {
            // Streams up to the last one that the peer named do not get this error.
            return Self::Gone;
        }
        if error.is_library() {
            return if story.cause(stream) == Some(Cause::TooLarge) {
                Self::TooLarge
            } else {
                Self::Malformed
            };
        }
        match error.reason().filter(|_| error.is_reset()) {
            Some(Reason::REFUSED_STREAM) => Self::Refused,
            Some(Reason::HTTP_1_1_REQUIRED) => Self::Http1,
            Some(reason) if u32::from(reason) == UNREACHABLE => Self::Unreachable,
            Some(reason) if u32::from(reason) == LOST => Self::Lost { reason: "connection_lost" },
            Some(reason) if u32::from(reason) == MALFORMED => Self::Malformed,
            Some(reason) if u32::from(reason) == TOO_LARGE => Self::TooLarge,
            Some(reason) => Self::Reset(reason),
            None if story.reason.get() == Some(DENIED) => Self::Denied,
            None if story.never_processed.get() => Self::Gone,
            None => Self::Lost { reason: story.reason.get().unwrap_or("connection_lost") },
        }
    }

    /// Returns true if the request may be sent again.
    pub(crate) fn may_retry(&self, method: &Method) -> bool {
        match self {
            Self::NotOpened(_) | Self::Stillborn(_) | Self::Gone | Self::Refused | Self::Unreachable => true,
            Self::Lost { .. } => method.is_idempotent(),
            Self::Denied | Self::Malformed | Self::TooLarge | Self::Http1 | Self::Reset(_) => false,
        }
    }

    /// Returns true if it cost nobody anything.
    pub(crate) fn is_cheap(&self) -> bool {
        match self {
            Self::NotOpened(failure) => !failure.timed_out,
            Self::Stillborn(_) | Self::Gone | Self::Refused | Self::Denied | Self::Unreachable => true,
            Self::Lost { .. } | Self::Malformed | Self::TooLarge | Self::Http1 | Self::Reset(_) => false,
        }
    }

    /// For metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotOpened(failure) => failure.reason,
            Self::Stillborn(_) => "connection_lost",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Denied => DENIED,
            Self::Unreachable => "unreachable",
            Self::Lost { reason } => reason,
            Self::Malformed | Self::TooLarge => "malformed",
            Self::Http1 => "protocol",
            Self::Reset(_) => "reset",
        }
    }

    /// The status that says it best.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NotOpened(failure) if failure.timed_out => Status::Timeout,
            Self::NotOpened(_) | Self::Stillborn(_) | Self::Gone | Self::Refused | Self::Unreachable => {
                Status::Unavailable
            }
            Self::Denied => Status::Forbidden,
            Self::TooLarge => Status::AnswerTooLarge,
            Self::Lost { .. } | Self::Malformed | Self::Http1 | Self::Reset(_) => Status::BadGateway,
        }
    }

    /// Returns the reset by which the receiving sidecar says it to the calling one.
    pub(crate) fn to_reset(&self) -> Reason {
        match self {
            Self::NotOpened(_) | Self::Stillborn(_) | Self::Unreachable | Self::Denied => UNREACHABLE.into(),
            Self::Gone | Self::Refused => Reason::REFUSED_STREAM,
            Self::Lost { .. } => LOST.into(),
            Self::Malformed => MALFORMED.into(),
            Self::TooLarge => TOO_LARGE.into(),
            Self::Http1 => Reason::HTTP_1_1_REQUIRED,
            Self::Reset(reason) => *reason,
        }
    }
}
