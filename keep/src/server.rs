//! The keep process: one thread, one poll loop, nothing that blocks but poll(2) itself.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, chmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealane_sys::fdpass;
use sealane_sys::run_dir::{KEEP_SOCKET, RunDir};

use crate::KeepError;
use crate::lock::PidLock;
use crate::protocol::{Answer, MAX_REQUEST_LEN};
use crate::store::Store;

/// The most clients at once; an agent has one or two.
const MAX_CLIENTS: usize = 32;
/// Descriptors that are not for keeping: clients, one request on its way in, and the process's own.
const RESERVED: u64 = 128;
/// Interval at which it is looked at whether somebody removed socket or pid file.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// And how much later than that, at least, when much is asked.
const LOOK_AGAIN: Duration = Duration::from_millis(900);
/// Rest of accepting after the kernel refused (a system at its limit of open files).
const ACCEPT_REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The whole keep process: serves `<run_dir>/keep.sock` until SIGTERM (or SIGINT), then removes what it made. Socket
/// and pid file that somebody removes are there again within a second.
///
/// To be called on the main thread of a process that has no other threads: it blocks these signals, and SIGHUP,
/// on the calling thread only.
///
/// # Errors
/// [`KeepError::AlreadyRunning`] when another keep serves this directory; [`KeepError::Serve`] when socket or
/// pid file cannot be made.
pub fn serve(run_dir: &RunDir) -> Result<(), KeepError> {
    let fail = |source: io::Error| KeepError::Serve { path: run_dir.path().to_owned(), source };
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    let mut blocked = signals;
    blocked.add(Signal::SIGHUP);
    blocked.thread_block().map_err(|errno| fail(errno.into()))?;
    let stop = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| fail(errno.into()))?;
    let mut server = Server::bind(run_dir, raise_open_files())?;
    // It lives for as long as the host runs, and its start is over. If they stay, they stay.
    let _ = sealane_sys::resident::release_file_pages();
    server.run(stop.as_fd());
    Ok(())
}

/// A bound keep. Socket and pid file go when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    listener: OwnedFd,
    run_dir: RunDir,
    path: PathBuf,
    /// Inode that names the socket that was bound, as long as it is there.
    bound: u64,
    lock: PidLock,
    clients: Vec<OwnedFd>,
    store: Store,
    accept_rests: bool,
}

impl Server {
    pub(crate) fn bind(run_dir: &RunDir, max_descriptors: usize) -> Result<Self, KeepError> {
        let lock = PidLock::take(run_dir)?;
        let path = run_dir.socket(KEEP_SOCKET);
        let (listener, bound) =
            bind_socket(&path).map_err(|source| KeepError::Serve { path: path.clone(), source })?;
        let store = Store::new(max_descriptors);
        let (run_dir, clients) = (run_dir.clone(), Vec::new());
        Ok(Self { listener, run_dir, path, bound, lock, clients, store, accept_rests: false })
    }

    /// Serves until `stop` becomes readable, or another keep serves the directory. No error of a client or of the
    /// kernel ends it.
    pub(crate) fn run(&mut self, stop: BorrowedFd<'_>) {
        let mut looked = Instant::now();
        loop {
            let events = self.wait(stop);
            let [stopped, accepting, clients @ ..] = events.as_slice() else { continue };
            if !stopped.is_empty() {
                return;
            }
            let mut ready = clients.iter().map(|events| !events.is_empty());
            let store = &mut self.store;
            self.clients.retain(|client| !ready.next().unwrap_or(false) || serve_client(store, client));
            if !accepting.is_empty() {
                self.accept();
            }
            if looked.elapsed() >= LOOK_AGAIN {
                if !self.ensure_files() {
                    return;
                }
                looked = Instant::now();
            }
        }
    }

    /// Makes socket and pid file again where somebody removed them; answers false when another keep has begun
    /// meanwhile, which nothing that is held here reaches any more.
    fn ensure_files(&mut self) -> bool {
        if !self.lock.is_named() {
            match PidLock::take(&self.run_dir) {
                Ok(lock) => self.lock = lock,
                Err(KeepError::AlreadyRunning { .. }) => return false,
                // The directory is gone as well: whoever makes it again is waited for.
                Err(_) => return true,
            }
        }
        if inode(&self.path) != Some(self.bound)
            && let Ok((listener, bound)) = bind_socket(&self.path)
        {
            (self.listener, self.bound) = (listener, bound);
        }
        true
    }

    /// Waits for events: of `stop`, of the listener, and of each client in order; empty when poll(2) failed.
    fn wait(&mut self, stop: BorrowedFd<'_>) -> Vec<PollFlags> {
        let rest = std::mem::take(&mut self.accept_rests);
        let patience = if rest { ACCEPT_REST } else { LOOK };
        let listening = if rest { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&stop, PollFlags::IN), PollFd::new(&self.listener, listening)];
        fds.extend(self.clients.iter().map(|client| PollFd::new(client, PollFlags::IN)));
        match poll(&mut fds, Some(&patience)) {
            Ok(_) => fds.iter().map(PollFd::revents).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn accept(&mut self) {
        let Ok(client) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else {
            self.accept_rests = true;
            return;
        };
        let refusal = match getsockopt(&client, PeerCredentials) {
            Ok(peer) if peer.uid() != 0 => "only root may use keep".to_owned(),
            Err(errno) => format!("cannot tell who asks: {errno}"),
            Ok(_) if self.clients.len() == MAX_CLIENTS => format!("{MAX_CLIENTS} clients are connected"),
            Ok(_) => return self.clients.push(client),
        };
        // Said before it asks; a client that is gone already needs no answer.
        let _ = fdpass::send(&client, Answer::Error(refusal).to_string().as_bytes(), &[]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before the lock goes: a later keep's socket must not be removed.
        if inode(&self.path) == Some(self.bound) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Answers one request; returns whether the client stays.
fn serve_client(store: &mut Store, client: &OwnedFd) -> bool {
    let (mut buffer, mut fds) = ([0; MAX_REQUEST_LEN], Vec::new());
    let (answer, attached) = match fdpass::recv(client, &mut buffer, &mut fds) {
        Ok(0) => return false,
        Ok(len) => store.handle(buffer.get(..len).unwrap_or_default(), fds),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            (Answer::Error(error.to_string()), &[] as &[OwnedFd])
        }
        Err(_) => return false,
    };
    let attached: Vec<_> = attached.iter().map(AsFd::as_fd).collect();
    // A client that lets its answers pile up is not waited for.
    fdpass::send(client, answer.to_string().as_bytes(), &attached).is_ok()
}

/// Binds beside `path` and renames: the socket appears when it can be connected to, and replaces a stale one.
/// The pid file's lock is held, so nobody else does the same.
fn bind_socket(path: &Path) -> io::Result<(OwnedFd, u64)> {
    let fresh = path.with_extension("sock.new");
    if let Err(error) = fs::remove_file(&fresh)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&listener, &SocketAddrUnix::new(&fresh)?)?;
    chmod(&fresh, Mode::RUSR | Mode::WUSR)?;
    listen(&listener, 64)?;
    let bound = fs::metadata(&fresh)?.ino();
    fs::rename(&fresh, path)?;
    Ok((listener, bound))
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

/// Raises the soft limit of open files to the hard one; returns how many descriptors may be kept.
fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let open = if raised.is_ok() { limit.maximum } else { limit.current };
    usize::try_from(open.unwrap_or(u64::MAX).saturating_sub(RESERVED)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
