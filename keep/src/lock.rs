//! Lock that allows one keep per run directory: whoever holds it on the pid file is the one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sealane_sys::Process;
use sealane_sys::run_dir::{Daemon, RunDir};

use crate::KeepError;

/// The locked pid file; removed on drop. The kernel drops the lock with the process, so a stale file is no
/// obstacle.
#[derive(Debug)]
pub(crate) struct PidLock {
    file: File,
    path: PathBuf,
}

impl PidLock {
    pub(crate) fn take(run_dir: &RunDir) -> Result<Self, KeepError> {
        let path = run_dir.pid_file(Daemon::Keep);
        let fail = |source: io::Error| KeepError::Serve { path: path.clone(), source };
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o644);
            let mut file = options.open(&path).map_err(fail)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(KeepError::AlreadyRunning { run_dir: run_dir.clone(), pid: pid_in(file) });
                }
                Err(errno) => return Err(fail(errno.into())),
            }
            // A keep that ended in between removed the file that was opened here: its lock means nothing.
            let locked = file.metadata().map_err(fail)?;
            if fs::metadata(&path).is_ok_and(|named| named.ino() == locked.ino()) {
                file.set_len(0).map_err(fail)?;
                writeln!(file, "{}", std::process::id()).map_err(fail)?;
                return Ok(Self { file, path });
            }
        }
    }
}

impl PidLock {
    /// Returns true if the path still names the file that is locked: another keep can begin where it does not.
    pub(crate) fn is_named(&self) -> bool {
        let named = fs::metadata(&self.path).map(|named| named.ino()).ok();
        named.is_some() && named == self.file.metadata().map(|locked| locked.ino()).ok()
    }
}

impl Drop for PidLock {
    fn drop(&mut self) {
        if self.is_named() {
            // Nobody to tell; a file that stays is taken over by the next keep.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The keep that holds the lock of `run_dir`.
pub(crate) fn holder(run_dir: &RunDir) -> Option<Process> {
    let file = File::open(run_dir.pid_file(Daemon::Keep)).ok()?;
    let held = flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    Process::open(pid_in(file).parse().ok().filter(|_| held)?).ok()
}

fn pid_in(mut file: File) -> String {
    let mut pid = String::new();
    match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => pid.trim().to_owned(),
        // It has the lock and writes its pid in the next moment.
        _ => "(starting)".to_owned(),
    }
}
