//! The messages of sock_diag(7) that ask for one socket. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sealane_proto::types::Transport;

/// SOCK_DIAG_BY_FAMILY of linux/sock_diag.h: the type of request and answer.
const BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const HEADER_LEN: usize = 16;
/// Header and inet_diag_req_v2.
pub(crate) const REQUEST_LEN: usize = HEADER_LEN + 56;
/// TCP_LISTEN of the kernel's socket states.
const LISTEN: u8 = 10;
/// TCP_CLOSE, the state of a UDP socket that is bound and not connected.
const UNCONNECTED: u8 = 7;

/// Answer of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A socket takes what arrives there.
    Listening,
    /// No socket does.
    Closed,
    /// The question was not understood: an errno.
    Error(i32),
}

/// Asks who gets what arrives at `address` and `port` from an address that nobody has.
pub(crate) fn request(sequence: u32, transport: Transport, address: IpAddr, port: u16) -> [u8; REQUEST_LEN] {
    let (family, nobody) = match address {
        IpAddr::V4(_) => (libc::AF_INET, Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => (libc::AF_INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let (protocol, local, remote) = match transport {
        Transport::Tcp => (libc::IPPROTO_TCP, (address, port), (nobody, 0)),
        // Where the receiver stands, source or destination, differs between TCP and UDP in the kernel. For a
        // socket that is not connected the other side is of no account, so both sides say the same.
        Transport::Udp => (libc::IPPROTO_UDP, (address, port), (address, port)),
    };
    let mut message = Message::default();
    // struct nlmsghdr
    message.put(&(REQUEST_LEN as u32).to_ne_bytes());
    message.put(&BY_FAMILY.to_ne_bytes());
    message.put(&NLM_F_REQUEST.to_ne_bytes());
    message.put(&sequence.to_ne_bytes());
    message.put(&[0; 4]);
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states.
    message.put(&[family as u8, protocol as u8, 0, 0]);
    message.put(&u32::MAX.to_ne_bytes());
    // struct inet_diag_sockid, in network order.
    message.put(&local.1.to_be_bytes());
    message.put(&remote.1.to_be_bytes());
    message.put(&octets(local.0));
    message.put(&octets(remote.0));
    message.put(&[0; 4]);
    // INET_DIAG_NOCOOKIE: whichever socket it is.
    message.put(&[0xff; 8]);
    message.bytes
}

/// An address as inet_diag_sockid has it: one of IPv4 in the first of four words.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The answer to the request of this sequence; `None` for another one's.
pub(crate) fn parse(message: &[u8], sequence: u32, transport: Transport) -> Option<Answer> {
    let word =
        |at: usize| message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    if word(8)? != sequence {
        return None;
    }
    let kind = u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]);
    match kind {
        NLMSG_ERROR => match i32::from_ne_bytes(word(HEADER_LEN)?.to_ne_bytes()).saturating_neg() {
            libc::ENOENT => Some(Answer::Closed),
            errno => Some(Answer::Error(errno)),
        },
        BY_FAMILY => {
            // struct inet_diag_msg begins with family and state.
            let wanted = match transport {
                Transport::Tcp => LISTEN,
                Transport::Udp => UNCONNECTED,
            };
            let state = *message.get(HEADER_LEN + 1)?;
            Some(if state == wanted { Answer::Listening } else { Answer::Closed })
        }
        _ => None,
    }
}

struct Message {
    bytes: [u8; REQUEST_LEN],
    len: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self { bytes: [0; REQUEST_LEN], len: 0 }
    }
}

impl Message {
    fn put(&mut self, field: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + field.len()) {
            place.copy_from_slice(field);
        }
        self.len += field.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_linux_lays_it_out() {
        let bytes = request(7, Transport::Tcp, Ipv4Addr::new(10, 42, 0, 5).into(), 8080);
        assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [2, 6, 0, 0]);
        assert_eq!(bytes[24..28], [0x1f, 0x90, 0, 0], "ports");
        assert_eq!(bytes[28..32], [10, 42, 0, 5], "source");
        assert_eq!(bytes[64..], [0xff; 8], "cookie");
        let bytes = request(7, Transport::Tcp, "fd42::a2a:5".parse().unwrap(), 8080);
        assert_eq!(bytes[16..20], [10, 6, 0, 0]);
        assert_eq!(bytes[28..44], [0xfd, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0x2a, 0, 5], "source");
    }

    #[test]
    fn answers_are_told_apart() {
        let answer = |kind: u16, body: &[u8]| {
            let head =
                [&0_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 2], &7_u32.to_ne_bytes(), &[0; 4]];
            parse(&[&head.concat(), body].concat(), 7, Transport::Tcp)
        };
        assert_eq!(answer(20, &[2, 10, 0, 0]), Some(Answer::Listening));
        assert_eq!(answer(20, &[2, 1, 0, 0]), Some(Answer::Closed), "established");
        assert_eq!(answer(2, &(-2_i32).to_ne_bytes()), Some(Answer::Closed));
        assert_eq!(answer(2, &(-95_i32).to_ne_bytes()), Some(Answer::Error(95)));
        assert_eq!(answer(3, &[]), None);
        assert_eq!(parse(&[0; 40], 7, Transport::Tcp), None, "another sequence");
        assert_eq!(parse(&[], 7, Transport::Tcp), None);
    }
}
