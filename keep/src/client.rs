//! The client of keep: blocking, but never for longer than [`ANSWER_TIMEOUT`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with,
};
use sealane_sys::fdpass;
use sealane_sys::run_dir::{KEEP_SOCKET, RunDir};

use crate::KeepError;
use crate::protocol::{Answer, MAX_ANSWER_LEN, Request, is_key};

/// Limit for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a running keep.
///
/// The descriptor ([`AsFd`]) becomes readable (with a hang-up) when keep ended or the connection broke: what was
/// kept is lost then, and is to be put again to a new keep. Only poll it; never read from it.
#[derive(Debug)]
pub struct Keep {
    socket: OwnedFd,
    /// Lock that allows one request and its answer at a time.
    turn: Mutex<()>,
    /// The process, if this client started it: waited for when it ended, so that no zombie stays.
    started: Option<Child>,
}

/// Key and the number of descriptors that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The key.
    pub key: String,
    /// Number of descriptors.
    pub descriptors: usize,
}

impl Keep {
    /// Connects to the keep that serves `run_dir`.
    ///
    /// # Errors
    /// [`KeepError::Connect`] when none does.
    pub fn connect(run_dir: &RunDir) -> Result<Self, KeepError> {
        let path = run_dir.socket(KEEP_SOCKET);
        let open = || -> io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
            set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_TIMEOUT))?;
            connect(&socket, &SocketAddrUnix::new(&path)?)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| KeepError::Connect { path, source })?;
        Ok(Self { socket, turn: Mutex::new(()), started: None })
    }

    /// Takes over the process that serves this client.
    pub(crate) fn adopt(&mut self, child: Option<Child>) {
        self.started = child;
    }

    /// Keeps duplicates of `fds` (1 to 8) under `key`, instead of what it held before.
    ///
    /// # Errors
    /// [`KeepError::Refused`] at keep's bounds; see [`KeepError`] for the rest.
    pub fn put(&self, key: &str, fds: &[BorrowedFd<'_>]) -> Result<(), KeepError> {
        let key = check(key)?;
        match self.ask(Request::Put { count: fds.len(), key }, fds)? {
            (Answer::Done { .. }, _) => Ok(()),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// The descriptors under `key`: new duplicates, close-on-exec.
    ///
    /// # Errors
    /// [`KeepError::Broken`] also when this process cannot open more files.
    pub fn get(&self, key: &str) -> Result<Option<Vec<OwnedFd>>, KeepError> {
        match self.ask(Request::Get { key: check(key)? }, &[])? {
            (Answer::Done { count }, fds) if fds.len() == count => Ok(Some(fds)),
            (Answer::Done { .. }, _) => Err(KeepError::Broken(io::Error::other(
                "descriptors were lost: the limit of open files is reached",
            ))),
            (Answer::Nothing, _) => Ok(None),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// Lets go of `key`; returns whether it was there.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub fn delete(&self, key: &str) -> Result<bool, KeepError> {
        self.remove(Request::Delete { key: check(key)? }).map(|removed| removed > 0)
    }

    /// Lets go of every key that begins with `prefix`; returns how many there were.
    ///
    /// # Errors
    /// See [`KeepError`]. The empty prefix is none.
    pub fn delete_prefix(&self, prefix: &str) -> Result<usize, KeepError> {
        self.remove(Request::DeletePrefix { prefix: check(prefix)? })
    }

    /// All keys, sorted. Keys that are put or deleted meanwhile may be missing or there.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub fn list(&self) -> Result<Vec<Kept>, KeepError> {
        let mut all: Vec<Kept> = Vec::new();
        loop {
            let after = all.last().map_or("", |last| last.key.as_str());
            match self.ask(Request::List { after }, &[])? {
                (Answer::Keys(page), _) if page.is_empty() => return Ok(all),
                (Answer::Keys(page), _) => {
                    all.extend(page.into_iter().map(|(key, descriptors)| Kept { key, descriptors }));
                }
                (other, _) => return Err(self.unexpected(other)),
            }
        }
    }

    fn remove(&self, request: Request<'_>) -> Result<usize, KeepError> {
        match self.ask(request, &[])? {
            (Answer::Done { count }, _) => Ok(count),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    fn ask(&self, request: Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<(Answer, Vec<OwnedFd>), KeepError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Keep may have refused this client before it asked: its answer is there even if sending fails.
        let sent = fdpass::send(&self.socket, request.to_string().as_bytes(), fds);
        let (mut buffer, mut received) = (vec![0; MAX_ANSWER_LEN], Vec::new());
        let mut got = fdpass::recv(&self.socket, &mut buffer, &mut received);
        if got.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
            // Keep closed with the request unread; what it said before stands behind the error.
            got = fdpass::recv(&self.socket, &mut buffer, &mut received);
        }
        let len = match got {
            Ok(0) => return Err(self.broken(sent.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()))),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(self.broken(io::ErrorKind::TimedOut.into()));
            }
            Err(error) => return Err(self.broken(error)),
        };
        match Answer::parse(buffer.get(..len).unwrap_or_default()) {
            Some(answer) => Ok((answer, received)),
            None => Err(self.broken(io::Error::new(io::ErrorKind::InvalidData, "not an answer of keep"))),
        }
    }

    fn unexpected(&self, answer: Answer) -> KeepError {
        match answer {
            Answer::Error(text) => KeepError::Refused(text),
            Answer::Done { .. } | Answer::Nothing | Answer::Keys(_) => {
                self.broken(io::Error::new(io::ErrorKind::InvalidData, "the answer to another request"))
            }
        }
    }

    /// After a failure a late answer could be taken for the next one's: the connection ends here.
    fn broken(&self, source: io::Error) -> KeepError {
        // It may be closed by the other side already.
        let _ = shutdown(&self.socket, Shutdown::Both);
        KeepError::Broken(source)
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if let Some(child) = &mut self.started {
            // If it still runs, it is to outlive this process.
            let _ = child.try_wait();
        }
    }
}

impl AsFd for Keep {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn check(key: &str) -> Result<&str, KeepError> {
    if is_key(key) { Ok(key) } else { Err(KeepError::Key(key.to_owned())) }
}
