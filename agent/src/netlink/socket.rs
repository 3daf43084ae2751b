//! A netlink socket in a namespace: single requests, batches and dumps.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

/// How many requests go to the kernel in one send: their answers, even if every one is a refusal, fit in the
/// default receive buffer.
const BATCH: usize = 128;
/// The kernel never writes more than this into one answer of a dump.
pub(super) const RECEIVE_BUFFER: usize = 64 * 1024;
/// How often a dump is repeated that the kernel says was torn by a change.
const DUMP_ATTEMPTS: usize = 5;
/// NLMSGERR_ATTR_MSG of linux/netlink.h: the kernel's own words.
const ERROR_TEXT: u16 = 1;
const HEADER_LEN: usize = 16;

/// A NETLINK_ROUTE socket. It keeps its namespace alive: open one per task, do not store it.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    received: Vec<u8>,
}

/// One change asked of the kernel.
#[derive(Clone, Debug)]
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

/// The kernel's no to one request.
#[derive(Debug, thiserror::Error)]
#[error("{errno}{}", .detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refusal {
    errno: io::Error,
    detail: Option<String>,
}

/// Why something could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made or used.
    #[error("cannot talk to the kernel by netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel said no.
    #[error("the kernel refuses to {what}: {refusal}")]
    Refused {
        /// What was asked, as an infinitive.
        what: String,
        /// What it said.
        refusal: Refusal,
    },
}

impl Request {
    /// Makes something that is not there yet.
    #[must_use]
    pub fn create(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    /// Makes something, or makes it so.
    #[must_use]
    pub fn replace(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_CREATE | NLM_F_REPLACE }
    }

    /// Changes or removes something that is there.
    #[must_use]
    pub fn change(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0 }
    }
}

impl Refusal {
    fn is(&self, errnos: &[i32]) -> bool {
        self.errno.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
    }

    /// Whether the thing, or one that excludes it, is there already.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        self.is(&[libc::EEXIST])
    }

    /// Whether the thing is gone already.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is(&[libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENXIO])
    }

    /// Whether the kernel has no such kind of device.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.is(&[libc::EOPNOTSUPP])
    }
}

impl Socket {
    /// Opens a socket in `ns`.
    ///
    /// # Errors
    /// When the namespace cannot be entered or at the limit of open files.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> Result<Self, NetlinkError> {
        let inner = hopper.run(ns, || -> io::Result<netlink_sys::Socket> {
            let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Older kernels lack these: dumps are then unfiltered and refusals without words.
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(socket)
        })??;
        Ok(Self { inner, sequence: 0, received: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// One request; `what` names it in the error, as an infinitive.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn request(&mut self, request: Request, what: impl FnOnce() -> String) -> Result<(), NetlinkError> {
        match self.batch([request])?.pop() {
            None => Ok(()),
            Some((_, refusal)) => Err(NetlinkError::Refused { what: what(), refusal }),
        }
    }

    /// Many requests, in order. The answer has those that the kernel refused, by their place; the others are done.
    ///
    /// # Errors
    /// When the socket fails; what was sent before may be done.
    pub fn batch(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<Vec<(usize, Refusal)>, NetlinkError> {
        let mut requests = requests.into_iter().peekable();
        let mut refusals = Vec::new();
        let mut buffer = Vec::new();
        let mut done = 0;
        while requests.peek().is_some() {
            buffer.clear();
            let first = self.sequence;
            let mut count = 0;
            while count < BATCH
                && let Some(request) = requests.next()
            {
                // Refusals come unasked; the acknowledgement of the last request ends the wait.
                let last = count + 1 == BATCH || requests.peek().is_none();
                let ack = if last { NLM_F_ACK } else { 0 };
                self.encode(&mut buffer, request.message, request.flags | ack);
                count += 1;
            }
            self.inner.send(&buffer, 0)?;
            self.await_answers(first, done, &mut refusals)?;
            done += count;
        }
        Ok(refusals)
    }

    /// Everything the kernel has of a kind. Entries that this program cannot read are left out.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 1..DUMP_ATTEMPTS {
            let (entries, torn) = self.dump_once(message.clone())?;
            if !torn {
                return Ok(entries);
            }
        }
        Ok(self.dump_once(message)?.0)
    }

    fn dump_once(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), NetlinkError> {
        let mut buffer = Vec::new();
        self.encode(&mut buffer, message, NLM_F_DUMP);
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
                        return Err(NetlinkError::Refused { what: "list its network state".into(), refusal });
                    }
                    _ => match NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer) {
                        Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(entry), .. }) => {
                            entries.push(entry);
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(%error, "unreadable netlink entry"),
                    },
                }
            }
        }
    }

    fn encode(&mut self, buffer: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut buffer[start..]);
    }

    /// Reads until the request of the current sequence is answered; `first` is the sequence before the batch.
    fn await_answers(
        &mut self,
        first: u32,
        done: usize,
        refusals: &mut Vec<(usize, Refusal)>,
    ) -> Result<(), NetlinkError> {
        loop {
            self.receive()?;
            let mut complete = false;
            for answer in Answers(&self.received) {
                let header = NetlinkBuffer::new(answer);
                let place = header.sequence_number().wrapping_sub(first);
                if header.message_type() != NLMSG_ERROR || !(1..=BATCH as u32).contains(&place) {
                    continue;
                }
                if let Some(refusal) = refusal(answer) {
                    refusals.push((done + place as usize - 1, refusal));
                }
                complete |= header.sequence_number() == self.sequence;
            }
            if complete {
                return Ok(());
            }
        }
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

/// The messages of one datagram.
pub(super) struct Answers<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = NetlinkBuffer::new_checked(self.0).ok()?.length() as usize;
        let message = self.0.get(..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// Reads an NLMSG_ERROR; `None` when it is an acknowledgement.
pub(super) fn refusal(answer: &[u8]) -> Option<Refusal> {
    let payload = answer.get(HEADER_LEN..)?;
    let errno = i32::from_ne_bytes(*payload.first_chunk()?);
    // Behind the number: the header of the request (capped) and then attributes.
    let attributes = payload.get(4 + HEADER_LEN..).unwrap_or_default();
    let text = NlasIterator::new(attributes).find_map(|nla| nla.ok().filter(|nla| nla.kind() == ERROR_TEXT));
    let detail = text.map(|nla| String::from_utf8_lossy(nla.value()).trim_end_matches('\0').to_owned());
    (errno != 0).then(|| Refusal { errno: io::Error::from_raw_os_error(errno.saturating_neg()), detail })
}
