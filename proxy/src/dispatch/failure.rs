//! Failures of attempts at a request or a connection, whatever its protocol.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use h2::Reason;

use crate::balance::Outcome;
use crate::http::MAX_HEAD;
use crate::http::answer::Status;
use crate::leg::{DENIED, LegError};
use crate::message::ResponseError;

/// Failure to open a connection. Nothing was sent: another endpoint may be asked, whatever the call is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct OpenFailure {
    /// Description of the failure.
    pub(crate) text: String,
    /// For metrics.
    pub(crate) reason: &'static str,
    /// True if it took too long, rather than being refused.
    pub(crate) timed_out: bool,
}

/// Reasons for which one attempt brought no answer; nothing was passed on to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The application has certainly seen nothing of it.
    #[error("{text}")]
    Unprocessed {
        /// For metrics.
        reason: &'static str,
        /// Description of the failure.
        text: Cow<'static, str>,
    },
    /// The endpoint's rules forbid the call.
    #[error("its rules forbid the call")]
    Denied,
    /// The connection broke off; the request may have been processed.
    #[error("{text}")]
    Lost {
        /// For metrics.
        reason: &'static str,
        /// Description of the failure.
        text: Cow<'static, str>,
    },
    /// The answer breaks the rules of its protocol, or the connection did: asked again, it would do so again.
    #[error("{text}")]
    Malformed {
        /// For metrics.
        reason: &'static str,
        /// Description of the failure.
        text: Cow<'static, str>,
    },
    /// The answer's head is larger than is passed on.
    #[error("the head of its answer is larger than {} KiB", MAX_HEAD / 1024)]
    TooLarge,
    /// The time is over that a rule gives it; whether it may be asked again.
    #[error("it did not answer in the time that the route allows")]
    Late {
        /// True where the rule says so, and there is time left.
        again: bool,
    },
    /// An answer with a status that the request's rule asks again for, which was granted.
    #[error("it answered with {0}")]
    Unwanted(u16),
    /// There is no HTTP/2 at the port.
    #[error(
        "it speaks HTTP/1 only, the client speaks HTTP/2 and the sidecar does not translate; hint: call it by HTTP/1.1"
    )]
    Http1,
    /// The endpoint has reset the request.
    #[error("it reset the request: {0}")]
    Reset(Reason),
}

/// Effect of asking again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repetition {
    /// Was decided before.
    Granted,
    /// Does what the endpoint wants, on another connection.
    Free,
    /// Repeats nothing that was done.
    Harmless,
    /// May repeat what was done.
    IfIdempotent,
    /// Fails again.
    Useless,
}

impl OpenFailure {
    /// The failure of a plain connection to this address.
    pub(crate) fn plain(address: SocketAddr, error: &io::Error) -> Self {
        let timed_out = error.kind() == io::ErrorKind::TimedOut;
        Self { text: format!("no connection to {address}: {error}"), reason: "connect", timed_out }
    }
}

impl Failure {
    /// The failure of a connection that broke before a byte came back, in these words.
    pub(crate) fn of_leg(error: &LegError, text: String) -> Self {
        let (reason, text) = (error.reason(), text.into());
        if error.is_denied() {
            Self::Denied
        } else if error.never_processed() {
            Self::Unprocessed { reason, text }
        } else {
            Self::Lost { reason, text }
        }
    }

    /// The failure of an exchange of HTTP/1 of whose answer nothing was passed on.
    pub(crate) fn of_response(error: &ResponseError) -> Self {
        let text = error.to_string();
        match error {
            ResponseError::Source(error) => Self::of_leg(error, text),
            ResponseError::NoAnswer | ResponseError::Truncated => {
                Self::Lost { reason: "reset", text: text.into() }
            }
            ResponseError::Refused(status) => Self::Unwanted(*status),
            ResponseError::Malformed(_) | ResponseError::Sink(_) => {
                Self::Malformed { reason: "protocol", text: text.into() }
            }
        }
    }

    /// Returns the effect of asking again.
    pub(crate) fn repetition(&self) -> Repetition {
        match self {
            Self::Unwanted(_) => Repetition::Granted,
            Self::Gone => Repetition::Free,
            Self::NotOpened(_) | Self::Refused | Self::Unprocessed { .. } => Repetition::Harmless,
            Self::Lost { .. } | Self::Late { again: true } => Repetition::IfIdempotent,
            Self::Late { again: false }
            | Self::Denied
            | Self::Malformed { .. }
            | Self::TooLarge
            | Self::Http1
            | Self::Reset(_) => Repetition::Useless,
        }
    }

    /// Returns true if it cost nobody anything.
    pub(crate) fn is_cheap(&self) -> bool {
        match self {
            Self::NotOpened(failure) => !failure.timed_out,
            Self::Gone | Self::Refused | Self::Unprocessed { .. } | Self::Denied | Self::Unwanted(_) => true,
            Self::Lost { .. }
            | Self::Malformed { .. }
            | Self::TooLarge
            | Self::Late { .. }
            | Self::Http1
            | Self::Reset(_) => false,
        }
    }

    /// For metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotOpened(failure) => failure.reason,
            Self::Unprocessed { reason, .. } | Self::Lost { reason, .. } | Self::Malformed { reason, .. } => {
                reason
            }
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Denied => DENIED,
            Self::TooLarge => "malformed",
            Self::Late { .. } => "timeout",
            Self::Unwanted(_) => "status",
            Self::Http1 => "protocol",
            Self::Reset(_) => "reset",
        }
    }

    /// The verdict on the endpoint; `None` where it was blamed when the way to it was not opened.
    pub(crate) fn verdict(&self) -> Option<Outcome> {
        match self {
            // An answer was reported as one.
            Self::NotOpened(_) | Self::Unwanted(_) => None,
            // It only wants another connection, or does what it should.
            Self::Gone | Self::Denied => Some(Outcome::Abandoned),
            Self::Refused => Some(Outcome::Overloaded(Duration::ZERO)),
            Self::Unprocessed { .. } => Some(Outcome::Refused),
            Self::Lost { .. }
            | Self::Malformed { .. }
            | Self::TooLarge
            | Self::Late { .. }
            | Self::Http1
            | Self::Reset(_) => Some(Outcome::Broken),
        }
    }

    /// The status that says it best.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NotOpened(failure) if failure.timed_out => Status::Timeout,
            Self::NotOpened(_) | Self::Gone | Self::Refused | Self::Unprocessed { .. } => Status::Unavailable,
            Self::Denied => Status::Forbidden,
            Self::TooLarge => Status::AnswerTooLarge,
            Self::Late { .. } => Status::Late,
            Self::Unwanted(_) | Self::Lost { .. } | Self::Malformed { .. } | Self::Http1 | Self::Reset(_) => {
                Status::BadGateway
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadError;
    use crate::message::Unreadable;
    use crate::tunnel::{ResetCode, StreamError};

    fn lost(reason: &'static str) -> Failure {
        Failure::Lost { reason, text: "words".into() }
    }

    #[test]
    fn a_connection_that_broke_off_may_be_repeated_as_far_as_it_says_who_has_seen_the_request() {
        let reset = |code| LegError::Stream(StreamError::Reset(code));
        let never_sent =
            |never_sent| LegError::Stream(StreamError::TunnelLost { never_sent, reason: "gone".into() });
        let unprocessed = |reason| Failure::Unprocessed { reason, text: "words".into() };
        for (error, expected) in [
            (reset(ResetCode::Denied), Failure::Denied),
            (reset(ResetCode::Refused), unprocessed("refused")),
            (reset(ResetCode::ProtocolError), lost("protocol")),
            (never_sent(true), unprocessed("connection_lost")),
            (never_sent(false), lost("connection_lost")),
            (LegError::Tcp(io::ErrorKind::ConnectionReset.into()), lost("connection_lost")),
        ] {
            assert_eq!(Failure::of_leg(&error, "words".to_owned()), expected, "{error:?}");
        }
    }

    #[test]
    fn an_answer_that_never_came_may_be_asked_for_again_and_one_that_cannot_be_read_may_not() {
        let tcp = || LegError::Tcp(io::ErrorKind::ConnectionReset.into());
        for (error, reason, repetition) in [
            (ResponseError::Source(tcp()), "connection_lost", Repetition::IfIdempotent),
            (ResponseError::NoAnswer, "reset", Repetition::IfIdempotent),
            (ResponseError::Truncated, "reset", Repetition::IfIdempotent),
            (ResponseError::Malformed(Unreadable::Head(HeadError::TooLong)), "protocol", Repetition::Useless),
            (ResponseError::Sink(tcp()), "protocol", Repetition::Useless),
        ] {
            let failure = Failure::of_response(&error);
            assert_eq!((failure.reason(), failure.repetition()), (reason, repetition), "{error:?}");
            assert_eq!(failure.to_string(), error.to_string());
        }
    }

    #[test]
    fn a_connection_that_took_too_long_is_told_from_one_that_was_refused() {
        let address = "192.0.2.1:80".parse().unwrap();
        for (kind, timed_out) in [(io::ErrorKind::TimedOut, true), (io::ErrorKind::ConnectionRefused, false)]
        {
            let failure = OpenFailure::plain(address, &kind.into());
            assert_eq!((failure.timed_out, Failure::NotOpened(failure).reason()), (timed_out, "connect"));
        }
    }

    #[test]
    fn failures_are_counted_by_what_they_are() {
        for (failure, reason) in [
            (Failure::Gone, "gone"),
            (Failure::Refused, "refused"),
            (Failure::Denied, DENIED),
            (Failure::TooLarge, "malformed"),
            (Failure::Late { again: true }, "timeout"),
            (Failure::Unwanted(503), "status"),
            (Failure::Http1, "protocol"),
            (Failure::Reset(Reason::CANCEL), "reset"),
        ] {
            assert_eq!(failure.reason(), reason);
        }
    }
}
