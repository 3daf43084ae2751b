//! Response heads.

use std::mem::MaybeUninit;

use super::framing::{Coding, Fields, Framing};
use super::{Body, HeadError, MAX_FIELDS, MAX_HEAD, Method, Parsed};

/// What a relay must know of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    /// Its status code.
    pub(crate) status: u16,
    /// What follows the head.
    pub(crate) next: Next,
    /// Whether the server keeps the connection.
    pub(crate) keep_alive: bool,
}

/// What follows a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another head: this one was interim (1xx).
    Head,
    /// The response's body.
    Body(Body),
    /// Bytes of another protocol, both ways (101, or 2xx to CONNECT).
    Upgrade,
}

/// Parses the response head at the start of `bytes`, as the answer to a request of this method.
///
/// # Errors
/// When it is too long, malformed or of ambiguous length.
pub(crate) fn parse(bytes: &[u8], method: Method) -> Result<Parsed<ResponseHead>, HeadError> {
    let window = &bytes[..bytes.len().min(MAX_HEAD)];
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        window,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if window.len() < MAX_HEAD => return Ok(Parsed::Partial),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HeadError::TooLarge);
        }
        Err(_) => return Err(HeadError::Malformed),
    };
    let status = response.code.unwrap_or_default();
    let minor = response.version.unwrap_or_default();
    let framing = Framing::of(response.headers)?;
    let next = match status {
        101 => Next::Upgrade,
        100..=199 => Next::Head,
        200..=299 if method == Method::Connect => Next::Upgrade,
        204 | 304 => Next::Body(Body::Empty),
        _ if method == Method::Head => Next::Body(Body::Empty),
        _ => Next::Body(body(&framing, minor)?),
    };
    let ends_by_itself = next != Next::Body(Body::UntilClose);
    let head = ResponseHead { status, next, keep_alive: ends_by_itself && framing.persists(minor) };
    Ok(Parsed::Complete(head, length))
}

/// RFC 9112, section 6.3, for responses that may have a body.
fn body(framing: &Framing, minor: u8) -> Result<Body, HeadError> {
    match (framing.coding, framing.length) {
        (None, None) | (Some(Coding::Other), None) => Ok(Body::UntilClose),
        (None, Some(0)) => Ok(Body::Empty),
        (None, Some(length)) => Ok(Body::Length(length)),
        (Some(Coding::Chunked), None) if minor >= 1 => Ok(Body::Chunked),
        (Some(Coding::Chunked | Coding::Other), _) => Err(HeadError::AmbiguousLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, method: Method, expected: Result<(Next, bool), HeadError>) {
        let parsed = parse(text.as_bytes(), method).map(|parsed| match parsed {
            Parsed::Complete(head, _) => (head.next, head.keep_alive),
            Parsed::Partial => panic!("{text:?} is not complete"),
        });
        assert_eq!(parsed, expected, "{text:?}");
    }

    #[test]
    fn where_a_response_ends_depends_on_the_request() {
        use Method::{Connect, Head, Idempotent};
        let five = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        check(five, Idempotent, Ok((Next::Body(Body::Length(5)), true)));
        check(five, Head, Ok((Next::Body(Body::Empty), true)));
        check(five, Connect, Ok((Next::Upgrade, true)));
        check("HTTP/1.1 200\r\n\r\n", Idempotent, Ok((Next::Body(Body::UntilClose), false)));
        check("HTTP/1.0 200 OK\r\n\r\n", Idempotent, Ok((Next::Body(Body::UntilClose), false)));
        check("HTTP/1.1 100 Continue\r\n\r\n", Idempotent, Ok((Next::Head, true)));
        check("HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n", Idempotent, Ok((Next::Upgrade, true)));
        check(
            "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n",
            Idempotent,
            Ok((Next::Body(Body::Empty), true)),
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        check(chunked, Idempotent, Ok((Next::Body(Body::Chunked), false)));
        let both = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n";
        check(both, Idempotent, Err(HeadError::AmbiguousLength));
        check("HTTP/2 200 OK\r\n\r\n", Idempotent, Err(HeadError::Malformed));
    }
}
