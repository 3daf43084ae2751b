//! Answers that the sidecar gives itself, when there is nobody else to give one.

use bytes::Bytes;

/// The statuses that the sidecar says for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The request cannot be read in one way only.
    BadRequest,
    /// The call may not pass.
    Forbidden,
    /// The request's head took too long.
    RequestTimeout,
    /// The request's head is too long.
    HeadTooLarge,
    /// The head of the service's answer is too long.
    AnswerTooLarge,
    /// The service failed to answer.
    BadGateway,
    /// Nobody is there to answer.
    Unavailable,
    /// Nobody answered in time.
    Timeout,
}

impl Status {
    /// The status code.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::RequestTimeout => 408,
            Self::HeadTooLarge => 431,
            Self::AnswerTooLarge | Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::RequestTimeout => "Request Timeout",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::AnswerTooLarge | Self::BadGateway => "Bad Gateway",
            Self::Unavailable => "Service Unavailable",
            Self::Timeout => "Gateway Timeout",
        }
    }
}

/// Place of an answer in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// The request was HEAD: no body follows.
    pub(crate) bodiless: bool,
    /// The connection closes behind it.
    pub(crate) close: bool,
}

/// The bytes of an answer that says `text`.
pub(crate) fn local(status: Status, text: &str, manner: Manner) -> Bytes {
    let (code, reason) = (status.code(), status.reason());
    let (length, close) = (text.len() + 1, if manner.close { "connection: close\r\n" } else { "" });
    let mut answer = format!(
        "HTTP/1.1 {code} {reason}\r\nserver: sealane\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {length}\r\n{close}\r\n"
    );
    if !manner.bodiless {
        answer.push_str(text);
        answer.push('\n');
    }
    answer.into()
}

#[cfg(test)]
mod tests {
    use super::super::{Body, Method, Parsed, response};
    use super::*;

    #[test]
    fn answers_are_good_http() {
        let manner = Manner { bodiless: false, close: true };
        let answer = local(Status::Unavailable, "no instance of api is ready", manner);
        let Ok(Parsed::Complete(head, length)) = response::parse(&answer, Method::Idempotent) else {
            panic!("{answer:?}");
        };
        assert_eq!((head.status, head.keep_alive), (503, false));
        assert_eq!(head.next, response::Next::Body(Body::Length((answer.len() - length) as u64)));
    }
}
