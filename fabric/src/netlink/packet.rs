//! Raw Ethernet frames out of one device, and into a listener at one.
#![allow(
    unsafe_code,
    reason = "no safe wrapper makes a link-layer socket address to send to; tokio asks for a promise that a descriptor stays open"
)]

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A packet socket that sends and never receives.
#[derive(Debug)]
pub struct PacketSocket(Socket);

impl PacketSocket {
    /// Opens a socket in `ns`.
    ///
    /// # Errors
    /// Without CAP_NET_RAW or when the namespace cannot be entered.
    pub fn open(hopper: &Hopper, ns: &NetNs) -> io::Result<Self> {
        // Protocol 0: no frame is delivered to it.
        hopper.run(ns, || Socket::new(Domain::PACKET, Type::RAW, None))?.map(Self)
    }

    /// Sends `frame`, beginning with its Ethernet header, out of device `index`. What the device is a port of
    /// does not see it.
    ///
    /// # Errors
    /// When the device is gone or down.
    pub fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        self.0.send_to(frame, &device(index, 0)?).map(drop)
    }
}

/// A packet socket at one device: what comes in there is heard before rules see it, as far as a filter lets it.
#[derive(Debug)]
pub struct PacketListener(Socket);

impl PacketListener {
    /// Opens a socket in `ns` at device `index`, which hears what the classic BPF program `filter` takes and never waits.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, when the namespace cannot be entered or the device is gone.
    pub fn open(hopper: &Hopper, ns: &NetNs, index: u32, filter: Vec<SockFilter>) -> io::Result<Self> {
        let open = move || {
            // Protocol 0, until the filter stands.
            let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
            socket.attach_filter(&filter)?;
            socket.bind(&device(index, libc::ETH_P_ALL as u16)?)?;
            Ok(Self(socket))
        };
        hopper.run(ns, open)?
    }

    /// Makes it readable when a frame waits.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: a `PacketListener` owns its socket and answers with the same one until it is dropped.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(Into::into)
    }

    /// Takes the next frame, as far as it fits.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; what the kernel says, such as that the device is down.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(frame)
    }

    /// Sends `frame`, beginning with its Ethernet header, out of the device.
    ///
    /// # Errors
    /// When the device is gone or down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }
}

impl AsRawFd for PacketListener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The checksum of the Internet's packets (RFC 1071): of octets that include it, it is zero.
#[must_use]
pub fn checksum(octets: &[u8]) -> u16 {
    let words =
        octets.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The address of a device, for frames of a protocol.
fn device(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: the closure fills in a sockaddr_ll, which sockaddr_storage has room and alignment for; every
    // field not set is zero, as try_init hands over zeroed storage.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = protocol.to_be();
            (*address).sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
