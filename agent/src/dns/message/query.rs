//! Reading a query: header, one question, EDNS.

use super::{HEADER_LEN, OPCODE, PLAIN_UDP_LIMIT, QR, Rcode, RecordType};

/// The longest name in wire format (RFC 1035, section 2.3.4).
const MAX_NAME_LEN: usize = 255;

/// A query with one question.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) name: QueryName,
    pub(crate) kind: RecordType,
    pub(crate) class: u16,
    /// The question section as it came: its spelling is echoed.
    pub(crate) question: &'a [u8],
    pub(crate) edns: Option<Edns>,
}

/// Content of an OPT record (RFC 6891, section 6.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) udp_size: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    /// True if an option is there that means something to servers beyond the next one.
    pub(crate) end_to_end: bool,
}

/// A message that is not a query with one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too short for a header, or an answer: answering those would go round for ever.
    Silently,
    /// To be said to the asker.
    With { id: u16, flags: u16, rcode: Rcode },
}

/// The name in question, in wire format and lower case.
#[derive(Debug)]
pub(crate) struct QueryName {
    wire: [u8; MAX_NAME_LEN],
    labels: u8,
}

impl<'a> Query<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Refused> {
        let mut words = [0; HEADER_LEN / 2];
        let header = message.get(..HEADER_LEN).ok_or(Refused::Silently)?;
        for (word, bytes) in words.iter_mut().zip(header.chunks_exact(2)) {
            *word = u16::from_be_bytes([bytes[0], bytes[1]]);
        }
        let [id, flags, questions, answers, authorities, additionals] = words;
        if flags & QR != 0 {
            return Err(Refused::Silently);
        }
        let refuse = |rcode| Refused::With { id, flags, rcode };
        if flags & OPCODE != 0 {
            return Err(refuse(Rcode::NotImp));
        }
        // One question: RFC 9619. Answers and authorities have no place in a query.
        if questions != 1 || answers != 0 || authorities != 0 {
            return Err(refuse(Rcode::FormErr));
        }
        let parse = || {
            let body = message.get(HEADER_LEN..)?;
            let (name, name_len) = QueryName::parse(body)?;
            let question = body.get(..name_len + 4)?;
            let (kind, class) = (word(question, name_len)?, word(question, name_len + 2)?);
            let edns = parse_edns(body.get(question.len()..)?, additionals).ok()?;
            Some(Self { id, flags, name, kind: RecordType(kind), class, question, edns })
        };
        parse().ok_or(refuse(Rcode::FormErr))
    }

    /// Returns true if the message has this one question, in any spelling: not every server keeps the asker's.
    pub(crate) fn is_echoed_in(&self, message: &[u8]) -> bool {
        let echoed = message.get(HEADER_LEN..HEADER_LEN + self.question.len());
        let (asked, asked_rest) = self.split();
        word(message, 4) == Some(1)
            && echoed.is_some_and(|echoed| {
                let (name, rest) = echoed.split_at(asked.len());
                name.eq_ignore_ascii_case(asked) && rest == asked_rest
            })
    }

    /// The name in question as it was spelled, and the rest of the question, its type and class.
    pub(crate) fn split(&self) -> (&'a [u8], &'a [u8]) {
        self.question.split_at(self.question.len() - 4)
    }

    /// Spells the question of the message, which is this one, as it was asked; `None` if the message is too short for it.
    pub(crate) fn spell_in(&self, message: &mut [u8]) -> Option<()> {
        message.get_mut(HEADER_LEN..HEADER_LEN + self.question.len())?.copy_from_slice(self.question);
        Some(())
    }

    /// The longest answer that the asker takes in a datagram.
    pub(crate) fn udp_limit(&self) -> u16 {
        self.edns.map_or(PLAIN_UDP_LIMIT, |edns| edns.udp_size.max(PLAIN_UDP_LIMIT))
    }
}

impl QueryName {
    /// The name at the beginning of `bytes` and its length. No pointers: there is nothing to point to yet.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut wire = [0; MAX_NAME_LEN];
        let (mut at, mut labels) = (0, 0);
        loop {
            let len = usize::from(*bytes.get(at)?);
            if len == 0 {
                let name = wire.get_mut(..=at)?;
                name.copy_from_slice(bytes.get(..=at)?);
                // Lengths are at most 63: no letter is among them.
                name.make_ascii_lowercase();
                return Some((Self { wire, labels }, at + 1));
            }
            if len > 63 {
                return None;
            }
            at += 1 + len;
            labels += 1;
            if at >= MAX_NAME_LEN {
                return None;
            }
        }
    }

    /// Returns the number of labels; none is the root.
    pub(crate) fn label_count(&self) -> u8 {
        self.labels
    }

    /// The labels from left to right, each with its offset in the name.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut at = 0_u8;
        std::iter::from_fn(move || {
            let len = *self.wire.get(usize::from(at))?;
            let start = usize::from(at) + 1;
            let label = self.wire.get(start..start + usize::from(len)).filter(|label| !label.is_empty())?;
            let offset = at;
            at = at.checked_add(len + 1)?;
            Some((offset, label))
        })
    }

    /// The last label; empty for the root.
    pub(crate) fn last(&self) -> (u8, &[u8]) {
        self.labels().last().unwrap_or((0, &[]))
    }
}

struct Garbled;

/// The OPT record among `count` additional records, if there is one.
fn parse_edns(mut rest: &[u8], count: u16) -> Result<Option<Edns>, Garbled> {
    let mut edns = None;
    for _ in 0..count {
        let owner = skip_name(rest).ok_or(Garbled)?;
        let fixed = rest.get(owner..owner + 10).ok_or(Garbled)?;
        let [kind_high, kind_low, class_high, class_low, _extended, version, flags, _, len_high, len_low] =
            fixed
        else {
            return Err(Garbled);
        };
        let data_len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
        let data = rest.get(owner + 10..owner + 10 + data_len).ok_or(Garbled)?;
        rest = rest.get(owner + 10 + data_len..).ok_or(Garbled)?;
        if u16::from_be_bytes([*kind_high, *kind_low]) != RecordType::OPT.0 {
            continue;
        }
        if owner != 1 || edns.is_some() {
            return Err(Garbled);
        }
        edns = Some(Edns {
            udp_size: u16::from_be_bytes([*class_high, *class_low]),
            version: *version,
            dnssec_ok: flags & 0x80 != 0,
            end_to_end: has_end_to_end(data),
        });
    }
    Ok(edns)
}

/// Returns true if any of these options is not for the next server alone. Cookies (RFC 7873), keepalive (RFC 7828) and padding
/// (RFC 7830) are.
fn has_end_to_end(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        let (Some(code), Some(len)) = (word(options, 0), word(options, 2)) else { return true };
        if !matches!(code, 10..=12) {
            return true;
        }
        let Some(rest) = options.get(4 + usize::from(len)..) else { return true };
        options = rest;
    }
    false
}

/// Returns the length of the name at the beginning of `bytes`, pointers included.
pub(crate) fn skip_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len @ 1..64 => at += 1 + usize::from(len),
            64..192 => return None,
            192.. => return Some(at + 2),
        }
    }
}

/// The number at this place.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
