//! DHCPv4 for exactly one machine (RFC 2131, RFC 2132): what it asks and what it is answered. Pure.
//!
//! There is nothing to lease: the machine's address was given when it was attached. Whoever else asks, or asks for something else,
//! is not answered, or told so.

use std::net::Ipv4Addr;

use sealane_proto::types::MacAddr;

/// The fixed part of a message, and the cookie that options begin with (RFC 2131, section 3).
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The shortest message that some clients read (RFC 1542, section 2.1).
const SHORTEST: usize = 300;
const ETHERNET: [u8; 2] = [1, 6];
const TO_BROADCAST: u16 = 0x8000;

/// Settings that the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Ethernet address of the machine.
    pub(super) mac: MacAddr,
    /// Address of the machine.
    pub(super) address: Ipv4Addr,
    /// The network's.
    pub(super) mask: Ipv4Addr,
    /// The network's own address: router, name server, and whom it hears this from.
    pub(super) gateway: Ipv4Addr,
    /// Bytes per packet.
    pub(super) mtu: u16,
    /// Domain that bare names are looked up in.
    pub(super) domain: String,
    /// After how many seconds it asks again, at the latest.
    pub(super) seconds: u32,
}

/// Outcome of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This is answered.
    Answer(Answer),
    /// The message is none, or for another server.
    Ignored,
    /// Somebody with this Ethernet address asks, who is not the machine.
    Stranger(MacAddr),
}

/// An answer and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of what kind it is.
    pub(super) kind: MessageType,
    /// The message.
    pub(super) message: Vec<u8>,
    /// To whom; broadcast goes to everybody's Ethernet address as well.
    pub(super) to: Ipv4Addr,
}

/// The kinds of messages (RFC 2132, section 9.6) that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
    Inform = 8,
}

/// Content of a request, as far as it counts.
struct ClientMessage {
    kind: MessageType,
    flags: u16,
    transaction: [u8; 4],
    client: Ipv4Addr,
    hardware: [u8; 16],
    wanted: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Lease {
    /// Answers a message (the payload of its datagram).
    pub(super) fn handle(&self, message: &[u8]) -> Outcome {
        let Some((mac, asked)) = read(message) else { return Outcome::Ignored };
        if mac != self.mac {
            return Outcome::Stranger(mac);
        }
        // Meant for another server, which is not there.
        if asked.server.is_some_and(|server| server != self.gateway) {
            return Outcome::Ignored;
        }
        let kind = match asked.kind {
            MessageType::Discover => MessageType::Offer,
            MessageType::Request => {
                let known = asked.wanted.or(Some(asked.client).filter(|client| !client.is_unspecified()));
                match known {
                    Some(wanted) if wanted == self.address => MessageType::Ack,
                    Some(_) => MessageType::Nak,
                    None => return Outcome::Ignored,
                }
            }
            MessageType::Inform => MessageType::Ack,
            MessageType::Offer | MessageType::Ack | MessageType::Nak => return Outcome::Ignored,
        };
        Outcome::Answer(self.answer(kind, &asked))
    }

    fn answer(&self, kind: MessageType, asked: &ClientMessage) -> Answer {
        let informed = asked.kind == MessageType::Inform;
        let own = if kind == MessageType::Nak || informed { Ipv4Addr::UNSPECIFIED } else { self.address };
        let client = if kind == MessageType::Ack { asked.client } else { Ipv4Addr::UNSPECIFIED };
        let mut message = vec![2, ETHERNET[0], ETHERNET[1], 0];
        message.extend(asked.transaction);
        message.extend([0, 0]);
        message.extend(asked.flags.to_be_bytes());
        for address in [client, own, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED] {
            message.extend(address.octets());
        }
        message.extend(asked.hardware);
        message.resize(FIXED, 0);
        message.extend(COOKIE);
        let mut option = |number: u8, value: &[u8]| {
            // The longest value is a domain's name.
            if let Ok(length) = u8::try_from(value.len()) {
                message.extend([number, length]);
                message.extend(value);
            }
        };
        option(53, &[kind as u8]);
        option(54, &self.gateway.octets());
        if kind != MessageType::Nak {
            if !informed {
                option(51, &self.seconds.to_be_bytes());
            }
            option(1, &self.mask.octets());
            option(3, &self.gateway.octets());
            option(6, &self.gateway.octets());
            option(15, self.domain.as_bytes());
            option(26, &self.mtu.to_be_bytes());
        }
        message.push(255);
        message.resize(message.len().max(SHORTEST), 0);
        // RFC 2131, section 4.1.
        let to = if kind == MessageType::Nak {
            Ipv4Addr::BROADCAST
        } else if !asked.client.is_unspecified() {
            asked.client
        } else if asked.flags & TO_BROADCAST != 0 {
            Ipv4Addr::BROADCAST
        } else {
            self.address
        };
        Answer { kind, message, to }
    }
}

/// A client's message by Ethernet, and its own address.
fn read(message: &[u8]) -> Option<(MacAddr, ClientMessage)> {
    let four = |at: usize| message.get(at..at + 4).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
    let address = |at: usize| four(at).map(Ipv4Addr::from);
    if message.len() <= FIXED + COOKIE.len()
        || message[..3] != [1, ETHERNET[0], ETHERNET[1]]
        || four(FIXED)? != COOKIE
    {
        return None;
    }
    // What a relay sends has come another way.
    if !address(24)?.is_unspecified() {
        return None;
    }
    let hardware: [u8; 16] = message.get(28..44)?.try_into().ok()?;
    let mac = MacAddr::new(<[u8; 6]>::try_from(&hardware[..6]).ok()?);
    let options = Options(&message[FIXED + COOKIE.len()..]);
    let (mut kind, mut wanted, mut server) = (None, None, None);
    for (number, value) in options {
        let four = || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
        match number {
            53 => kind = MessageType::of(value),
            50 => wanted = four(),
            54 => server = four(),
            _ => {}
        }
    }
    let asked = ClientMessage {
        kind: kind?,
        flags: u16::from_be_bytes([message[10], message[11]]),
        transaction: four(4)?,
        client: address(12)?,
        hardware,
        wanted,
        server,
    };
    Some((mac, asked))
}

impl MessageType {
    fn of(value: &[u8]) -> Option<Self> {
        match value {
            [1] => Some(Self::Discover),
            [3] => Some(Self::Request),
            [8] => Some(Self::Inform),
            _ => None,
        }
    }
}

/// Options as they follow each other, up to the end or the first that is cut off.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [0, ref rest @ ..] => self.0 = rest,
                [255, ..] | [] | [_] => return None,
                [number, length, ref rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(length.into())?;
                    self.0 = rest;
                    return Some((number, value));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
