//! The kernel's knowledge of a TCP connection.
#![allow(unsafe_code, reason = "TCP_INFO (tcp(7)) has no safe wrapper; it is given a buffer to fill")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Places in `struct tcp_info` (linux/tcp.h), which only grows.
const UNACKED: usize = 24;
const LAST_DATA_SENT: usize = 44;
const LAST_DATA_RECV: usize = 52;
const TOTAL_RETRANS: usize = 100;
const DATA_SEGS_IN: usize = 152;
const DATA_SEGS_OUT: usize = 156;

/// Traffic of a TCP connection, as its kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTraffic {
    /// Segments that were sent and that the peer's kernel has not acknowledged.
    pub unacknowledged: u32,
    /// Segments that were sent again, since the connection began.
    pub sent_again: u32,
    /// Segments with data that have come, in whatever order.
    pub received: u32,
    /// True if segments with data were sent, the last one after the last that came; to a tick of the kernel's clock, some milliseconds.
    pub sent_last: bool,
}

impl TcpTraffic {
    /// Returns true if the peer is expected to say something: it has not acknowledged what was sent, or not answered.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.unacknowledged > 0 || self.sent_last
    }

    /// Asks the kernel about a connection; `None` from one that does not count all of it (Linux before 4.6).
    ///
    /// # Errors
    /// When the socket is none of TCP.
    pub fn of(socket: impl AsFd) -> io::Result<Option<Self>> {
        let mut info = [0_u8; 256];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the kernel writes no more than `length` bytes to the buffer, both live as long as the call, and any bytes are a value.
        let failed = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        let written = info.get(..length as usize).unwrap_or_default();
        let number = |place: usize| written.get(place..)?.first_chunk().copied().map(u32::from_ne_bytes);
        let traffic = || {
            Some(Self {
                unacknowledged: number(UNACKED)?,
                sent_again: number(TOTAL_RETRANS)?,
                received: number(DATA_SEGS_IN)?,
                sent_last: number(DATA_SEGS_OUT)? > 0 && number(LAST_DATA_SENT)? < number(LAST_DATA_RECV)?,
            })
        };
        Ok(traffic())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_kernel_tells_of_what_came_and_what_was_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        assert_eq!(TcpTraffic::of(&near).unwrap(), Some(TcpTraffic::default()));
        for count in 1..=3 {
            far.write_all(b"word").unwrap();
            let came = || TcpTraffic::of(&near).unwrap().unwrap().received >= count;
            while !came() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // Nobody has read a byte of it.
        while TcpTraffic::of(&far).unwrap().unwrap().unacknowledged > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_kernel_tells_who_awaits_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let awaits = |stream: &TcpStream| TcpTraffic::of(stream).unwrap().unwrap().awaits_answer();
        let come = |stream: &TcpStream, wanted| {
            while awaits(stream) != wanted {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        assert!(!awaits(&near) && !awaits(&far), "nothing was said");
        // Longer than a tick of any kernel's clock.
        std::thread::sleep(Duration::from_millis(20));
        near.write_all(b"question").unwrap();
        assert!(awaits(&near));
        come(&far, false);
        std::thread::sleep(Duration::from_millis(20));
        assert!(awaits(&near), "it was acknowledged, and not answered");
        far.write_all(b"answer").unwrap();
        come(&near, false);
        assert!(awaits(&far), "nobody has said anything since");
    }

    #[test]
    fn what_is_no_tcp_is_an_error() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(TcpTraffic::of(&one).is_err());
    }
}
