//! Messages and sockets of netfilter's netlink family (linux/netfilter/nfnetlink.h): nf_tables and conntrack.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::conversation::Conversation;
use super::{NetlinkError, Refusal};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// nlmsghdr and nfgenmsg.
const HEADER_LEN: usize = 20;
const NESTED: u16 = 0x8000;
/// A transaction travels as one message: room for 100,000 rows.
const SEND_BUFFER: usize = 16 << 20;

/// A part of netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Connection tracking.
    Conntrack = 1,
    /// Rules.
    Tables = 10,
}

/// Verb of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verb {
    /// Of whom.
    pub subsystem: Subsystem,
    /// Number within the subsystem.
    pub number: u8,
    /// NLM_F_CREATE and the like.
    pub flags: u16,
    /// NFPROTO_* of linux/netfilter.h.
    pub family: u8,
}

/// Attributes of a message, in network byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Collects the attributes that `fill` puts in.
    #[must_use]
    pub fn of(fill: impl FnOnce(&mut Self)) -> Self {
        let mut attributes = Self::default();
        fill(&mut attributes);
        attributes
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        // Whoever may have more splits it: see nft's lists of elements.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A name.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// A number.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Attributes inside an attribute.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.bytes(kind | NESTED, &Self::of(fill).0);
    }

    /// Attributes inside an attribute, as they were received.
    pub fn nested_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NESTED, value);
    }

    /// The same as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in `bytes`: kinds and values.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (kind, _) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes(*kind) & 0x3fff, value))
    })
}

/// The value of the first attribute of this kind.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A name without the zero byte at its end.
#[must_use]
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

/// Messages that are one transaction of nf_tables: all of it happens, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction(Vec<(Verb, Attributes)>);

impl Transaction {
    /// Adds a message.
    pub fn push(&mut self, verb: Verb, attributes: Attributes) {
        self.0.push((verb, attributes));
    }

    /// The messages.
    #[cfg(test)]
    pub(crate) fn messages(&self) -> &[(Verb, Attributes)] {
        &self.0
    }
}

/// A NETLINK_NETFILTER socket. It keeps its namespace alive: open one per task, do not store it.
#[derive(Debug)]
pub struct NetfilterSocket(Conversation);

/// Header before the attributes of a message.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
}

impl NetfilterSocket {
    /// Opens a socket in `ns`.
    ///
    /// # Errors
    /// When the namespace cannot be entered, at the limit of open files, or in a kernel without netfilter.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> Result<Self, NetlinkError> {
        let conversation = Conversation::open(hopper, ns, NETLINK_NETFILTER, |socket| {
            setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER)?;
            // The kernel answers before send(2) returns, so there is nothing to wait for.
            socket.set_non_blocking(true)
        })?;
        Ok(Self(conversation))
    }

    /// Does all of a transaction, or nothing; `what` names it in the error, as an infinitive.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses a part.
    pub fn commit(&mut self, transaction: &Transaction, what: &str) -> Result<(), NetlinkError> {
        let Some((last, rest)) = transaction.0.split_last() else { return Ok(()) };
        let mut buffer = Vec::new();
        let first = self.0.sequence();
        self.encode(&mut buffer, Header::frame(BATCH_BEGIN), &Attributes::default());
        for (verb, attributes) in rest {
            self.encode(&mut buffer, verb.header(0), attributes);
        }
        self.encode(&mut buffer, last.0.header(NLM_F_ACK), &last.1);
        let answered = self.0.sequence();
        self.encode(&mut buffer, Header::frame(BATCH_END), &Attributes::default());
        self.0.send(&buffer)?;
        self.outcome(first, answered, what)
    }

    /// Does one thing; `what` names it in the error, as an infinitive.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn request(&mut self, verb: Verb, attributes: &Attributes, what: &str) -> Result<(), NetlinkError> {
        let mut buffer = Vec::new();
        let first = self.0.sequence();
        self.encode(&mut buffer, verb.header(NLM_F_ACK), attributes);
        self.0.send(&buffer)?;
        self.outcome(first, self.0.sequence(), what)
    }

    /// Asks for one thing that `attributes` name, which `take` reads in the attributes of the answer; `what` names it in the error, as an
    /// infinitive. `None` when the answer has it not.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn ask<T>(
        &mut self,
        verb: Verb,
        attributes: &Attributes,
        take: impl FnOnce(&[u8]) -> Option<T>,
        what: &str,
    ) -> Result<Option<T>, NetlinkError> {
        let ask = |sequence| {
            let mut buffer = Vec::new();
            verb.header(0).encode(&mut buffer, sequence, attributes);
            buffer
        };
        let take = |answer: &[u8]| answer.get(HEADER_LEN..).and_then(take);
        self.0.find(ask, take, what)
    }

    /// Hands the attributes of every entry of a kind to `take`.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn dump<T>(
        &mut self,
        verb: Verb,
        attributes: &Attributes,
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut unbounded = usize::MAX;
        Ok(self.dump_within(verb, attributes, take, &mut unbounded)?.unwrap_or_default())
    }

    /// As [`Self::dump`], but reads no more than `left` bytes and takes what it reads off that. `None` when there are more: the
    /// socket is good for no other dump then.
    ///
    /// # Errors
    /// As [`Self::dump`].
    pub fn dump_within<T>(
        &mut self,
        verb: Verb,
        attributes: &Attributes,
        take: impl Fn(&[u8]) -> Option<T>,
        left: &mut usize,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let ask = |sequence| {
            let mut buffer = Vec::new();
            verb.header(NLM_F_DUMP).encode(&mut buffer, sequence, attributes);
            buffer
        };
        let take = |answer: &[u8]| answer.get(HEADER_LEN..).and_then(&take);
        self.0.dump_within(ask, take, "list its netfilter state", left)
    }

    fn encode(&mut self, buffer: &mut Vec<u8>, header: Header, attributes: &Attributes) {
        header.encode(buffer, self.0.advance(), attributes);
    }

    /// Reads what the kernel says to the messages after `first`, of which `answered` asked for an answer.
    fn outcome(&mut self, first: u32, answered: u32, what: &str) -> Result<(), NetlinkError> {
        let (mut refused, mut done): (Option<Refusal>, bool) = (None, false);
        while !done {
            let answers = match self.0.receive() {
                Ok(answers) => answers,
                // A transaction that fails as a whole is answered at its beginning alone.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && refused.is_some() => break,
                Err(error) => return Err(error.into()),
            };
            for answer in answers {
                let header = NetlinkBuffer::new(answer);
                let place = header.sequence_number().wrapping_sub(first);
                if header.message_type() == NLMSG_ERROR && (1..u32::MAX / 2).contains(&place) {
                    done |= header.sequence_number() == answered;
                    refused = refused.or(Refusal::read(answer));
                }
            }
        }
        refused.map_or(Ok(()), |refusal| Err(NetlinkError::Refused { what: what.to_owned(), refusal }))
    }
}

impl Verb {
    /// The header of its message, with more flags.
    fn header(self, flags: u16) -> Header {
        let Self { subsystem, number, flags: own, family } = self;
        let kind = (subsystem as u16) << 8 | u16::from(number);
        Header { kind, flags: own | flags, family, resource: 0 }
    }
}

impl Header {
    /// Begins or ends a transaction.
    fn frame(kind: u16) -> Self {
        Self { kind, flags: 0, family: 0, resource: Subsystem::Tables as u16 }
    }

    fn encode(self, buffer: &mut Vec<u8>, sequence: u32, attributes: &Attributes) {
        let Self { kind, flags, family, resource } = self;
        let length = u32::try_from(HEADER_LEN + attributes.0.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        buffer.extend_from_slice(&sequence.to_ne_bytes());
        buffer.extend_from_slice(&[0; 4]);
        // struct nfgenmsg: family, NFNETLINK_V0, resource.
        buffer.extend_from_slice(&[family, 0]);
        buffer.extend_from_slice(&resource.to_be_bytes());
        buffer.extend_from_slice(&attributes.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let written = Attributes::of(|attributes| {
            attributes.text(1, "odd");
            attributes.number(2, 7);
            attributes.nested(3, |inner| inner.bytes(1, &[9]));
        });
        assert_eq!(written.as_bytes().len() % 4, 0);
        let value = |kind| attribute(written.as_bytes(), kind).unwrap();
        assert_eq!(text(value(1)), "odd");
        assert_eq!(value(2), 7_u32.to_be_bytes());
        assert_eq!(attribute(value(3), 1), Some(&[9_u8][..]));
        assert_eq!(attribute(written.as_bytes(), 4), None);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        for bytes in [&[][..], &[4], &[8, 0, 1, 0, 1], &[3, 0, 1, 0], &[0, 0, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
