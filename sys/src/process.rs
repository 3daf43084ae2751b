//! Processes that are watched and signalled without being children, safe against reused pids.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};

/// A process by pid, start time and descriptor. The descriptor becomes readable when the process ends.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    started: u64,
    pidfd: OwnedFd,
}

/// Reasons for which a process could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No such process runs (any more).
    #[error("process {0} is gone")]
    Gone(u32),
    /// The pid belongs to another process by now.
    #[error("process {0} is another one than was recorded")]
    Reused(u32),
    /// The kernel refused.
    #[error("cannot watch process {pid}: {source}")]
    Watch {
        /// The process.
        pid: u32,
        /// Error of the kernel.
        source: io::Error,
    },
}

impl Process {
    /// Opens a running process.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] when it ended, even if nobody has waited for it yet.
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        let process = Self::named(pid)?;
        if process.has_ended() { Err(ProcessError::Gone(pid)) } else { Ok(process) }
    }

    /// Opens a child that nobody has waited for: it keeps its pid until then, so it may have ended.
    ///
    /// # Errors
    /// [`ProcessError::Watch`] when the kernel refuses.
    pub fn of_child(child: &Child) -> Result<Self, ProcessError> {
        Self::named(child.id())
    }

    /// Opens the process that has the pid, a zombie too.
    fn named(pid: u32) -> Result<Self, ProcessError> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ProcessError::Gone(pid))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => ProcessError::Gone(pid),
            other => ProcessError::Watch { pid, source: other.into() },
        })?;
        // Read after the descriptor is open: both speak of the same process, or it is gone.
        let started = start_time(pid).ok_or(ProcessError::Gone(pid))?;
        Ok(Self { pid, started, pidfd })
    }

    /// Opens the process again that was recorded as `pid` and `started`.
    ///
    /// # Errors
    /// [`ProcessError::Reused`] when the pid was given to another process since.
    pub fn reopen(pid: u32, started: u64) -> Result<Self, ProcessError> {
        let process = Self::open(pid)?;
        if process.started == started { Ok(process) } else { Err(ProcessError::Reused(pid)) }
    }

    /// The process id in the pid namespace of the caller.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Start time in clock ticks since boot (proc_pid_stat(5), field 22); with the pid it names a process for good.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Returns true if it has ended (a zombie has).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    /// Asks the process to end (SIGTERM). One that already ended is no error.
    ///
    /// # Errors
    /// When the caller may not signal it.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends the process at once (SIGKILL). One that already ended is no error.
    ///
    /// # Errors
    /// When the caller may not signal it.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Copies of the sockets that the process has open (pidfd_getfd(2)), close-on-exec.
    ///
    /// # Errors
    /// When it has ended, or the caller may not trace it (CAP_SYS_PTRACE).
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let mut sockets = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            let path = entry?.path();
            // One that was closed meanwhile is none.
            let is_socket = fs::read_link(&path)
                .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            match number
                .filter(|_| is_socket)
                .map(|number| pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty()))
            {
                Some(Ok(socket)) => sockets.push(socket),
                None | Some(Err(rustix::io::Errno::BADF)) => {}
                Some(Err(errno)) => return Err(errno.into()),
            }
        }
        Ok(sockets)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Process {
    /// The pidfd: readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl std::os::fd::AsRawFd for Process {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.pidfd.as_raw_fd()
    }
}

/// Field 22 of /proc/PID/stat; the command name in field 2 may hold spaces and brackets, so count from its end.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.get(stat.rfind(')')? + 1..)?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Returns the identity of the boot that the machine is in: pids and start times mean something only within one.
///
/// # Errors
/// When /proc is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_killed_process_has_ended_before_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.has_ended());
        process.kill().unwrap();
        let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        assert!(process.has_ended());
        assert!(matches!(Process::open(child.id()), Err(ProcessError::Gone(_))));
        assert!(Process::of_child(&child).unwrap().has_ended(), "a child has its pid until it is waited for");
        child.wait().unwrap();
        process.terminate().unwrap();
    }

    #[test]
    fn the_sockets_of_a_process_can_be_had() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = Process::open(std::process::id()).unwrap();
        let sockets = own.sockets().unwrap().into_iter();
        // What is no TCP socket has no such address.
        let mut addresses = sockets.map(|socket| std::net::TcpListener::from(socket).local_addr());
        assert!(addresses.any(|found| found.is_ok_and(|found| found == address)));
    }

    #[test]
    fn a_recorded_process_is_known_again_by_its_start_time() {
        let own = Process::open(std::process::id()).unwrap();
        assert!(Process::reopen(own.pid(), own.started()).is_ok());
        assert!(matches!(Process::reopen(own.pid(), own.started() + 1), Err(ProcessError::Reused(_))));
    }
}
