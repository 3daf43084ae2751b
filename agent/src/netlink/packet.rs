//! Raw Ethernet frames out of one device.
#![allow(unsafe_code, reason = "no safe wrapper makes a link-layer socket address to send to")]

use std::io;

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, SockAddr, Socket, Type};

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
        let index = i32::try_from(index).map_err(io::Error::other)?;
        // SAFETY: the closure fills in a sockaddr_ll, which sockaddr_storage has room and alignment for; every
        // field not set is zero, as try_init hands over zeroed storage.
        let ((), to) = unsafe {
            SockAddr::try_init(|storage, length| {
                let address = storage.cast::<libc::sockaddr_ll>();
                (*address).sll_family = libc::AF_PACKET as u16;
                (*address).sll_ifindex = index;
                *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                Ok(())
            })
        }?;
        self.0.send_to(frame, &to).map(drop)
    }
}
