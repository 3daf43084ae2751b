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

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Longer than [`MAX_HEAD`], or of more fields than are counted.
    #[error("the head is longer than 64 KiB or has more than 128 fields")]
    TooLarge,
    /// Not the grammar of RFC 9112.
    #[error("the head is malformed")]
    Malformed,
    /// Its body could be taken to end in two places.
    #[error("the length of the body is ambiguous")]
    AmbiguousLength,
    /// It could be meant for two hosts (RFC 9112, section 3.2).
    #[error("the head has more than one Host field")]
    AmbiguousHost,
}

/// How many bytes of empty lines stand before a head; a server skips them (RFC 9112, section 2.2).
pub(crate) fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

/// Whether a head ends in `bytes`, of which the first `seen` were searched before.
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
}
