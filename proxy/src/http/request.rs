//! Request heads.

use std::mem::MaybeUninit;

use super::framing::{Coding, Fields, Framing};
use super::{Body, HeadError, MAX_FIELDS, MAX_HEAD, Parsed, has_bare_newline};

/// The methods that a relay must tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// HEAD: the response has no body.
    Head,
    /// CONNECT: success makes a tunnel.
    Connect,
    /// GET, OPTIONS, TRACE, PUT or DELETE: doing it twice is doing it once (RFC 9110, section 9.2.2).
    Idempotent,
    /// Everything else.
    Other,
}

/// Content of a request that a relay must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestHead {
    /// Method of the request.
    pub(crate) method: Method,
    /// Delimitation of its body.
    pub(crate) body: Body,
    /// True if the client wants the connection to stay.
    pub(crate) keep_alive: bool,
    /// True if the connection may become something else: an Upgrade field, or CONNECT.
    pub(crate) may_upgrade: bool,
    /// True if the method calls for a body: POST, PUT and PATCH do.
    pub(crate) takes_body: bool,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            "GET" | "OPTIONS" | "TRACE" | "PUT" | "DELETE" => Self::Idempotent,
            _ => Self::Other,
        }
    }

    /// Returns true if a request may be sent again when nobody knows if it was processed.
    pub(crate) fn is_idempotent(self) -> bool {
        match self {
            Self::Head | Self::Idempotent => true,
            Self::Connect | Self::Other => false,
        }
    }
}

/// Parses the request head at the start of `bytes`.
///
/// # Errors
/// When it is too long, malformed (also: lines that end without CR, folded lines) or of ambiguous length or host.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<RequestHead>, HeadError> {
    let window = &bytes[..bytes.len().min(MAX_HEAD)];
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(window, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if window.len() < MAX_HEAD => return Ok(Parsed::Partial),
        Ok(httparse::Status::Partial) => return Err(HeadError::TooLong),
        Err(error) => return Err(HeadError::of(error, window)),
    };
    if has_bare_newline(&window[..length]) {
        return Err(HeadError::Malformed("a line ends with LF alone"));
    }
    let method = Method::of(request.method.unwrap_or_default());
    let minor = request.version.unwrap_or_default();
    let framing = Framing::of(request.headers)?;
    if framing.hosts > 1 {
        return Err(HeadError::AmbiguousHost);
    }
    let takes_body = matches!(request.method, Some("POST" | "PUT" | "PATCH"));
    let head = RequestHead {
        method,
        body: body(&framing, minor)?,
        takes_body,
        keep_alive: framing.persists(minor),
        may_upgrade: framing.upgrade || method == Method::Connect,
    };
    Ok(Parsed::Complete(head, length))
}

/// RFC 9112, section 6.3, for requests; both kinds of length at once are how requests are smuggled.
fn body(framing: &Framing, minor: u8) -> Result<Body, HeadError> {
    match (framing.coding, framing.length) {
        (None, None | Some(0)) => Ok(Body::Empty),
        (None, Some(length)) => Ok(Body::Length(length)),
        (Some(Coding::Chunked), None) if minor >= 1 => Ok(Body::Chunked),
        (Some(Coding::Chunked | Coding::Other), _) => Err(HeadError::AmbiguousLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(Method, Body, bool), HeadError>) {
        let parsed = parse(text.as_bytes()).map(|parsed| match parsed {
            Parsed::Complete(head, length) => {
                assert_eq!(length, text.len(), "{text:?}");
                (head.method, head.body, head.keep_alive)
            }
            Parsed::Partial => panic!("{text:?} is not complete"),
        });
        assert_eq!(parsed, expected, "{text:?}");
    }

    fn complete(text: &str) -> RequestHead {
        match parse(text.as_bytes()).unwrap() {
            Parsed::Complete(head, _) => head,
            Parsed::Partial => panic!("{text:?} is not complete"),
        }
    }

    #[test]
    fn where_a_request_ends_follows_rfc_9112() {
        use Method::{Connect, Head, Idempotent, Other};
        check("GET / HTTP/1.1\r\n\r\n", Ok((Idempotent, Body::Empty, true)));
        check("GET / HTTP/1.0\r\n\r\n", Ok((Idempotent, Body::Empty, false)));
        check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Ok((Idempotent, Body::Empty, true)));
        check("HEAD / HTTP/1.1\r\nConnection: x, close\r\n\r\n", Ok((Head, Body::Empty, false)));
        check("CONNECT a:1 HTTP/1.1\r\n\r\n", Ok((Connect, Body::Empty, true)));
        check("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Ok((Other, Body::Length(5), true)));
        check("PUT / HTTP/1.1\r\nContent-Length: \t5 \r\n\r\n", Ok((Idempotent, Body::Length(5), true)));
        check(
            "POST / HTTP/1.1\r\ntransfer-encoding: gzip,\tChunked\r\n\r\n",
            Ok((Other, Body::Chunked, true)),
        );
    }

    #[test]
    fn names_that_only_look_like_those_of_framing_say_nothing() {
        for fields in [
            "Content-Lenght: 5",
            "Transfer-Encodinx: chunked",
            "Connectiox: close",
            "Upgradx: x",
            "Host: a\r\nHosx: a",
            "Connection: close-x, keep-alive",
        ] {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            check(&text, Ok((Method::Other, Body::Empty, true)));
            assert!(!complete(&text).may_upgrade, "{text:?}");
        }
    }

    #[test]
    fn an_option_that_is_said_twice_is_said() {
        check(
            "GET / HTTP/1.1\r\nConnection: close, close\r\n\r\n",
            Ok((Method::Idempotent, Body::Empty, false)),
        );
        let twice = "GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: keep-alive\r\n\r\n";
        check(twice, Ok((Method::Idempotent, Body::Empty, true)));
    }

    #[test]
    fn methods_that_change_nothing_twice_may_be_repeated_and_others_may_not() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(Method::of(method).is_idempotent(), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "PROPFIND"] {
            assert!(!Method::of(method).is_idempotent(), "{method}");
        }
    }

    #[test]
    fn a_connection_may_become_another_where_the_request_asks_for_that() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", true),
            ("CONNECT a:1 HTTP/1.1\r\n\r\n", true),
        ] {
            assert_eq!(complete(text).may_upgrade, expected, "{text:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use HeadError::{AmbiguousHost, AmbiguousLength};
        let ambiguous = [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 6",
            "Content-Length: 5, 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: +5",
            "Content-Length: 5 5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content-Length: 9223372036854775808",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: xchunked",
        ];
        for fields in ambiguous {
            check(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n"), Err(AmbiguousLength));
        }
        check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(AmbiguousLength));
        for fields in ["Host: a\r\nHost: b", "host: a\r\nx: y\r\nHOST: a"] {
            check(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"), Err(AmbiguousHost));
        }
        for fields in
            ["Content-Length : 5", "a: b\r\n folded: c", "a: b\rc: d", "a: b\nc: d", "a\0: b", ": b"]
        {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert!(matches!(parse(text.as_bytes()), Err(HeadError::Malformed(_))), "{text:?}");
        }
        for text in ["POST /\r\n\r\n", "GET / HTTP/1.1\n\n"] {
            assert!(matches!(parse(text.as_bytes()), Err(HeadError::Malformed(_))), "{text:?}");
        }
        let largest = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", i64::MAX);
        check(&largest, Ok((Method::Other, Body::Length(i64::MAX.unsigned_abs()), true)));
    }

    #[test]
    fn heads_beyond_the_limits_are_too_large() {
        let long = format!("GET / HTTP/1.1\r\na: {}", "x".repeat(MAX_HEAD));
        assert_eq!(parse(long.as_bytes()), Err(HeadError::TooLong));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(160));
        let error = parse(many.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "the head has 160 fields, 128 are allowed");
        assert_eq!(parse(b"GET / HTTP/1.1\r\na: b\r\n"), Ok(Parsed::Partial));
    }
}
