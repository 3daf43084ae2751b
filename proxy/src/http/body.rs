//! Bodies in a stream of bytes, whose end is found without copying them (RFC 9112, sections 6 and 7).

/// Delimitation of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none.
    Empty,
    /// So many bytes; never 0.
    Length(u64),
    /// Chunks, and perhaps trailers.
    Chunked,
    /// All until the connection closes.
    UntilClose,
}

/// A chunk, a chunk extension or a trailer that is not the grammar of RFC 9112, section 7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub(crate) struct ChunkError;

/// The longest body or chunk.
pub(super) const MAX_LENGTH: u64 = i64::MAX.unsigned_abs();
/// The most bytes that the extensions of one chunk may have.
const MAX_EXTENSION: u32 = 4096;
/// The most bytes that the trailers may have.
const MAX_TRAILERS: u32 = 64 * 1024;

/// Follows one body through the pieces that it arrives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyScanner {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    UntilClose,
    Length(u64),
    /// In the digits of a chunk's size.
    Size {
        size: u64,
        digits: u8,
    },
    /// Blanks or an extension behind the size; `opened` once its semicolon was seen.
    Extension {
        size: u64,
        used: u32,
        opened: bool,
    },
    /// Behind the CR of the size line.
    SizeEnd {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the last empty line.
    TrailerStart {
        used: u32,
    },
    /// In the name of a trailer field.
    TrailerName {
        used: u32,
    },
    Trailer {
        used: u32,
    },
    TrailerLf {
        used: u32,
    },
    LastLf,
}

impl BodyScanner {
    /// At the start of a body.
    pub(crate) fn new(body: Body) -> Self {
        let state = match body {
            Body::Empty | Body::Length(0) => State::Done,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Size { size: 0, digits: 0 },
            Body::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Returns true if the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns true if the end of the connection may be the end of the body.
    pub(crate) fn may_end_with_connection(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Takes the next bytes; returns how many of them belong to the body.
    ///
    /// All of them do, unless the body ends in them.
    ///
    /// # Errors
    /// When they are not a chunked body.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Done => break,
                State::UntilClose => return Ok(bytes.len()),
                State::Length(left) => {
                    let taken = taken(left, bytes.len() - at);
                    at += taken;
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                }
                State::Data(left) => {
                    let taken = taken(left, bytes.len() - at);
                    at += taken;
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                }
                framing @ (State::Size { .. }
                | State::Extension { .. }
                | State::SizeEnd { .. }
                | State::DataCr
                | State::DataLf
                | State::TrailerStart { .. }
                | State::TrailerName { .. }
                | State::Trailer { .. }
                | State::TrailerLf { .. }
                | State::LastLf) => {
                    self.state = step(framing, bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }
}

fn taken(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// Follows one byte of the framing around the data.
fn step(state: State, byte: u8) -> Result<State, ChunkError> {
    Ok(match (state, byte) {
        (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
            if digits < 16 && size <= MAX_LENGTH >> 4 =>
        {
            let digit = u64::from(char::from(byte).to_digit(16).ok_or(ChunkError)?);
            State::Size { size: size << 4 | digit, digits: digits + 1 }
        }
        (State::Size { size, digits: 1.. }, b'\r') => State::SizeEnd { size },
        (State::Size { size, digits: 1.. }, b';') => State::Extension { size, used: 1, opened: true },
        (State::Size { size, digits: 1.. }, b' ' | b'\t') => {
            State::Extension { size, used: 1, opened: false }
        }
        // Blanks alone behind a size are no extension; they are tolerated as others do.
        (State::Extension { size, .. }, b'\r') => State::SizeEnd { size },
        (State::Extension { size, used, opened }, _) => extension(size, used, opened, byte)?,
        (State::SizeEnd { size: 0 }, b'\n') => State::TrailerStart { used: 0 },
        (State::SizeEnd { size }, b'\n') => State::Data(size),
        (State::DataCr, b'\r') => State::DataLf,
        (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
        (State::TrailerStart { .. }, b'\r') => State::LastLf,
        (State::TrailerStart { used } | State::TrailerName { used }, _)
            if used < MAX_TRAILERS && is_token(byte) =>
        {
            State::TrailerName { used: used + 1 }
        }
        (State::TrailerName { used }, b':') => State::Trailer { used: used + 1 },
        (State::Trailer { used }, _) => trailer(used, byte)?,
        (State::TrailerLf { used }, b'\n') => State::TrailerStart { used },
        (State::LastLf, b'\n') => State::Done,
        _ => return Err(ChunkError),
    })
}

fn extension(size: u64, used: u32, opened: bool, byte: u8) -> Result<State, ChunkError> {
    let allowed = match byte {
        b' ' | b'\t' | b';' => true,
        0..0x20 | 0x7f => false,
        _ => opened,
    };
    if !allowed || used >= MAX_EXTENSION {
        return Err(ChunkError);
    }
    Ok(State::Extension { size, used: used + 1, opened: opened || byte == b';' })
}

/// Returns true for bytes that names are made of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trailer(used: u32, byte: u8) -> Result<State, ChunkError> {
    match byte {
        _ if used >= MAX_TRAILERS => Err(ChunkError),
        b'\r' => Ok(State::TrailerLf { used: used + 1 }),
        b'\t' | b' '..=b'~' | 0x80.. => Ok(State::Trailer { used: used + 1 }),
        _ => Err(ChunkError),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` cut at `cuts`; returns how many belong to the body and whether it ended.
    fn scan(body: Body, bytes: &[u8], cuts: &[usize]) -> Result<(usize, bool), ChunkError> {
        let mut scanner = BodyScanner::new(body);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let (mut from, mut total) = (0, 0);
        for to in cuts {
            let taken = scanner.advance(&bytes[from..to])?;
            total += taken;
            if scanner.is_done() {
                break;
            }
            assert_eq!(taken, to - from);
            from = to;
        }
        Ok((total, scanner.is_done()))
    }

    #[test]
    fn chunked_bodies_end_behind_their_trailers() {
        let table = [
            ("0\r\n\r\nNEXT", 5),
            ("5\r\nhello\r\n0\r\n\r\n", 15),
            ("5;a=\"b\"\r\nhello\r\n0;x\r\n\r\nGET", 23),
            ("A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nGET", 36),
            ("5 \r\nhello\r\n00\r\n\r\n", 17),
            ("0\r\nX:\r\ny!: :\r\n\r\nGET", 16),
            ("5 \t;a=b;c\r\nhello\r\n0\r\n\r\n", 23),
            ("0000000000000005\r\nhello\r\n0\r\n\r\n", 30),
        ];
        for (text, expected) in table {
            assert_eq!(scan(Body::Chunked, text.as_bytes(), &[]), Ok((expected, true)), "{text:?}");
        }
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_refused() {
        for text in [
            "\r\n",
            "x\r\n",
            "+5\r\n",
            "0x5\r\n",
            "-1\r\n",
            "5\n",
            "5\rx",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "11111111111111111\r\n",
            "5 5\r\n",
            "5  a\r\n",
            "00000000000000005\r\n",
            "5;a\nb\r\n",
            "0\r\nX: 1\n",
            "0\r\n folded\r\n",
            "0\r\n\n",
            "0\r\nno colon\r\n",
            "0\r\nnocolon\r\n",
            "0\r\n: nameless\r\n",
            "0\r\nX : 1\r\n",
            "8000000000000000\r\n",
            "FFFFFFFFFFFFFFFE\r\n",
            ";a\r\n",
        ] {
            assert_eq!(scan(Body::Chunked, text.as_bytes(), &[]), Err(ChunkError), "{text:?}");
        }
    }

    #[test]
    fn the_largest_chunk_extension_and_trailers_are_let_through_and_no_larger_ones() {
        let check = |text: String, expected: Option<bool>| {
            let scanned = scan(Body::Chunked, text.as_bytes(), &[]).ok().map(|(_, is_done)| is_done);
            assert_eq!(scanned, expected, "{} bytes", text.len());
        };
        check("7FFFFFFFFFFFFFFF\r\n".to_owned(), Some(false));
        let extension = |length: u32| format!("5;{}\r\n", "x".repeat(length as usize));
        check(extension(MAX_EXTENSION - 1), Some(false));
        check(extension(MAX_EXTENSION), None);
        // What counts of a trailer is all but its newline.
        let value = |length: u32| format!("0\r\nx:{}\r\n\r\n", "y".repeat(length as usize));
        check(value(MAX_TRAILERS - 3), Some(true));
        check(value(MAX_TRAILERS - 2), None);
        let name = |length: u32| format!("0\r\n{}:\r\n\r\n", "x".repeat(length as usize));
        check(name(MAX_TRAILERS - 2), Some(true));
        check(name(MAX_TRAILERS - 1), None);
        let lines = |rest: &str| format!("0\r\n{}{rest}", "x:y\r\n".repeat(MAX_TRAILERS as usize / 4));
        check(lines("\r\n"), Some(true));
        check(lines("x"), None);
    }

    #[test]
    fn counted_bodies_end_by_count_and_others_with_the_connection() {
        assert_eq!(scan(Body::Length(3), b"abcGET", &[]), Ok((3, true)));
        assert_eq!(scan(Body::Length(9), b"abc", &[]), Ok((3, false)));
        assert_eq!(scan(Body::UntilClose, b"abc", &[]), Ok((3, false)));
        assert_eq!(scan(Body::Empty, b"GET", &[]), Ok((0, true)));
        for (body, expected) in
            [(Body::Empty, true), (Body::UntilClose, true), (Body::Length(1), false), (Body::Chunked, false)]
        {
            assert_eq!(BodyScanner::new(body).may_end_with_connection(), expected, "{body:?}");
        }
    }

    fn encoded() -> impl Strategy<Value = Vec<u8>> {
        let chunk = proptest::collection::vec(any::<u8>(), 1..40);
        (proptest::collection::vec(chunk, 0..6), any::<bool>()).prop_map(|(chunks, trailers)| {
            let mut out = Vec::new();
            for chunk in chunks {
                out.extend_from_slice(format!("{:x};e=1\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(&chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(if trailers { b"0\r\nt: 1\r\n\r\n" } else { b"0\r\n\r\n" });
            out
        })
    }

    proptest! {
        #[test]
        fn a_body_ends_at_the_same_byte_however_it_is_cut(
            body in encoded(),
            rest in proptest::collection::vec(any::<u8>(), 0..20),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let length = body.len();
            let stream = [body, rest].concat();
            prop_assert_eq!(scan(Body::Chunked, &stream, &cuts), Ok((length, true)));
        }

        #[test]
        fn arbitrary_bytes_give_the_same_verdict_however_they_are_cut(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1')], 0..80),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(scan(Body::Chunked, &bytes, &cuts), scan(Body::Chunked, &bytes, &[]));
        }
    }
}
