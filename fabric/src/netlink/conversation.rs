//! Conversation on one netlink socket, whatever its family.

use std::io;

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::{NetlinkError, Refusal};

/// The kernel never writes more than this into one answer of a dump.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Number of times that a dump is repeated that the kernel says was torn by a change.
const DUMP_ATTEMPTS: usize = 5;

/// A connected socket, and how far its messages have been counted.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

impl Conversation {
    /// Opens a socket of `protocol` in `ns` and sets it up.
    pub(super) fn open(
        hopper: &Hopper,
        ns: &NetNs,
        protocol: isize,
        set_up: impl FnOnce(&mut Socket) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, NetlinkError> {
        let socket = hopper.run(ns, move || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Older kernels lack these: refusals are then longer or without words.
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_ext_ack(true);
            set_up(&mut socket)?;
            Ok(socket)
        })??;
        Ok(Self { socket, sequence: 0, received: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// The number of the message before the next one.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// The number of the next message.
    pub(super) fn advance(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    pub(super) fn send(&self, messages: &[u8]) -> io::Result<()> {
        self.socket.send(messages, 0).map(drop)
    }

    /// The messages of one datagram, once it is there.
    pub(super) fn receive(&mut self) -> io::Result<impl Iterator<Item = &[u8]>> {
        loop {
            self.received.clear();
            match self.socket.recv(&mut self.received, 0) {
                Ok(_) => return Ok(Answers(&self.received)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for one thing by the message that `ask` makes of a sequence number, and answers what `take` makes of it; `None`
    /// when that is nothing. `what` names it in the error, as an infinitive.
    pub(super) fn find<T>(
        &mut self,
        ask: impl FnOnce(u32) -> Vec<u8>,
        take: impl FnOnce(&[u8]) -> Option<T>,
        what: &str,
    ) -> Result<Option<T>, NetlinkError> {
        let sequence = self.advance();
        self.send(&ask(sequence))?;
        loop {
            for answer in self.receive()? {
                let header = NetlinkBuffer::new(answer);
                if header.sequence_number() != sequence {
                    continue; // Left over from a question that was given up.
                }
                if header.message_type() != NLMSG_ERROR {
                    return Ok(take(answer));
                }
                let refusal = Refusal::read(answer);
                return refusal.map_or(Ok(None), |refusal| {
                    Err(NetlinkError::Refused { what: what.to_owned(), refusal })
                });
            }
        }
    }

    /// Asks for a dump by the message that `ask` makes of a sequence number, and keeps what `take` makes of each
    /// entry. `what` names it in the error, as an infinitive. Reads no more than `left` bytes, repetitions included, and takes what
    /// it reads off that. `None` when there are more: the dump stands still then, and the kernel begins no further one for this socket.
    pub(super) fn dump_within<T>(
        &mut self,
        ask: impl Fn(u32) -> Vec<u8>,
        take: impl Fn(&[u8]) -> Option<T>,
        what: &str,
        left: &mut usize,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        for _ in 1..DUMP_ATTEMPTS {
            match self.dump_once(&ask, &take, what, left)? {
                Some((_, true)) => {}
                outcome => return Ok(outcome.map(|(entries, _)| entries)),
            }
        }
        Ok(self.dump_once(&ask, &take, what, left)?.map(|(entries, _)| entries))
    }

    /// The entries, and whether they are torn; `None` when they are more than `left` bytes.
    fn dump_once<T>(
        &mut self,
        ask: &impl Fn(u32) -> Vec<u8>,
        take: &impl Fn(&[u8]) -> Option<T>,
        what: &str,
        left: &mut usize,
    ) -> Result<Option<(Vec<T>, bool)>, NetlinkError> {
        let sequence = self.advance();
        self.send(&ask(sequence))?;
        let (mut entries, mut torn) = (Vec::new(), false);
        loop {
            for answer in self.receive()? {
                let Some(rest) = left.checked_sub(answer.len()) else { return Ok(None) };
                *left = rest;
                let header = NetlinkBuffer::new(answer);
                if header.sequence_number() != sequence {
                    continue; // Left over from a dump that was given up.
                }
                torn |= header.flags() & NLM_F_DUMP_INTR != 0;
                match header.message_type() {
                    NLMSG_DONE => return Ok(Some((entries, torn))),
                    NLMSG_ERROR => {
                        let refusal = Refusal::read(answer)
                            .ok_or_else(|| io::Error::other("unexpected acknowledgement"))?;
                        return Err(NetlinkError::Refused { what: what.to_owned(), refusal });
                    }
                    _ => entries.extend(take(answer)),
                }
            }
        }
    }
}

/// The messages of one datagram.
struct Answers<'a>(&'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = NetlinkBuffer::new_checked(self.0).ok()?.length() as usize;
        let message = self.0.get(..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}
