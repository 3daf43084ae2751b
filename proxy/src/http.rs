//! HTTP/1 (RFC 9112) as far as a relay must know it: where a message begins and ends, never what it says.
//!
//! Heads are parsed in place by httparse and passed on as they came; bodies are scanned, not copied. What could be read in
//! two ways (RFC 9112, sections 6.3 and 11.2) is refused rather than repaired, since the bytes travel unchanged.

pub(crate) mod answer;
pub(crate) mod body;
mod framing;
pub(crate) mod request;
pub(crate) mod response;

pub(crate) use body::{Body, BodyScanner};
pub(crate) use request::{Method, RequestHead};
pub(crate) use response::ResponseHead;

/// The longest head in bytes; a longer one is answered with 431.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// The most header fields of one head.
const MAX_FIELDS: usize = 128;

/// A head that is not complete yet, or is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<T> {
    /// More bytes are needed.
    Partial,
    /// The head, and how many bytes it has with its empty line.
    Complete(T, usize),
}

/// Reasons for which a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Longer than [`MAX_HEAD`].
    #[error("the head is longer than 64 KiB")]
    TooLong,
    /// Of so many fields, more than [`MAX_FIELDS`].
    #[error("the head has {0} fields, 128 are allowed")]
    TooManyFields(usize),
    /// Not the grammar of RFC 9112, in this part.
    #[error("the head is malformed: {0}")]
    Malformed(&'static str),
    /// The body could be taken to end in two places.
    #[error("the length of the body is ambiguous")]
    AmbiguousLength,
    /// The head could be meant for two hosts (RFC 9112, section 3.2).
    #[error("the head has more than one Host field")]
    AmbiguousHost,
    /// 101 in answer to a request that does not ask for another protocol (RFC 9110, section 15.2.2).
    #[error("it switches protocols, which the request does not ask for")]
    UnaskedSwitch,
}

impl HeadError {
    /// Returns true if it is about the size.
    pub(crate) fn is_size(self) -> bool {
        matches!(self, Self::TooLong | Self::TooManyFields(_))
    }

    /// For metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::TooManyFields(_) => "too_many_fields",
            Self::Malformed(_) => "malformed",
            Self::AmbiguousLength => "ambiguous_length",
            Self::AmbiguousHost => "ambiguous_host",
            Self::UnaskedSwitch => "unasked_switch",
        }
    }

    /// Translates the parser's error about the head at the start of `bytes`.
    fn of(error: httparse::Error, bytes: &[u8]) -> Self {
        Self::Malformed(match error {
            httparse::Error::TooManyHeaders => return Self::TooManyFields(count_fields(bytes)),
            httparse::Error::HeaderName => "a field's name",
            httparse::Error::HeaderValue => "a field's value",
            httparse::Error::NewLine => "a line's end",
            httparse::Error::Status => "the status",
            httparse::Error::Token => "the first line",
            httparse::Error::Version => "the version",
        })
    }
}

/// Counts the lines between the first and the empty one, or the end.
fn count_fields(bytes: &[u8]) -> usize {
    let lines = bytes.split(|&byte| byte == b'\n').skip(1);
    lines.take_while(|line| !line.trim_ascii().is_empty()).count()
}

/// httparse takes a lone LF for a line's end; what stands behind us may not.
fn has_bare_newline(head: &[u8]) -> bool {
    // Without an early end, so that the compiler can compare many bytes at once.
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let bare = pairs.fold(false, |bare, (&before, &byte)| bare | ((byte == b'\n') & (before != b'\r')));
    bare || head.first() == Some(&b'\n')
}

/// Returns the number of bytes of empty lines before a head; a server skips them (RFC 9112, section 2.2).
pub(crate) fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

/// Returns true if a head ends in `bytes`, of which the first `seen` were searched before.
///
/// A head that drips in byte by byte is so parsed once, not once per byte.
pub(crate) fn has_head(bytes: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(3);
    let Some(fresh) = bytes.get(from..) else { return false };
    let mut newlines = fresh.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').map(|(at, _)| at);
    newlines.any(|at| matches!(&fresh[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_was_cut() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for cut in 0..head.len() {
            assert!(!has_head(&head[..cut], 0), "{cut}");
            assert!(has_head(head, cut), "{cut}");
        }
        assert_eq!(empty_lines(b"\r\n\r\nGET"), 4);
    }

    #[test]
    fn a_head_that_is_refused_is_counted_by_its_fault_and_said_to_be_malformed_where_it_is() {
        for (text, reason, words) in [
            ("GET / HTTP/1.1\r\na\0: b\r\n\r\n", "malformed", "the head is malformed: a field's name"),
            ("GET / HTTP/1.1\r\na: \0\r\n\r\n", "malformed", "the head is malformed: a field's value"),
            ("GET / HTTP/1.1\rx", "malformed", "the head is malformed: a line's end"),
            ("G\0T / HTTP/1.1\r\n\r\n", "malformed", "the head is malformed: the first line"),
            ("GET / HTTP/3.1\r\n\r\n", "malformed", "the head is malformed: the version"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "ambiguous_host", "more than one Host"),
            (
                "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
                "ambiguous_length",
                "the length of the body is ambiguous",
            ),
        ] {
            let error = request::parse(text.as_bytes()).unwrap_err();
            assert!(!error.is_size() && error.to_string().contains(words), "{text:?}: {error}");
            assert_eq!(error.reason(), reason, "{text:?}");
        }
        let error = response::parse(b"HTTP/1.1 2x0 OK\r\n\r\n", Method::Other).unwrap_err();
        assert_eq!(error, HeadError::Malformed("the status"));
        for (error, reason, is_size) in [
            (HeadError::TooLong, "too_long", true),
            (HeadError::TooManyFields(200), "too_many_fields", true),
            (HeadError::UnaskedSwitch, "unasked_switch", false),
        ] {
            assert_eq!((error.reason(), error.is_size()), (reason, is_size));
        }
    }

    #[test]
    fn a_newline_without_its_carriage_return_is_seen_wherever_it_stands() {
        for head in ["\n", "a\nb\r\n", "a\r\n\n", "a\r\n\r\n\n", "a\r\r\nb\n\r"] {
            assert!(has_bare_newline(head.as_bytes()), "{head:?}");
        }
        for head in ["", "\r\n", "a: b\r\n\r\n", "\r", "a\r\r\n"] {
            assert!(!has_bare_newline(head.as_bytes()), "{head:?}");
        }
    }
}
