//! A netlink socket in a namespace: single requests, batches and dumps.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::conversation::Conversation;
use super::{NetlinkError, Refusal};

/// Number of requests that go to the kernel in one send: their answers, even if every one is a refusal, fit in the
/// default receive buffer.
const BATCH: usize = 128;

/// A NETLINK_ROUTE socket. It keeps its namespace alive: open one per task, do not store it.
#[derive(Debug)]
pub struct Socket {
    conversation: Conversation,
    /// Bytes of lists that may still be read.
    left: usize,
}

/// Bytes of lists that are read in a namespace in which others may add to them: a workload's own part has some KB.
const LARGEST_IN_FOREIGN: usize = 4 << 20;

/// Change that is asked of the kernel.
#[derive(Clone, Debug)]
pub struct NetlinkRequest {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl NetlinkRequest {
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

    /// Returns the message's bytes, which have the form of a notice.
    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, 0, self.message, self.flags);
        bytes
    }
}

impl Socket {
    /// Opens a socket in `ns`.
    ///
    /// # Errors
    /// When the namespace cannot be entered or at the limit of open files.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> Result<Self, NetlinkError> {
        let conversation = Conversation::open(hopper, ns, NETLINK_ROUTE, |socket| {
            // Older kernels lack it: dumps are then unfiltered.
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(())
        })?;
        Ok(Self { conversation, left: usize::MAX })
    }

    /// Opens a socket in a namespace in which others may make addresses and routes as they like: little is read there.
    ///
    /// # Errors
    /// As [`Socket::open`].
    pub fn open_foreign(hopper: &Hopper, ns: &NetNs) -> Result<Self, NetlinkError> {
        Ok(Self { left: LARGEST_IN_FOREIGN, ..Self::open(hopper, ns)? })
    }

    /// Makes one request; `what` names it in the error, as an infinitive.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn request(
        &mut self,
        request: NetlinkRequest,
        what: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
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
        requests: impl IntoIterator<Item = NetlinkRequest>,
    ) -> Result<Vec<(usize, Refusal)>, NetlinkError> {
        let mut requests = requests.into_iter().peekable();
        let mut refusals = Vec::new();
        let mut buffer = Vec::new();
        let mut done = 0;
        while requests.peek().is_some() {
            buffer.clear();
            let first = self.conversation.sequence();
            let mut count = 0;
            while count < BATCH
                && let Some(request) = requests.next()
            {
                // Refusals come unasked; the acknowledgement of the last request ends the wait.
                let last = count + 1 == BATCH || requests.peek().is_none();
                let ack = if last { NLM_F_ACK } else { 0 };
                encode(&mut buffer, self.conversation.advance(), request.message, request.flags | ack);
                count += 1;
            }
            self.conversation.send(&buffer)?;
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
        let ask = |sequence| {
            let mut buffer = Vec::new();
            encode(&mut buffer, sequence, message.clone(), NLM_F_DUMP);
            buffer
        };
        let listed = self.conversation.dump_within(ask, entry, "list its network state", &mut self.left)?;
        listed
            .ok_or_else(|| io::Error::other("a namespace has more addresses or routes than are read").into())
    }

    /// The one thing that the message names; `None` when there is none.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn find(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let ask = |sequence| {
            let mut buffer = Vec::new();
            encode(&mut buffer, sequence, message, 0);
            buffer
        };
        match self.conversation.find(ask, entry, "show what it has") {
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => Ok(None),
            found => found,
        }
    }

    /// Reads until the request of the current sequence is answered; `first` is the sequence before the batch.
    fn await_answers(
        &mut self,
        first: u32,
        done: usize,
        refusals: &mut Vec<(usize, Refusal)>,
    ) -> Result<(), NetlinkError> {
        let last = self.conversation.sequence();
        loop {
            let mut complete = false;
            for answer in self.conversation.receive()? {
                let header = NetlinkBuffer::new(answer);
                let place = header.sequence_number().wrapping_sub(first);
                if header.message_type() != NLMSG_ERROR || !(1..=BATCH as u32).contains(&place) {
                    continue;
                }
                if let Some(refusal) = Refusal::read(answer) {
                    refusals.push((done + place as usize - 1, refusal));
                }
                complete |= header.sequence_number() == last;
            }
            if complete {
                return Ok(());
            }
        }
    }
}

fn encode(buffer: &mut Vec<u8>, sequence: u32, message: RouteNetlinkMessage, flags: u16) {
    let mut header = NetlinkHeader::default();
    header.flags = flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = buffer.len();
    buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut buffer[start..]);
}

fn entry(answer: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::deserialize(answer) {
        Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(entry), .. }) => Some(entry),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "unreadable netlink entry");
            None
        }
    }
}
