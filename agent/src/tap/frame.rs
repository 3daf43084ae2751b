//! Datagrams of DHCP in their frames: Ethernet, IPv4 (RFC 791), UDP (RFC 768). Pure.

use std::net::Ipv4Addr;

use sealane_fabric::netlink::checksum;
use sealane_proto::types::MacAddr;
use socket2::SockFilter;

const ETHERNET: usize = 14;
const UDP: usize = 8;
const IPV4: [u8; 2] = [8, 0];
const SERVER: u16 = 67;
const CLIENT: u16 = 68;
// Of linux/filter.h.
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_BEHIND: u16 = 0x48;
const LOAD_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The program that lets frames pass which [`payload`] finds something in.
pub(super) fn filter() -> Vec<SockFilter> {
    let load = |code, at| SockFilter::new(code, 0, 0, at);
    // What a jump leaves out is counted from the next one on; the last but one takes the frame.
    let only = |value, others| SockFilter::new(JUMP_EQUAL, 0, others, value);
    vec![
        load(LOAD_HALF, 12),
        only(u32::from(u16::from_be_bytes(IPV4)), 8),
        load(LOAD_BYTE, 23),
        only(17, 6),
        load(LOAD_HALF, 20),
        SockFilter::new(JUMP_BITS, 4, 0, 0x3fff),
        load(LOAD_LENGTH, 14),
        load(LOAD_HALF_BEHIND, 16),
        only(SERVER.into(), 1),
        load(RETURN, u32::MAX),
        load(RETURN, 0),
    ]
}

/// The payload of a datagram to a DHCP server; nothing of any other frame.
pub(super) fn payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET..).filter(|_| frame[12..14] == IPV4)?;
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    // A whole one: neither cut off nor a fragment, whatever the frame is padded with.
    let whole = packet[0] >> 4 == 4
        && header >= 20
        && u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff == 0;
    let datagram = packet.get(header..total).filter(|_| whole && packet.get(9) == Some(&17))?;
    let port = u16::from_be_bytes([*datagram.get(2)?, *datagram.get(3)?]);
    let length = usize::from(u16::from_be_bytes([*datagram.get(4)?, *datagram.get(5)?]));
    datagram.get(UDP..length).filter(|_| port == SERVER)
}

/// A server's message to a client.
pub(super) fn answer(from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr), message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP + message.len()).ok()?;
    let total = length.checked_add(20)?;
    let mac = if to.1.is_broadcast() { [255; 6] } else { to.0.octets() };
    let mut frame = [&mac[..], &from.0.octets(), &IPV4].concat();
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend([from.1.octets(), to.1.octets()].concat());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    let mut datagram = [SERVER, CLIENT, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(message);
    let pseudo = [&from.1.octets()[..], &to.1.octets(), &[0, 17], &length.to_be_bytes(), &datagram].concat();
    // 0 would say that there is none.
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    frame.extend(datagram);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    const SERVER_MAC: MacAddr = MacAddr::new([2, 0, 10, 42, 0, 1]);
    const CLIENT_MAC: MacAddr = MacAddr::new([2, 0, 10, 42, 0, 7]);

    fn asked(port: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(CLIENT_MAC.octets(), [255; 6]).ipv4([0; 4], [255; 4], 64);
        let mut frame = Vec::new();
        builder.udp(68, port).write(&mut frame, b"question").unwrap();
        frame
    }

    #[test]
    fn a_datagram_to_the_server_is_found_and_nothing_else() {
        let good = asked(67);
        assert_eq!(payload(&good), Some(&b"question"[..]));
        assert_eq!(payload(&[&good[..], &[0; 20]].concat()), Some(&b"question"[..]), "padded");
        assert_eq!(payload(&asked(68)), None);
        for cut in 0..good.len() {
            assert_eq!(payload(&good[..cut]), None, "{cut}");
        }
        for (at, value) in [(12, 0x86), (14, 0x65), (14, 0x41), (20, 0x20), (21, 1), (23, 6)] {
            let mut other = good.clone();
            other[at] = value;
            assert_eq!(payload(&other), None, "{at}");
        }
    }

    #[test]
    fn an_answer_is_what_others_read() {
        for (to, mac) in [(Ipv4Addr::new(10, 42, 0, 7), CLIENT_MAC.octets()), (Ipv4Addr::BROADCAST, [255; 6])]
        {
            for message in [&b"answer"[..], b"an odd one!", b""] {
                let from = (SERVER_MAC, Ipv4Addr::new(10, 42, 0, 1));
                let frame = answer(from, (CLIENT_MAC, to), message).unwrap();
                assert_eq!(frame[..6], mac);
                let packet = SlicedPacket::from_ethernet(&frame).unwrap();
                let Some(TransportSlice::Udp(datagram)) = packet.transport else { panic!() };
                assert_eq!((datagram.source_port(), datagram.destination_port()), (67, 68));
                assert_eq!(datagram.payload(), message);
                assert_eq!(checksum(&frame[14..34]), 0, "of a whole header, its own sum included");
                let length = u16::try_from(message.len() + 8).unwrap();
                let pseudo = [&frame[26..34], &[0, 17], &length.to_be_bytes(), &frame[34..]].concat();
                assert_eq!(checksum(&pseudo), 0);
            }
        }
        assert_eq!(
            answer((SERVER_MAC, Ipv4Addr::LOCALHOST), (CLIENT_MAC, Ipv4Addr::LOCALHOST), &[0; 65_536]),
            None
        );
    }
}
