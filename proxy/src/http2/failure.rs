//! Failures of HTTP/2: from what crate h2 says of a stream, and back to a reset that says it to the calling sidecar.

use h2::Reason;

use super::{Cause, Diagnosis, LOST, MALFORMED, TOO_LARGE, UNREACHABLE};
use crate::dispatch::Failure;
use crate::leg::DENIED;

/// Classifies an error of this stream by what is known of its connection.
pub(super) fn classify(error: &h2::Error, diagnosis: &Diagnosis, stream: u32) -> Failure {
    if diagnosis.speaks_http1.get() {
        return Failure::Http1;
    }
    if error.is_go_away() && error.is_remote() {
        // Streams up to the last one that the peer named do not get this error.
        return Failure::Gone;
    }
    if error.is_library() {
        return if diagnosis.cause(stream) == Some(Cause::TooLarge) {
            Failure::TooLarge
        } else {
            malformed()
        };
    }
    match error.reason().filter(|_| error.is_reset()) {
        Some(Reason::REFUSED_STREAM) => Failure::Refused,
        Some(Reason::HTTP_1_1_REQUIRED) => Failure::Http1,
        Some(reason) if u32::from(reason) == UNREACHABLE => {
            Failure::Unprocessed { reason: "unreachable", text: "the application takes no connection".into() }
        }
        Some(reason) if u32::from(reason) == LOST => lost("connection_lost"),
        Some(reason) if u32::from(reason) == MALFORMED => malformed(),
        Some(reason) if u32::from(reason) == TOO_LARGE => Failure::TooLarge,
        Some(reason) => Failure::Reset(reason),
        None if diagnosis.reason.get() == Some(DENIED) => Failure::Denied,
        None if diagnosis.never_processed.get() => Failure::Gone,
        None => lost(diagnosis.reason.get().unwrap_or("connection_lost")),
    }
}

fn lost(reason: &'static str) -> Failure {
    Failure::Lost { reason, text: "the connection was lost before the answer".into() }
}

fn malformed() -> Failure {
    Failure::Malformed { reason: "malformed", text: "its answer breaks the rules of HTTP/2".into() }
}

/// Returns the reset by which the receiving sidecar says it to the calling one.
pub(crate) fn to_reset(failure: &Failure) -> Reason {
    match failure {
        Failure::NotOpened(_) | Failure::Unprocessed { .. } | Failure::Denied => UNREACHABLE.into(),
        Failure::Gone | Failure::Refused => Reason::REFUSED_STREAM,
        Failure::Lost { .. } | Failure::Late { .. } | Failure::Unwanted(_) => LOST.into(),
        Failure::Malformed { .. } => MALFORMED.into(),
        Failure::TooLarge => TOO_LARGE.into(),
        Failure::Http1 => Reason::HTTP_1_1_REQUIRED,
        Failure::Reset(reason) => *reason,
    }
}
