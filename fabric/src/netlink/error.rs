//! Refusals of the kernel.

use std::io;

use netlink_packet_core::NlasIterator;

/// NLMSGERR_ATTR_MSG of linux/netlink.h: the kernel's own words.
const ERROR_TEXT: u16 = 1;
const HEADER_LEN: usize = 16;

/// The kernel's no to one request.
#[derive(Debug, thiserror::Error)]
#[error("{errno}{}", .detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refusal {
    errno: io::Error,
    detail: Option<String>,
}

/// Reasons for which something could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made or used.
    #[error("cannot talk to the kernel by netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel said no.
    #[error("the kernel refuses to {what}: {refusal}")]
    Refused {
        /// Request, as an infinitive.
        what: String,
        /// Refusal of the kernel.
        refusal: Refusal,
    },
}

impl Refusal {
    /// Reads an NLMSG_ERROR; `None` when it is an acknowledgement.
    pub(super) fn read(answer: &[u8]) -> Option<Self> {
        let payload = answer.get(HEADER_LEN..)?;
        let errno = i32::from_ne_bytes(*payload.first_chunk()?);
        // Behind the number: the header of the request (capped) and then attributes.
        let attributes = payload.get(4 + HEADER_LEN..).unwrap_or_default();
        let text =
            NlasIterator::new(attributes).find_map(|nla| nla.ok().filter(|nla| nla.kind() == ERROR_TEXT));
        let detail = text.map(|nla| String::from_utf8_lossy(nla.value()).trim_end_matches('\0').to_owned());
        (errno != 0).then(|| Self { errno: io::Error::from_raw_os_error(errno.saturating_neg()), detail })
    }

    fn is(&self, errnos: &[i32]) -> bool {
        self.errno.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
    }

    /// Returns true if the thing, or one that excludes it, is there already.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        self.is(&[libc::EEXIST])
    }

    /// Returns true if another socket has the address, or the port, that the thing needs.
    #[must_use]
    pub fn is_address_in_use(&self) -> bool {
        self.is(&[libc::EADDRINUSE])
    }

    /// Returns true if the thing is gone already.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is(&[libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENXIO])
    }

    /// Returns true if the request itself is at fault: neither the device is gone, nor the kernel short of something,
    /// nor is it not for this process. Asked again it is refused again.
    #[must_use]
    pub fn is_of_the_request(&self) -> bool {
        !self.is(&[
            libc::ENODEV,
            libc::ENXIO,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::EBUSY,
            libc::EAGAIN,
            libc::EINTR,
            libc::EPERM,
            libc::EACCES,
        ])
    }

    /// Returns true if the kernel has no such kind of device.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.is(&[libc::EOPNOTSUPP])
    }
}
