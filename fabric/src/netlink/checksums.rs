//! Datagrams that find out whether checksums made on the way out are right where they arrive.
//!
//! The kernel leaves checksums of TCP and UDP to a device that says that it makes them (`tx-checksum-*`), those of packets in tunnels
//! too. One that makes wrong ones loses everything but echoes, whose checksums the kernel makes itself. So two datagrams go to a
//! port where nobody listens: one with a checksum left to the device, one with a checksum made by the kernel. The kernel at the other
//! end answers each whose checksum is right by "port unreachable" (RFC 4443, section 3.1), which repeats the datagram. Both come from
//! one socket, so that they take the same way where ways are chosen by ports.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrIn6, recvfrom};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

/// The port of the Discard protocol (RFC 863), at which nobody listens where echoes are answered.
pub const DISCARD: u16 = 9;
/// Type and code of "port unreachable".
const UNREACHABLE: u8 = 1;
const PORT: u8 = 4;
/// Number of UDP in an IPv6 header.
const UDP: u8 = 17;
/// Places in an answer: the header of ICMPv6, then the datagram from its IPv6 header on.
const NEXT_HEADER: usize = 14;
const DESTINATION: std::ops::Range<usize> = 32..48;
const DESTINATION_PORT: std::ops::Range<usize> = 50..52;
const TOKEN: std::ops::Range<usize> = 56..64;
const LENGTH: usize = 64;
/// Answers that are taken by one look.
const MOST: usize = 1_024;

/// Maker of a datagram's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumBy {
    /// The device by which it leaves, if that says that it can.
    Device,
    /// The kernel.
    Kernel,
}

/// Sockets for such datagrams and the answers to them.
#[derive(Debug)]
pub struct ChecksumProber {
    datagrams: Socket,
    answers: Socket,
}

impl ChecksumProber {
    /// Opens the sockets in `ns`.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when the namespace cannot be entered.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> io::Result<Self> {
        let sockets = hopper.run(ns, || {
            let datagrams = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
            let answers = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
            answers.attach_filter(&unreachable_alone())?;
            Ok::<_, io::Error>(Self { datagrams, answers })
        });
        sockets?
    }

    /// Sends a datagram with this token to an address that `device` leads to.
    ///
    /// # Errors
    /// When the device is gone or down.
    pub fn send(&self, to: Ipv6Addr, device: u32, token: u64, by: ChecksumBy) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV6::new(to, DISCARD, 0, device));
        let token = token.to_be_bytes();
        let rest = match by {
            ChecksumBy::Device => &token[..],
            ChecksumBy::Kernel => {
                // What is put together from pieces gets its checksum while it is copied (`__ip6_append_data`).
                let (piece, rest) = token.split_at(token.len() / 2);
                self.datagrams.send_to_with_flags(piece, &to, libc::MSG_MORE)?;
                rest
            }
        };
        self.datagrams.send_to(rest, &to).map(drop)
    }

    /// Takes the answers that are there: the hosts whose kernels have answered, each with the token.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self) -> io::Result<Vec<(Ipv6Addr, u64)>> {
        let mut answers = Vec::new();
        for _ in 0..MOST {
            let mut buffer = [0; LENGTH];
            match recvfrom::<SockaddrIn6>(self.answers.as_raw_fd(), &mut buffer) {
                Ok(_) => answers.extend(answer(&buffer)),
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(answers)
    }
}

/// Reads an answer; `None` when it is none to a datagram of ours. A buffer is zero behind the end of its packet.
fn answer(packet: &[u8; LENGTH]) -> Option<(Ipv6Addr, u64)> {
    let port = u16::from_be_bytes(packet.get(DESTINATION_PORT)?.try_into().ok()?);
    let is_ours = packet[..2] == [UNREACHABLE, PORT] && packet[NEXT_HEADER] == UDP && port == DISCARD;
    let from: [u8; 16] = packet.get(DESTINATION)?.try_into().ok()?;
    let token = u64::from_be_bytes(packet.get(TOKEN)?.try_into().ok()?);
    is_ours.then_some((from.into(), token))
}

/// A classic BPF program, which sees what is behind the IPv6 header: everything but "unreachable" is left out, and of that is kept
/// what is read.
fn unreachable_alone() -> [SockFilter; 4] {
    let load_type = SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 0);
    let only =
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, UNREACHABLE.into());
    let give = |bytes| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [load_type, only, give(LENGTH as u32), give(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_repeats_whom_the_datagram_was_for_and_its_token() {
        let to: Ipv6Addr = "fe80::2".parse().unwrap();
        let mut packet = [0; LENGTH];
        packet[..2].copy_from_slice(&[UNREACHABLE, PORT]);
        packet[NEXT_HEADER] = UDP;
        packet[DESTINATION].copy_from_slice(&to.octets());
        packet[DESTINATION_PORT].copy_from_slice(&DISCARD.to_be_bytes());
        packet[TOKEN].copy_from_slice(&7_u64.to_be_bytes());
        assert_eq!(answer(&packet), Some((to, 7)));
        for (place, octet, why) in [(1, 1, "for another reason"), (14, 6, "of TCP"), (51, 10, "another port")]
        {
            let mut other = packet;
            other[place] = octet;
            assert_eq!(answer(&other), None, "{why}");
        }
    }
}
