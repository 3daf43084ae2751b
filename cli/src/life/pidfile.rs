//! Pid files: who runs in a run directory. The process holds a lock on its file as long as it lives, so neither a
//! file that a killed process left nor a pid that was given to another one misleads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sealane_sys::Process;
use sealane_sys::run_dir::{Daemon, RunDir};

use crate::failure::Failure;

/// File in which the pid of one of Sealane's processes is written down.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

/// Held by the process that the file names; removes the file in the end.
#[derive(Debug)]
pub(crate) struct Claimed {
    path: PathBuf,
    lock: Flock<File>,
}

/// Interval at which it is looked at whether somebody removed a pid file.
const LOOK: Duration = Duration::from_secs(1);
/// The time for which a killed process may go on holding its file: a child that it had just begun has the lock until it
/// is a program of its own.
const LAST: Duration = Duration::from_secs(2);
/// The time that a process has to end which was killed just now and holds its file to its end.
const DYING: Duration = Duration::from_secs(1);
/// The time between two tries of such a file.
const TRY: Duration = Duration::from_millis(10);

impl PidFile {
    /// Names the file of `daemon` in this run directory.
    pub(crate) fn new(run_dir: &RunDir, daemon: Daemon) -> Self {
        Self { path: run_dir.pid_file(daemon) }
    }

    /// Writes the own pid down.
    ///
    /// Fails when a process that lives holds the file.
    pub(crate) fn claim(&self) -> Result<Claimed, Failure> {
        let fail = || Failure::of(format!("cannot write {}", self.path.display()));
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(fail())?;
        }
        let began = Instant::now();
        let mut lock = loop {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path);
            let lock = match Flock::lock(file.map_err(fail())?, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let pid = read(&mut file);
                    let lives = pid.is_some_and(|pid| Process::open(pid).is_ok());
                    if began.elapsed() > if lives { DYING } else { LAST } {
                        return Err(self.taken(pid));
                    }
                    std::thread::sleep(TRY);
                    continue;
                }
                Err((_, errno)) => return Err(fail()(io::Error::from(errno))),
            };
            // One that ended in between removed the file that was opened here: its lock means nothing.
            let locked = lock.metadata().map_err(fail())?;
            if fs::metadata(&self.path).is_ok_and(|named| named.ino() == locked.ino()) {
                break lock;
            }
        };
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut lock).map_err(fail())?;
        Ok(Claimed { path: self.path.clone(), lock })
    }

    fn taken(&self, pid: Option<u32>) -> Failure {
        let what = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let folder = self.path.parent().unwrap_or(&self.path).display();
        let pid = pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
        Failure::new(format!("sealane {what} runs already in {folder}{pid}"))
            .hint("end that one first, or give this one folders of its own: --run-dir and --data-dir")
    }
}

impl Claimed {
    /// Writes the file again if somebody has removed it.
    fn ensure(&mut self) {
        if self.path.exists() {
            return;
        }
        // Held by another process by now, it is that one's.
        if let Ok(claimed) = (PidFile { path: self.path.clone() }).claim() {
            tracing::warn!(path = %self.path.display(), "somebody removed the pid file; written again");
            *self = claimed;
        }
    }

    fn is_named(&self) -> bool {
        let named = fs::metadata(&self.path).map(|named| named.ino()).ok();
        named.is_some() && named == self.lock.metadata().map(|locked| locked.ino()).ok()
    }
}

/// Sees to it, for ever, that these files are there.
pub(super) async fn hold(files: &mut [Claimed]) {
    loop {
        tokio::time::sleep(LOOK).await;
        files.iter_mut().for_each(Claimed::ensure);
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // While the lock is still held: a file of somebody else is never removed.
        if self.is_named() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The process that holds this pid file; `None` when nobody does.
pub(crate) fn running(path: &Path) -> Result<Option<Process>, Failure> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Failure::of(format!("cannot open {}", path.display())))?,
    };
    // A file without a process is not locked even to look at it: somebody may be about to claim it.
    let Some(process) = read(&mut file).and_then(|pid| Process::open(pid).ok()) else { return Ok(None) };
    Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err().then_some(process))
}

/// The process of a record `<pid> <start time>`, as the agent writes one per sidecar; `None` when it has ended.
pub(crate) fn recorded(path: &Path) -> Option<Process> {
    let text = fs::read_to_string(path).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Process::reopen(pid.parse().ok()?, started.parse().ok()?).ok()
}

fn read(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_names_its_holder_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.pid");
        assert!(running(&path).unwrap().is_none(), "no file");
        fs::write(&path, "1\n").unwrap();
        assert!(running(&path).unwrap().is_none(), "left behind by one that was killed");

        let file = PidFile::new(&folder.path().into(), Daemon::Agent);
        let claimed = file.claim().unwrap();
        assert_eq!(running(&path).unwrap().unwrap().pid(), std::process::id());
        let refused = file.claim().unwrap_err().message;
        assert!(refused.contains(&format!("runs already in {}", folder.path().display())), "{refused}");
        drop(claimed);
        assert!(!path.exists());
        file.claim().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pid_file_that_somebody_removes_is_written_again_by_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.pid");
        let mut claimed = [PidFile::new(&folder.path().into(), Daemon::Agent).claim().unwrap()];
        fs::remove_file(&path).unwrap();
        let again = async {
            while running(&path).unwrap().is_none() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = hold(&mut claimed) => {}
            () = again => {}
        }
        drop(claimed);
        assert!(!path.exists());
    }

    #[test]
    fn a_record_names_a_process_as_long_as_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.web.pid");
        let own = Process::open(std::process::id()).unwrap();
        fs::write(&path, format!("{} {}\n", own.pid(), own.started())).unwrap();
        assert_eq!(recorded(&path).unwrap().pid(), own.pid());
        fs::write(&path, format!("{} {}\n", own.pid(), own.started() + 1)).unwrap();
        assert!(recorded(&path).is_none(), "another process by now");
        fs::write(&path, "nonsense").unwrap();
        assert!(recorded(&path).is_none());
    }
}
