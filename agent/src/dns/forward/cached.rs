//! An answer as the cache keeps it: the resolver's records as they came, for any asker of the same question. Pure.

use std::time::Duration;

use super::super::message::{
    AD, CD, HEADER_LEN, OPT_LEN, QR, Query, RA, RD, Rcode, RecordType, TC, skip_name, word, write_opt,
};

/// Answers that are larger are not kept.
const MAX_LEN: usize = 4096;
/// Longest time for which records are believed, and for which a name is believed not to be there.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_NEGATIVE: Duration = Duration::from_secs(5 * 60);
/// Lifetime in the asker's cache of an answer that is out of date (RFC 8767, section 4).
const STALE_TTL: u32 = 30;
/// Extended DNS Errors of such answers (RFC 8914, sections 4.4 and 4.20), and the room for one without text.
const STALE: (u16, &str) = (3, "");
const STALE_NXDOMAIN: (u16, &str) = (19, "");
const ERROR_LEN: usize = 6;

/// An answer without the parts that belong to one exchange: id, spelling, EDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CachedAnswer {
    /// The message, with an id that says nothing.
    bytes: Box<[u8]>,
    records: Box<[Piece]>,
    /// Number of records in each section: answer, authority, additional.
    counts: [u16; 3],
    rcode: Rcode,
    authentic: bool,
    lifetime: Duration,
}

/// Place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    ttl_at: u16,
    end: u16,
}

/// Age of an answer that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Time since it was received; it holds still.
    Fresh(Duration),
    /// More than its lifetime; nobody says anything newer.
    Stale,
}

impl CachedAnswer {
    /// Reads `answer`, one to `query`; `None` when it is not one that others may get: an error, a part of an answer, or
    /// no message at all.
    pub(crate) fn read(query: &Query<'_>, answer: &[u8]) -> Option<Self> {
        let (flags, rcode) = (word(answer, 2)?, Rcode::of(answer));
        let whole = flags & QR != 0 && flags & TC == 0;
        if !whole || !query.is_echoed_in(answer) || !rcode.is_answer() {
            return None;
        }
        let mut walk = Walk {
            bytes: answer,
            at: HEADER_LEN + query.question.len(),
            asked: query.kind,
            ..Walk::default()
        };
        let mut counts = [0; 3];
        for (section, count) in counts.iter_mut().enumerate() {
            *count = walk.section(section, word(answer, 6 + 2 * section)?)?;
        }
        let mut bytes: Box<[u8]> = answer.get(..walk.at)?.into();
        query.spell_in(&mut bytes)?;
        // Some resolvers spell the name out in every record, as they were asked.
        let (name, _) = query.split();
        for owner in walk.owners {
            let place = bytes.get_mut(owner..owner + name.len());
            if let Some(place) = place.filter(|place| place.eq_ignore_ascii_case(name)) {
                place.copy_from_slice(name);
            }
        }
        let negative = rcode == Rcode::NxDomain || !walk.has_asked;
        let lifetime = match (negative, walk.negative_ttl) {
            (false, _) => seconds(walk.ttl).min(MAX_LIFETIME),
            (true, Some(ttl)) => {
                seconds(Some(walk.ttl.map_or(ttl, |least| least.min(ttl)))).min(MAX_NEGATIVE)
            }
            (true, None) => Duration::ZERO,
        };
        let lifetime = if bytes.len() > MAX_LEN { Duration::ZERO } else { lifetime };
        let authentic = flags & AD != 0;
        Some(Self { bytes, records: walk.records.into(), counts, rcode, authentic, lifetime })
    }

    /// Time for which it may be kept; none for an answer that says so, a negative one that does not say how long, and a large
    /// one.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<Piece>() + size_of::<Self>()
    }

    /// Writes the answer to `query`, which asks the same question, into at most `limit` bytes. An answer that does not fit is
    /// cut between records and marked as truncated.
    pub(crate) fn write(&self, query: &Query<'_>, age: Age, limit: usize) -> Vec<u8> {
        let error = match (age, self.rcode) {
            (Age::Fresh(_), _) => None,
            (Age::Stale, Rcode::NxDomain) => Some(STALE_NXDOMAIN),
            (Age::Stale, _) => Some(STALE),
        };
        let opt = query.edns.map_or(0, |_| OPT_LEN + error.map_or(0, |_| ERROR_LEN));
        let (len, counts, truncated) = self.cut(limit.saturating_sub(opt));
        let mut out = Vec::with_capacity(len + opt);
        out.extend_from_slice(self.bytes.get(..len).unwrap_or_default());
        let authentic = self.authentic && query.flags & AD != 0;
        let flags = QR | RA | (query.flags & (RD | CD)) | self.rcode.bits();
        let flags = flags | if authentic { AD } else { 0 } | if truncated { TC } else { 0 };
        let additional = counts[2] + u16::from(query.edns.is_some());
        for (at, number) in [query.id, flags, 1, counts[0], counts[1], additional].into_iter().enumerate() {
            put(&mut out, 2 * at, &number.to_be_bytes());
        }
        put(&mut out, HEADER_LEN, query.question);
        // Whoever keeps the answer behind this one believes it no longer.
        let most = if self.counts[0] == 0 { self.lifetime } else { MAX_LIFETIME };
        let most = u32::try_from(most.as_secs()).unwrap_or(u32::MAX);
        for piece in self.records.iter().filter(|piece| usize::from(piece.end) <= len) {
            let at = usize::from(piece.ttl_at);
            let ttl = match age {
                Age::Stale => STALE_TTL,
                Age::Fresh(age) => {
                    let passed = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
                    believed(long(&self.bytes, at).unwrap_or(0)).min(most).saturating_sub(passed)
                }
            };
            put(&mut out, at, &ttl.to_be_bytes());
        }
        if let Some(edns) = query.edns {
            write_opt(&mut out, edns, self.rcode, error);
        }
        out
    }

    /// The length of the part that fits, its records by section, and whether that is less than the answer. Additional
    /// records need not be there (RFC 2181, section 9).
    fn cut(&self, limit: usize) -> (usize, [u16; 3], bool) {
        if self.bytes.len() <= limit {
            return (self.bytes.len(), self.counts, false);
        }
        let fitting = self.records.iter().take_while(|piece| usize::from(piece.end) <= limit).count();
        let mut left = u16::try_from(fitting).unwrap_or(u16::MAX);
        let counts = self.counts.map(|count| {
            let taken = count.min(left);
            left -= taken;
            taken
        });
        let last = fitting.checked_sub(1).and_then(|last| self.records.get(last));
        let len = last.map_or_else(|| self.question_end(), |piece| usize::from(piece.end));
        (len, counts, counts[..2] != self.counts[..2])
    }

    fn question_end(&self) -> usize {
        let name = self.bytes.get(HEADER_LEN..).and_then(skip_name).unwrap_or(0);
        HEADER_LEN + name + 4
    }
}

/// Reading of records, one after another.
#[derive(Default)]
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    asked: RecordType,
    records: Vec<Piece>,
    /// Places of names that are spelled out.
    owners: Vec<usize>,
    /// The shortest lifetime in the answer section.
    ttl: Option<u32>,
    has_asked: bool,
    negative_ttl: Option<u32>,
    /// The rest is left out.
    ended: bool,
}

impl Walk<'_> {
    /// Reads `count` records of a section; returns the number of those that are kept.
    fn section(&mut self, section: usize, count: u16) -> Option<u16> {
        let mut kept = 0;
        for _ in 0..count {
            if self.ended {
                break;
            }
            kept += u16::from(self.record(section)?);
        }
        Some(kept)
    }

    /// Reads a record; false if it belongs to one exchange: it and those behind it, which are additional, are left out.
    fn record(&mut self, section: usize) -> Option<bool> {
        let rest = self.bytes.get(self.at..)?;
        let owner = skip_name(rest)?;
        let kind = RecordType(word(rest, owner)?);
        if matches!(kind, RecordType::OPT | RecordType::TSIG) {
            self.ended = true;
            return (section == 2).then_some(false);
        }
        let ttl = believed(long(rest, owner + 4)?);
        let end = owner + 10 + usize::from(word(rest, owner + 8)?);
        rest.get(..end)?;
        match section {
            0 => {
                self.ttl = Some(self.ttl.map_or(ttl, |least| least.min(ttl)));
                self.has_asked |= kind == self.asked;
            }
            // RFC 2308, section 5.
            1 if kind == RecordType::SOA => {
                self.negative_ttl = Some(ttl.min(long(rest, end.checked_sub(4)?)?))
            }
            _ => {}
        }
        if rest.first().is_some_and(|first| *first < 64) {
            self.owners.push(self.at);
        }
        let place = |at: usize| u16::try_from(at).ok();
        self.records.push(Piece { ttl_at: place(self.at + owner + 4)?, end: place(self.at + end)? });
        self.at += end;
        Some(true)
    }
}

/// A TTL with the highest bit counts as 0 (RFC 2181, section 8).
fn believed(ttl: u32) -> u32 {
    if ttl > u32::MAX >> 1 { 0 } else { ttl }
}

fn seconds(ttl: Option<u32>) -> Duration {
    Duration::from_secs(ttl.unwrap_or(0).into())
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
pub(super) mod tests;
