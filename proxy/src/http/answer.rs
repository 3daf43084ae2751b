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
    /// No rule of the service's routes is for the request.
    NoRule,
    /// The backend of the request's rule is not there.
    Unresolved,
    /// The time is over that the request's rule gives.
    Late,
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
            Self::NoRule => 404,
            Self::Unresolved => 500,
            Self::Timeout | Self::Late => 504,
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
            Self::NoRule => "Not Found",
            Self::Unresolved => "Internal Server Error",
            Self::Timeout | Self::Late => "Gateway Timeout",
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

/// The bytes of an answer without a body that a rule gives, with these fields.
pub(crate) fn ruled(status: u16, fields: &[(&str, String)], close: bool) -> Bytes {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut answer = format!("HTTP/1.1 {status} {}\r\nserver: sealane\r\n", reason.unwrap_or_default());
    for (name, value) in fields {
        answer.extend([name, ": ", value.as_str(), "\r\n"]);
    }
    if status != 204 {
        answer.push_str("content-length: 0\r\n");
    }
    answer.push_str(if close { "connection: close\r\n\r\n" } else { "\r\n" });
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

    #[test]
    fn a_rule_answers_without_a_body() {
        let fields = [("Location", "http://a/".to_owned())];
        let expected =
            "HTTP/1.1 302 Found\r\nserver: sealane\r\nLocation: http://a/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(ruled(302, &fields, false), expected);
        let expected = "HTTP/1.1 204 No Content\r\nserver: sealane\r\nconnection: close\r\n\r\n";
        assert_eq!(ruled(204, &[], true), expected);
    }
}
