//! Echoes of ICMPv6 (RFC 4443, section 4) out of a namespace, and the answers to them: many by one system call.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn6, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};
use nix::sys::time::TimeSpec;
use rustix::net::sockopt::{Ipv6PathMtuDiscovery, set_ipv6_mtu_discover};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// Bytes of a short echo: the header (type, code, checksum, identifier, sequence number), then the token.
const LENGTH: usize = 16;
/// Place of the token.
const TOKEN: std::ops::Range<usize> = 8..LENGTH;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// Longest packet of an echo.
const LONGEST: usize = 9_000;
/// Bytes behind the token of long echoes.
static PADDING: [u8; LONGEST] = [0; LONGEST];
/// Room for the answers that come between two looks, in bytes: the kernel counts about a KiB for each.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Answers that are taken by one call, and calls by one look: who is flooded goes on all the same.
const BATCH: usize = 64;
const BATCHES: usize = 64;

/// A socket for echoes and their answers. Nobody is woken by answers: they stay in the kernel until somebody looks, each with
/// the time at which it came.
#[derive(Debug)]
pub struct EchoSocket {
    socket: Socket,
}

/// Echo to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoRequest {
    /// Address that is to answer.
    pub to: Ipv6Addr,
    /// Number of the device that leads there.
    pub device: u32,
    /// The token, which the answer repeats.
    pub token: u64,
    /// Length of its packet in bytes, from the IPv6 header on: as short as may be, and no longer than 9,000.
    pub length: usize,
}

/// Echo that could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsentEcho {
    /// Place of the echo among those that were to be sent.
    pub place: usize,
    /// True if its device takes no packets of that length.
    pub too_long: bool,
}

/// Answer to an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoAnswer {
    /// The address that answers.
    pub from: Ipv6Addr,
    /// The token of the echo.
    pub token: u64,
    /// Time since the kernel took it.
    pub age: Duration,
}

impl EchoSocket {
    /// Opens a socket in `ns` that never waits and hears answers alone.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when the namespace cannot be entered.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> io::Result<Self> {
        let socket = hopper.run(ns, || {
            let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
            socket.attach_filter(&answers_alone())?;
            // A packet has the length that was asked for, whatever others say of the way, and is not sent in pieces.
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
            setsockopt(&socket, sockopt::Ipv6DontFrag, &true)?;
            // The kernel gives what its limit allows.
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            Ok::<_, io::Error>(socket)
        })??;
        Ok(Self { socket })
    }

    /// Sends echoes; returns those that could not be sent: when their device is gone or down, or takes no packets of that length.
    pub fn send(&self, echoes: &[EchoRequest]) -> Vec<UnsentEcho> {
        let heads: Vec<[u8; LENGTH]> = echoes.iter().map(|echo| head(echo.token)).collect();
        let packets: Vec<[IoSlice<'_>; 2]> = echoes
            .iter()
            .zip(&heads)
            .map(|(echo, head)| {
                let padding = echo.length.clamp(IPV6 + LENGTH, LONGEST) - IPV6 - LENGTH;
                [IoSlice::new(head), IoSlice::new(&PADDING[..padding])]
            })
            .collect();
        let places: Vec<Option<SockaddrIn6>> =
            echoes.iter().map(|echo| Some(SocketAddrV6::new(echo.to, 0, 0, echo.device).into())).collect();
        let (mut next, mut unsent) = (0, Vec::new());
        while next < echoes.len() {
            let mut headers = MultiHeaders::preallocate(echoes.len() - next, None);
            let (packets, places) = (&packets[next..], &places[next..]);
            match sendmmsg(self.socket.as_raw_fd(), &mut headers, packets, places, [], MsgFlags::empty()) {
                // The kernel stops where one cannot be sent, and says why at the next call.
                Ok(sent) => next += sent.count(),
                Err(error) => {
                    unsent.push(UnsentEcho { place: next, too_long: error == Errno::EMSGSIZE });
                    next += 1;
                }
            }
        }
        unsent
    }

    /// Takes the answers that are there already.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self) -> io::Result<Vec<EchoAnswer>> {
        let mut answers = Vec::new();
        for _ in 0..BATCHES {
            match self.take(&mut answers) {
                Ok(BATCH) => {}
                Ok(_) | Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(answers)
    }

    /// Takes as many packets as one call gives; returns their number.
    fn take(&self, answers: &mut Vec<EchoAnswer>) -> nix::Result<usize> {
        let mut buffers = [[0; LENGTH]; BATCH];
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let mut headers = MultiHeaders::preallocate(BATCH, Some(cmsg_space!(TimeSpec)));
        let flags = MsgFlags::MSG_DONTWAIT;
        let taken = recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)?;
        let (mut count, now) = (0, SystemTime::now());
        for message in taken {
            count += 1;
            answers.extend(answer(&message, now));
        }
        Ok(count)
    }
}

/// The beginning of an echo. The kernel fills in the checksum (RFC 3542, section 3.1).
fn head(token: u64) -> [u8; LENGTH] {
    let mut head = [0; LENGTH];
    head[0] = ECHO_REQUEST;
    head[TOKEN].copy_from_slice(&token.to_be_bytes());
    head
}

/// Reads an answer; `None` when it is none to an echo of ours.
fn answer(message: &RecvMsg<'_, '_, SockaddrIn6>, now: SystemTime) -> Option<EchoAnswer> {
    let token = message.iovs().next()?.get(TOKEN)?.try_into().ok()?;
    let came = message.cmsgs().ok()?.find_map(|said| {
        let ControlMessageOwned::ScmTimestampns(came) = said else { return None };
        Some(UNIX_EPOCH + Duration::from(came))
    });
    // A clock that is set meanwhile makes an answer no older than now.
    let age = came.and_then(|came| now.duration_since(came).ok()).unwrap_or_default();
    Some(EchoAnswer { from: message.address?.ip(), token: u64::from_be_bytes(token), age })
}

/// A classic BPF program, which sees what is behind the IPv6 header: everything but answers is left out.
fn answers_alone() -> [SockFilter; 4] {
    let load_type = SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 0);
    let only = SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, ECHO_REPLY.into());
    let give = |bytes| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [load_type, only, give(u32::MAX), give(0)]
}
