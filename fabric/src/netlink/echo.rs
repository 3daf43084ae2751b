//! Echoes of ICMPv6 (RFC 4443, section 4) out of a namespace, and the answers to them.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{SockaddrIn6, recvfrom};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::async_fd;

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
/// Room for the answers that come between two looks, in bytes: the kernel counts about a KiB for each.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A socket for echoes and their answers.
#[derive(Debug)]
pub struct EchoSocket {
    socket: Socket,
    /// The same socket, watched for answers.
    ready: AsyncFd<OwnedFd>,
}

/// Answer to an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoAnswer {
    /// The address that answers.
    pub from: Ipv6Addr,
    /// The token of the echo.
    pub token: u64,
}

impl EchoSocket {
    /// Opens a socket in `ns` that never waits and hears answers alone.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, when the namespace cannot be entered, or outside a runtime.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> io::Result<Self> {
        let socket = hopper.run(ns, || {
            let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
            socket.attach_filter(&answers_alone())?;
            // The kernel gives what its limit allows.
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            Ok::<_, io::Error>(socket)
        })??;
        let ready = async_fd::socket(socket.try_clone()?.into())?;
        Ok(Self { socket, ready })
    }

    /// Sends an echo with this token to an address of device `index`, in a packet of `length` bytes from its IPv6 header on, as
    /// short as may be and no longer than 9,000. The answer repeats the token.
    ///
    /// # Errors
    /// When the device is gone or down, or takes no packets of that length.
    pub fn send(&self, index: u32, to: Ipv6Addr, token: u64, length: usize) -> io::Result<()> {
        let mut echo = [0; LONGEST];
        // The kernel fills in the checksum (RFC 3542, section 3.1).
        echo[0] = ECHO_REQUEST;
        echo[TOKEN].copy_from_slice(&token.to_be_bytes());
        let echo = &echo[..length.clamp(IPV6 + LENGTH, LONGEST) - IPV6];
        self.socket.send_to(echo, &SockAddr::from(SocketAddrV6::new(to, 0, 0, index))).map(drop)
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// When the socket fails.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub async fn next(&self) -> io::Result<EchoAnswer> {
        loop {
            let mut ready = self.ready.readable().await?;
            match ready.try_io(|_| self.take()) {
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(None)) | Err(_) => {}
            }
        }
    }

    /// Takes an answer that is there already.
    pub fn receive(&self) -> Option<EchoAnswer> {
        loop {
            match self.take() {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }

    /// Takes what comes next; `None` when that is no answer to one of ours.
    fn take(&self) -> io::Result<Option<EchoAnswer>> {
        let mut buffer = [0; 2 * LENGTH];
        let (length, from) = recvfrom::<SockaddrIn6>(self.socket.as_raw_fd(), &mut buffer)?;
        let token =
            buffer[..length.min(2 * LENGTH)].get(TOKEN).and_then(|token| <[u8; 8]>::try_from(token).ok());
        Ok(token
            .zip(from)
            .map(|(token, from)| EchoAnswer { from: from.ip(), token: u64::from_be_bytes(token) }))
    }
}

/// A classic BPF program, which sees what is behind the IPv6 header: everything but answers is left out.
fn answers_alone() -> [SockFilter; 4] {
    let load_type = SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 0);
    let only = SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, ECHO_REPLY.into());
    let give = |bytes| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [load_type, only, give(u32::MAX), give(0)]
}
