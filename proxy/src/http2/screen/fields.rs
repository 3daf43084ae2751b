//! Header blocks of HPACK (RFC 7541): whether a message is well formed, and what one that is not leaves behind. Pure.
//!
//! A block changes its decoder's table, whatever becomes of its message: who drops a message must still take its
//! insertions, or every later message of the connection is misread. Here the peer's table is followed by lengths alone.

mod reader;

use std::collections::VecDeque;
use std::ops::Range;

use reader::Reader;

/// The largest table that a peer may use, as long as our SETTINGS do not say otherwise.
const TABLE: usize = 4096;
/// Size of an entry beside its octets.
const OVERHEAD: usize = 32;

/// Number of changes of the table's size that a block may begin with (RFC 7541, section 4.2). Thousands of them would say nothing,
/// and take their time.
const RESIZES: usize = 2;

/// A field that crate h2 takes for a stream error wherever it stands (RFC 9113, section 8.2.2).
const FORBIDDEN: &[u8] = b"te";

/// Kind of a name, by the values that may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Field,
    /// `:status`.
    Status,
    /// `:method`.
    Method,
    /// Another one that begins with a colon.
    Text,
    /// None that may stand in a message.
    Broken,
}

/// A name, as far as it matters.
#[derive(Clone, Copy, Debug)]
struct Name {
    kind: Kind,
    length: usize,
}

/// An entry of the peer's table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    size: usize,
    sound: bool,
}

/// Step of a block on the table.
#[derive(Debug)]
enum Step {
    /// Range in the block, and the size from then on.
    Resize(Range<usize>, usize),
    Insert {
        /// Ranges in the block of the whole step and of its name.
        whole: Range<usize>,
        name: Range<usize>,
        value: usize,
        entry: Entry,
        /// True if the table keeps it.
        fits: bool,
    },
}

/// Content of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// True if every name and value may stand in a message.
    pub(super) sound: bool,
    /// The size of its list of fields (RFC 9113, section 6.5.2).
    pub(super) size: usize,
}

/// The state of one direction of a connection.
#[derive(Debug)]
pub(super) struct Fields {
    table: VecDeque<Entry>,
    size: usize,
    limit: usize,
    steps: Vec<Step>,
    text: Vec<u8>,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: TABLE, steps: Vec::new(), text: Vec::new() }
    }

    /// Reads a whole block; `None` when that cannot be done, after which nothing is known of the connection any more.
    pub(super) fn read(&mut self, block: &[u8]) -> Option<Found> {
        self.steps.clear();
        let mut reader = Reader::new(block);
        let mut found = Found { sound: true, size: 0 };
        let mut resizes = 0;
        while let Some(first) = reader.peek() {
            let (sound, size) = match first {
                0x80.. => self.indexed(&mut reader)?,
                0x40..0x80 => self.literal(&mut reader, 6)?,
                0x20..0x40 => {
                    let start = reader.at();
                    self.limit = reader.integer(5)?;
                    self.evict(0);
                    self.resize(start..reader.at());
                    resizes += 1;
                    (resizes <= RESIZES, 0)
                }
                _ => self.literal(&mut reader, 4)?,
            };
            found.sound &= sound;
            found.size += size;
        }
        Some(found)
    }

    /// Remembers that the table has another size. Of many in a row the smallest and the last matter.
    fn resize(&mut self, range: Range<usize>) {
        if let [.., Step::Resize(_, first), Step::Resize(_, second)] = &self.steps[..] {
            let needless = if second <= first { self.steps.len() - 2 } else { self.steps.len() - 1 };
            self.steps.remove(needless);
        }
        self.steps.push(Step::Resize(range, self.limit));
    }

    /// A block that leaves the table of its decoder as the one that was just read would, and whose message is
    /// malformed and nothing worse.
    pub(super) fn condemned(&self, block: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for step in &self.steps {
            match step {
                Step::Resize(range, _) => out.extend_from_slice(&block[range.clone()]),
                Step::Insert { fits: false, .. } => insert_forbidden(&mut out, TABLE),
                Step::Insert { whole, entry, .. } if entry.sound => {
                    out.extend_from_slice(&block[whole.clone()]);
                }
                Step::Insert { entry, .. } if entry.name.kind == Kind::Broken => {
                    insert_forbidden(&mut out, (entry.size - OVERHEAD).saturating_sub(FORBIDDEN.len()));
                }
                Step::Insert { name, value, .. } => {
                    out.extend_from_slice(&block[name.clone()]);
                    filling(&mut out, *value);
                }
            }
        }
        // A literal that is not inserted.
        out.push(0);
        string(&mut out, FORBIDDEN);
        filling(&mut out, 1);
        out
    }

    fn indexed(&self, reader: &mut Reader<'_>) -> Option<(bool, usize)> {
        let entry = self.entry(reader.integer(7)?)?;
        Some((entry.sound, entry.size))
    }

    fn literal(&mut self, reader: &mut Reader<'_>, prefix: u32) -> Option<(bool, usize)> {
        let start = reader.at();
        let index = reader.integer(prefix)?;
        let mut name = match index {
            0 => Name::of(reader.string(&mut self.text)?),
            _ => self.entry(index)?.name,
        };
        let name_end = reader.at();
        let value = reader.string(&mut self.text)?;
        let sound = name.kind.takes(value);
        let (value, size) = (value.len(), name.length + value.len() + OVERHEAD);
        if prefix == 6 {
            if !sound && name.kind != Kind::Field {
                name.kind = Kind::Broken;
            }
            let entry = Entry { name, size, sound };
            self.evict(size);
            let fits = size <= self.limit;
            if fits {
                self.size += size;
                self.table.push_front(entry);
            }
            let (whole, name) = (start..reader.at(), start..name_end);
            self.steps.push(Step::Insert { whole, name, value, entry, fits });
        }
        Some((sound, size))
    }

    /// Makes room for an entry of this size.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.limit
            && let Some(last) = self.table.pop_back()
        {
            self.size -= last.size;
        }
    }

    fn entry(&self, index: usize) -> Option<Entry> {
        if let Some((name, value)) = STATIC.get(index.checked_sub(1)?) {
            let name = Name::of(name.as_bytes());
            return Some(Entry { name, size: name.length + value + OVERHEAD, sound: true });
        }
        self.table.get(index - STATIC.len() - 1).copied()
    }
}

impl Name {
    fn of(name: &[u8]) -> Self {
        let kind = match name {
            b":status" => Kind::Status,
            b":method" => Kind::Method,
            b":authority" | b":scheme" | b":path" | b":protocol" => Kind::Text,
            [] => Kind::Broken,
            // The longest that crate http takes.
            _ if name.len() < 1 << 16
                && name.iter().all(|&byte| is_token(byte) && !byte.is_ascii_uppercase()) =>
            {
                Kind::Field
            }
            _ => Kind::Broken,
        };
        Self { kind, length: name.len() }
    }
}

impl Kind {
    /// Returns true if this may be the value of such a field.
    fn takes(self, value: &[u8]) -> bool {
        match self {
            Self::Field => value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)),
            Self::Status => matches!(value, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']),
            Self::Method => !value.is_empty() && value.iter().all(|&byte| is_token(byte)),
            Self::Text => std::str::from_utf8(value).is_ok(),
            Self::Broken => false,
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Inserts a field that no message may have, with a value of this length.
fn insert_forbidden(out: &mut Vec<u8>, value: usize) {
    out.push(0x40);
    string(out, FORBIDDEN);
    filling(out, value);
}

/// A string of this length that means nothing.
fn filling(out: &mut Vec<u8>, length: usize) {
    integer(out, 0, 7, length);
    out.resize(out.len() + length, b'x');
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// An integer behind `prefix` bits (RFC 7541, section 5.1).
fn integer(out: &mut Vec<u8>, mark: u8, prefix: u32, value: usize) {
    let most = (1_usize << prefix) - 1;
    if value < most {
        return out.push(mark | value as u8);
    }
    out.push(mark | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(128 | (rest % 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// The static table: names, and the lengths of their values.
#[rustfmt::skip]
const STATIC: [(&str, usize); 61] = [
    (":authority", 0), (":method", 3), (":method", 4), (":path", 1), (":path", 11), (":scheme", 4), (":scheme", 5),
    (":status", 3), (":status", 3), (":status", 3), (":status", 3), (":status", 3), (":status", 3), (":status", 3),
    ("accept-charset", 0), ("accept-encoding", 13), ("accept-language", 0), ("accept-ranges", 0), ("accept", 0),
    ("access-control-allow-origin", 0), ("age", 0), ("allow", 0), ("authorization", 0), ("cache-control", 0),
    ("content-disposition", 0), ("content-encoding", 0), ("content-language", 0), ("content-length", 0),
    ("content-location", 0), ("content-range", 0), ("content-type", 0), ("cookie", 0), ("date", 0), ("etag", 0),
    ("expect", 0), ("expires", 0), ("from", 0), ("host", 0), ("if-match", 0), ("if-modified-since", 0),
    ("if-none-match", 0), ("if-range", 0), ("if-unmodified-since", 0), ("last-modified", 0), ("link", 0),
    ("location", 0), ("max-forwards", 0), ("proxy-authenticate", 0), ("proxy-authorization", 0), ("range", 0),
    ("referer", 0), ("refresh", 0), ("retry-after", 0), ("server", 0), ("set-cookie", 0),
    ("strict-transport-security", 0), ("transfer-encoding", 0), ("user-agent", 0), ("vary", 0), ("via", 0),
    ("www-authenticate", 0),
];

#[cfg(test)]
mod tests;
