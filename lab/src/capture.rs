//! Frames on the underlay, recorded to prove what crosses it and what does not.

mod frames;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};

pub use frames::{Frames, Vxlan};

/// Recording stops here, so that a busy underlay cannot fill the memory.
const MAX_BYTES: usize = 128 << 20;
/// The longest frame: segmentation offload leaves up to 64 KiB in one, plus its headers.
const MAX_FRAME: usize = 70_000;
/// Frames that wait for the recorder.
const SOCKET_BUFFER: usize = 32 << 20;

/// A recording in progress, of every interface of the lab's network namespace: a frame from host to host appears
/// on each port of the bridge that it passes.
#[derive(Debug)]
pub struct Capture {
    stop: UnixStream,
    recorder: JoinHandle<io::Result<Frames>>,
}

impl Capture {
    pub(crate) fn start() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let packets = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        setsockopt(&packets, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
        let (stop, stopped) = UnixStream::pair()?;
        let recorder = thread::Builder::new().name("capture".into());
        let recorder = recorder.spawn(move || record(&packets, &stopped))?;
        Ok(Self { stop, recorder })
    }

    /// Ends the recording; what crossed before is in it.
    ///
    /// # Errors
    /// When the socket failed meanwhile.
    pub fn stop(mut self) -> io::Result<Frames> {
        self.stop.write_all(b"x")?;
        self.recorder.join().unwrap_or_else(|_| Err(io::Error::other("the recording thread panicked")))
    }
}

fn record(packets: &OwnedFd, stopped: &UnixStream) -> io::Result<Frames> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let mut fds = [
            PollFd::new(packets.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let last = fds[1].any().unwrap_or(false);
        loop {
            match recv(packets.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if frames.bytes() + length <= MAX_BYTES => frames.push(&buffer[..length]),
                Ok(_) => return Ok(frames),
                Err(Errno::EAGAIN) => break,
                // A link that goes down says so once on the socket; others go on.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if last {
            return Ok(frames);
        }
    }
}
