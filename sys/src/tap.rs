//! TAP devices that stay when nobody has them open.
#![allow(unsafe_code, reason = "TUNSETIFF and TUNSETPERSIST have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes a TAP device in the calling thread's network namespace, which stays until it is removed, or finds it. Whoever opens
/// it after that says itself how frames are handed over (IFF_VNET_HDR and the like).
///
/// # Errors
/// Without CAP_NET_ADMIN or /dev/net/tun, when somebody has the device open (EBUSY), or when the name is another device's or none.
pub fn persist(name: &str) -> io::Result<()> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call and ends its name with a zero.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TUNSETPERSIST takes a number, no pointer.
    let kept = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1) };
    if kept < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
