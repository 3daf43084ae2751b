//! The frames of one direction (RFC 9113, section 4), as they come, before crate h2 reads them. Pure.
//!
//! To h2 a field that may not stand in a message, a long row of CONTINUATION frames or of empty DATA frames is an error of
//! the connection, which costs everybody who shares it. Here it costs the message that has it: a block that is not to
//! pass is replaced by one that is malformed, no more, and leaves the decoder's table as it would have been.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

use super::fields::Fields;
use crate::http2::MAX_FRAME;

/// Length of a client's preface.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// Number of frames that pass together.
const FRAMES: usize = 64;
/// The longest row of frames of one block that is waited for.
const MAX_BLOCK: usize = 1024 * 1024;

/// Peer at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A client of the workload's: its requests are judged, but not their size.
    Client,
    /// An application.
    Application,
    /// Another sidecar: it has judged.
    Sidecar {
        /// True if it is the one that sends requests.
        calls: bool,
    },
}

/// Reasons for which a message does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The message has a field that may not stand in one.
    Malformed,
    /// The message's fields are too many or too long.
    TooLarge,
}

/// Frames of one direction.
#[derive(Debug)]
pub(super) struct Frames {
    peer: Peer,
    fields: Fields,
    /// Largest size of a message's fields.
    limit: usize,
    /// Number of bytes that pass before the next head of a frame.
    skip: usize,
    /// Bytes that cannot be passed on before more has come.
    held: BytesMut,
    /// Bytes that may pass, with the number of frames in them.
    passed: VecDeque<(Bytes, usize)>,
    /// Number of frames that were left out.
    dropped: usize,
    /// True if it cannot be followed any more, and passes as it is.
    lost: bool,
}

/// Head of a frame.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// A block and the frames that carry it.
struct Block {
    head: Head,
    fragment: Bytes,
    /// Offset of the next frame.
    end: usize,
    frames: usize,
}

impl Frames {
    pub(super) fn new(peer: Peer, limit: usize) -> Self {
        let skip = match peer {
            Peer::Client | Peer::Sidecar { calls: true } => PREFACE,
            Peer::Application | Peer::Sidecar { calls: false } => 0,
        };
        Self {
            peer,
            fields: Fields::new(),
            limit,
            skip,
            held: BytesMut::new(),
            passed: VecDeque::new(),
            dropped: 0,
            lost: false,
        }
    }

    /// Returns the bytes that may pass next, and the number of frames that begin in them.
    pub(super) fn pass(&mut self) -> Option<(Bytes, usize)> {
        self.passed.pop_front()
    }

    /// Takes what has come; says which message does not pass and why.
    pub(super) fn handle(&mut self, mut bytes: Bytes, mut condemn: impl FnMut(u32, Cause)) {
        if !self.held.is_empty() {
            self.held.extend_from_slice(&bytes);
            bytes = self.held.split().freeze();
        }
        let (mut at, mut frames) = (self.skip.min(bytes.len()), 0);
        self.skip -= at;
        while !self.lost && self.skip == 0 && at < bytes.len() {
            let Some(head) = Head::read(&bytes[at..]) else { break };
            frames += 1;
            if frames >= FRAMES {
                self.put(bytes.split_to(at), frames);
                (at, frames) = (0, 0);
            }
            let judged = head.kind == HEADERS && self.judges() && head.length <= MAX_FRAME as usize;
            if judged {
                let Some(block) = Block::read(&bytes.slice(at..), head) else {
                    // For the end of a longer one nobody waits: h2 says what it is.
                    self.lost = bytes.len() - at > MAX_BLOCK;
                    break;
                };
                let (instead, size) = self.judge(&block, &mut condemn);
                // What it says takes its time, too, however short it is said.
                frames += block.frames + size / 1024;
                match instead {
                    None => at += block.end,
                    Some(instead) => {
                        self.put(bytes.split_to(at), frames);
                        self.put(instead, 0);
                        bytes.advance(block.end);
                        (at, frames) = (0, 0);
                    }
                }
                continue;
            }
            let whole = HEAD + head.length;
            if whole == HEAD && head.kind == DATA && head.flags & END_STREAM == 0 && self.judges() {
                // It says nothing, and takes its time.
                self.dropped += 1;
                self.put(bytes.split_to(at), frames);
                bytes.advance(HEAD);
                (at, frames) = (0, 0);
                continue;
            }
            let here = whole.min(bytes.len() - at);
            self.skip = whole - here;
            at += here;
        }
        if self.lost {
            at = bytes.len();
        }
        self.put(bytes.split_to(at), frames);
        self.held.extend_from_slice(&bytes);
    }

    /// Returns the number of frames that were left out since the last time.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn put(&mut self, bytes: Bytes, frames: usize) {
        if !bytes.is_empty() {
            self.passed.push_back((bytes, frames));
        }
    }

    /// Returns true if the peer's messages are judged here.
    fn judges(&self) -> bool {
        !matches!(self.peer, Peer::Sidecar { .. })
    }

    /// Judges a block; returns the bytes that pass instead of it, if any, and the size of its fields.
    fn judge(&mut self, block: &Block, condemn: &mut impl FnMut(u32, Cause)) -> (Option<Bytes>, usize) {
        let Some(found) = self.fields.read(&block.fragment) else {
            self.lost = true;
            return (None, 0);
        };
        let cause = if !found.sound {
            Cause::Malformed
        } else if found.size >= self.limit {
            Cause::TooLarge
        } else {
            let joined = (block.frames > 1).then(|| block.head.frames(&block.fragment));
            return (joined, found.size);
        };
        condemn(block.head.stream, cause);
        (Some(block.head.frames(&self.fields.condemned(&block.fragment))), found.size)
    }
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, d, e, f, g] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff,
        })
    }

    fn write(self, out: &mut BytesMut) {
        // A frame that is written is no longer than MAX_FRAME.
        let [_, length @ ..] = u32::try_from(self.length).unwrap_or(0).to_be_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    /// As few frames as carry this block.
    fn frames(self, fragment: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(fragment.len() + 2 * HEAD);
        let most = MAX_FRAME as usize;
        let count = fragment.len().div_ceil(most).max(1);
        for n in 0..count {
            let piece = &fragment[n * most..fragment.len().min((n + 1) * most)];
            let (kind, flags) = if n == 0 { (HEADERS, self.flags & END_STREAM) } else { (CONTINUATION, 0) };
            let last = if n + 1 == count { END_HEADERS } else { 0 };
            Self { length: piece.len(), kind, flags: flags | last, ..self }.write(&mut out);
            out.extend_from_slice(piece);
        }
        out.freeze()
    }
}

impl Block {
    /// The block that begins with this frame; `None` as long as it has not come whole.
    fn read(bytes: &Bytes, head: Head) -> Option<Self> {
        let end = HEAD + head.length;
        let first = bytes.get(HEAD..end)?;
        let (mut from, mut to) = (0, first.len());
        if head.flags & PADDED != 0 {
            (from, to) = (1, to.saturating_sub(first.first().copied().unwrap_or(0).into()));
        }
        if head.flags & PRIORITY != 0 {
            from += 5;
        }
        // What is padded beyond its end is h2's to name.
        let fragment = bytes.slice(HEAD + from.min(to)..HEAD + to);
        let mut block = Self { head, fragment, end, frames: 1 };
        if head.flags & END_HEADERS == 0 {
            block.read_on(bytes)?;
        }
        Some(block)
    }

    fn read_on(&mut self, bytes: &Bytes) -> Option<()> {
        let mut whole = BytesMut::from(&self.fragment[..]);
        loop {
            let next = Head::read(bytes.get(self.end..)?)?;
            if (next.kind, next.stream) != (CONTINUATION, self.head.stream) {
                // The block as it is: h2 sees what comes in its place.
                break;
            }
            whole.extend_from_slice(bytes.get(self.end + HEAD..self.end + HEAD + next.length)?);
            self.end += HEAD + next.length;
            self.frames += 1;
            if next.flags & END_HEADERS != 0 {
                break;
            }
        }
        self.fragment = whole.freeze();
        Some(())
    }
}
