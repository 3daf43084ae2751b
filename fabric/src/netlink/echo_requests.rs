//! Echo requests of ICMPv6 that come into a namespace, counted by their sources. The kernel answers them all the same.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrIn6, recvfrom};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

const ECHO_REQUEST: u8 = 128;
/// Room for the requests of some seconds, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Requests that are counted at most: who is flooded goes on all the same.
const MOST: usize = 1 << 14;

/// A socket that takes echo requests. Nobody is woken by them: they stay in the kernel until somebody counts.
#[derive(Debug)]
pub struct RequestCounter {
    socket: Socket,
}

impl RequestCounter {
    /// Opens a socket in `ns`, which takes what comes from now on.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when the namespace cannot be entered.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> io::Result<Self> {
        let socket = hopper.run(ns, || {
            let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
            socket.attach_filter(&requests_alone())?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            Ok::<_, io::Error>(socket)
        })??;
        Ok(Self { socket })
    }

    /// Counts what has come, by source.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn count(&self) -> io::Result<BTreeMap<Ipv6Addr, u32>> {
        let mut counts = BTreeMap::new();
        for _ in 0..MOST {
            match recvfrom::<SockaddrIn6>(self.socket.as_raw_fd(), &mut [0; 8]) {
                Ok((_, Some(from))) => *counts.entry(from.ip()).or_default() += 1,
                Ok((_, None)) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(counts)
    }
}

/// A classic BPF program, which sees what is behind the IPv6 header: everything but requests is left out, and of these eight bytes
/// are kept.
fn requests_alone() -> [SockFilter; 4] {
    let load_type = SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 0);
    let only =
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, ECHO_REQUEST.into());
    let give = |bytes| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [load_type, only, give(8), give(0)]
}
