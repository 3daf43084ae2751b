//! DNS messages (RFC 1035, section 4): reading queries and writing answers, without allocating.

use std::net::{Ipv4Addr, Ipv6Addr};

mod query;

pub(crate) use query::{Edns, Query, QueryName, Refused, skip_name, word};

/// The length of a message's header.
pub(crate) const HEADER_LEN: usize = 12;
/// The largest UDP message we send, and say that we take (DNS flag day 2020: never fragmented).
pub(crate) const UDP_LIMIT: u16 = 1232;
/// The largest UDP message for who does not say otherwise (RFC 1035, section 2.3.4).
pub(crate) const PLAIN_UDP_LIMIT: u16 = 512;

/// The flag of answers.
pub(crate) const QR: u16 = 1 << 15;
const AA: u16 = 1 << 10;
/// Not everything fitted.
pub(crate) const TC: u16 = 1 << 9;
/// The asker wants the question followed through.
pub(crate) const RD: u16 = 1 << 8;
/// Whoever answers follows questions through.
pub(crate) const RA: u16 = 1 << 7;
/// The answer is authentic by DNSSEC, or the asker understands when it is.
pub(crate) const AD: u16 = 1 << 5;
/// The asker checks the answer itself.
pub(crate) const CD: u16 = 1 << 4;
/// The opcode's bits.
pub(crate) const OPCODE: u16 = 0xf << 11;

/// A pointer (RFC 1035, section 4.1.4) to the name in the question.
const QUESTION: u16 = 0xc000 | HEADER_LEN as u16;
/// The length of an OPT record without options.
pub(crate) const OPT_LEN: usize = 11;
const DNSSEC_OK: u32 = 1 << 15;
/// The EDNS option of an Extended DNS Error (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// Outcome of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// There is an answer, or the name has no such records.
    NoError,
    /// The query is garbled.
    FormErr,
    /// The answer could not be found out.
    ServFail,
    /// The name does not exist.
    NxDomain,
    /// Not a kind of query that is served.
    NotImp,
    /// Not served to you.
    Refused,
    /// An EDNS version that is not served (RFC 6891, section 6.1.3).
    BadVers,
    /// An upstream server said something besides these.
    Other,
}

impl Rcode {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::BadVers,
        Self::Other,
    ];

    /// The name, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::BadVers => "badvers",
            Self::Other => "other",
        }
    }

    /// Reads the code from a message's header.
    pub(crate) fn of(message: &[u8]) -> Self {
        match message.get(3).map_or(2, |flags| flags & 0xf) {
            0 => Self::NoError,
            1 => Self::FormErr,
            2 => Self::ServFail,
            3 => Self::NxDomain,
            4 => Self::NotImp,
            5 => Self::Refused,
            _ => Self::Other,
        }
    }

    /// Returns true if it says of a name what there is: records, or none.
    pub(crate) fn is_answer(self) -> bool {
        matches!(self, Self::NoError | Self::NxDomain)
    }

    /// Twelve bits: the upper eight go to the OPT record (RFC 6891, section 6.1.3).
    pub(crate) fn bits(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail | Self::Other => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }
}

/// Record types that are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordType(pub(crate) u16);

impl RecordType {
    pub(crate) const A: Self = Self(1);
    pub(crate) const NS: Self = Self(2);
    pub(crate) const CNAME: Self = Self(5);
    pub(crate) const SOA: Self = Self(6);
    pub(crate) const PTR: Self = Self(12);
    pub(crate) const MX: Self = Self(15);
    pub(crate) const TXT: Self = Self(16);
    pub(crate) const AAAA: Self = Self(28);
    pub(crate) const SRV: Self = Self(33);
    pub(crate) const NAPTR: Self = Self(35);
    pub(crate) const OPT: Self = Self(41);
    pub(crate) const SVCB: Self = Self(64);
    pub(crate) const HTTPS: Self = Self(65);
    pub(crate) const TSIG: Self = Self(250);
    pub(crate) const IXFR: Self = Self(251);
    pub(crate) const AXFR: Self = Self(252);
    pub(crate) const ANY: Self = Self(255);
    pub(crate) const CAA: Self = Self(257);
}

/// Owner of a negative answer's SOA record: the part that is cut off at a label of the question, or the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apex {
    Root,
    /// At this offset in the question's name.
    At(u8),
}

/// The header-only answer to a query that is not understood.
pub(crate) fn write_header(out: &mut Vec<u8>, id: u16, query_flags: u16, rcode: Rcode) {
    out.clear();
    for word in [id, QR | RA | (query_flags & (OPCODE | RD)) | rcode.bits(), 0, 0, 0, 0] {
        put16(out, word);
    }
}

/// An answer being written: records of the answer section first, then of authority, then additional ones, then
/// [`Writer::finish`]. A record of the answer section that does not fit marks the answer as truncated (TC), so that
/// the asker comes again over TCP (RFC 2181, section 9).
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    edns: Option<Edns>,
    rcode: Rcode,
    answers: u16,
    authorities: u16,
    additionals: u16,
    truncated: bool,
}

impl<'a> Writer<'a> {
    /// Starts an answer of at most `limit` bytes; `own` when the name is ours to speak of (AA).
    pub(crate) fn new(out: &'a mut Vec<u8>, query: &Query<'_>, rcode: Rcode, own: bool, limit: u16) -> Self {
        let authority = if own { AA } else { 0 };
        let flags = QR | RA | authority | (query.flags & (RD | CD)) | (rcode.bits() & 0xf);
        out.clear();
        for word in [query.id, flags, 1, 0, 0, 0] {
            put16(out, word);
        }
        out.extend_from_slice(query.question);
        // What OPT takes is set aside from the start.
        let limit = usize::from(limit) - if query.edns.is_some() { OPT_LEN } else { 0 };
        Self {
            out,
            limit,
            edns: query.edns,
            rcode,
            answers: 0,
            authorities: 0,
            additionals: 0,
            truncated: false,
        }
    }

    /// Adds an address record of the name in question; returns whether it fitted.
    pub(crate) fn a(&mut self, address: Ipv4Addr, ttl: u32) -> bool {
        self.answer(RecordType::A, ttl, &address.octets())
    }

    /// See [`Writer::a`].
    pub(crate) fn aaaa(&mut self, address: Ipv6Addr, ttl: u32) -> bool {
        self.answer(RecordType::AAAA, ttl, &address.octets())
    }

    /// Adds a pointer to `name`, in wire format; returns whether it fitted.
    pub(crate) fn ptr(&mut self, name: &[u8], ttl: u32) -> bool {
        self.answer(RecordType::PTR, ttl, name)
    }

    /// Adds a service's place (RFC 2782) of priority 0; returns whether it fitted.
    pub(crate) fn srv(&mut self, weight: u16, port: u16, target: &[u8], ttl: u32) -> bool {
        let fits = self.begin(RecordType::SRV, ttl, 6 + target.len());
        if fits {
            for word in [0, weight, port] {
                put16(self.out, word);
            }
            self.out.extend_from_slice(target);
        }
        fits
    }

    /// Adds a record of another `name`, in wire format, beside the answer; returns whether it fitted, which it need
    /// not.
    pub(crate) fn additional(&mut self, name: &[u8], kind: RecordType, ttl: u32, data: &[u8]) -> bool {
        if self.out.len() + name.len() + 10 + data.len() > self.limit {
            return false;
        }
        self.out.extend_from_slice(name);
        self.record(kind, ttl, data.len());
        self.out.extend_from_slice(data);
        self.additionals += 1;
        true
    }

    fn answer(&mut self, kind: RecordType, ttl: u32, data: &[u8]) -> bool {
        let fits = self.begin(kind, ttl, data.len());
        if fits {
            self.out.extend_from_slice(data);
        }
        fits
    }

    fn begin(&mut self, kind: RecordType, ttl: u32, data_len: usize) -> bool {
        if self.out.len() + 12 + data_len > self.limit {
            self.truncated = true;
            return false;
        }
        put16(self.out, QUESTION);
        self.record(kind, ttl, data_len);
        self.answers += 1;
        true
    }

    /// Says how long a negative answer holds (RFC 2308, section 3): `ttl` seconds.
    pub(crate) fn soa(&mut self, apex: Apex, ttl: u32) {
        match apex {
            Apex::Root => self.out.push(0),
            Apex::At(offset) => put16(self.out, QUESTION + u16::from(offset)),
        }
        // No name server and no mailbox have names; the zone is not transferred, so its numbers say nothing.
        self.record(RecordType::SOA, ttl, 22);
        self.out.extend_from_slice(&[0, 0]);
        for number in [1, 60, 60, 60, ttl] {
            put32(self.out, number);
        }
        self.authorities += 1;
    }

    fn record(&mut self, kind: RecordType, ttl: u32, data_len: usize) {
        put16(self.out, kind.0);
        put16(self.out, 1);
        put32(self.out, ttl);
        put16(self.out, u16::try_from(data_len).unwrap_or(0));
    }

    /// Ends the answer; `error` is an Extended DNS Error for who speaks EDNS.
    pub(crate) fn finish(self, error: Option<(u16, &str)>) {
        let Self { out, edns, rcode, answers, authorities, additionals, truncated, .. } = self;
        if let Some(flags) = out.get_mut(2).filter(|_| truncated) {
            *flags |= TC.to_be_bytes()[0];
        }
        if let Some(edns) = edns {
            write_opt(out, edns, rcode, error);
        }
        let counts = [(6, answers), (8, authorities), (10, additionals + u16::from(edns.is_some()))];
        for (at, count) in counts {
            if let Some(place) = out.get_mut(at..at + 2) {
                place.copy_from_slice(&count.to_be_bytes());
            }
        }
    }
}

/// Appends the OPT record of an answer to who speaks EDNS; `error` is an Extended DNS Error.
pub(crate) fn write_opt(out: &mut Vec<u8>, edns: Edns, rcode: Rcode, error: Option<(u16, &str)>) {
    out.push(0);
    put16(out, RecordType::OPT.0);
    put16(out, UDP_LIMIT);
    let extended = u32::from(rcode.bits() >> 4) << 24;
    put32(out, extended | if edns.dnssec_ok { DNSSEC_OK } else { 0 });
    match error {
        None => put16(out, 0),
        Some((code, text)) => {
            // The texts are ours, and short.
            let len = u16::try_from(text.len() + 2).unwrap_or(2);
            for word in [len + 4, EXTENDED_ERROR, len, code] {
                put16(out, word);
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn put16(out: &mut Vec<u8>, word: u16) {
    out.extend_from_slice(&word.to_be_bytes());
}

fn put32(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_be_bytes());
}
