//! Messages and sockets of netfilter's netlink family (linux/netfilter/nfnetlink.h): nf_tables and conntrack.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::socket::{Answers, RECEIVE_BUFFER, refusal};
use super::{NetlinkError, Refusal};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// nlmsghdr and nfgenmsg.
const HEADER_LEN: usize = 20;
const NESTED: u16 = 0x8000;
/// A transaction travels as one message: room for 100,000 rows.
const SEND_BUFFER: usize = 16 << 20;
/// How often a dump is repeated that the kernel says was torn by a change.
const DUMP_ATTEMPTS: usize = 5;

/// A part of netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Connection tracking.
    Conntrack = 1,
    /// Rules.
    Tables = 10,
}

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verb {
    /// Of whom.
    pub subsystem: Subsystem,
    /// Its number there.
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
    /// Those that `fill` puts in.
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

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The messages.
    #[cfg(test)]
    pub(crate) fn messages(&self) -> &[(Verb, Attributes)] {
        &self.0
    }
}

/// A NETLINK_NETFILTER socket. It keeps its namespace alive: open one per task, do not store it.
#[derive(Debug)]
pub struct NetfilterSocket {
    inner: netlink_sys::Socket,
    sequence: u32,
    received: Vec<u8>,
}

impl NetfilterSocket {
    /// Opens a socket in `ns`.
    ///
    /// # Errors
    /// When the namespace cannot be entered, at the limit of open files, or in a kernel without netfilter.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> Result<Self, NetlinkError> {
        let inner = hopper.run(ns, || -> io::Result<netlink_sys::Socket> {
            let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Older kernels lack these: refusals are then longer or without words.
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_ext_ack(true);
            setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER)?;
            // The kernel answers before send(2) returns, so there is nothing to wait for.
            socket.set_non_blocking(true)?;
            Ok(socket)
        })??;
        Ok(Self { inner, sequence: 0, received: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// Does all of a transaction, or nothing; `what` names it in the error, as an infinitive.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses a part.
    pub fn commit(&mut self, transaction: &Transaction, what: &str) -> Result<(), NetlinkError> {
        let Some((last, rest)) = transaction.0.split_last() else { return Ok(()) };
        let mut buffer = Vec::new();
        let first = self.sequence;
        let frame = Attributes::default();
        self.encode(&mut buffer, BATCH_BEGIN, 0, 0, Subsystem::Tables as u16, &frame);
        for (verb, attributes) in rest {
            self.encode(&mut buffer, verb.kind(), verb.flags, verb.family, 0, attributes);
        }
        self.encode(&mut buffer, last.0.kind(), last.0.flags | NLM_F_ACK, last.0.family, 0, &last.1);
        let answered = self.sequence;
        self.encode(&mut buffer, BATCH_END, 0, 0, Subsystem::Tables as u16, &frame);
        self.inner.send(&buffer, 0)?;
        self.outcome(first, answered, what)
    }

    /// Does one thing; `what` names it in the error, as an infinitive.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn request(&mut self, verb: Verb, attributes: &Attributes, what: &str) -> Result<(), NetlinkError> {
        let mut buffer = Vec::new();
        let first = self.sequence;
        self.encode(&mut buffer, verb.kind(), verb.flags | NLM_F_ACK, verb.family, 0, attributes);
        self.inner.send(&buffer, 0)?;
        self.outcome(first, self.sequence, what)
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
        for _ in 1..DUMP_ATTEMPTS {
            if let (entries, false) = self.dump_once(verb, attributes, &take)? {
                return Ok(entries);
            }
        }
        Ok(self.dump_once(verb, attributes, &take)?.0)
    }

    fn dump_once<T>(
        &mut self,
        verb: Verb,
        attributes: &Attributes,
        take: &impl Fn(&[u8]) -> Option<T>,
    ) -> Result<(Vec<T>, bool), NetlinkError> {
        let mut buffer = Vec::new();
        self.encode(&mut buffer, verb.kind(), verb.flags | NLM_F_DUMP, verb.family, 0, attributes);
        let sequence = self.sequence;
        self.inner.send(&buffer, 0)?;
        let (mut entries, mut torn) = (Vec::new(), false);
        loop {
            self.receive()?;
            for answer in Answers(&self.received) {
                let header = NetlinkBuffer::new(answer);
                if header.sequence_number() != sequence {
                    continue; // Left over from a dump that was given up.
                }
                torn |= header.flags() & NLM_F_DUMP_INTR != 0;
                match header.message_type() {
                    NLMSG_DONE => return Ok((entries, torn)),
                    NLMSG_ERROR => {
                        let refusal =
                            refusal(answer).ok_or_else(|| io::Error::other("unexpected acknowledgement"))?;
                        return Err(NetlinkError::Refused {
                            what: "list its netfilter state".into(),
                            refusal,
                        });
                    }
                    _ => entries.extend(answer.get(HEADER_LEN..).and_then(take)),
                }
            }
        }
    }

    fn encode(
        &mut self,
        buffer: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        attributes: &Attributes,
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_LEN + attributes.0.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        buffer.extend_from_slice(&[0; 4]);
        // struct nfgenmsg: family, NFNETLINK_V0, resource.
        buffer.extend_from_slice(&[family, 0]);
        buffer.extend_from_slice(&resource.to_be_bytes());
        buffer.extend_from_slice(&attributes.0);
    }

    /// Reads what the kernel says to the messages after `first`, of which `answered` asked for an answer.
    fn outcome(&mut self, first: u32, answered: u32, what: &str) -> Result<(), NetlinkError> {
        let (mut refused, mut done): (Option<Refusal>, bool) = (None, false);
        while !done {
            match self.receive() {
                Ok(()) => {}
                // A transaction that fails as a whole is answered at its beginning alone.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && refused.is_some() => break,
                Err(error) => return Err(error.into()),
            }
            for answer in Answers(&self.received) {
                let header = NetlinkBuffer::new(answer);
                let place = header.sequence_number().wrapping_sub(first);
                if header.message_type() == NLMSG_ERROR && (1..u32::MAX / 2).contains(&place) {
                    done |= header.sequence_number() == answered;
                    refused = refused.or(refusal(answer));
                }
            }
        }
        refused.map_or(Ok(()), |refusal| Err(NetlinkError::Refused { what: what.to_owned(), refusal }))
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.received.clear();
            match self.inner.recv(&mut self.received, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Verb {
    fn kind(self) -> u16 {
        (self.subsystem as u16) << 8 | u16::from(self.number)
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
