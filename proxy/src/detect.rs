//! Whether a connection's first bytes are HTTP/1. Pure; the waiting is done by the outbound side.

use std::time::Duration;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An HTTP/1 request line.
    Http1,
    /// Something else.
    Opaque,
    /// More bytes are needed.
    Unclear,
}

/// How long a client may take from an unclear first byte to a clear one; then it is taken for opaque.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest method that is believed to be one.
const MAX_METHOD: usize = 24;
/// Where a request line that has not ended is given up.
const MAX_LINE: usize = 8 * 1024;

/// Reads the first bytes of a client: `method SP target SP HTTP/1.` (RFC 9112, section 3), decided as early as can be.
///
/// A method that everybody knows, its blank and the beginning of a target are enough; an unknown word must
/// show its whole line. HTTP/2's preface (RFC 9113, section 3.4) is none of ours by its version.
pub(crate) fn http1(bytes: &[u8]) -> Verdict {
    // Empty lines before a request are to be ignored (RFC 9112, section 2.2).
    let bytes = &bytes[crate::http::empty_lines(bytes)..];
    if bytes == b"\r" {
        return Verdict::Unclear;
    }
    let method = bytes.iter().take(MAX_METHOD + 1).take_while(|byte| is_method(**byte)).count();
    match bytes.get(method) {
        _ if method > MAX_METHOD => Verdict::Opaque,
        None => Verdict::Unclear,
        Some(b' ') if method > 0 => target(&bytes[..method], &bytes[method + 1..]),
        Some(_) => Verdict::Opaque,
    }
}

/// Methods are tokens; those that are in use are capital letters and hyphens.
fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-'
}

fn target(method: &[u8], rest: &[u8]) -> Verdict {
    const KNOWN: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"];
    let length = rest.iter().take_while(|byte| byte.is_ascii_graphic() || !byte.is_ascii()).count();
    if KNOWN.contains(&method) && rest.starts_with(b"/") {
        return Verdict::Http1;
    }
    match rest.get(length) {
        None if length > MAX_LINE => Verdict::Opaque,
        None => Verdict::Unclear,
        Some(b' ') if length > 0 => version(&rest[length + 1..]),
        Some(_) => Verdict::Opaque,
    }
}

fn version(rest: &[u8]) -> Verdict {
    const VERSION: &[u8] = b"HTTP/1.";
    let seen = rest.len().min(VERSION.len());
    match (rest[..seen] == VERSION[..seen], seen == VERSION.len()) {
        (true, true) => Verdict::Http1,
        (true, false) => Verdict::Unclear,
        (false, _) => Verdict::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_bytes_are_told_apart_as_early_as_can_be() {
        use Verdict::{Http1, Opaque, Unclear};
        let table: &[(&[u8], Verdict)] = &[
            (b"", Unclear),
            (b"G", Unclear),
            (b"GET ", Unclear),
            (b"GET /", Http1),
            (b"GET /x HTTP/1.1\r\n", Http1),
            (b"GET key\r\n", Opaque),
            (b"OPTIONS * HTTP/1.1\r\n", Http1),
            (b"CONNECT a:1 HTTP/1.1\r\n", Http1),
            (b"PROPFIND /", Unclear),
            (b"PROPFIND / HTTP/1.1\r\n", Http1),
            (b"M-SEARCH * HTTP/1.1\r\n", Http1),
            (b"\r\nGET / HTTP/1.0", Http1),
            (b"\r", Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Opaque),
            (b"PRI * HTTP/", Unclear),
            (b"*1\r\n$4\r\nPING\r\n", Opaque),
            (b"PING\r\n", Opaque),
            (b"SET a b\r\n", Opaque),
            (b"EHLO mail.example\r\n", Opaque),
            (b"\x16\x03\x01\x02\x00", Opaque),
            (b"SSH-2.0-x\r\n", Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Opaque),
            (b"get / HTTP/1.1\r\n", Opaque),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Opaque),
        ];
        for &(bytes, expected) in table {
            assert_eq!(http1(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'G'), Just(b'/')], 0..60),
        ) {
            let mut before = Verdict::Unclear;
            for cut in 0..=bytes.len() {
                let verdict = http1(&bytes[..cut]);
                prop_assert!(before == Verdict::Unclear || before == verdict, "at {}", cut);
                before = verdict;
            }
        }
    }
}
