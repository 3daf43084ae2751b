//! Response heads.

use std::mem::MaybeUninit;

use super::framing::{Coding, Fields, Framing};
use super::{Body, HeadError, MAX_FIELDS, MAX_HEAD, Method, Parsed, has_bare_newline};

/// Content of a response that a relay must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    /// Status code.
    pub(crate) status: u16,
    /// Part that follows the head.
    pub(crate) next: Next,
    /// True if the server keeps the connection.
    pub(crate) keep_alive: bool,
    /// True if it may be passed on as it came; if not, [`rewritten`] makes it so.
    pub(crate) is_clean: bool,
}

/// Part that follows a response head.
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
/// What a proxy is to take away or may mend is let pass as not clean: blanks before a colon (RFC 9112, section 5.1), folded lines
/// (section 5.2), lines that end with LF alone (section 2.2).
///
/// # Errors
/// When it is too long, malformed or of ambiguous length.
pub(crate) fn parse(bytes: &[u8], method: Method) -> Result<Parsed<ResponseHead>, HeadError> {
    let strict = httparse::ParserConfig::default();
    match parse_as(bytes, method, &strict) {
        Err(HeadError::Malformed(_)) => {
            let mut lenient = httparse::ParserConfig::default();
            lenient.allow_spaces_after_header_name_in_responses(true);
            lenient.allow_obsolete_multiline_headers_in_responses(true);
            let parsed = parse_as(bytes, method, &lenient)?;
            Ok(match parsed {
                Parsed::Complete(head, length) => {
                    Parsed::Complete(ResponseHead { is_clean: false, ..head }, length)
                }
                Parsed::Partial => Parsed::Partial,
            })
        }
        parsed => parsed,
    }
}

/// A head that was parsed, with what made it unclean taken away.
pub(crate) fn rewritten(head: &[u8]) -> Vec<u8> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut out = Vec::with_capacity(head.len() + 64);
    for line in head.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':');
        if line.first().is_some_and(is_blank) && !out.is_empty() {
            // The line goes on with this one.
            out.truncate(out.len() - 2);
            out.push(b' ');
            out.extend_from_slice(line.trim_ascii_start());
        } else if let Some((name, value)) = colon.filter(|_| !out.is_empty()).map(|at| line.split_at(at)) {
            out.extend_from_slice(name.trim_ascii_end());
            out.extend_from_slice(value);
        } else {
            out.extend_from_slice(line);
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn parse_as(
    bytes: &[u8],
    method: Method,
    config: &httparse::ParserConfig,
) -> Result<Parsed<ResponseHead>, HeadError> {
    let window = &bytes[..bytes.len().min(MAX_HEAD)];
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = config.parse_response_with_uninit_headers(&mut response, window, &mut fields);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if window.len() < MAX_HEAD => return Ok(Parsed::Partial),
        Ok(httparse::Status::Partial) => return Err(HeadError::TooLong),
        Err(error) => return Err(HeadError::of(error, window)),
    };
    let status = response.code.unwrap_or_default();
    let minor = response.version.unwrap_or_default();
    let framing = Framing::of(response.headers)?;
    let next = match status {
        0..=99 => return Err(HeadError::Malformed("the status")),
        101 => Next::Upgrade,
        100..=199 => Next::Head,
        200..=299 if method == Method::Connect => Next::Upgrade,
        204 | 304 => Next::Body(Body::Empty),
        _ if method == Method::Head => Next::Body(Body::Empty),
        _ => Next::Body(body(&framing, minor)?),
    };
    let ends_by_itself = next != Next::Body(Body::UntilClose);
    let head = ResponseHead {
        status,
        next,
        keep_alive: ends_by_itself && framing.persists(minor),
        is_clean: !has_bare_newline(&window[..length]),
    };
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
        let chunked_too_early = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(chunked_too_early, Idempotent, Err(HeadError::AmbiguousLength));
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(MAX_HEAD));
        check(&long[..MAX_HEAD], Idempotent, Err(HeadError::TooLong));
        assert_eq!(parse(&long.as_bytes()[..MAX_HEAD - 1], Idempotent), Ok(Parsed::Partial));
        check("HTTP/2 200 OK\r\n\r\n", Idempotent, Err(HeadError::Malformed("the version")));
        // Three digits, the first of which names a class (RFC 9110, section 15): one that is not known is as x00 of its class.
        check("HTTP/1.1 099 Odd\r\n\r\n", Idempotent, Err(HeadError::Malformed("the status")));
        check(
            "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
            Idempotent,
            Ok((Next::Body(Body::Empty), true)),
        );
    }

    #[test]
    fn a_head_that_a_proxy_may_mend_is_mended() {
        let table = [
            ("Expires : -1\r\nA\t :b : c\r\n", "Expires: -1\r\nA:b : c\r\n"),
            ("X: a\r\n b\r\n\tc\r\nY: d\r\n", "X: a b c\r\nY: d\r\n"),
            ("X: a\nY: b\r\n", "X: a\r\nY: b\r\n"),
        ];
        for (fields, expected) in table {
            let text = format!("HTTP/1.1 200 all : well\r\n{fields}Content-Length: 5\r\n\r\n");
            let Ok(Parsed::Complete(head, length)) = parse(text.as_bytes(), Method::Idempotent) else {
                panic!("{text:?}")
            };
            assert_eq!((head.is_clean, length), (false, text.len()), "{text:?}");
            let mended = rewritten(text.as_bytes());
            let expected = format!("HTTP/1.1 200 all : well\r\n{expected}Content-Length: 5\r\n\r\n");
            assert_eq!(String::from_utf8(mended.clone()).unwrap(), expected);
            let Ok(Parsed::Complete(head, _)) = parse(&mended, Method::Idempotent) else {
                panic!("{mended:?}")
            };
            assert!(head.is_clean && head.next == Next::Body(Body::Length(5)));
        }
        for cut in 1.."HTTP/1.1 200 OK\r\nExpires : -1\r\n".len() {
            let begun = &"HTTP/1.1 200 OK\r\nExpires : -1\r\n"[..cut];
            assert_eq!(parse(begun.as_bytes(), Method::Idempotent), Ok(Parsed::Partial), "{begun:?}");
        }
    }

    #[test]
    fn a_mended_head_is_judged_by_what_it_says_then() {
        let hidden = "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n";
        check(hidden, Method::Idempotent, Err(HeadError::AmbiguousLength));
        for fields in ["a b: c", "a\0: b", ": b", " a: b", "a: b\rc: d", "(: b"] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            let refused = parse(text.as_bytes(), Method::Idempotent);
            assert!(matches!(refused, Err(HeadError::Malformed(_))), "{text:?}: {refused:?}");
        }
    }
}
